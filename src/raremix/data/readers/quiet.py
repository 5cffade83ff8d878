"""Drop what Pillow logs about a file that is read: at the level DEBUG, it quotes names and texts that files hold."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_reading: ContextVar[bool] = ContextVar("reading", default=False)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not _reading.get()


# Those that Pillow 13 writes to. Whoever uses Pillow beside raremix still sees their own records.
for _name in ("PIL.Image", "PIL.PngImagePlugin", "PIL.TiffImagePlugin"):
    logging.getLogger(_name).addFilter(_is_not_ours)


@contextmanager
def unlogged() -> Iterator[None]:
    """Drop Pillow's log records while the block runs, in this thread alone."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)
