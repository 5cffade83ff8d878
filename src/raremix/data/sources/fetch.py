"""Fetch public data sets that can be had without credentials, and unpack them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raremix.core import files
from raremix.core.archive import unpack_zip
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.types import Progress
from raremix.data.sources.catalogue import CATALOGUE
from raremix.data.sources.download import download
from raremix.data.sources.medmnist import RECORD, file_name
from raremix.data.sources.medmnist_sets import SETS, SIZES, refuse_volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a data set.

    Attributes:
        url: where it lies.
        name: of the file.
        checksum: see `raremix.data.sources.download.download`; None where none is published, and then every member of
            the archive is still checked against its CRC-32.
        unpack: folder that it is unpacked into, relative to the data set's; None to leave it as it is.
    """

    url: str
    name: str
    checksum: str | None = None
    unpack: str | None = None


_ISIC = "https://isic-challenge-data.s3.amazonaws.com/2018/"
OPEN: Mapping[str, tuple[Part, ...]] = {
    # https://zenodo.org/records/3904280
    "fetal_planes": (
        Part(
            url="https://zenodo.org/records/3904280/files/FETAL_PLANES_ZENODO.zip?download=1",
            name="FETAL_PLANES_ZENODO.zip",
            checksum="md5:2a5fcc2cefb789bcc0f6c1f73e0ea43f",
            unpack="",
        ),
    ),
    # https://challenge.isic-archive.com/data/#2018
    "isic2018": (
        *(
            Part(url=f"{_ISIC}{name}.zip", name=f"{name}.zip", unpack=name)
            for part in ("Training", "Validation", "Test")
            for name in (f"ISIC2018_Task3_{part}_GroundTruth", f"ISIC2018_Task3_{part}_Input")
        ),
        Part(
            url=f"{_ISIC}ISIC2018_Task3_Training_LesionGroupings.csv",
            name="ISIC2018_Task3_Training_LesionGroupings.csv",
            checksum="sha256:b0352393dc54843e39a7c108781c54cc8a0ef282240330ac239a88c46ea0cc0f",
        ),
    ),
    # https://data.mendeley.com/datasets/rscbjbr9sj/2
    "kermany": (
        Part(
            url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
            "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
            name="ChestXRay2017.zip",
            unpack="",
        ),
    ),
}


def fetchable() -> list[str]:
    """Return the names that `fetch` knows."""
    return [*OPEN, *SETS]


def parts_of(name: str, *, size: int = 28) -> tuple[Part, ...]:
    """Return the files that a data set consists of.

    Args:
        name: a source with open access, or a set of MedMNIST.
        size: 28, 64, 128 or 224 pixels, for MedMNIST.

    Raises:
        ConfigError: for a set that asks for credentials, saying where to apply, and for a size that there is not.
        UnknownNameError: for any other name.
    """
    refuse_volumes(name)
    if name in SETS:
        if size not in SIZES:
            raise ConfigError(f"size = {size}: MedMNIST has {', '.join(map(str, SIZES))}")
        file = file_name(name, size)
        return (
            Part(url=f"{RECORD}/{file}?download=1", name=file, checksum=f"md5:{SETS[name].md5[SIZES.index(size)]}"),
        )
    if name in OPEN:
        return OPEN[name]
    if name == "medmnist":
        raise ConfigError(f"medmnist is {len(SETS)} sets: name one of {', '.join(SETS)}")
    if name in CATALOGUE:
        about = CATALOGUE[name]
        why = "asks for an account or agreement" if about.access != "open" else "has no address that stays"
        raise ConfigError(f"{name} {why}: get it at {about.url}, and lay it out as raremix sources {name} shows")
    raise UnknownNameError("data set that can be fetched", name, fetchable())


def fetch(
    name: str, folder: Path, *, size: int = 28, keep_archives: bool = False, progress: Progress | None = None
) -> Path:
    """Fetch a data set into a folder of its name; what is there already is not fetched again.

    Args:
        name: see `parts_of`.
        folder: where data sets go.
        size: see `parts_of`.
        keep_archives: whether archives stay after they were unpacked.
        progress: called while files are fetched and unpacked.

    Returns:
        The data set's folder, or the file of a MedMNIST set.

    Raises:
        ConfigError, UnknownNameError: see `parts_of`.
        StorageError: if a server cannot be reached, or the disk is full; calling it again goes on.
        ReadError: if a file is damaged.

    Example:
        ``fetch("retinamnist", Path("data"), size=64)``
    """
    parts = parts_of(name, size=size)
    if name in SETS:
        return download(parts[0].url, folder / parts[0].name, checksum=parts[0].checksum, progress=progress)
    root = folder / name
    for part in parts:
        # A set that is one archive is unpacked as its folder, and its archive lies beside.
        target = None if part.unpack is None else root / part.unpack
        if target is not None and target.exists():
            continue
        place = (folder if part.unpack == "" else root) / part.name
        download(part.url, place, checksum=part.checksum, progress=progress)
        if target is not None:
            unpack_zip(place, target, progress=progress)
            if not keep_archives:
                files.remove_file(place)
    return root
