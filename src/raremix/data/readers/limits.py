"""What is checked before anything is decoded: the size of the file, of the image, and of what unpacks from it."""

import struct
import zlib
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG

from raremix.core.errors import ReadError

# 8192 x 8192: above any radiograph or dermatoscopic image, below what fills the memory of a laptop.
MAX_PIXELS = 1 << 26
# A file larger than its largest raw image (16 bit, 3 channels) and generous metadata is no such image.
MAX_BYTES = 1 << 29
# An hour of ultrasound has fewer frames; a header that claims more is damaged or hostile.
MAX_FRAMES = 1 << 17
# Each scan of a progressive JPEG goes over the whole image, 0.06 s at 64 Mpx; encoders write about ten.
MAX_SCANS = 64
_SCAN = b"\xff\xda"
# What a packed DICOM file may unpack to: 32 MiB, or 32 times its own size; images rarely shrink to a tenth.
MAX_UNPACKED, MAX_RATIO = 1 << 25, 32
# Unpacking in steps of this size keeps a bomb from being held twice.
_STEP = 1 << 20
_RAW = -15


def read_bytes(path: Path, *, name: str | None = None, sha256: str | None = None) -> bytes:
    """Read a file whole, and verify its hash where one is given.

    Raises:
        ReadError: if the file is missing, no regular file, too large, or not what its hash says.
    """
    name = path.name if name is None else name
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise ReadError(name, "is no regular file (a folder, pipe or device): name the image itself")
        size = status.st_size
        if size > MAX_BYTES:
            raise ReadError(name, f"{size:,} bytes, expected at most {MAX_BYTES:,}: shrink the image, or leave it out")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is no path"
        raise ReadError(name, f"cannot be read ({reason}): restore the file, or remove its row") from None
    if sha256 is not None and content_hash(data) != sha256.lower():
        raise ReadError(
            name,
            "the content is not what its recorded sha256 says: restore the file, or "
            "record its hash again if it was changed on purpose",
        )
    return data


def read_start(path: Path, *, size: int = 132) -> bytes:
    """Return the first bytes of a file, which tell what it is; none if it cannot be read, or is a pipe or device."""
    try:
        # Opening a pipe waits for somebody to write into it.
        if not S_ISREG(path.stat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""


def content_hash(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return sha256(data).hexdigest()


def require_size(name: str, *, width: int, height: int, max_pixels: int) -> None:
    """Refuse an image that is empty or too large, by what its header claims.

    Raises:
        ReadError: naming the claimed size and the limit.
    """
    if width * height > max_pixels:
        raise ReadError(name, f"{width} x {height} pixels, expected at most {max_pixels:,} in all: shrink the image")
    if width <= 0 or height <= 0:
        raise ReadError(name, f"the image is empty ({width} x {height} pixels): remove its row")


def require_few_scans(data: bytes, *, name: str) -> None:
    """Refuse a JPEG that a decoder would go over for minutes.

    The marker cannot stand among coded pixels, where 255 is followed by 0.

    Raises:
        ReadError: naming the number of scans and the limit.

    Example:
        >>> require_few_scans(b"\\xff\\xda" * 10, name="x")
    """
    scans = data.count(_SCAN)
    if scans > MAX_SCANS:
        raise ReadError(name, f"a JPEG of {scans:,} scans, expected at most {MAX_SCANS}: save it again")


def inflate(data: bytes | memoryview, *, name: str, limit: int | None = None) -> bytes:
    """Unpack deflated bytes, giving up as soon as they exceed a limit.

    Args:
        data: a raw deflate stream.
        name: what to call it in errors.
        limit: bytes that may come out; the larger of `MAX_UNPACKED` and `MAX_RATIO` times the packed bytes by default.

    Raises:
        ReadError: if more comes out than the limit, or the stream is damaged or ends early.

    Example:
        >>> inflate(zlib.compress(b"abc", wbits=-15), name="x")
        b'abc'
    """
    limit = max(MAX_UNPACKED, MAX_RATIO * len(data)) if limit is None else limit
    stream = zlib.decompressobj(_RAW)
    parts, size, rest = [], 0, bytes(data)
    try:
        while rest and not stream.eof:
            part = stream.decompress(rest, _STEP)
            rest = stream.unconsumed_tail
            size += len(part)
            if size > limit:
                raise ReadError(
                    name, f"unpacks to more than {limit:,} bytes: expected at most that; convert it uncompressed"
                )
            parts.append(part)
        parts.append(stream.flush())
    except zlib.error:
        raise damaged(name, ValueError("its compressed part cannot be unpacked")) from None
    if not stream.eof:
        raise damaged(name, ValueError("its compressed part ends early"))
    return b"".join(parts)


def damaged(name: str, error: Exception, *, header: bool = False) -> ReadError:
    """Return the error for a file that a decoder gave up on.

    Args:
        name: what to call the file.
        error: what the decoder raised.
        header: whether that was in the header rather than among the pixels.
    """
    what = "its header is damaged" if header else "it is truncated or damaged"
    return ReadError(name, f"{what} ({_reason(error)}): restore the file, or remove its row")


def _reason(error: Exception) -> str:
    if isinstance(error, struct.error | IndexError | KeyError):
        return "unexpected end"
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
