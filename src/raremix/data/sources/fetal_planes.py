"""FETAL_PLANES_DB: the planes of routine ultrasound in pregnancy, with the patient-wise split of the authors.

Burgos-Artizzu et al., "Evaluation of deep convolutional neural networks for automatic classification of common maternal
fetal ultrasound planes", Scientific Reports 10:10200 (2020), https://doi.org/10.1038/s41598-020-67076-5; files:
https://zenodo.org/records/3904280.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from raremix.core.errors import ManifestError, TargetError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble, one_hot
from raremix.data.sources.layout import data_folder, images_by_name, paths_of, published_file
from raremix.data.sources.text_table import need_columns, read_table

PLANES = ("Fetal abdomen", "Fetal brain", "Fetal femur", "Fetal thorax", "Maternal cervix", "Other")
BRAIN_PLANES = ("Trans-cerebellum", "Trans-thalamic", "Trans-ventricular")
ABOUT = About(
    name="fetal_planes",
    title="FETAL_PLANES_DB",
    task="multiclass",
    classes=PLANES,
    images=12400,
    modality="ultrasound",
    licence="CC BY 4.0",
    citation="Burgos-Artizzu et al., Evaluation of deep convolutional neural networks for automatic classification of "
    "common maternal fetal ultrasound planes, Scientific Reports 10:10200 (2020)",
    url="https://zenodo.org/records/3904280",
    access="open",
    layout="""\
FETAL_PLANES_DB/
  FETAL_PLANES_DB_data.csv     (Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train )
  Images/Patient00001_Plane1_1_of_15.png ...""",
    study="""\
[data]
source = "fetal_planes"
path = "FETAL_PLANES_DB"
target = "plane"             # or "brain_plane": the three planes of the head
size = 224
channels = 1""",
    notes="1,792 patients; the column Train holds the authors' split by patient.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetalPlanes:
    """Ultrasound images of six planes, grouped by patient, with the published training and test sets.

    Args:
        path: the folder with FETAL_PLANES_DB_data.csv and Images.
        target: "plane" tells the six planes apart, "brain_plane" the three planes of the head (other images of the
            head are left out).
        split: whether the published split is used; otherwise the study splits by patient.
        subset: whether images that are not there are left out; otherwise they are an error.

    Example:
        ``FetalPlanes(path="FETAL_PLANES_DB").load(cache=Path("cache")).class_counts("test")``
    """

    path: str | Path
    target: Literal["plane", "brain_plane"] = "plane"
    split: bool = True
    subset: bool = False

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the images.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if files are missing, or the table does not fit.
            TargetError: for an unknown plane.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="FETAL_PLANES_DB_data.csv and Images")
        path = published_file(root, ["FETAL_PLANES_DB_data.csv", "*/FETAL_PLANES_DB_data.csv"], what="table")
        root = path.parent
        # The last column's name ends with a space, as published; names are stripped on reading.
        table = read_table(path, separator=";")
        need_columns(table, ["Image_name", "Patient_num", "Plane", "Brain_plane", "Train"], table=path.name)
        table = table.with_columns(pl.all().str.strip_chars())
        images = images_by_name(root, [root / "Images"])
        if self.subset:
            table = table.filter(pl.col("Image_name").is_in(list(images)))
        classes, column = (PLANES, "Plane") if self.target == "plane" else (BRAIN_PLANES, "Brain_plane")
        unknown = sorted(set(table["Plane"].fill_null("empty")) - set(PLANES))
        if unknown:
            raise TargetError(f"{path.name}: unknown plane {listed(unknown)}: expected {', '.join(PLANES)}")
        if self.target == "brain_plane":
            table = table.filter((pl.col("Plane") == "Fetal brain") & pl.col("Brain_plane").is_in(BRAIN_PLANES))
        odd = sorted(set(table["Train"].fill_null("empty")) - {"0", "1"})
        if self.split and odd:
            raise ManifestError(f"{path.name}: column Train holds {listed(odd)}, expected 1 (training) or 0 (test)")
        numbers = np.array([classes.index(name) for name in table[column]], dtype=np.int64)
        known = {"Operator": "operator", "US_Machine": "machine"}
        manifest = assemble(
            card=Card(
                name="fetal_planes",
                task="multiclass",
                classes=classes,
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=paths_of(table["Image_name"].to_list(), images, table=path.name, root=root),
            targets=one_hot(numbers, count=len(classes)),
            groups=table["Patient_num"].to_list(),
            splits=[("test", "train")[int(flag)] for flag in table["Train"]] if self.split else None,
            attributes=table.select(pl.col(name).alias(ours) for name, ours in known.items() if name in table.columns),
        )
        return admit(manifest, cache=cache, progress=progress)
