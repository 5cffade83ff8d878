"""What a part of a study may fail with while the other parts go on, and how it is told."""

from raremix.core.errors import RaremixError

FOREIGN = (RuntimeError, ValueError, AssertionError, MemoryError)
"""What networks raise when they do not fit their images or the machine: such a job fails, the others go on."""


def reason_of(error: BaseException) -> str:
    """Return an error in one line: our own as it is, a foreign one with its type.

    Example:
        >>> reason_of(ValueError("no such head"))
        'ValueError: no such head'
    """
    if isinstance(error, RaremixError):
        return str(error)
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
