"""COVID-CT: CT slices taken from articles, with and without findings of COVID-19.

Yang et al., "COVID-CT-Dataset: a CT scan dataset about COVID-19", https://arxiv.org/abs/2003.13865; files:
https://github.com/UCSD-AI4H/COVID-CT.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from raremix.core.errors import ManifestError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble, natural_columns, one_hot
from raremix.data.sources.layout import data_folder, images_by_name, maybe_file, published_file
from raremix.data.sources.spreadsheet import read_spreadsheet
from raremix.data.sources.text_table import read_table

ABOUT = About(
    name="covid_ct",
    title="COVID-CT-Dataset",
    task="binary",
    classes=("non-COVID", "COVID"),
    images=746,
    modality="ct",
    licence="none for the images, which are figures of articles: ask who holds the rights",
    citation="Yang, He, Zhao et al., COVID-CT-Dataset: a CT scan dataset about COVID-19, arXiv:2003.13865 (2020)",
    url="https://github.com/UCSD-AI4H/COVID-CT",
    access="open",
    layout="""\
COVID-CT/
  COVID-CT-MetaInfo.xlsx         (File name, Patient ID, Age, Gender ...; or saved as .csv)
  NonCOVID-CT-MetaInfo.csv       (image name, patient id)
  Images-processed/CT_COVID/ ... Images-processed/CT_NonCOVID/ ...     (unpacked from the two .zip)
  Data-split/COVID/trainCT_COVID.txt, valCT_COVID.txt, testCT_COVID.txt
  Data-split/NonCOVID/trainCT_NonCOVID.txt, valCT_NonCOVID.txt, testCT_NonCOVID.txt""",
    study="""\
[data]
source = "covid_ct"
path = "COVID-CT"
split = "official"           # or "none": split by patient
size = 224
channels = 1""",
    notes="Figures of articles: scaled, lettered and compressed; the two classes come from different places, which a "
    "classifier can learn instead of the disease.",
)
_CLASSES = (("CT_NonCOVID", "NonCOVID"), ("CT_COVID", "COVID"))
_PARTS = (("train", "train"), ("val", "validation"), ("test", "test"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CovidCT:
    """CT slices with and without COVID-19, with patients from the meta tables and the published split.

    Args:
        path: the folder of the repository, its two archives of images unpacked; or one that holds CT_COVID and
            CT_NonCOVID.
        split: "official" (the lists in Data-split) or "none", which leaves the split to the study.

    Example:
        ``CovidCT(path="COVID-CT", split="none").load(cache=Path("cache")).class_counts()``
    """

    path: str | Path
    split: Literal["official", "none"] = "official"

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the images.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if folders or lists are missing, or do not fit.
            LeakageError: if the published split shares a patient or an image; `split = "none"` resolves it.
            GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="Images-processed of COVID-CT")
        home = next((p for p in (root / "Images-processed", root) if (p / "CT_COVID").is_dir()), None)
        if home is None:
            raise ManifestError(f"no folder CT_COVID below {root}: unpack Images-processed/CT_COVID.zip")
        patients = _patients(root)
        paths, labels, splits, groups, extra = [], [], [], [], []
        for k, (folder, name) in enumerate(_CLASSES):
            images = images_by_name(root, [home / folder], stems=False)
            if not images:
                raise ManifestError(f"no images in {home / folder}: unpack {folder}.zip")
            where = _splits(root, name, images) if self.split == "official" else {}
            for image, path in images.items():
                paths.append(path)
                labels.append(k)
                splits.append(where.get(image))
                found = patients.get((k, image)) or patients.get((k, Path(image).stem)) or (None, None, None)
                groups.append(None if found[0] is None else f"{name}:{found[0]}")
                extra.append(found[1:])
        manifest = assemble(
            card=Card(
                name="covid_ct",
                task="binary",
                classes=ABOUT.classes,
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=paths,
            targets=one_hot(np.array(labels, dtype=np.int64), count=2),
            groups=groups,
            splits=splits if self.split == "official" else None,
            attributes=_attributes(extra),
        )
        return admit(manifest, cache=cache, progress=progress)


def _splits(root: Path, name: str, images: dict[str, str]) -> dict[str, str]:
    """Return the split of each image; the lists write some names with other endings or folders before them."""
    by_stem = {Path(image).stem: image for image in images}
    where: dict[str, str] = {}
    missing = []
    for part, split in _PARTS:
        patterns = [f"{folder}{part}CT_{name}.txt" for folder in (f"Data-split/{name}/", f"Data-split/{name}/*/", "")]
        path = published_file(root, patterns, what=f"list of the {split} images")
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeError) as error:
            raise ManifestError(f"{path.name} cannot be read ({error})") from None
        for line in (line.strip().rpartition("/")[2] for line in lines if line.strip()):
            image = line if line in images else by_stem.get(Path(line).stem)
            if image is None:
                missing.append(line)
            elif where.setdefault(image, split) != split:
                raise ManifestError(f"{image} is in two lists of Data-split/{name}: remove it from one")
    if missing:
        raise ManifestError(f"{len(missing)} images of Data-split/{name} are missing: {listed(missing)}")
    left = [image for image in images if image not in where]
    if left:
        raise ManifestError(f"{len(left)} images are in no list of Data-split/{name}: {listed(left)}")
    return where


def _patients(root: Path) -> dict[tuple[int, str], tuple[str | None, str | None, str | None]]:
    """Return patient, age and sex of each image by class and name; the tables write some names without ending."""
    found: dict[tuple[int, str], tuple[str | None, str | None, str | None]] = {}
    sick = maybe_file(root, ["COVID-CT-MetaInfo.csv", "COVID-CT-MetaInfo.xlsx"])
    well = maybe_file(root, ["NonCOVID-CT-MetaInfo.csv", "NonCOVID-CT-MetaInfo.xlsx"])
    for k, path in ((1, sick), (0, well)):
        if path is None:
            continue
        table = read_spreadsheet(path) if path.suffix == ".xlsx" else read_table(path)
        image = _column(table, ["File name", "image name", "image"], path)
        patient = _column(table, ["Patient ID", "patient id", "patient"], path)
        empty = pl.Series([None] * table.height, dtype=pl.Utf8)
        age, sex = (table[name] if name in table.columns else empty for name in ("Age", "Gender"))
        for name, *facts in zip(image, patient, age, sex, strict=True):
            if name is not None and facts[0] is not None:
                plain = [None if fact is None else str(fact).strip() for fact in facts]
                found[k, str(name).strip()] = (plain[0], plain[1], plain[2])
    return found


def _column(table: pl.DataFrame, names: Sequence[str], path: Path) -> pl.Series:
    for name in names:
        if name in table.columns:
            return table[name]
    raise ManifestError(f"{path.name} has no column {' or '.join(names)}: it has {listed(table.columns, limit=30)}")


def _attributes(rows: Sequence[tuple[str | None, str | None]]) -> pl.DataFrame | None:
    # "40+" and "Young Child" stand among the ages.
    age = pl.Series("age", [row[0] for row in rows], dtype=pl.Utf8).str.extract(r"^(\d+)$")
    sex = pl.Series("sex", [row[1] for row in rows], dtype=pl.Utf8)
    columns = [column for column in (age, sex) if column.null_count() < len(column)]
    return natural_columns(pl.DataFrame(columns)) if columns else None
