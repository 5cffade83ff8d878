"""The navigation's lists of methods, from the folders, so that a new method's page needs no entry."""

from pathlib import Path
from typing import Any

LISTED = {"Methods": "methods", "Importance maps": "importance"}


def on_config(config: Any) -> Any:
    """Fill in the sections that list a folder, by the pages' titles."""
    docs = Path(config["docs_dir"])
    for entry in config["nav"]:
        for section, folder in LISTED.items():
            if section in entry:
                pages = sorted(docs.glob(f"{folder}/*.md"), key=_title)
                entry[section] = [{_title(page): f"{folder}/{page.name}"} for page in pages]
    return config


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").strip()
