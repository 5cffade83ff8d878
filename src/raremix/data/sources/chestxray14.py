"""ChestX-ray14 of the NIH Clinical Center: 14 findings, mined from reports, in 112,120 frontal chest X-rays.

Wang et al., "ChestX-ray8", CVPR 2017, https://arxiv.org/abs/1705.02315; files:
https://nihcc.app.box.com/v/ChestXray-NIHCC (Kaggle's copy has images_001/images/ to images_012/images/).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float, UInt16

from raremix.core.errors import ConfigError, ManifestError, TargetError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble
from raremix.data.sources.drawn_masks import write_masks
from raremix.data.sources.layout import data_folder, images_by_name, paths_of, published_file
from raremix.data.sources.text_table import need_columns, read_table

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
ABOUT = About(
    name="chestxray14",
    title="ChestX-ray14 (NIH Clinical Center)",
    task="multilabel",
    classes=FINDINGS,
    images=112120,
    modality="chest_xray",
    licence="no restriction on use; name the NIH Clinical Center, link its download site, cite the paper",
    citation="Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks, CVPR 2017, pp. 3462-3471",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    access="open",
    layout="""\
chestxray14/
  Data_Entry_2017_v2020.csv      (or Data_Entry_2017.csv; .gz will do)
  train_val_list.txt             one file name per line
  test_list.txt
  BBox_List_2017.csv             984 boxes (optional)
  images_001/images/00000001_000.png ... images_012/images/   (or all in images/)
  chexnet/train_list.txt, val_list.txt, test_list.txt         (optional: the 70/10/20 lists, for split = "chexnet")""",
    study="""\
[data]
source = "chestxray14"
path = "chestxray14"
split = "official"           # or "chexnet": 70/10/20 by patient; or "none"
boxes = false                # true: the published boxes as masks
size = 224
channels = 1""",
    notes="Labels were mined from reports; the authors put their accuracy above 90 %. A blank means not mentioned.",
)
# Boxes are in pixels of the published 1024 x 1024 images; a quarter of that keeps the masks of 880 images small.
_SIDE, _DRAWN = 1024, 256
_ALIASES: Mapping[str, str] = {"Infiltrate": "Infiltration"}
_LISTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "official": {"train": ["train_val_list.txt"], "test": ["test_list.txt"]},
    "chexnet": {
        split: [
            f"chexnet/{part}_list.txt",
            f"chexnet_{part}_list.txt",
            f"labels/{part}_list.txt",
            f"*/chexnet_{part}_list.txt",
        ]
        for split, part in (("train", "train"), ("validation", "val"), ("test", "test"))
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestXray14:
    """Chest X-rays with 14 findings, grouped by patient.

    Args:
        path: the folder with Data_Entry_2017.csv and the images.
        images: folders of images relative to `path`; by default images_001/images and so on, or images.
        split: "official" (train_val_list.txt, test_list.txt), "chexnet" (the 70/10/20 lists in use since CheXNet,
            patients apart) or "none", which leaves the split to the study.
        boxes: whether the boxes of BBox_List_2017.csv become masks: pixel value 2^k summed over the findings k there,
            0 elsewhere, 256 x 256.
        subset: whether images that are not there are left out; otherwise they are an error.

    Example:
        ``ChestXray14(path="chestxray14", split="chexnet").load(cache=Path("cache")).class_counts("test")``
    """

    path: str | Path
    images: Sequence[str] = ()
    split: Literal["official", "chexnet", "none"] = "official"
    boxes: bool = False
    subset: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.images, str):
            raise ConfigError(f"images must be a list of folders, got the text {self.images!r}: write [...]")

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the images.

        Args:
            cache: folder for hashes of the files, and masks.
            progress: called while files are hashed.

        Raises:
            ManifestError: if files are missing, or tables do not fit.
            TargetError: for an unknown finding.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="Data_Entry_2017.csv and images")
        entry = published_file(
            root, ["Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz", "*/Data_Entry_2017*.csv*"], what="table"
        )
        table = read_table(entry)
        need_columns(table, ["Image Index", "Finding Labels", "Patient ID"], table=entry.name)
        folders = [root / name for name in self.images] or [*sorted(root.glob("images_*")), root / "images"]
        images = images_by_name(root, folders, stems=False)
        if self.subset:
            table = table.filter(pl.col("Image Index").is_in(list(images)))
        names = table["Image Index"].to_list()
        paths = paths_of(names, images, table=entry.name, root=root)
        masks, mask_root = None, None
        if self.boxes:
            masks, mask_root = self._masks(root, names, cache=cache, progress=progress)
        manifest = assemble(
            card=Card(
                name="chestxray14",
                task="multilabel",
                classes=FINDINGS,
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=paths,
            targets=_findings(table["Finding Labels"], table=entry.name),
            groups=table["Patient ID"].to_list(),
            splits=self._splits(root, names),
            attributes=_attributes(table),
            masks=masks,
            mask_root=mask_root,
        )
        return admit(manifest, cache=cache, progress=progress)

    def _splits(self, root: Path, names: Sequence[str]) -> list[str | None] | None:
        if self.split == "none":
            return None
        where: dict[str, str] = {}
        for split, patterns in _LISTS[self.split].items():
            for name in _listed_names(published_file(root, patterns, what=f"list of the {self.split} {split} images")):
                if where.setdefault(name, split) != split:
                    raise ManifestError(f"{name} is in two lists of the {self.split} split: use the published ones")
        without = [name for name in names if name not in where]
        if without:
            raise ManifestError(f"{len(without)} images are in no list of the {self.split} split: {listed(without)}")
        return [where[name] for name in names]

    def _masks(
        self, root: Path, names: Sequence[str], *, cache: Path, progress: Progress | None
    ) -> tuple[list[str | None], Path]:
        path = published_file(
            root, ["BBox_List_2017.csv", "BBox_List_2017.csv.gz", "*/BBox_List_2017.csv*"], what="boxes"
        )
        boxes = read_boxes(path)
        wanted = {name: boxes[name] for name in names if name in boxes}
        makers = {f"{Path(name).stem}.png": partial(draw_boxes, rows) for name, rows in wanted.items()}
        folder = write_masks(makers, key={"chestxray14": sorted(wanted.items())}, cache=cache, progress=progress)
        return [f"{Path(name).stem}.png" if name in wanted else None for name in names], folder


def read_boxes(path: Path) -> dict[str, list[tuple[str, float, float, float, float]]]:
    """Return finding, left, top, width and height of each box of BBox_List_2017.csv, by image, in pixels of 1024.

    Raises:
        ManifestError: for a box that is none.
        TargetError: for an unknown finding.
    """
    table = read_table(path)
    need_columns(table, ["Image Index", "Finding Label"], table=path.name)
    if table.width < 6:
        raise ManifestError(f"{path.name} has {table.width} columns, expected image, finding, x, y, w, h")
    found: dict[str, list[tuple[str, float, float, float, float]]] = {}
    # The header names the four numbers by one column and leaves three without a name.
    for line, row in enumerate(table.select(table.columns[:6]).iter_rows(), start=2):
        finding = _ALIASES.get(str(row[1]), str(row[1]))
        if finding not in FINDINGS:
            raise TargetError(f"{path.name}: unknown finding {row[1]!r} in line {line}")
        try:
            left, top, width, height = (float(value) for value in row[2:])
        except (TypeError, ValueError):
            raise ManifestError(f"{path.name}: expected four numbers in line {line}, got {row[2:]}") from None
        found.setdefault(str(row[0]), []).append((finding, left, top, width, height))
    return found


def draw_boxes(rows: Sequence[tuple[str, float, float, float, float]]) -> UInt16[np.ndarray, "H W"]:
    """Draw boxes: 2^k summed over the findings k, each pixel that a box touches.

    Example:
        >>> int(draw_boxes([("Cardiomegaly", 0.0, 0.0, 512.0, 1024.0)])[:, :128].min())
        2
    """
    mask = np.zeros((_DRAWN, _DRAWN), dtype=np.uint16)
    scale = _DRAWN / _SIDE
    for name in {row[0] for row in rows}:
        inside = np.zeros(mask.shape, dtype=bool)
        for _, left, top, width, height in (row for row in rows if row[0] == name):
            x, y = (max(0, int(np.floor(v * scale))) for v in (left, top))
            right, bottom = (min(_DRAWN, int(np.ceil(v * scale))) for v in (left + width, top + height))
            inside[y:bottom, x:right] = True
        mask[inside] += np.uint16(1 << FINDINGS.index(name))
    return mask


def _findings(column: pl.Series, *, table: str) -> Float[np.ndarray, "n K"]:
    split = column.fill_null("").str.split("|").to_list()
    unknown = sorted({name for row in split for name in row} - {*FINDINGS, "No Finding"})
    if unknown:
        raise TargetError(f"{table}: unknown finding {listed(unknown)}: expected {', '.join(FINDINGS)} or No Finding")
    return np.array([[float(name in row) for name in FINDINGS] for row in split], dtype=np.float64).reshape(-1, 14)


def _attributes(table: pl.DataFrame) -> pl.DataFrame:
    columns = []
    if "Patient Age" in table.columns:
        # The first release writes 058Y; ages such as 414 are slips of the keyboard.
        age = table["Patient Age"].str.extract(r"^0*(\d+)Y?$").cast(pl.Int64)
        columns.append(pl.select(pl.when(age <= 120).then(age)).to_series().alias("age"))
    for name, ours in (("Patient Gender", "sex"), ("Patient Sex", "sex"), ("View Position", "view")):
        if name in table.columns and ours not in [c.name for c in columns]:
            columns.append(table[name].alias(ours))
    return pl.DataFrame(columns)


def _listed_names(path: Path) -> list[str]:
    """Read a list whose lines begin with a file name; labels may follow, and a folder stand before."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise ManifestError(f"{path.name} cannot be read ({error})") from None
    return [line.split()[0].rpartition("/")[2] for line in lines if line.strip()]
