"""Tell a public data set by the layout that it is published in: by its files and columns, never by a folder's name."""

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from raremix.core.errors import ManifestError
from raremix.data.readers import has_image_suffix
from raremix.data.sources import kermany
from raremix.data.sources.layout import maybe_file
from raremix.data.sources.text_table import read_header

_LOOKED_AT = 12
_CHALLENGE = "ISIC2018_Task3_Training_Input"
_METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
_PADCHEST = ("PADCHEST_chest_x_ray_images_labels_160K*.csv", "PADCHEST_chest_x_ray_images_labels_160K*.csv.gz")


def recognise(place: Path) -> tuple[str, Path] | None:
    """Return the source that reads a folder, and the folder, or None where it is none of the public sets.

    A table of a public set, or a folder that holds nothing but the set's own folder, leads to the set's folder.

    Args:
        place: a folder, or a table in it.

    Example:
        >>> recognise(Path("/nowhere")) is None
        True
    """
    if place.is_file():
        # A table lies in the set's folder, or in a folder of its own below it.
        near = (place.parent, place.parent.parent)
        found = next((hit for folder in near if (hit := _among(folder)) is not None), None)
        return found if found is not None and _is_own_table(place.name) else None
    if not place.is_dir():
        return None
    inner = [path for path in islice(place.iterdir(), 3) if not path.name.startswith(".")]
    only = inner[0] if len(inner) == 1 and inner[0].is_dir() else None
    return _among(place) or (None if only is None else _among(only))


def _among(folder: Path) -> tuple[str, Path] | None:
    return next(((name, folder) for name, fits in _MARKS.items() if fits(folder)), None)


def _is_own_table(name: str) -> bool:
    """Whether a file name is that of a published table; a table of one's own beside the images is read as it is."""
    parts = ("ISIC2018_Task3", "HAM10000_metadata", "Data_Entry_2017", "image_labels_", "FETAL_PLANES_DB_data")
    return name in {"train.csv", "valid.csv"} or name.startswith((*parts, "PADCHEST_chest_x_ray", "COVID-CT-MetaInfo"))


def _is_isic2018(folder: Path) -> bool:
    pictures = ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images", "images")
    if (folder / _CHALLENGE).is_dir():
        return True
    return maybe_file(folder, _METADATA) is not None and any((folder / name).is_dir() for name in pictures)


def _is_chestxray14(folder: Path) -> bool:
    table = maybe_file(folder, ["Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz"])
    return table is not None and any(path.is_dir() for path in folder.glob("images*"))


def _is_vindr_pcxr(folder: Path) -> bool:
    # VinDr-CXR, of adults, has tables of the same names: the diseases tell the two apart.
    table = maybe_file(folder, ["image_labels_train.csv", "annotations/image_labels_train.csv"])
    return table is not None and (folder / "train").is_dir() and _has(table, "Brocho-pneumonia", "Bronchiolitis")


def _is_kermany(folder: Path) -> bool:
    root = next((p for p in (folder, folder / "chest_xray") if (p / "train" / "NORMAL").is_dir()), None)
    if root is None:
        return False
    names = [path.stem for kind in ("NORMAL", "PNEUMONIA") for path in _some_images(root / "train" / kind)]
    return bool(names) and all(kermany.name_of(name) is not None for name in names)


def _is_busi(folder: Path) -> bool:
    root = folder / "Dataset_BUSI_with_GT" if (folder / "Dataset_BUSI_with_GT").is_dir() else folder
    kinds = ("benign", "malignant", "normal")
    return all((root / kind).is_dir() for kind in kinds) and any(True for _ in (root / "benign").glob("*_mask.*"))


def _is_fetal_planes(folder: Path) -> bool:
    return (folder / "FETAL_PLANES_DB_data.csv").is_file() and (folder / "Images").is_dir()


def _is_covid_ct(folder: Path) -> bool:
    homes = (folder / "Images-processed", folder)
    return any(all((home / kind).is_dir() for kind in ("CT_COVID", "CT_NonCOVID")) for home in homes)


def _is_chexpert(folder: Path) -> bool:
    table = folder / "train.csv"
    return table.is_file() and _has(table, "Path", "Frontal/Lateral", "Enlarged Cardiomediastinum")


def _is_padchest(folder: Path) -> bool:
    return maybe_file(folder, _PADCHEST) is not None


def _has(table: Path, *columns: str) -> bool:
    try:
        return set(columns) <= set(read_header(table))
    except ManifestError:
        return False


def _some_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return list(islice((path for path in folder.iterdir() if has_image_suffix(path)), _LOOKED_AT))


_MARKS: Mapping[str, Callable[[Path], bool]] = {
    "isic2018": _is_isic2018,
    "chestxray14": _is_chestxray14,
    "vindr_pcxr": _is_vindr_pcxr,
    "kermany": _is_kermany,
    "busi": _is_busi,
    "fetal_planes": _is_fetal_planes,
    "covid_ct": _is_covid_ct,
    "chexpert": _is_chexpert,
    "padchest": _is_padchest,
}
