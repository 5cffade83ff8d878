"""raremix.data.readers.nifti: slices by plane and orientation, ranges of values, limits."""

import gzip
import io
import struct

import nibabel
import numpy as np
import pytest

from raremix.core.errors import ReadError
from raremix.data.readers import Reading, decode_image, kind_of


def nifti(values: np.ndarray, *, affine: np.ndarray | None = None, packed: bool = False, **header: object) -> bytes:
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    data = image.to_bytes()
    return gzip.compress(data) if packed else data


def grey(data: bytes, **reading: object) -> np.ndarray:
    pixels = decode_image(data, name="x", reading=Reading(**reading))
    assert pixels.dtype == np.uint16
    return pixels[..., 0]


VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)  # right, front, head
FULL = 65535 / 23


@pytest.mark.parametrize("packed", [False, True])
def test_planes_and_sides(packed: bool) -> None:
    data = nifti(VOLUME, packed=packed)
    assert kind_of(data) == "NIfTI"
    axial = grey(data, frames=3)
    # Top left is the front right: the last in both directions.
    assert axial.shape == (3, 2)
    assert axial[0, 0] == round(VOLUME[1, 2, 3] * FULL)
    assert axial[-1, -1] == round(VOLUME[0, 0, 3] * FULL)
    coronal = grey(data, frames="first", plane="coronal")
    assert coronal.shape == (4, 2)
    assert coronal[0, 0] == round(VOLUME[1, 0, 3] * FULL)  # the head at the top
    sagittal = grey(data, frames="middle", plane="sagittal")
    assert sagittal.shape == (4, 3)
    assert sagittal[0, 0] == round(VOLUME[1, 2, 3] * FULL)
    np.testing.assert_array_equal(grey(data, frames="max"), grey(data, frames=3))


def test_what_is_unknown_in_one_slice_is_taken_from_another() -> None:
    volume = VOLUME.astype(np.float32)
    whole = grey(nifti(volume), frames="max")
    volume[..., 1] = np.nan
    np.testing.assert_array_equal(grey(nifti(volume), frames="max"), whole)


def test_the_header_tells_the_orientation() -> None:
    """The same volume stored from left to right, back to front and feet to head turned round looks the same."""
    turned = np.ascontiguousarray(VOLUME[::-1, :, ::-1])
    affine = np.diag([-1.0, 1.0, -1.0, 1.0])
    np.testing.assert_array_equal(grey(nifti(turned, affine=affine), frames=1), grey(nifti(VOLUME), frames=1))
    swapped = np.ascontiguousarray(VOLUME.transpose(2, 0, 1))
    affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    np.testing.assert_array_equal(grey(nifti(swapped, affine=affine), frames=1), grey(nifti(VOLUME), frames=1))


def test_ranges() -> None:
    values = np.array([[[-1000.0, 0.0], [40.0, 3000.0]]], dtype=np.float32)
    by_window = grey(nifti(values), frames=0, window=(40.0, 400.0))
    np.testing.assert_array_equal(by_window[:, 0], [32768, 0])
    shown = grey(nifti(values, cal_min=0, cal_max=100), frames=0)
    np.testing.assert_array_equal(shown[:, 0], [round(0.4 * 65535), 0])
    np.testing.assert_array_equal(grey(nifti(values), frames=0, window="range")[:, 0], [65535, 0])
    # Slices of one volume are comparable by default.
    np.testing.assert_array_equal(grey(nifti(values), frames=0)[:, 0], [round(1040 / 4000 * 65535), 0])
    rescaled = nifti(np.array([[[1], [3]]], dtype=np.uint8), scl_slope=2.0, scl_inter=-1.0)
    np.testing.assert_array_equal(grey(rescaled, frames=0, window=(3.0, 4.0))[:, 0], [65535, 0])
    holes = nifti(np.array([[[np.nan], [1.0], [3.0]]], dtype=np.float32))
    np.testing.assert_array_equal(grey(holes, frames=0)[:, 0], [65535, 0, 0])


def test_refusals() -> None:
    with pytest.raises(ReadError, match=r"x: holds 4 frames, expected one"):
        decode_image(nifti(VOLUME), name="x")
    with pytest.raises(ReadError, match="2 x 3 x 4 x 5, expected one volume"):
        decode_image(nifti(np.zeros((2, 3, 4, 5), dtype=np.uint8)), name="x")
    with pytest.raises(ReadError, match="fewer values than its header says"):
        decode_image(nifti(VOLUME)[:-10], name="x", reading=Reading(frames=0))
    with pytest.raises(ReadError, match="colours or complex"):
        decode_image(nifti(np.zeros((2, 2, 2), dtype=np.complex64)), name="x", reading=Reading(frames=0))
    huge = bytearray(nifti(VOLUME, packed=False))
    huge[40:48] = struct.pack("<4h", 3, 30_000, 30_000, 3)
    with pytest.raises(ReadError, match="30000 x 30000 pixels"):
        decode_image(gzip.compress(bytes(huge)), name="x", reading=Reading(frames=0))
    deep = bytearray(nifti(VOLUME))
    deep[40:48] = struct.pack("<4h", 3, 4000, 4000, 16_000)
    with pytest.raises(ReadError, match="a volume of 512,000,000,352 bytes"):
        decode_image(gzip.compress(bytes(deep)), name="x", reading=Reading(frames=0))


def test_a_bomb_behind_the_volume_is_not_unpacked() -> None:
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb") as packed:
        packed.write(nifti(VOLUME))
        packed.write(b"\0" * (1 << 24))
    np.testing.assert_array_equal(grey(file.getvalue(), frames=1), grey(nifti(VOLUME), frames=1))
