"""Names of files and folders out of names that data bring."""

import re
from hashlib import blake2b

_UNFIT = re.compile(r"[^\w+.-]+")
_LONGEST = 48
# What ends like our own hash could be made to look like another name's file.
_HASHED = re.compile(r"-[0-9a-f]{8}$")


def file_name(text: str) -> str:
    """Return a name for a file or folder in which a text can be recognised: no path, not hidden, not too long.

    A text that is such a name already stays as it is. Otherwise a hash of it ends the name, so that different texts
    have different files.

    Args:
        text: any text, such as the name of a class.

    Example:
        >>> file_name("nevus"), file_name("../a b")
        ('nevus', '_a_b-f20d9ce8')
    """
    fit = _UNFIT.sub("_", text).strip(".-")[:_LONGEST]
    if fit and fit == text and not _HASHED.search(text):
        return text
    return f"{fit}-{blake2b(text.encode(errors='surrogatepass'), digest_size=4).hexdigest()}".lstrip("-")
