"""Read slices of NIfTI volumes (.nii, .nii.gz), by named policies for the slice, the plane and the range of values.

A slice is shown as radiologists do: axial and coronal with the patient's right at the left, the front or the head at
the top. The orientation comes from the header. Colour volumes and more than one volume (a time series) are refused.

Needs the extra `raremix[nifti]`.
"""

import io
import zlib
from math import prod
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float64, UInt16

from raremix.core.errors import ReadError
from raremix.data.readers.limits import MAX_BYTES, damaged, require_size
from raremix.data.readers.reading import Reading, Window

# Along which axis of right, anterior, superior the slices of a plane are stacked.
_HEAD = 1 << 12
# Tells zlib to expect gzip's header.
_GZIP = 31
_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


def decode_nifti(
    data: bytes, *, name: str, max_pixels: int, reading: Reading
) -> tuple[UInt16[np.ndarray, "H W 1"], tuple[str, ...]]:
    """Decode a slice of a NIfTI volume into 16 bit grey.

    Args:
        data: the file's bytes.
        name: what to call it in errors.
        max_pixels: width times height of a slice that is still decoded.
        reading: which plane and slice, and which values become black and white. "file" takes the header's cal_min and
            cal_max, and where these are not set the range of the whole volume, so that its slices stay comparable.

    Returns:
        The slice, and what was done in words.

    Raises:
        ReadError: if the file is damaged or too large, or holds no single grey volume.
    """
    packed = data.startswith(b"\x1f\x8b")
    try:
        raw = zlib.decompressobj(_GZIP).decompress(data, _HEAD) if packed else data
        kind = nibabel.Nifti2Header if raw[4:8] == b"n+2\0" else nibabel.Nifti1Header
        header = kind.from_fileobj(io.BytesIO(raw[:_HEAD]), check=False)
        shape = tuple(int(side) for side in header.get_data_shape())
        code, offset = int(header["datatype"]), int(header.get_data_offset())
    except Exception as error:  # noqa: BLE001
        raise damaged(name, error, header=True) from None
    if code not in _DTYPES:
        raise ReadError(name, "holds colours or complex numbers, expected grey values: convert it")
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in {2, 3} or any(side < 1 for side in shape):
        raise ReadError(name, f"has the shape {' x '.join(map(str, shape))}, expected one volume: split the series")
    shape = (*shape, 1)[:3]
    sides = sorted(shape)
    require_size(name, width=sides[-1], height=sides[-2], max_pixels=max_pixels)
    dtype = np.dtype(_DTYPES[code]).newbyteorder(header.endianness)
    end = offset + prod(shape) * dtype.itemsize
    if end > MAX_BYTES:
        raise ReadError(name, f"a volume of {end:,} bytes, expected at most {MAX_BYTES:,}: crop it")
    try:
        # Not more than the header promises, whatever else is packed.
        raw = zlib.decompressobj(_GZIP).decompress(data, max(end, 1)) if packed else data
        if offset < 0 or end > len(raw):
            raise damaged(name, ValueError("fewer values than its header says"))
        stored = np.frombuffer(raw, dtype=dtype, count=prod(shape), offset=offset).reshape(shape, order="F")
        turn = nibabel.orientations.io_orientation(header.get_best_affine())
        if not np.isnan(turn).any():
            stored = nibabel.orientations.apply_orientation(stored, turn)
        axis = _AXES[reading.plane]
        number = reading.number(stored.shape[axis], name=name)
        chosen = stored if number is None else stored.take([number], axis=axis)
        slope, intercept = header.get_slope_inter()
        rescale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
        # The largest that is known: NaN in one slice says nothing about the others.
        values = np.fmax.reduce(chosen.astype(np.float64) * rescale[0] + rescale[1], axis=axis)
        low, high, words = _range(values, stored, rescale, header, reading.window)
        shown = ((values - low) / max(high - low, 1e-300)).clip(0, 1)
        if not np.isfinite(shown).any():
            raise ReadError(name, "holds no finite value: remove its row")
        grey = np.floor(np.nan_to_num(shown, nan=0.0) * 65535 + 0.5).astype(np.uint16)
        # Axes are to the right, the front and the head: what is shown at the top and the left comes last in each.
        picture = np.ascontiguousarray(grey.T[::-1, ::-1, None])
        which = (
            f"largest of {stored.shape[axis]} slices" if number is None else f"slice {number} of {stored.shape[axis]}"
        )
        return picture, (f"{reading.plane} {which}", words)
    except ReadError:
        raise
    except Exception as error:  # noqa: BLE001
        raise damaged(name, error) from None


def _range(
    values: Float64[np.ndarray, "h w"],
    stored: np.ndarray,
    rescale: tuple[float, float],
    header: Any,
    window: Window | tuple[float, float],
) -> tuple[float, float, str]:
    """Return the values that become black and white, and in words where they come from."""
    if isinstance(window, tuple):
        centre, width = window
        return centre - width / 2, centre + width / 2, f"window {centre:g}/{width:g}"
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if window == "file" and np.isfinite([low, high]).all() and low < high:
        return low, high, f"display range {low:g} to {high:g}"
    if window == "stored" and stored.dtype.kind in "ui":
        limits = np.iinfo(stored.dtype)
        ends = sorted(end * rescale[0] + rescale[1] for end in (limits.min, limits.max))
        return ends[0], ends[1], "all stored values"
    shown = values if window == "range" else stored
    finite = shown[np.isfinite(shown)] if shown.dtype.kind == "f" else shown
    if not finite.size:
        return 0.0, 1.0, "no value"
    ends = [float(finite.min()), float(finite.max())]
    if shown is stored:
        ends = sorted(end * rescale[0] + rescale[1] for end in ends)
    return ends[0], ends[1], f"values {ends[0]:g} to {ends[1]:g}"
