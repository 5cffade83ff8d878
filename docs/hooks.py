"""The navigation's lists of methods, from the folders, so that a new method's page needs no entry."""

from pathlib import Path
from typing import Any

from raremix.study.recommend.rules import arms_as_markdown, cuts_as_markdown, rules_as_markdown

LISTED = {"Methods": "methods", "Importance maps": "importance", "Generators": "generate", "Losses": "losses"}


def on_config(config: Any) -> Any:
    """Fill in the sections that list a folder, by the pages' titles."""
    docs = Path(config["docs_dir"])
    for entry in config["nav"]:
        for section, folder in LISTED.items():
            if section in entry:
                pages = sorted(docs.glob(f"{folder}/*.md"), key=_title)
                entry[section] = [{_title(page): f"{folder}/{page.name}"} for page in pages]
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the table of rules, as the program reads it, into its page."""
    if page.file.src_uri != "recommend.md":
        return markdown
    for name, table in (("rules", rules_as_markdown), ("arms", arms_as_markdown), ("cuts", cuts_as_markdown)):
        markdown = markdown.replace(f"<!-- {name} -->", table())
    return markdown


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").strip()
