"""Read image files: PNG, JPEG, TIFF and BMP, DICOM and NIfTI, into arrays of shape (H, W, 1) or (H, W, 3).

What a file claims to hold is checked before it is decoded. Decoders are chosen by the file's first bytes, never by
its name, and whatever they raise becomes a `ReadError` that says what to do.
"""

from raremix.data.readers.decode import (
    SUFFIXES,
    decode,
    decode_fitted,
    decode_image,
    has_image_suffix,
    is_dicom,
    kind_of,
    read_dicom_header,
    read_image,
)
from raremix.data.readers.fit import Fitted, Pixels, Resize, fit_image
from raremix.data.readers.limits import MAX_BYTES, MAX_FRAMES, MAX_PIXELS, content_hash, read_bytes, read_start
from raremix.data.readers.reading import Reading

__all__ = [
    "MAX_BYTES",
    "MAX_FRAMES",
    "MAX_PIXELS",
    "SUFFIXES",
    "Fitted",
    "Pixels",
    "Reading",
    "Resize",
    "content_hash",
    "decode",
    "decode_fitted",
    "decode_image",
    "fit_image",
    "has_image_suffix",
    "is_dicom",
    "kind_of",
    "read_bytes",
    "read_dicom_header",
    "read_image",
    "read_start",
]
