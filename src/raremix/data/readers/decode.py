"""Read an image file of any kind that is known: the decoder is chosen by the first bytes, never by the name."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from raremix.core.errors import ReadError
from raremix.data.readers.fit import Fitted, Pixels, Resize, fit_image
from raremix.data.readers.limits import MAX_PIXELS, read_bytes, read_start
from raremix.data.readers.raster import PLUGINS, Raster, decode_raster, fit_raster
from raremix.data.readers.reading import Reading

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".nii"})
"""Endings of files that are taken for images when a folder is searched; see also `has_image_suffix`."""

_MAGIC = {348: (344, (b"n+1\0",)), 540: (4, (b"n+2\0",))}
# Files without a preamble start with the length or the syntax of group 2, or with the length, set or class of group 8.
_FIRST_ELEMENTS = {b"\2\0\0\0", b"\2\0\x10\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x16\0"}


def has_image_suffix(path: Path) -> bool:
    """Return whether a file's name ends like an image's; .gz counts after .nii only.

    Example:
        >>> has_image_suffix(Path("brain.nii.gz")), has_image_suffix(Path("images.tar.gz"))
        (True, False)
    """
    return path.suffix.lower() in SUFFIXES or path.name.lower().endswith(".nii.gz")


def read_image(
    path: Path,
    *,
    name: str | None = None,
    sha256: str | None = None,
    max_pixels: int = MAX_PIXELS,
    reading: Reading | None = None,
) -> Pixels:
    """Read an image file; see `decode_image`.

    Args:
        path: the file.
        name: what to call it in errors; its file name by default.
        sha256: the content's expected hash, in hexadecimal; left out, it is not checked.
        max_pixels: width times height that is still decoded.
        reading: which frame and range of values; see `raremix.data.readers.Reading`.

    Raises:
        ReadError: if the file is missing, damaged, too large, of another kind, or not what its hash says.
    """
    name = path.name if name is None else name
    return decode_image(read_bytes(path, name=name, sha256=sha256), name=name, max_pixels=max_pixels, reading=reading)


def decode_image(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    keep_alpha: bool = False,
    reading: Reading | None = None,
) -> Pixels:
    """Decode the bytes of an image file.

    Grey images have one channel, all others three. Palettes are looked up, transparency is laid on black, the EXIF
    orientation is applied, and what stores white as its smallest value (a TIFF, MONOCHROME1) is inverted. Grey has as
    many bits as the file, 8 or 16; colour has 8. DICOM and NIfTI: see `raremix.data.readers.dicom` and `.nifti`.

    Args:
        data: the file's bytes.
        name: what to call it in errors.
        max_pixels: width times height that is still decoded.
        keep_alpha: return the alpha plane as a second or fourth channel, for files that store a measurement there.
        reading: which frame and range of values; see `raremix.data.readers.Reading`.

    Raises:
        ReadError: if the bytes are damaged, of another kind, or claim too large an image.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (4, 2), 7).save(file, format="PNG")
        >>> decode_image(file.getvalue(), name="grey.png").shape
        (2, 4, 1)
    """
    return decode(data, name=name, max_pixels=max_pixels, keep_alpha=keep_alpha, reading=reading).pixels


def decode_fitted(
    data: bytes,
    *,
    name: str,
    size: int,
    channels: int,
    bits: int,
    resize: Resize = "stretch",
    reading: Reading | None = None,
) -> Fitted:
    """Decode an image file straight to the form that a study trains on; large JPEG files are decoded reduced.

    Args:
        data: the file's bytes.
        name: what to call it in errors.
        size, channels, bits, resize: see `raremix.data.readers.fit_image`.
        reading: which frame and range of values; `draft = False` decodes every JPEG in full.

    Raises:
        ReadError: see `decode_image`; and if 2 or 4 channels are asked for and the file has another number.
        ConfigError: see `raremix.data.readers.fit_image`.
    """
    reading = Reading() if reading is None else reading
    form = {"size": size, "channels": channels, "bits": bits, "resize": resize}
    if _is_raster(data):
        return fit_raster(data, name=name, max_pixels=MAX_PIXELS, draft=reading.draft, **form)
    pixels = decode(data, name=name, reading=reading).pixels
    if channels in {2, 4}:
        raise ReadError(name, f"has {pixels.shape[2]} channels, expected {channels}: use channels 1 or 3")
    return fit_image(pixels, **form)


def decode(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    keep_alpha: bool = False,
    reading: Reading | None = None,
) -> Raster:
    """Decode the bytes of an image file, and say how; see `decode_image`.

    Args:
        data, name, max_pixels, keep_alpha, reading: see `decode_image`.

    Raises:
        ReadError: see `decode_image`.
    """
    reading = Reading() if reading is None else reading
    # First, because the free bytes at the front of a DICOM file may be those of a TIFF.
    if is_dicom(data):
        pixels, notes = dicom_reader(name).decode_dicom(data, name=name, max_pixels=max_pixels, reading=reading)
        return Raster(pixels=pixels, notes=notes)
    if _is_raster(data):
        return decode_raster(data, name=name, max_pixels=max_pixels, keep_alpha=keep_alpha)
    if is_nifti(data):
        pixels, notes = _nifti_reader(name).decode_nifti(data, name=name, max_pixels=max_pixels, reading=reading)
        return Raster(pixels=pixels, notes=notes)
    raise ReadError(
        name, f"expected PNG, JPEG, TIFF, BMP, DICOM or NIfTI, got {_guess(data)}: convert the file, for example to PNG"
    )


def kind_of(data: bytes) -> str:
    """Name the kind of a file by its first bytes.

    Example:
        >>> kind_of(b"GIF89a")
        'GIF'
    """
    if is_dicom(data):
        return "DICOM"
    plugin = next((plugin for magic, plugin in PLUGINS if data.startswith(magic)), None)
    if plugin is not None:
        return str(plugin.format)
    return "NIfTI" if is_nifti(data) else _guess(data)


def _is_raster(data: bytes) -> bool:
    return not is_dicom(data) and any(data.startswith(magic) for magic, _ in PLUGINS)


def is_dicom(data: bytes) -> bool:
    """Return whether a file begins as DICOM does: with 128 free bytes and DICM, or with one of the first elements."""
    return data[128:132] == b"DICM" or data[:4] in _FIRST_ELEMENTS


def is_nifti(data: bytes) -> bool:
    """Return whether a file, packed by gzip or not, is a NIfTI volume in one file."""
    head = data[:548]
    if data.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(31).decompress(data[: 1 << 12], 548)
        except zlib.error:
            return False
    if len(head) < 352:
        return False
    for order in "<>":
        place, magics = _MAGIC.get(struct.unpack_from(f"{order}i", head)[0], (0, ()))
        if any(head[place : place + 4] == magic for magic in magics):
            return True
    return False


def read_dicom_header(path: Path, *, name: str, elements: Sequence[str]) -> dict[str, str]:
    """Return elements of a DICOM file's header as text; those that it does not have are left out.

    Raises:
        ReadError: if the file is damaged or no DICOM, or pydicom is not installed.
    """
    if not is_dicom(read_start(path)):
        raise ReadError(name, "is no DICOM file: remove it from the list")
    return dicom_reader(name).read_header(path, name=name, elements=list(elements))


def dicom_reader(name: str) -> ModuleType:
    """Return `raremix.data.readers.dicom`, which needs an extra.

    Raises:
        ReadError: naming a file that needs it, if the extra is not installed.
    """
    try:
        from raremix.data.readers import dicom  # noqa: PLC0415
    except ImportError:
        raise ReadError(name, "is DICOM, which needs pydicom: pip install 'raremix[dicom]'") from None
    return dicom


def _nifti_reader(name: str) -> ModuleType:
    try:
        from raremix.data.readers import nifti  # noqa: PLC0415
    except ImportError:
        raise ReadError(name, "is NIfTI, which needs nibabel: pip install 'raremix[nifti]'") from None
    return nifti


def _guess(data: bytes) -> str:
    if not data:
        return "an empty file"
    known = (
        (b"GIF8", "GIF"),
        (b"RIFF", "WebP"),
        (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
        (b"II+", "BigTIFF"),
        (b"\x1f\x8b", "gzip"),
    )
    return next((kind for magic, kind in known if data.startswith(magic)), "another kind of file")
