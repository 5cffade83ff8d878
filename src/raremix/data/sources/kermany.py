"""Paediatric chest X-rays of Kermany et al.: normal, or pneumonia by bacteria or virus.

Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning", Cell 2018,
https://doi.org/10.1016/j.cell.2018.02.010; images: https://data.mendeley.com/datasets/rscbjbr9sj/2 (version 3 has
other file names). The copy on Kaggle moves 16 training images to a folder val.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from raremix.core.errors import ManifestError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.readers import has_image_suffix
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble, one_hot
from raremix.data.sources.layout import data_folder, files_below

ABOUT = About(
    name="kermany",
    title="Chest X-Ray Images (Pneumonia), Kermany 2018",
    task="binary",
    classes=("normal", "pneumonia"),
    images=5856,
    modality="chest_xray",
    licence="CC BY 4.0",
    citation="Kermany et al., Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning, "
    "Cell 172:1122-1131 (2018)",
    url="https://data.mendeley.com/datasets/rscbjbr9sj/2",
    access="open",
    layout="""\
chest_xray/
  train/NORMAL/IM-0115-0001.jpeg, NORMAL2-IM-0383-0001.jpeg ...
  train/PNEUMONIA/person1_bacteria_1.jpeg, person1_virus_6.jpeg ...
  test/NORMAL/ ... test/PNEUMONIA/ ...
  val/NORMAL/ ... val/PNEUMONIA/ ...          (16 images; in the copy on Kaggle only)""",
    study="""\
[data]
source = "kermany"
path = "chest_xray"
subtypes = false             # true: normal, bacteria, virus
size = 224""",
    notes="A random split by image shares hundreds of patients between training and test; the published one does not.",
)
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SUBTYPES = ("normal", "bacteria", "virus")
_NAMES = (
    # Version 2 and Kaggle; numbers of patients start anew in the test folder.
    (re.compile(r"^(?P<group>person\d+)_(?P<kind>bacteria|virus)_\d+(_\d+)?$"), None),
    (re.compile(r"^(?P<group>(NORMAL2-)?IM-\d+)-\d+(-\d+)?$"), "normal"),
    # Version 3.
    (re.compile(r"^(?P<kind>NORMAL|BACTERIA|VIRUS)-(?P<group>\d+)-\d+$"), None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kermany:
    """Chest X-rays of children, with the published test set and patients taken from the file names.

    Args:
        path: the folder chest_xray with train and test (and, in Kaggle's copy, val), or the one above it.
        subtypes: whether bacteria and virus are classes of their own.
        validation: what becomes of Kaggle's 16 validation images: "train" puts them back where the authors have them,
            so that validation is split from training by patient; "keep" leaves them.

    Example:
        ``Kermany(path="chest_xray", subtypes=True).load(cache=Path("cache")).class_counts()``
    """

    path: str | Path
    subtypes: bool = False
    validation: Literal["train", "keep"] = "train"

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the folder.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if the folders are not there, or a file is not named as published.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        top = data_folder(self.path, expected="train and test of chest_xray")
        root = next((p for p in (top, top / "chest_xray") if (p / "train").is_dir()), None)
        if root is None:
            raise ManifestError(f"no folder train below {top}: expected chest_xray/train/NORMAL and so on")
        paths, splits, groups, kinds, odd = [], [], [], [], []
        for part, split in _SPLITS.items():
            if not (root / part).is_dir():
                if part == "val":
                    continue
                raise ManifestError(f"no folder {part} below {root}: unpack the whole archive")
            for path in files_below(root / part, root=root):
                if not has_image_suffix(Path(path)):
                    continue
                named = name_of(Path(path).stem)
                folder = "normal" if path.split("/")[1] == "NORMAL" else "pneumonia"
                if named is None or (named[1] == "normal") != (folder == "normal"):
                    odd.append(path)
                    continue
                # Kaggle's validation images are training images of the authors: their patients are numbered as there.
                home = "test" if part == "test" else "train"
                paths.append(path)
                splits.append("train" if part == "val" and self.validation == "train" else split)
                groups.append(f"{home}:{named[0]}")
                kinds.append(named[1])
        if odd:
            raise ManifestError(
                f"{len(odd)} files below {root} are not named as published: {listed(odd)}: "
                'remove them, or use source = "folder" with a group of your own'
            )
        classes = _SUBTYPES if self.subtypes else ABOUT.classes
        numbers = [_SUBTYPES.index(kind) if self.subtypes else int(kind != "normal") for kind in kinds]
        manifest = assemble(
            card=Card(
                name="kermany",
                task="multiclass" if self.subtypes else "binary",
                classes=classes,
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=paths,
            targets=one_hot(np.array(numbers, dtype=np.int64), count=len(classes)),
            groups=groups,
            splits=splits,
            attributes=None if self.subtypes else pl.DataFrame({"subtype": pl.Series(kinds, dtype=pl.Utf8)}),
        )
        return admit(manifest, cache=cache, progress=progress)


def name_of(stem: str) -> tuple[str, str] | None:
    """Return patient and kind (normal, bacteria, virus) of a file name, or None where it is none of the published.

    Example:
        >>> name_of("person1004_virus_1686"), name_of("NORMAL2-IM-0925-0001"), name_of("VIRUS-1041930-0001")
        (('person1004', 'virus'), ('NORMAL2-IM-0925', 'normal'), ('1041930', 'virus'))
    """
    for pattern, kind in _NAMES:
        match = pattern.match(stem)
        if match is not None:
            return match["group"], kind or match["kind"].lower()
    return None
