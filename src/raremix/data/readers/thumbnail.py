"""A thumbnail of a JPEG without decoding all of it."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, JpegImagePlugin

from raremix.data.readers.limits import MAX_PIXELS, require_few_scans
from raremix.data.readers.quiet import unlogged


@unlogged()
def draft_thumbnail(
    data: bytes, *, side: int
) -> tuple[UInt8[np.ndarray, "{side} {side}"], tuple[int, int], str] | None:
    """Return the grey plane of a JPEG, stretched to a square, decoded at a part of its size.

    Args:
        data: the file.
        side: of the square, in pixels.

    Returns:
        The square, the image's width and height as it is shown, and its mode; None where the file cannot be read so.
    """
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        (width, height), mode = image.size, image.mode
        if not 0 < width * height <= MAX_PIXELS:
            return None
        require_few_scans(data, name="")
        image.draft("L", (2 * side, 2 * side))
        image.load()
        # Most files have no EXIF block, and looking into an empty one takes longer than the rest of this function.
        upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
        if upright.size != image.size and upright.size == image.size[::-1]:
            width, height = height, width
        grey = upright if upright.mode == "L" else upright.convert("L")
        return np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR)), (width, height), mode
    except Exception:  # noqa: BLE001 - a foreign decoder; the reader, which is asked next, says what is wrong
        return None
