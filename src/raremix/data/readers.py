"""Read image files: PNG, JPEG, TIFF and BMP, in 8 or 16 bit, into arrays of shape (H, W, 1) or (H, W, 3).

What a file claims to hold is checked before it is decoded. Decoders are chosen by the file's first bytes, never by
its name, and whatever they raise becomes a `ReadError` that says what to do.
"""

import io
import struct
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from raremix.core.errors import ConfigError, ReadError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
# 8192 x 8192: above any radiograph or dermatoscopic image, below what fills the memory of a laptop.
MAX_PIXELS = 1 << 26
# A file larger than its largest raw image (16 bit, 3 channels) and generous metadata is no such image.
MAX_BYTES = 1 << 29

Pixels = UInt8[np.ndarray, "H W C"] | UInt16[np.ndarray, "H W C"]
Fitted = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
Resize = Literal["stretch", "crop", "pad"]

_PLUGINS = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"II*\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_BITS_PER_SAMPLE = 258


def read_image(
    path: Path, *, name: str | None = None, sha256: str | None = None, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Read an image file.

    Grey images have one channel, all others three. Palettes are looked up; transparency is laid on black; the EXIF
    orientation is applied; a TIFF that stores white as 0 is inverted. Colour is returned in 8 bit, also where the file
    holds 16, since the decoder knows 16 bit for grey images only.

    Args:
        path: the file.
        name: what to call it in errors; its file name by default.
        sha256: the content's expected hash, in hexadecimal; left out, it is not checked.
        max_pixels: width times height that is still decoded.

    Raises:
        ReadError: if the file is missing, damaged, too large, of another kind, or not what its hash says.
    """
    name = path.name if name is None else name
    return decode_image(read_bytes(path, name=name, sha256=sha256), name=name, max_pixels=max_pixels)


def read_bytes(path: Path, *, name: str | None = None, sha256: str | None = None) -> bytes:
    """Read a file whole, and verify its hash where one is given.

    Raises:
        ReadError: if the file is missing, too large, or not what its hash says.
    """
    name = path.name if name is None else name
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ReadError(name, f"{size:,} bytes, expected at most {MAX_BYTES:,}: shrink the image, or leave it out")
        data = path.read_bytes()
    except OSError as error:
        raise ReadError(name, f"cannot be read ({error.strerror}): restore the file, or remove its row") from None
    if sha256 is not None and content_hash(data) != sha256.lower():
        raise ReadError(
            name,
            "the content is not what its recorded sha256 says: restore the file, or "
            "record its hash again if it was changed on purpose",
        )
    return data


def content_hash(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return sha256(data).hexdigest()


def decode_image(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS, keep_alpha: bool = False) -> Pixels:
    """Decode the bytes of an image file; see `read_image`.

    Args:
        data: the file's bytes.
        name: what to call it in errors.
        max_pixels: width times height that is still decoded.
        keep_alpha: return the alpha plane as a second or fourth channel, for files that store a measurement there.

    Raises:
        ReadError: if the bytes are damaged, of another kind, or claim too large an image.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (4, 2), 7).save(file, format="PNG")
        >>> decode_image(file.getvalue(), name="grey.png").shape
        (2, 4, 1)
    """
    plugin = next((plugin for magic, plugin in _PLUGINS if data.startswith(magic)), None)
    if plugin is None:
        raise ReadError(
            name, f"expected PNG, JPEG, TIFF or BMP, got {_guess(data)}: convert the file, for example to PNG"
        )
    try:
        image = plugin(io.BytesIO(data))
        width, height = image.size
    except Exception as error:  # noqa: BLE001
        raise ReadError(
            name, f"its header is damaged ({_reason(error)}): restore the file, or remove its row"
        ) from None
    if width * height > max_pixels:
        raise ReadError(name, f"{width} x {height} pixels, expected at most {max_pixels:,} in all: shrink the image")
    if width * height == 0:
        raise ReadError(name, f"the image is empty ({width} x {height} pixels): remove its row")
    try:
        frames = getattr(image, "n_frames", 1) if plugin is TiffImagePlugin.TiffImageFile else 1
    except Exception as error:  # noqa: BLE001
        raise ReadError(
            name, f"its header is damaged ({_reason(error)}): restore the file, or remove its row"
        ) from None
    if frames > 1:
        raise ReadError(name, f"holds {frames} images, expected one: save each as a file of its own")
    try:
        image.load()
        planes = {"LA", "RGBA"} if keep_alpha else set()
        pixels = np.array(image) if image.mode in planes else _pixels(image, name)
        return np.ascontiguousarray(_upright(pixels, _orientation(image)))
    except ReadError:
        raise
    except Exception as error:  # noqa: BLE001
        raise ReadError(
            name, f"it is truncated or damaged ({_reason(error)}): restore the file, or remove its row"
        ) from None


def fit_image(pixels: Pixels, *, size: int, channels: int, bits: int, resize: Resize = "stretch") -> Fitted:
    """Bring an image to a square of a given size, number of channels and depth.

    Colour becomes grey by luma (ITU-R BT.601); grey is repeated into colour. Scaling is bilinear, averaged over the
    source pixels when shrinking. Depth is converted by the full range: 255 corresponds to 65535.

    Args:
        pixels: the image.
        size: side of the result in pixels.
        channels: 1 or 3; or 2 or 4 for an image that has as many, whose planes are then scaled one by one.
        bits: 8 or 16.
        resize: "stretch" to the square, "crop" its centre, or "pad" it with black.

    Raises:
        ConfigError: for other channels, bits or ways to resize.

    Example:
        >>> fit_image(np.zeros((4, 8, 3), dtype=np.uint8), size=2, channels=1, bits=16).dtype.name
        'uint16'
    """
    if channels not in {1, 2, 3, 4} or bits not in {8, 16} or size < 1 or resize not in {"stretch", "crop", "pad"}:
        raise ConfigError(
            "expected size >= 1, channels 1 to 4, bits 8 or 16 and resize stretch, crop or pad; "
            f"got {size}, {channels}, {bits}, {resize!r}"
        )
    if channels in {2, 4} and pixels.shape[2] != channels:
        raise ConfigError(f"channels = {channels} needs images with as many, got {pixels.shape[2]}: use 1 or 3")
    if channels == 1 and pixels.shape[2] == 3:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    if resize == "crop":
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    height, width = pixels.shape[:2]
    longest = max(height, width)
    inner = (size, size)
    if resize == "pad":
        inner = (max(1, round(size * height / longest)), max(1, round(size * width / longest)))
    fitted = _scale(pixels, *inner)
    if inner != (size, size):
        padded = np.zeros((size, size, fitted.shape[2]), dtype=fitted.dtype)
        top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
        padded[top : top + inner[0], left : left + inner[1]] = fitted
        fitted = padded
    if bits == 16 and fitted.dtype == np.uint8:
        fitted = fitted.astype(np.uint16) * 257
    elif bits == 8 and fitted.dtype == np.uint16:
        fitted = ((fitted.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(fitted, 3, axis=2) if channels == 3 and fitted.shape[2] == 1 else fitted


def _scale(pixels: Pixels, height: int, width: int) -> Fitted:
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8:
        # Pillow weighs colour by alpha when it scales; here a second or fourth channel is a measurement as well.
        parts = [pixels] if pixels.shape[2] in {1, 3} else [pixels[..., c : c + 1] for c in range(pixels.shape[2])]
        return np.concatenate([_scale_bytes(part, height, width) for part in parts], axis=2)
    planes = [
        np.asarray(
            Image.fromarray(pixels[..., c].astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        )
        for c in range(pixels.shape[2])
    ]
    return np.stack(planes, axis=-1).round().clip(0, 65535).astype(np.uint16)


def _scale_bytes(pixels: UInt8[np.ndarray, "H W C"], height: int, width: int) -> UInt8[np.ndarray, "h w C"]:
    plain = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    scaled = np.asarray(Image.fromarray(plain).resize((width, height), Image.Resampling.BILINEAR))
    return scaled[..., None] if scaled.ndim == 2 else scaled


def _pixels(image: Image.Image, name: str) -> Pixels:
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if image.mode in {"1", "L"}:
        return np.array(image.convert("L"))[..., None]
    if image.mode.startswith("I"):
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise ReadError(
                name, f"grey values from {values.min()} to {values.max()}, expected 0 to 65535: rescale to 16 bit"
            )
        depth = tags.get(_BITS_PER_SAMPLE, (16,))
        depth = depth[0] if isinstance(depth, tuple) else depth
        grey = values.astype(np.uint16)
        if depth < 16:
            grey = (grey.astype(np.uint32) * 65535 // ((1 << depth) - 1)).clip(max=65535).astype(np.uint16)
        return (65535 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)[..., None]
    if image.mode == "F":
        raise ReadError(
            name, "floating-point values, expected 8 or 16 bit integers: rescale to 16 bit and save as PNG or TIFF"
        )
    if image.mode in {"LA", "La"}:
        return _on_black(np.array(image.convert("LA")))
    if image.mode in {"RGBA", "RGBa", "PA"} or (image.mode == "P" and "transparency" in image.info):
        return _on_black(np.array(image.convert("RGBA")))
    if image.mode == "RGB" and "transparency" in image.info:
        return _on_black(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _on_black(pixels: UInt8[np.ndarray, "H W A"]) -> UInt8[np.ndarray, "H W c"]:
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    if (alpha == 255).all():
        return colour
    return ((colour.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    # A damaged EXIF block says nothing about the pixels; the image is then taken as it is stored.
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001
        return 1


def _upright(pixels: Pixels, orientation: int) -> Fitted:
    turns = {3: 2, 5: 1, 6: -1, 7: 1, 8: 1}
    turned = np.rot90(pixels, turns.get(orientation, 0))
    if orientation in {2, 7}:
        return turned[:, ::-1]
    if orientation in {4, 5}:
        return turned[::-1]
    return turned


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
    if data[128:132] == b"DICM":
        return "DICOM"
    return next((kind for magic, kind in known if data.startswith(magic)), "another kind of file")


def _reason(error: Exception) -> str:
    if isinstance(error, struct.error | IndexError | KeyError):
        return "unexpected end"
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
