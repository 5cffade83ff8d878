"""Open the arrays of an .npz file, after what their headers claim was compared with what the archive holds.

numpy's own loader makes an array as large as a header says, reads a header of any length, and for a negative side
everything that is left. Here an array is opened, and read piece by piece by whoever asked for it.
"""

import io
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

BROKEN = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
)
"""What an archive, or a header in it, may raise when it is damaged."""

# numpy's own limit for a header that is read as Python.
_HEADER = 10_000
# Of what is larger than 16 MiB, images do not shrink more, and labels of one kind for each are not that many.
_FREE, _RATIO = 16 << 20, 200


class Claim(NamedTuple):
    """What a header says.

    Attributes:
        shape: sides of the array, none negative.
        kind: type of its values.
    """

    shape: tuple[int, ...]
    kind: np.dtype


@runtime_checkable
class Bytes(Protocol):
    """What values are read from."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to so many bytes."""
        ...


@contextmanager
def open_array(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[Claim, Bytes]]:
    """Open an array, and stand where its values begin.

    Args:
        archive: the .npz.
        name: of the array, without ``.npy``.

    Raises:
        ValueError: if the header is not one, or claims another size than the archive, or that shrank too much.
        Exception: one of `BROKEN`, for other damage.
    """
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        claim, length = _header(file)
        if claim.kind.hasobject:
            raise ValueError(f"{name} holds Python objects, and loading those can run code")
        expected = length + prod(claim.shape) * claim.kind.itemsize
        if member.file_size != expected:
            raise ValueError(f"{name} holds {member.file_size:,} bytes, its header says {expected:,}")
        if expected > _FREE and expected > _RATIO * member.compress_size:
            raise ValueError(f"{name} unpacks more than {_RATIO}-fold")
        yield claim, file


def _header(file: Bytes) -> tuple[Claim, int]:
    """Return what a header says, and its length."""
    head = file.read(8)
    version = head[6:8]
    width = {b"\1\0": 2, b"\2\0": 4}.get(version)
    if head[:6] != b"\x93NUMPY" or width is None:
        raise ValueError("no array of numpy in version 1 or 2")
    size = file.read(width)
    (length,) = struct.unpack("<H" if width == 2 else "<I", size)
    if length > _HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    text = file.read(length)
    read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        # What Python 2 wrote is read with a warning.
        warnings.simplefilter("ignore", UserWarning)
        shape, is_fortran, kind = read(io.BytesIO(size + text))
    if is_fortran and len(shape) > 1:
        raise ValueError("its arrays are stored in Fortran order")
    if any(side < 0 for side in shape):
        raise ValueError(f"an array of shape {shape}")
    return Claim(shape=tuple(int(side) for side in shape), kind=kind), len(head) + width + length
