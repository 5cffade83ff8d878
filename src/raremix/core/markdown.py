"""Names that data bring, in Markdown: they are shown as they are, and make nothing of the page."""

import re
from html import escape

# Python-Markdown, CommonMark and GitHub read these alike; for `<` and `&` only an entity is text to all of them.
_MARKS = re.compile(r"[\\`*\[\]|]")
# What opens a heading, a list, a rule or a fence where it stands first on a line.
_OPENING = re.compile(r"^(?:[#+\-=~:]|\d(?=\d*[.)](?: |$)))")


def literal(text: str) -> str:
    r"""Return a text for one line or cell of Markdown, shown letter by letter: no element, link or picture comes of it.

    Line breaks become spaces; what cannot be seen, or turns the direction of writing, is written as its code. Addresses
    keep their letters; what a viewer links by itself, it links.

    Args:
        text: any text, such as the name of a class.

    Example:
        >>> literal("<b> | [x](y)"), literal("nevus_1"), literal("gnp.\u202etxt")
        ('&lt;b&gt; \\| \\[x\\](y)', 'nevus_1', 'gnp.\\\\u202etxt')
    """
    seen = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    marked = escape(_MARKS.sub(r"\\\g<0>", seen), quote=False)
    return _OPENING.sub(lambda first: f"&#{ord(first[0])};", marked)
