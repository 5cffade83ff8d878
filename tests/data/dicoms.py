"""DICOM files made for tests: small, complete, and with whatever a test wants to change."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def dicom(pixels: np.ndarray, *, syntax: Any = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """Return a DICOM file that holds an array (rows, columns), (frames, rows, columns) or (rows, columns, 3)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = str(elements.get("SOPInstanceUID", generate_uid(entropy_srcs=["test"])))
    little = UID(syntax).is_little_endian
    dataset = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=False, is_little_endian=little)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    is_colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    frames = pixels if pixels.ndim == 3 and not is_colour else pixels[None]
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = np.ascontiguousarray(pixels).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return saved(dataset)


def saved(dataset: Dataset) -> bytes:
    """Return a data set as the bytes of a file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def table(values: list[int], *, first: int, depth: int) -> Dataset:
    """Return one item of a modality or VOI table."""
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(values), first, depth])
    item.add_new(0x00283006, "US", values)
    return item
