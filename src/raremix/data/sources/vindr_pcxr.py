"""VinDr-PCXR (PediCXR): chest X-rays of children under ten, read by radiologists, as DICOM.

Pham et al., "PediCXR: An open, large-scale chest radiograph dataset for interpretation of common thoracic diseases in
children", Scientific Data 10:240 (2023), https://doi.org/10.1038/s41597-023-02102-5; files:
https://physionet.org/content/vindr-pcxr/1.0.0/.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float

from raremix.core.errors import ConfigError, ManifestError, TargetError
from raremix.core.types import Progress, Task
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble
from raremix.data.sources.layout import data_folder, images_by_name, paths_of, published_file
from raremix.data.sources.text_table import need_columns, read_table

DISEASES = (
    "Bronchitis",
    "Brocho-pneumonia",
    "Other disease",
    "Bronchiolitis",
    "Situs inversus",
    "Pneumonia",
    "Pleuro-pneumonia",
    "Diagphramatic hernia",
    "Tuberculosis",
    "Congenital emphysema",
    "CPAM",
    "Hyaline membrane disease",
    "Mediastinal tumor",
    "Lung tumor",
)
"""As the tables spell them."""
ABOUT = About(
    name="vindr_pcxr",
    title="VinDr-PCXR / PediCXR 1.0.0",
    task="multilabel",
    classes=DISEASES,
    images=9125,
    modality="chest_xray",
    licence="PhysioNet Restricted Health Data License 1.5.0",
    citation="Pham et al., PediCXR: An open, large-scale chest radiograph dataset for interpretation of common "
    "thoracic diseases in children, Scientific Data 10:240 (2023); "
    "Pham et al., VinDr-PCXR (version 1.0.0), PhysioNet, https://doi.org/10.13026/k8qc-na36",
    url="https://physionet.org/content/vindr-pcxr/1.0.0/",
    access="registration",
    layout="""\
vindr-pcxr/
  image_labels_train.csv       (image_id,rad_ID,No finding,Bronchitis,Brocho-pneumonia ...)
  image_labels_test.csv
  train/<image_id>.dicom ...   7,728 images
  test/<image_id>.dicom ...    1,397 images""",
    study="""\
[data]
source = "vindr_pcxr"
path = "vindr-pcxr"
merge = "majority"           # of several radiologists' rows: or "any", "all", "agree"
size = 224
channels = 1""",
    notes="No patient numbers are published: every image counts as a patient of its own. Reading DICOM needs "
    "raremix[dicom].",
)
Merge = Literal["majority", "any", "all", "agree"]
_KEYS = ("image_id", "rad_ID", "rad_id")
_NORMAL = "No finding"


@dataclass(frozen=True, slots=True, kw_only=True)
class VindrPCXR:
    """Chest X-rays of children with the diseases that radiologists saw, in the published training and test sets.

    Args:
        path: the folder with image_labels_train.csv and train.
        labels: which columns of the tables are the findings; by default all but "No finding".
        classes: instead of labels, the columns of a task with one label per image, the positive one last:
            ["No finding", "Pneumonia"]. Images that show none of them, several, or leave it open, are left out.
        merge: what several rows of one image make: "majority" (a tie is not labelled), "any" (one saw it), "all"
            (everybody saw it), "agree" (not labelled where they differ).
        subset: whether images that are not there are left out; otherwise they are an error.

    Example:
        ``VindrPCXR(path="vindr-pcxr", merge="any").load(cache=Path("cache")).class_counts("train")``
    """

    path: str | Path
    labels: Sequence[str] = ()
    classes: Sequence[str] = ()
    merge: Merge = "majority"
    subset: bool = False

    def __post_init__(self) -> None:
        for name in ("labels", "classes"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} must be a list of names, got the text {getattr(self, name)!r}: write [...]")
        if self.labels and self.classes:
            raise ConfigError("labels are findings that an image may have several of, classes exclude each other: one")
        if len(set(self.classes)) < len(self.classes) or len(self.classes) == 1:
            raise ConfigError(f"classes must be at least two, each once, got {listed(list(self.classes))}")

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the images.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if files are missing, or tables do not fit.
            TargetError: for labels other than 0 and 1.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="image_labels_train.csv and train")
        labels: tuple[str, ...] = tuple(self.classes or self.labels)
        paths, splits, targets = [], [], []
        for split in ("train", "test"):
            # PhysioNet's folder has the tables at the top; VinDr's other sets keep them in annotations.
            names = [f"image_labels_{split}.csv", f"annotations/image_labels_{split}.csv"]
            path = published_file(root, names, what=f"labels of the {split} images")
            table = read_table(path)
            need_columns(table, ["image_id", *labels], table=path.name)
            labels = labels or tuple(c for c in table.columns if c not in {*_KEYS, _NORMAL})
            need_columns(table, labels, table=path.name)
            images = images_by_name(root, [root / split])
            if self.subset:
                table = table.filter(pl.col("image_id").is_in(list(images)))
            found, values = merge_rows(table, labels=labels, merge=self.merge, name=path.name)
            if self.classes:
                # A sum with an open label is open too.
                keep = values.sum(axis=1) == 1
                found, values = [image for image, kept in zip(found, keep, strict=True) if kept], values[keep]
            paths += paths_of(found, images, table=path.name, root=root)
            splits += [split] * len(found)
            targets.append(values)
        manifest = assemble(
            card=Card(
                name="vindr_pcxr",
                task=_task(self.classes),
                classes=labels,
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=paths,
            targets=np.concatenate(targets),
            splits=splits,
        )
        return admit(manifest, cache=cache, progress=progress)


def _task(classes: Sequence[str]) -> Task:
    if not classes:
        return "multilabel"
    return "binary" if len(classes) == 2 else "multiclass"


def merge_rows(
    table: pl.DataFrame, *, labels: Sequence[str], merge: Merge, name: str
) -> tuple[list[str], Float[np.ndarray, "n K"]]:
    """Make one row per image of one row per image and radiologist.

    Args:
        table: columns image_id and the labels, as text.
        labels: the findings.
        merge: see `VindrPCXR`.
        name: of the table, for messages.

    Returns:
        The images in the order of the table, and their labels; NaN where the radiologists leave it open.

    Raises:
        TargetError: naming the lines whose labels are neither 0 nor 1.

    Example:
        >>> table = pl.DataFrame({"image_id": ["a", "a"], "Pneumonia": ["1", "0"]})
        >>> merge_rows(table, labels=["Pneumonia"], merge="any", name="t")[1].tolist()
        [[1.0]]
    """
    if table["image_id"].null_count():
        raise ManifestError(f"{name}: rows without an image_id: remove them")
    numbers = table.select(pl.col(label).cast(pl.Float64, strict=False) for label in labels)
    values = numbers.to_numpy()
    wrong = np.flatnonzero(~np.isin(values, (0.0, 1.0)).all(axis=1))
    if len(wrong):
        raise TargetError(f"{name}: labels other than 0 and 1 in line {listed((wrong + 2).tolist())}")
    share = (
        pl.DataFrame({"image_id": table["image_id"]})
        .hstack(numbers.get_columns())
        .group_by("image_id", maintain_order=True)
        .agg(pl.col(label).mean() for label in labels)
    )
    means = share.select(labels).to_numpy()
    if merge == "any":
        merged = (means > 0).astype(np.float64)
    elif merge == "all":
        merged = (means == 1).astype(np.float64)
    else:
        merged = (means > 0.5).astype(np.float64)
        is_open = means == 0.5 if merge == "majority" else (means > 0) & (means < 1)
        merged[is_open] = np.nan
    return share["image_id"].to_list(), merged
