"""Look at a safetensors file before it is loaded: what it is, and how large its header claims to be."""

import struct
from pathlib import Path
from stat import S_ISREG

from raremix.core.errors import ReadError

# A network of a thousand tensors has a header of 120 kB. Safetensors itself allows 100 MB, which take 600 MB to parse.
MAX_HEADER = 1 << 23
_OTHERS = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes it"),
    (b"\x80", "a pickle"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "an array of numpy"),
)


def require_safetensors(path: Path) -> None:
    """Refuse a file that is no safetensors file, whatever it is called, or whose header is larger than any network's.

    Raises:
        ReadError: naming what it is.

    Example:
        ``require_safetensors(Path("resnet18.safetensors"))``
    """
    try:
        if not S_ISREG(path.stat().st_mode):
            raise ReadError(path.name, "is no regular file: name the .safetensors file itself")
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise ReadError(str(path), "no such file: look at the spelling") from None
    except OSError as error:
        raise ReadError(path.name, f"cannot be read ({error.strerror or error}): restore the file") from None
    if len(head) < 9:
        raise ReadError(path.name, "is not a whole safetensors file: fetch it again")
    (length,) = struct.unpack_from("<Q", head)
    if head[8:] != b"{":
        found = next((what for magic, what in _OTHERS if head.startswith(magic)), "another kind of file")
        raise ReadError(
            path.name,
            f"is {found} and no safetensors file: convert it once with `safetensors.torch.save_file` in the program "
            "that made it; other formats can run code when loaded",
        )
    if length > MAX_HEADER:
        raise ReadError(
            path.name, f"claims a header of {length:,} bytes, expected at most {MAX_HEADER:,}: fetch it again"
        )
