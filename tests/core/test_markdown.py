"""Names in Markdown are shown letter by letter; `tests/security/test_scripts.py` asks a renderer about hostile ones."""

from html import unescape

import markdown
import pytest

from raremix.core.markdown import literal


@pytest.mark.parametrize("text", ["nevus", "basal cell carcinoma", "nevus_1_x", "X-ray (AP)", "5", "naïve 血管"])
def test_harmless_names_stay_as_they_are(text: str) -> None:
    assert literal(text) == text


@pytest.mark.parametrize("text", ["1. x", "12) x", "# x", "- x", "---", "+ x", "~~~", "> x", "*x* `y` [z](u) \\ & <b>"])
def test_marks_are_shown(text: str) -> None:
    html = markdown.markdown(literal(text))
    assert html.count("<") == 2
    assert unescape(html) == f"<p>{text}</p>"


def test_what_cannot_be_seen_is_written_as_its_code() -> None:
    assert literal("a\x00\u202eb\n\tc") == r"a\\x00\\u202eb c"
