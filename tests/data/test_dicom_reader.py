"""raremix.data.readers.dicom: the standard's chain of values by hand and against pydicom's, frames, colours, limits."""

import csv
import io
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless
from tests.data.dicoms import dicom, saved, table

from raremix.core.errors import ReadError
from raremix.data.readers import Reading, decode, decode_image, fit_image

CT = np.array([[0, 1000], [1024, 3000]], dtype=np.uint16)


def grey(data: bytes, **reading: object) -> np.ndarray:
    pixels = decode_image(data, name="x", reading=Reading(**reading))
    assert pixels.shape[2] == 1
    return pixels[..., 0]


def test_window_by_hand() -> None:
    # Hounsfield: -1024, -24, 0, 1976. C.11.2.1.2 with centre 40, width 400: (x - 39.5) / 399 + 0.5.
    data = dicom(CT, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400, BitsStored=12)
    expected = [[0, (-24 - 39.5) / 399 + 0.5], [(0 - 39.5) / 399 + 0.5, 1]]
    np.testing.assert_allclose(grey(data) / 65535, expected, atol=1 / 65535)
    # The same values, whichever way they are stored and windowed.
    np.testing.assert_array_equal(
        grey(dicom(CT, RescaleSlope=1, RescaleIntercept=-1024), window=(40.0, 400.0)), grey(data)
    )
    signed = dicom((CT.astype(np.int32) - 1024).astype(np.int16), WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(grey(signed), grey(data))
    wide = dicom((CT.astype(np.int64) - 1024).astype(np.int32), WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(grey(wide), grey(data))


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_every_depth_and_sign(kind: str) -> None:
    """The four ends and middles of a type's range, by a window over all of it, by its own range, and as stored."""
    ends = np.iinfo(kind)
    values = np.array([[ends.min, ends.min + 1, ends.max - 1, ends.max]], dtype=kind)
    full, width = (255 if values.itemsize == 1 else 65535), float(ends.max) - float(ends.min)
    expected = np.floor((values.astype(np.float64) - float(ends.min)) / width * full + 0.5)
    for reading in ({"window": "range"}, {"window": "stored"}):
        np.testing.assert_array_equal(grey(dicom(values), **reading), expected)
    # Fewer bits than are allocated, with the sign in the highest of them.
    if values.itemsize == 2:
        narrow = np.array([[-2048, 2047]] if ends.min else [[0, 4095]], dtype=kind)
        twelve = dicom(narrow, BitsStored=12, HighBit=11)
        np.testing.assert_array_equal(grey(twelve, window="stored"), [[0, 65535]])


def test_other_functions_by_hand() -> None:
    sigmoid = dicom(CT, WindowCenter=1000, WindowWidth=800, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(grey(sigmoid) / 65535, 1 / (1 + np.exp(-4 * (CT - 1000.0) / 800)), atol=1 / 65535)
    exact = dicom(CT, WindowCenter=1000, WindowWidth=2000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(grey(exact) / 65535, (CT / 2000.0).clip(0, 1), atol=1 / 65535)
    step = dicom(CT, WindowCenter=1001, WindowWidth=1)
    np.testing.assert_array_equal(grey(step), [[0, 0], [65535, 65535]])


def test_without_window() -> None:
    np.testing.assert_array_equal(grey(dicom(CT)), np.floor(CT / 3000 * 65535 + 0.5))
    np.testing.assert_array_equal(grey(dicom(CT), window="stored"), CT)
    bytes_ = np.array([[3, 200]], dtype=np.uint8)
    np.testing.assert_array_equal(grey(dicom(bytes_)), bytes_)  # as stored, not stretched
    np.testing.assert_array_equal(grey(dicom(bytes_), window="range"), [[0, 255]])
    # A window of width 0 says nothing.
    np.testing.assert_array_equal(grey(dicom(CT, WindowCenter=0, WindowWidth=0)), grey(dicom(CT)))
    np.testing.assert_array_equal(grey(dicom(np.full((2, 2), 7, dtype=np.uint16))), np.zeros((2, 2)))


def test_padding_is_left_out_of_the_range() -> None:
    values = np.array([[-2000, 0, 100]], dtype=np.int16)
    padded = dicom(values, PixelPaddingValue=-2000)
    np.testing.assert_array_equal(grey(padded), [[0, 0, 65535]])


def test_monochrome1_is_inverted_after_the_window() -> None:
    plain = grey(dicom(CT, WindowCenter=1000, WindowWidth=1500))
    inverted = grey(dicom(CT, WindowCenter=1000, WindowWidth=1500, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted, 65535 - plain)
    by_shape = grey(dicom(CT, WindowCenter=1000, WindowWidth=1500, PresentationLUTShape="INVERSE"))
    np.testing.assert_array_equal(by_shape, inverted)
    both = dicom(
        CT, WindowCenter=1000, WindowWidth=1500, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"
    )
    np.testing.assert_array_equal(grey(both), inverted)  # both say the same thing, once


def test_tables_by_hand() -> None:
    values = np.array([[0, 9, 10, 11, 12, 500]], dtype=np.uint16)
    voi = dicom(values, VOILUTSequence=[table([0, 400, 1023], first=10, depth=10)])
    np.testing.assert_array_equal(grey(voi), np.floor(np.array([[0, 0, 0, 400, 1023, 1023]]) / 1023 * 65535 + 0.5))
    # The window applies to what the modality table gives.
    both = dicom(
        values, ModalityLUTSequence=[table([100, 200, 300], first=10, depth=16)], WindowCenter=200.5, WindowWidth=201
    )
    np.testing.assert_array_equal(grey(both), np.floor(np.array([[0, 0, 0, 0.5, 1, 1]]) * 65535 + 0.5))
    # A table comes before the window.
    preferred = dicom(values, VOILUTSequence=[table([0, 1023], first=10, depth=10)], WindowCenter=1, WindowWidth=2)
    np.testing.assert_array_equal(grey(preferred), [[0, 0, 0, 65535, 65535, 65535]])


def test_frames_by_policy() -> None:
    frames = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)[::-1].copy()
    data = dicom(frames)
    with pytest.raises(ReadError, match=r"x: holds 5 frames, expected one: choose with reading .*middle"):
        decode_image(data, name="x")
    np.testing.assert_array_equal(grey(data, frames="first"), frames[0])
    np.testing.assert_array_equal(grey(data, frames="middle"), frames[2])
    np.testing.assert_array_equal(grey(data, frames=4), frames[4])
    np.testing.assert_array_equal(grey(data, frames="max"), frames.max(axis=0))
    with pytest.raises(ReadError, match="number 5 among them"):
        decode_image(data, name="x", reading=Reading(frames=5))


def test_what_is_unknown_in_one_frame_is_taken_from_another() -> None:
    unknown = np.nan
    rows = [[unknown, 1.0, unknown, 0.0], [2.0, unknown, unknown, 0.0], [0.0, 0.0, unknown, 0.0]]
    frames = np.array(rows, dtype=np.float32)[:, None]
    single = pydicom.dcmread(io.BytesIO(dicom(np.zeros((3, 1, 4), dtype=np.uint32))))
    del single.PixelData, single.BitsStored, single.HighBit, single.PixelRepresentation
    single.FloatPixelData = frames.tobytes()
    np.testing.assert_array_equal(grey(saved(single), frames="max"), [[65535, 32768, 0, 0]])


def test_each_frame_has_its_own_rescale() -> None:
    frames = np.array([[[10, 19]], [[10, 19]]], dtype=np.uint16)
    per_frame = []
    for intercept in (0, 1000):
        transform = Dataset()
        transform.RescaleSlope, transform.RescaleIntercept = 1, intercept
        group = Dataset()
        group.PixelValueTransformationSequence = [transform]
        per_frame.append(group)
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 510, 1021
    shared = Dataset()
    shared.FrameVOILUTSequence = [window]
    data = dicom(frames, PerFrameFunctionalGroupsSequence=per_frame, SharedFunctionalGroupsSequence=[shared])
    shown = lambda values: np.floor(((np.array([values]) - 509.5) / 1020 + 0.5) * 65535 + 0.5)  # noqa: E731
    np.testing.assert_array_equal(grey(data, frames="first"), shown([10, 19]))
    np.testing.assert_array_equal(grey(data, frames=1), shown([1010, 1019]))
    np.testing.assert_array_equal(grey(data, frames="max"), shown([1010, 1019]))


def test_colours() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(dicom(colours), name="x"), colours)
    planar = dicom(colours, PlanarConfiguration=1, PixelData=colours.transpose(2, 0, 1).tobytes())
    np.testing.assert_array_equal(decode_image(planar, name="x"), colours)
    wide = decode_image(dicom(colours.astype(np.uint16) * 257), name="x")
    np.testing.assert_array_equal(wide, colours)
    # 12 of 16 bits: 4095 is full colour.
    twelve = np.floor(colours * (4095 / 255) + 0.5).astype(np.uint16)
    np.testing.assert_array_equal(decode_image(dicom(twelve, BitsStored=12, HighBit=11), name="x"), colours)
    # PS3.3, C.7.6.3.1.2: Y = Cb = Cr = 128 is grey; Cr above it is red.
    ybr = np.array([[[128, 128, 128], [81, 90, 240]]], dtype=np.uint8)
    turned = decode_image(dicom(ybr, PhotometricInterpretation="YBR_FULL"), name="x")
    np.testing.assert_allclose(turned[0], [[128, 128, 128], [238, 14, 14]], atol=2)


def palette_file(order: str) -> bytes:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

    entries = {"Red": [0, 65535, 0], "Green": [0, 0, 65535], "Blue": [257 * 7, 0, 0]}
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, values in entries.items():
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 5, 16]
        elements[f"{colour}PaletteColorLookupTableData"] = np.array(values, dtype=f"{order}u2").tobytes()
    syntax = ExplicitVRBigEndian if order == ">" else ExplicitVRLittleEndian
    return dicom(np.array([[0, 5], [6, 200]], dtype=np.uint8), syntax=syntax, **elements)


@pytest.mark.parametrize("order", ["<", ">"])
def test_palette(order: str) -> None:
    # Indices below the first entry take the first, above the last the last; pydicom swaps bytes in big-endian files.
    expected = [[[0, 0, 7], [0, 0, 7]], [[255, 0, 0], [0, 255, 0]]]
    np.testing.assert_array_equal(decode_image(palette_file(order), name="x"), expected)


def test_float_pixels() -> None:
    values = np.array([[0.25, 1.5], [np.nan, -1.0]], dtype=np.float32)
    dataset = pydicom.dcmread(io.BytesIO(dicom(np.zeros((2, 2), dtype=np.uint32))))
    for keyword in ("PixelData", "PixelRepresentation", "BitsStored", "HighBit"):
        delattr(dataset, keyword)
    dataset.FloatPixelData = values.tobytes()
    np.testing.assert_array_equal(grey(saved(dataset)), np.floor(np.array([[0.5, 1], [0, 0]]) * 65535 + 0.5))
    dataset.FloatPixelData = np.full((2, 2), np.nan, dtype=np.float32).tobytes()
    with pytest.raises(ReadError, match="no finite value"):
        decode_image(saved(dataset), name="x")


def test_a_dicom_that_is_a_tiff_too_is_dicom() -> None:
    data = b"II*\0" + dicom(np.array([[1, 2]], dtype=np.uint8))[4:]
    np.testing.assert_array_equal(grey(data), [[1, 2]])


def compressed(pixels: np.ndarray, syntax: object, stream: bytes, **elements: object) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom(pixels, **elements)))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return saved(dataset)


def jpeg(width: int, height: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (width, height), 90).save(file, format="JPEG")
    return file.getvalue()


def test_a_stream_of_another_size_is_refused() -> None:
    """A decoder reserves memory by what the stream says, whatever the header says."""
    small = np.zeros((8, 8), dtype=np.uint8)
    right = compressed(small, JPEGBaseline8Bit, jpeg(8, 8))
    np.testing.assert_allclose(grey(right), 90, atol=1)
    wrong = compressed(small, JPEGBaseline8Bit, jpeg(16, 8))
    with pytest.raises(ReadError, match="compressed frame of 16 x 8 x 1, the header says 8 x 8 x 1"):
        decode_image(wrong, name="x")
    siz = struct.pack(">HHHIIIIIIIIHBBB", 0xFF51, 41, 0, 60_000, 60_000, 0, 0, 60_000, 60_000, 0, 0, 1, 7, 1, 1)
    for syntax, stream in (
        (JPEG2000Lossless, b"\xff\x4f" + siz),
        (JPEGLSLossless, b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 11, 8, 60_000, 60_000, 1) + b"\x01\x11\x00" * 3),
    ):
        with pytest.raises(ReadError, match="60000 x 60000 x 1, the header says 8 x 8 x 1"):
            decode_image(compressed(small, syntax, stream), name="x")


def peak_of(data: bytes, match: str) -> int:
    tracemalloc.start()
    with pytest.raises(ReadError, match=match):
        decode_image(data, name="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_bombs_are_refused_before_decoding() -> None:
    tiny = np.zeros((1, 2), dtype=np.uint8)
    assert peak_of(dicom(tiny, NumberOfFrames=2_000_000_000), "claims 2,000,000,000 frames") < 4 << 20
    assert peak_of(dicom(tiny, Rows=60_000, Columns=60_000), "60000 x 60000 pixels") < 4 << 20
    rle = compressed(tiny, RLELossless, b"\1\0\0\0\x40" + b"\0" * 60, Rows=8000, Columns=8000)
    assert peak_of(rle, "damaged") < 128 << 20


def deflated(body: bytes, *, fake: bytes = b"") -> bytes:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    plain = dicom(np.array([[4, 5]], dtype=np.uint8))
    start = plain.index(b"\x08\0\x16\0")
    head = pydicom.dcmread(io.BytesIO(plain))
    head.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta = saved(head)
    length = struct.unpack_from("<I", meta, 140)[0]
    packer = zlib.compressobj(wbits=-15)
    return meta[: 144 + length] + packer.compress(body or plain[start:]) + packer.flush() + fake


def test_a_deflated_file_is_unpacked_up_to_a_limit() -> None:
    np.testing.assert_array_equal(grey(deflated(b"")), [[4, 5]])
    packer = zlib.compressobj(wbits=-15)
    # After a full flush the packer knows nothing of what came before, so that the piece can be repeated.
    piece = packer.compress(b"\0" * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = piece * 2000 + packer.flush()
    head = deflated(b"x")
    length = struct.unpack_from("<I", head, 140)[0]
    # Two gigabytes in two megabytes.
    peak = peak_of(head[: 144 + length] + bomb, rf"unpacks to more than {32 * len(bomb):,} bytes")
    assert peak < 36 * len(bomb) + (4 << 20)
    with pytest.raises(ReadError, match="ends early"):
        decode_image(deflated(b"")[:-6], name="x")


def test_refusals() -> None:
    picture = np.zeros((2, 2), dtype=np.uint8)
    report = pydicom.dcmread(io.BytesIO(dicom(picture)))
    del report.PixelData
    with pytest.raises(ReadError, match="without a picture"):
        decode_image(saved(report), name="x")
    with pytest.raises(ReadError, match="photometric interpretation that is not known"):
        decode_image(dicom(picture, PhotometricInterpretation="CMYK"), name="x")
    with pytest.raises(ReadError, match=r"1 samples per pixel, RGB has 3"):
        decode_image(dicom(picture, PhotometricInterpretation="RGB"), name="x")
    with pytest.raises(ReadError, match="DICOM decoder gave up"):
        decode_image(dicom(np.zeros((64, 64), dtype=np.uint8))[:-2000], name="x")
    with pytest.raises(ReadError, match=r"MPEG2 Main Profile.*cannot be decoded here"):
        decode_image(compressed(picture, "1.2.840.10008.1.2.4.100", b"\0" * 8), name="x")


SECRETS = (
    "Canary^Person",
    "MRN-4711-CANARY",
    "19610203",
    "ACC-CANARY-99",
    "Canary Street 7",
    "1.2.826.0.1.3680043.8.4711",
)


def canaries(pixels: np.ndarray, **elements: object) -> bytes:
    """A file whose header names somebody, also where its own parser will complain about it."""
    return dicom(
        pixels,
        PatientName=SECRETS[0],
        PatientID=SECRETS[1],
        PatientBirthDate=SECRETS[2],
        AccessionNumber=SECRETS[3],
        PatientAddress=SECRETS[4],
        StudyInstanceUID=SECRETS[5],
        **elements,
    )


def test_errors_and_warnings_name_nobody(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """Damaged in every way that makes pydicom quote the file."""
    whole = canaries(np.zeros((8, 8), dtype=np.uint16))
    broken = [whole[: len(whole) - 40]]
    for secret in SECRETS:
        place = whole.index(secret.encode())
        for offset in (-8, -6, -4, -2):
            broken.append(whole[: place + offset] + b"\xfe\xff" + whole[place + offset + 2 :])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        said = []
        for data in broken:
            try:
                said += decode(data, name="row 3", reading=Reading()).notes
            except ReadError as error:
                said += [str(error), repr(error.__cause__), repr(error.__context__ and "")]
    text = " ".join([*said, caplog.text, *capfd.readouterr(), *(str(item.message) for item in warned)])
    assert [secret for secret in SECRETS if secret in text] == []


def through_pydicom(path: Path, frame: int) -> np.ndarray:
    """The picture as pydicom's own functions make it of the whole file: 0 to 1 for grey, 0 to 255 for colour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        stored = dataset.pixel_array
        count = int(dataset.get("NumberOfFrames") or 1)
        stored = stored[frame] if count > 1 else stored
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            colours = apply_color_lut(stored, dataset)[..., :3]
            return colours / (257 if colours.dtype == np.uint16 else 1)
        if int(dataset.SamplesPerPixel) == 3:
            return stored * (255 / (2 ** int(dataset.BitsAllocated) - 1))
        # pydicom's functions look at the top level only.
        groups = [*dataset.get("PerFrameFunctionalGroupsSequence", [])[frame : frame + 1]]
        for group in [*groups, *dataset.get("SharedFunctionalGroupsSequence", [])]:
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for element in (group.get(macro) or [[]])[0]:
                    dataset[element.tag] = element
        values = apply_modality_lut(stored, dataset)
        shown = apply_voi_lut(values, dataset).astype(np.float64)
        bits = int(dataset.get("BitsStored") or 16)
        if dataset.get("VOILUTSequence"):
            low, high = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
        elif "WindowWidth" in dataset:
            ends = (
                [-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1]
                if dataset.get("PixelRepresentation")
                else [0, 2.0**bits - 1]
            )
            low, high = (
                end * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0)) for end in ends
            )
        elif bits <= 8:
            low, high = 0.0, 2.0**bits - 1
        else:
            low, high = shown.min(), shown.max()
    shown = (shown - low) / (high - low)
    return 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


# What pydicom 3.0.2 cannot decode with free decoders, or decodes wrongly: big-endian palettes of 16 bit.
WITHOUT_ORACLE = {"JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "bad_sequence.dcm", "OBXXXX1A_expb.dcm"} | {
    "OBXXXX1A_expb_2frame.dcm", "liver_rle.dcm", "liver_nonbyte_aligned_rle.dcm", "liver_deflate.dcm",
    "liver_nonbyte_aligned_deflate.dcm", "parametric_map_float.dcm", "parametric_map_double_float.dcm",
}  # fmt: skip


def test_all_files_against_pydicom(shared_data: Path) -> None:
    folder = shared_data / "dicom"
    rows = list(csv.DictReader((folder / "files.csv").read_text().splitlines()))
    refused, compared = [], 0
    for row in rows:
        path = folder / row["file"]
        count = int(row["frames"] or 1)
        try:
            pixels = decode_image(path.read_bytes(), name=path.name, reading=Reading(frames="middle"))
        except ReadError as error:
            refused.append((path.name, error.reason))
            continue
        assert pixels.shape[:2] == (int(row["rows"]), int(row["cols"])), path.name
        is_grey = row["photometric"].startswith("MONOCHROME")
        assert pixels.shape[2] == (1 if is_grey else 3)
        if path.name in WITHOUT_ORACLE:
            continue
        expected = through_pydicom(path, count // 2)
        if not is_grey:
            np.testing.assert_allclose(pixels, expected, atol=0.51, err_msg=path.name)
        else:
            full = 255 if pixels.dtype == np.uint8 else 65535
            np.testing.assert_allclose(pixels[..., 0], expected * full, atol=0.51, err_msg=path.name)
        compared += 1
    assert [name for name, _ in refused] == ["emri_small_jpeg_2k_lossless_too_short.dcm"]
    assert "cut short" in refused[0][1]
    assert (len(rows), compared) == (81, 81 - 1 - len(WITHOUT_ORACLE))


def test_the_same_picture_in_several_encodings(shared_data: Path) -> None:
    """Files for which pydicom is no oracle show what their twins show."""
    folder = shared_data / "dicom" / "pydicom-data"

    def read(name: str) -> np.ndarray:
        return decode_image((folder / f"{name}.dcm").read_bytes(), name=name, reading=Reading(frames="middle"))

    for one, other in (
        ("OBXXXX1A_expb", "OBXXXX1A"),
        ("OBXXXX1A_expb_2frame", "OBXXXX1A_2frame"),
        ("OBXXXX1A_rle", "OBXXXX1A"),
        ("liver_rle", "liver"),
        ("liver_deflate", "liver"),
        ("liver_j2k", "liver"),
        ("liver_nonbyte_aligned_rle", "liver_nonbyte_aligned"),
        ("liver_nonbyte_aligned_deflate", "liver_nonbyte_aligned"),
        ("693_UNCR", "693_J2KR"),
        ("MR2_UNCR", "MR2_J2KR"),
        ("RG3_J2KR", "RG3_J2KR"),
        ("gdcm-US-ALOKA-16_big", "gdcm-US-ALOKA-16"),
        ("emri_small_jpeg_ls_lossless", "emri_small"),
        ("emri_small_RLE", "emri_small"),
    ):
        np.testing.assert_array_equal(read(one), read(other), err_msg=one)


def test_what_a_model_sees_is_in_the_middle_of_its_range(shared_data: Path) -> None:
    """Radiographs come out neither black nor white: the wrong order of rescale and window makes them so."""
    for path in sorted((shared_data / "dicom").rglob("RG*.dcm")):
        pixels = fit_image(decode_image(path.read_bytes(), name=path.name), size=64, channels=1, bits=8)
        assert 40 < pixels.mean() < 230
