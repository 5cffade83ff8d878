"""Look at one file: what it is, whether it can be read, how bright it is, and a thumbnail of 32 x 32 pixels.

A JPEG is decoded at an eighth, a quarter or half of its size, as its format allows without computing the rest; that
reads the whole file all the same, so a truncated one is found. The other formats are decoded whole.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from raremix.core.errors import ReadError
from raremix.data.readers import Reading, content_hash, decode, fit_image, kind_of, read_bytes
from raremix.data.readers.thumbnail import draft_thumbnail

SIDE = 32
"""Pixels of a thumbnail's side: what the perceptual hash is computed from."""

PLATE = 64
"""Pixels of a plate's side: what two pictures are compared on, see `look_closely`."""

_ENDINGS = {
    "PNG": {".png"},
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "TIFF": {".tif", ".tiff"},
    "BMP": {".bmp"},
    "DICOM": {".dcm", ".dicom", ".ima", ""},
    "NIfTI": {".nii", ".gz"},
}
_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "RGB": "colour",
    "RGBA": "colour with alpha",
    "CMYK": "CMYK",
    "I": "grey, 16 bit",
    "F": "floating point",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen in one file.

    Attributes:
        sha256: of the content; empty where the file could not even be opened.
        width, height: in pixels; 0 where they are not known.
        kind: format and mode, such as "JPEG, grey"; empty where it is not known.
        reason: why it cannot be read, and what to do; empty where it can.
        brightness, contrast: mean and standard deviation of its grey values, in [0, 1].
        thumbnail: grey, 32 x 32, stretched to the square; of 16 bit images the brightest value becomes 255.
    """

    sha256: str = ""
    width: int = 0
    height: int = 0
    kind: str = ""
    reason: str = ""
    brightness: float = 0.0
    contrast: float = 0.0
    thumbnail: UInt8[np.ndarray, "32 32"] | None = None


def look_at(data: bytes, *, sha256: str, reading: Reading | None = None) -> Look:
    """Look at the bytes of a file.

    Args:
        data: its content.
        sha256: the content's hash.
        reading: which frame and range of values; see `raremix.data.readers.Reading`.

    Example:
        >>> stream = io.BytesIO()
        >>> Image.new("L", (40, 20), 51).save(stream, format="PNG")
        >>> seen = look_at(stream.getvalue(), sha256="")
        >>> seen.kind, (seen.width, seen.height), seen.brightness
        ('PNG, grey', (40, 20), 0.2)
    """
    form = kind_of(data)
    try:
        drafted = draft_thumbnail(data, side=SIDE) if form == "JPEG" else None
        grey, (width, height), mode, scale = _whole(data, reading) if drafted is None else (*drafted, 1.0)
    except ReadError as error:
        return Look(sha256=sha256, kind=form, reason=error.reason)
    return Look(
        sha256=sha256,
        width=width,
        height=height,
        kind=f"{form}, {_MODES.get(mode, mode)}",
        brightness=float(grey.mean()) * scale / 255,
        contrast=float(grey.std()) * scale / 255,
        thumbnail=grey,
    )


def look_closely(path: Path, *, reading: Reading | None = None) -> tuple[str, UInt8[np.ndarray, "64 64"]]:
    """Decode an image whole; return a hash of its pixels, and the image in grey at 64 x 64.

    Raises:
        ReadError: if it cannot be read.
    """
    pixels = decode(read_bytes(path, name=""), name="", reading=reading).pixels
    shape = f"{pixels.dtype.name}{pixels.shape}".encode()
    plate = fit_image(_eight_bit(pixels)[0], size=PLATE, channels=1, bits=8)
    return content_hash(shape + pixels.tobytes()), plate[..., 0]


def picture(path: Path, *, side: int, reading: Reading | None = None) -> bytes:
    """Return a small JPEG of an image, its longer side `side` pixels.

    Raises:
        ReadError: if it cannot be read.
    """
    pixels = _eight_bit(decode(read_bytes(path, name=""), name="", reading=reading).pixels)[0]
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=72, optimize=True)
    return stream.getvalue()


def fits(kind: str, ending: str) -> bool:
    """Whether a file's ending is one of its format's.

    Example:
        >>> fits("JPEG, grey", ".jpeg"), fits("JPEG, grey", ".png")
        (True, False)
    """
    return ending.lower() in _ENDINGS.get(kind.split(",", maxsplit=1)[0], {ending.lower()})


def standardise(rows: UInt8[np.ndarray, "m p"]) -> Float[np.ndarray, "m p"]:
    """Bring each image to mean 0 and length 1, so that brightness and contrast do not count; one of one grey to 0."""
    values = rows.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    return _unit(values)


def correlation(
    first: UInt8[np.ndarray, "m p"], second: UInt8[np.ndarray, "m p"], *, average: Float[np.ndarray, " p"] | None = None
) -> Float[np.ndarray, " m"]:
    """Return how alike the images of each pair are: the correlation of their pixels, in [-1, 1].

    Args:
        first, second: one image per row.
        average: mean of the standardised images of a data set. It is subtracted first, so that what all images have in
            common (two lungs, a round field of view) does not count; left out, this is Pearson's correlation.

    Example:
        >>> a = np.array([[0, 10, 20, 30]], dtype=np.uint8)
        >>> correlation(a, 255 - a).tolist()
        [-1.0]
    """
    common = 0.0 if average is None else average
    a, b = (_unit(standardise(part) - common) for part in (first, second))
    return np.einsum("mp,mp->m", a, b).astype(np.float64)


def _unit(rows: Float[np.ndarray, "m p"]) -> Float[np.ndarray, "m p"]:
    length = np.sqrt(np.einsum("mp,mp->m", rows, rows))[:, None]
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


_Seen = tuple[UInt8[np.ndarray, "32 32"], tuple[int, int], str, float]
"""A thumbnail, the image's width and height as it is shown, its mode, and by what to scale it to full range."""


def _whole(data: bytes, reading: Reading | None) -> _Seen:
    image = decode(data, name="", reading=reading)
    plain, scale = _eight_bit(image.pixels)
    height, width = plain.shape[:2]
    stated = next((note.removeprefix("mode ") for note in image.notes if note.startswith("mode ")), "")
    mode = stated or ("RGB" if plain.shape[2] == 3 else "L" if image.pixels.dtype == np.uint8 else "I")
    grey = Image.fromarray(plain[..., 0] if plain.shape[2] == 1 else plain).convert("L")
    thumbnail = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return thumbnail, (width, height), "I" if mode.startswith("I") else mode, scale


def _eight_bit(pixels: np.ndarray) -> tuple[UInt8[np.ndarray, "H W C"], float]:
    """Return an image in 8 bit, its brightest value 255 if it was in 16, and by what to scale it to full range."""
    if pixels.dtype == np.uint8:
        return pixels, 1.0
    top = max(int(pixels.max()), 1)
    return (pixels.astype(np.float32) * (255 / top)).round().astype(np.uint8), top / 65535
