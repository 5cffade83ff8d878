"""Decode PNG, JPEG, TIFF and BMP into arrays of shape (H, W, 1) or (H, W, 3)."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from raremix.core.errors import ReadError
from raremix.data.readers.fit import Fitted, Pixels, Resize, fit_image, fit_picture
from raremix.data.readers.limits import damaged, require_few_scans, require_size
from raremix.data.readers.quiet import unlogged

PLUGINS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"II*\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)
"""First bytes of a file, and the only plug-ins of Pillow that are used: its others have been attacked more often."""

# A reduced JPEG keeps at least this many pixels for each pixel of the result, so that averaging still sees the image.
_OVERSAMPLING = 2
# Up to how many images of a TIFF are counted.
_COUNTED = 64
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_BITS_PER_SAMPLE = 258


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """A decoded picture.

    Attributes:
        pixels: of shape (H, W, C).
        notes: what was done, in words.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()


@unlogged()
def decode_raster(data: bytes, *, name: str, max_pixels: int, keep_alpha: bool = False) -> Raster:
    """Decode a PNG, JPEG, TIFF or BMP file.

    Grey images have one channel, all others three. Palettes are looked up; transparency is laid on black; the EXIF
    orientation is applied; a TIFF that stores white as 0 is inverted. Colour is returned in 8 bit, also where the file
    holds 16, since the decoder knows 16 bit for grey images only.

    Args:
        data: the file's bytes.
        name: what to call it in errors.
        max_pixels: width times height that is still decoded.
        keep_alpha: return the alpha plane as a second or fourth channel.

    Raises:
        ReadError: if the bytes are damaged, or claim too large an image.
    """
    image = _open(data, name=name, max_pixels=max_pixels)
    with _errors(name):
        image.load()
        # Asked for after loading: Pillow turns a TIFF itself while it loads.
        orientation = _orientation(image)
        planes = {"LA", "RGBA"} if keep_alpha else set()
        pixels = np.array(image) if image.mode in planes else _pixels(image, name)
        pixels = np.ascontiguousarray(_upright(pixels, orientation))
        return Raster(pixels=pixels, notes=_notes(image, orientation=orientation))


@unlogged()
def fit_raster(
    data: bytes,
    *,
    name: str,
    max_pixels: int,
    size: int,
    channels: int,
    bits: int,
    resize: Resize,
    draft: bool,
) -> Fitted:
    """Decode a file straight to a square: as `decode_raster` and then `fit_image`, without detours.

    With `draft`, a JPEG of at least four times the size is decoded at 1/2, 1/4 or 1/8 of its own, so that at least two
    pixels are left for each of the result; and where grey is wanted, its brightness is taken as it is stored instead
    of by way of red, green and blue.

    Args:
        data, name, max_pixels: see `decode_raster`.
        size, channels, bits, resize: see `raremix.data.readers.fit_image`.
        draft: see above.

    Raises:
        ReadError: see `decode_raster`; and if 2 or 4 channels are asked for and the file has another number.
    """
    image = _open(data, name=name, max_pixels=max_pixels)
    is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
    # Of a turned image, what the last pixels cover would lie at another edge.
    if is_jpeg and channels in {1, 3} and _orientation(image) == 1:
        with _errors(name):
            extent = reduce_jpeg(image, size=size, to_grey=channels == 1) if draft else None
            image.load()
            if image.mode in {"L", "RGB"}:
                return fit_picture(image, size=size, channels=channels, bits=bits, resize=resize, extent=extent)
    raster = decode_raster(data, name=name, max_pixels=max_pixels, keep_alpha=channels in {2, 4})
    if channels in {2, 4} and raster.pixels.shape[2] != channels:
        raise ReadError(name, f"has {raster.pixels.shape[2]} channels, expected {channels}: use channels 1 or 3")
    return fit_image(raster.pixels, size=size, channels=channels, bits=bits, resize=resize)


def reduce_jpeg(image: ImageFile.ImageFile, *, size: int, to_grey: bool) -> tuple[float, float] | None:
    """Have a JPEG decoded reduced; return the height and width that it then covers, or None if it covers all.

    Args:
        image: opened, not loaded.
        size: side of the result that it is decoded for.
        to_grey: whether its brightness is enough.
    """
    width, height = image.size
    # The shorter side decides, so that neither falls below; Pillow takes the largest reduction that keeps to that.
    factor = next((factor for factor in (8, 4, 2) if min(width, height) >= _OVERSAMPLING * size * factor), 1)
    if factor > 1 or (to_grey and image.mode == "RGB"):
        image.draft("L" if to_grey and image.mode == "RGB" else None, (width // factor, height // factor))
    return None if factor == 1 else (height / factor, width / factor)


def _open(data: bytes, *, name: str, max_pixels: int) -> ImageFile.ImageFile:
    """Open a file and check what it claims; nothing is decoded."""
    plugin = next(plugin for magic, plugin in PLUGINS if data.startswith(magic))
    try:
        image = plugin(io.BytesIO(data))
        width, height = image.size
        frames = _count_images(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 1
    except Exception as error:  # noqa: BLE001
        raise damaged(name, error, header=True) from None
    require_size(name, width=width, height=height, max_pixels=max_pixels)
    if frames > 1:
        many = f"more than {frames - 1}" if frames > _COUNTED else str(frames)
        raise ReadError(name, f"holds {many} images, expected one: save each as a file of its own")
    if plugin is JpegImagePlugin.JpegImageFile:
        require_few_scans(data, name=name)
    return image


def _count_images(image: TiffImagePlugin.TiffImageFile) -> int:
    """Count a TIFF's images, up to one more than a limit: for all of many, Pillow takes time with their square."""
    if not image.is_animated:
        return 1
    for number in range(1, _COUNTED + 1):
        try:
            image.seek(number)
        except EOFError:
            return number
    return _COUNTED + 1


@contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except ReadError:
        raise
    except Exception as error:  # noqa: BLE001
        raise damaged(name, error) from None


def _notes(image: Image.Image, *, orientation: int) -> tuple[str, ...]:
    notes = [f"mode {image.mode}"]
    if image.mode == "P":
        notes.append("palette looked up")
    if image.mode in {"LA", "La", "RGBA", "RGBa", "PA"} or "transparency" in image.info:
        notes.append("transparency laid on black")
    if orientation != 1:
        notes.append(f"EXIF orientation {orientation} applied")
    return tuple(notes)


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
