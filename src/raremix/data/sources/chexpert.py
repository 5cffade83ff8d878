"""CheXpert: 14 observations in chest X-rays of Stanford Hospital, some of them marked as uncertain.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019,
https://arxiv.org/abs/1901.07031; files: https://stanfordmlgroup.github.io/competitions/chexpert/. Tables of the same
form (MIMIC-CXR-JPG joined with its paths) are read as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float

from raremix.core.errors import ConfigError, ManifestError, TargetError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble, natural_columns
from raremix.data.sources.layout import data_folder, maybe_file, published_file
from raremix.data.sources.text_table import need_columns, read_table
from raremix.data.sources.uncertain import Uncertain, uncertain_values

OBSERVATIONS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
ABOUT = About(
    name="chexpert",
    title="CheXpert v1.0",
    task="multilabel",
    classes=OBSERVATIONS,
    images=224316,
    modality="chest_xray",
    licence="Stanford University Dataset Research Use Agreement: read it where you apply",
    citation="Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison, "
    "AAAI 2019, arXiv:1901.07031",
    url="https://stanfordmlgroup.github.io/competitions/chexpert/",
    access="registration",
    layout="""\
CheXpert-v1.0-small/            (or CheXpert-v1.0)
  train.csv                     (Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum ...)
  valid.csv                     (read by three radiologists)
  train/patient00001/study1/view1_frontal.jpg ...
  valid/patient64541/study1/view1_frontal.jpg ...""",
    study="""\
[data]
source = "chexpert"
path = "CheXpert-v1.0-small"
uncertain = "ignore"         # or "zeros", "ones", or per finding { Edema = "ones", Consolidation = "zeros" }
blank = "negative"           # or "empty"
view = "frontal"
size = 224
channels = 1""",
    notes="Labels were mined from reports; -1 means uncertain, and a blank that the report does not mention it.",
)
_PARTS = (("train", "train"), ("valid", "validation"), ("test", "test"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheXpert:
    """Chest X-rays with 13 observations, grouped by patient, with the published parts.

    Args:
        path: the folder with train.csv.
        uncertain: what -1 counts as: "ignore" (not labelled), "zeros", "ones", or a table with one of these for each
            finding that has uncertain labels; refused until it is said.
        blank: what an empty cell counts as: "negative", as in the published baselines, or "empty" (not labelled).
        view: "frontal", "lateral" or "all".
        labels: which columns are the findings; by default all but "No Finding".
        subset: whether images that are not there are left out; otherwise they are an error.

    Example:
        ``CheXpert(path="CheXpert-v1.0-small", uncertain="ones").load(cache=Path("cache")).class_counts("train")``
    """

    path: str | Path
    uncertain: Uncertain = None
    blank: Literal["negative", "empty"] = "negative"
    view: Literal["frontal", "lateral", "all"] = "frontal"
    labels: Sequence[str] = OBSERVATIONS
    subset: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.labels, str):
            raise ConfigError(f"labels must be a list of names, got the text {self.labels!r}: write [...]")
        uncertain_values(self.uncertain, self.labels)

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the images.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if files are missing, or tables do not fit.
            TargetError: for uncertain labels without a policy, and labels other than 1, 0, -1 and empty.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="train.csv of CheXpert")
        published_file(root, ["train.csv"], what="table of the training images")
        tables = []
        for part, split in _PARTS:
            file = maybe_file(root, [f"{part}.csv"])
            if file is None:
                continue
            table = read_table(file)
            need_columns(table, ["Path", *self.labels], table=file.name)
            if self.view != "all":
                need_columns(table, ["Frontal/Lateral"], table=file.name)
                table = table.filter(pl.col("Frontal/Lateral").str.to_lowercase() == self.view)
            table = table.with_columns(pl.Series("path", [inner_path(p, root) for p in table["Path"]], dtype=pl.Utf8))
            if self.subset:
                table = table.filter(pl.Series([(root / p).is_file() for p in table["path"]], dtype=pl.Boolean))
            values = self._values(table, name=file.name)
            extra = [c for c in ("Sex", "Age", "AP/PA") if c in table.columns]
            tables.append((table.select("path", *extra), values, [split] * table.height))
        frame = pl.concat([table for table, _, _ in tables], how="diagonal")
        if not frame.height:
            raise ManifestError(f"no {self.view} image of the tables is below {root}: look at path and view")
        names = {"Sex": "sex", "Age": "age", "AP/PA": "view"}
        extra = frame.select(pl.col(c).alias(names[c]) for c in frame.columns if c in names)
        manifest = assemble(
            card=Card(
                name="chexpert",
                task="multilabel",
                classes=tuple(self.labels),
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=frame["path"].to_list(),
            targets=np.concatenate([values for _, values, _ in tables]),
            groups=[_patient(path) for path in frame["path"]],
            splits=[split for _, _, splits in tables for split in splits],
            attributes=natural_columns(extra) if extra.width else None,
        )
        return admit(manifest, cache=cache, progress=progress)

    def _values(self, table: pl.DataFrame, *, name: str) -> Float[np.ndarray, "n K"]:
        meaning = uncertain_values(self.uncertain, self.labels)
        columns = []
        for label in self.labels:
            text = table[label].str.strip_chars()
            values = text.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy().copy()
            empty = (text.is_null() | (text == "")).to_numpy()
            if not (np.isin(values, (1.0, 0.0, -1.0)) | empty).all():
                raise TargetError(f"{name}: labels in column {label!r} other than 1, 0, -1 or empty: correct them")
            uncertain = values == -1
            if uncertain.any() and meaning[label] is None:
                raise TargetError(
                    f"{name}: -1 in column {label!r}, {int(uncertain.sum())} times: "
                    'say what it counts as: uncertain = "ignore", "zeros" or "ones"'
                )
            values[uncertain] = np.nan if meaning[label] is None else meaning[label]
            if self.blank == "negative":
                values[empty] = 0.0
            columns.append(values)
        return np.stack(columns, axis=1)


def inner_path(path: str | None, root: Path) -> str:
    """Return a path of the tables relative to the data set's folder, whose name, in whatever form, it begins with.

    Raises:
        ManifestError: if the path is empty.

    Example:
        >>> inner_path("CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg", Path("/data/chexpert"))
        'train/patient00001/study1/view1_frontal.jpg'
    """
    if path is None or not path.strip():
        raise ManifestError("a row without Path: remove it")
    parts = PurePosixPath(path.strip()).parts
    is_named = parts[0].lower().startswith("chexpert") or parts[0] == root.name
    return PurePosixPath(*(parts[1:] if is_named and len(parts) > 1 else parts)).as_posix()


def _patient(path: str) -> str:
    found = [part for part in path.split("/") if part.lower().startswith("patient")]
    if not found:
        raise ManifestError(f"no patient in the path {listed([path])}: expected a folder patient00001")
    return found[0]
