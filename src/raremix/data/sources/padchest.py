"""PadChest: chest X-rays of San Juan Hospital, Alicante, with 174 findings and 19 diagnoses.

Bustos et al., "PadChest: A large chest x-ray image dataset with multi-label annotated reports", Medical Image Analysis
66:101797 (2020), https://arxiv.org/abs/1901.07441; files: https://bimcv.cipf.es/bimcv-projects/padchest/.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from raremix.core.errors import ConfigError, ManifestError, UnknownNameError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble, natural_columns
from raremix.data.sources.layout import data_folder, images_by_name, paths_of, published_file
from raremix.data.sources.text_table import need_columns, read_table

ABOUT = About(
    name="padchest",
    title="PadChest (BIMCV)",
    task="multilabel",
    classes=(),
    images=160868,
    modality="chest_xray",
    licence="PadChest Dataset Research Use Agreement: read it where you apply",
    citation="Bustos et al., PadChest: A large chest x-ray image dataset with multi-label annotated reports, "
    "Medical Image Analysis 66:101797 (2020)",
    url="https://bimcv.cipf.es/bimcv-projects/padchest/",
    access="registration",
    layout="""\
padchest/
  PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv   (ImageID,ImageDir,PatientID,Projection,MethodLabel,Labels ...)
  0/<ImageID> ... 54/<ImageID>        (or all in images/ or images-224/)""",
    study="""\
[data]
source = "padchest"
path = "padchest"
labels = ["pneumonia", "pleural effusion", "cardiomegaly"]    # by default all with at least `at_least` images
projections = ["PA"]
size = 224
channels = 1""",
    notes="Labels are lists of terms. Images whose list is empty or says exclude are left out; 27 % of the reports "
    "were labelled by physicians, the others by a network.",
)
_NO_FINDING = {"normal", "exclude", "unchanged", "suboptimal study"}
_EXCLUDED = {"exclude", "suboptimal study"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PadChest:
    """Chest X-rays with the terms of their reports, grouped by patient.

    Args:
        path: the folder with the table and the images.
        labels: which terms are the findings; by default every term with at least `at_least` images, but "normal" and
            remarks about the study ("unchanged", "suboptimal study", "exclude").
        at_least: images that a term needs, where `labels` is left out.
        projections: "PA", "L", "AP", "AP_horizontal", "COSTAL", "EXCLUDE".
        only_physicians: whether only reports that physicians labelled are taken.
        subset: whether images that are not there are left out; otherwise they are an error.

    Example:
        ``PadChest(path="padchest", labels=["pneumonia"]).load(cache=Path("cache")).class_counts()``
    """

    path: str | Path
    labels: Sequence[str] = ()
    at_least: int = 50
    projections: Sequence[str] = ("PA",)
    only_physicians: bool = False
    subset: bool = False

    def __post_init__(self) -> None:
        for key in ("labels", "projections"):
            if isinstance(getattr(self, key), str):
                raise ConfigError(f"{key} must be a list of names, got the text {getattr(self, key)!r}: write [...]")

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the images.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if files are missing, or the table does not fit.
            UnknownNameError: for a label that no image has.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="the table and the images of PadChest")
        patterns = ["PADCHEST_chest_x_ray_images_labels_160K*.csv", "PADCHEST_chest_x_ray_images_labels_160K*.csv.gz"]
        file = published_file(root, patterns, what="table")
        table = read_table(file)
        need_columns(table, ["ImageID", "PatientID", "Projection", "Labels"], table=file.name)
        table = table.filter(pl.col("Projection").is_in(list(self.projections)))
        if self.only_physicians:
            need_columns(table, ["MethodLabel"], table=file.name)
            table = table.filter(pl.col("MethodLabel") == "Physician")
        folders = [*(root / str(k) for k in range(55)), root / "images", root / "images-224"]
        images = images_by_name(root, folders, stems=False)
        if self.subset:
            table = table.filter(pl.col("ImageID").is_in(list(images)))
        terms = [terms_of(text) for text in table["Labels"]]
        use = [bool(found) and not found & _EXCLUDED for found in terms]
        table, terms = (
            table.filter(pl.Series(use, dtype=pl.Boolean)),
            [t for t, kept in zip(terms, use, strict=True) if kept],
        )
        if not terms:
            raise ManifestError(f"{file.name}: no image is left: look at projections, only_physicians and the folder")
        counts = Counter(term for found in terms for term in found)
        labels = tuple(self.labels) or tuple(
            sorted(term for term, count in counts.items() if count >= self.at_least and term not in _NO_FINDING)
        )
        if not labels:
            raise ManifestError(f"{file.name}: no label has {self.at_least} images: name labels, or lower at_least")
        for name in labels:
            if name not in counts:
                raise UnknownNameError("label of PadChest", name, counts)
        known = {"PatientSex_DICOM": "sex", "MethodLabel": "labelled_by", "Projection": "view"}
        extra = [pl.col(c).alias(ours) for c, ours in known.items() if c in table.columns]
        if {"PatientBirth", "StudyDate_DICOM"} <= set(table.columns):
            born = pl.col("PatientBirth").str.extract(r"^(\d{4})").cast(pl.Int64)
            extra.append((pl.col("StudyDate_DICOM").str.extract(r"^(\d{4})").cast(pl.Int64) - born).alias("age"))
        manifest = assemble(
            card=Card(
                name="padchest",
                task="multilabel",
                classes=labels,
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=paths_of(table["ImageID"].to_list(), images, table=file.name, root=root),
            targets=np.array([[float(name in found) for name in labels] for found in terms]),
            groups=table["PatientID"].to_list(),
            attributes=natural_columns(table.select(extra)),
        )
        return admit(manifest, cache=cache, progress=progress)


def terms_of(text: str | None) -> set[str]:
    """Return the terms of a cell such as ``['pneumonia', 'COPD signs']``; case and spaces around them do not count.

    Example:
        >>> sorted(terms_of("['pneumonia ', ' Chronic changes', '']"))
        ['chronic changes', 'pneumonia']
    """
    # A term may hold an apostrophe, and is then written in double quotes.
    found = re.findall(r"'([^']*)'|\"([^\"]*)\"", text or "")
    return {term for pair in found if (term := (pair[0] or pair[1]).strip().lower())}
