"""ISIC 2018 task 3, whose training images are HAM10000: seven kinds of pigmented skin lesions.

Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Scientific Data 5:180161 (2018),
https://doi.org/10.1038/sdata.2018.161; Codella et al., "Skin Lesion Analysis Toward Melanoma Detection 2018",
https://arxiv.org/abs/1902.03368. Layouts: https://challenge.isic-archive.com/data/#2018 and
https://doi.org/10.7910/DVN/DBW86T (and Kaggle's copy of the latter).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from raremix.core.errors import ManifestError, TargetError
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble, natural_columns, one_hot
from raremix.data.sources.layout import data_folder, images_by_name, maybe_file, paths_of, published_file
from raremix.data.sources.text_table import need_columns, read_table

ABOUT = About(
    name="isic2018",
    title="ISIC 2018 task 3 / HAM10000",
    task="multiclass",
    classes=("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"),
    images=10015,
    modality="dermatoscopy",
    licence="CC BY-NC 4.0",
    citation="Tschandl et al., The HAM10000 dataset, Scientific Data 5:180161 (2018); "
    "Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv:1902.03368",
    url="https://challenge.isic-archive.com/data/#2018 or https://doi.org/10.7910/DVN/DBW86T",
    access="open",
    layout="""\
isic2018/
  ISIC2018_Task3_Training_Input/ISIC_0024306.jpg ...
  ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv
                                             (image,MEL,NV,BCC,AKIEC,BKL,DF,VASC)
  ISIC2018_Task3_Training_LesionGroupings.csv (image,lesion_id,diagnosis_confirm_type; here or beside the ground truth)
  ISIC2018_Task3_Validation_Input/ ...  ISIC2018_Task3_Validation_GroundTruth/ ...   (193 images, optional)
  ISIC2018_Task3_Test_Input/ ...        ISIC2018_Task3_Test_GroundTruth/ ...         (1,512 images, optional)
or
ham10000/
  HAM10000_metadata.csv                      (lesion_id,image_id,dx,dx_type,age,sex,localization)
  HAM10000_images_part_1/ISIC_0024306.jpg ...
  HAM10000_images_part_2/ISIC_0029306.jpg ...""",
    study="""\
[data]
source = "isic2018"
path = "isic2018"
protocol = "official"        # or "spmix": 46 images per class held out, whole lesions
size = 224""",
    notes="10,015 training images show 7,470 lesions; splitting by image puts photographs of one lesion on both sides.",
)
_PARTS: Mapping[str, str] = {"Training": "train", "Validation": "validation", "Test": "test"}
# SPMix (arXiv:2406.10801) pools training and validation and holds out 46 images of every class.
_HELD_OUT = 46


@dataclass(frozen=True, slots=True, kw_only=True)
class ISIC2018:
    """Dermatoscopic images of skin lesions, grouped by lesion; either of the two published layouts is recognised.

    Args:
        path: the folder that holds the unpacked archives.
        protocol: "official" keeps the challenge's parts (HAM10000 has one, which is split by lesion). "spmix" pools
            training and validation, and holds out 46 images per class as SPMix does; its lists are not published, and
            here whole lesions are held out, so that the counts are the paper's and no lesion is on both sides.
        seed: of the lesions that "spmix" holds out.

    Example:
        ``ISIC2018(path="isic2018", protocol="spmix").load(cache=Path("cache")).class_counts("test")``
    """

    path: str | Path
    protocol: Literal["official", "spmix"] = "official"
    seed: int = 0

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the images.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if files are missing, or tables do not fit.
            TargetError: for rows without exactly one diagnosis.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="ISIC2018_Task3_Training_Input or HAM10000_images_part_1")
        metadata = maybe_file(root, ["HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab"])
        is_challenge = (root / "ISIC2018_Task3_Training_Input").is_dir()
        if is_challenge:
            table = _challenge(root)
        elif metadata is not None:
            table = _ham10000(root, metadata)
        else:
            raise ManifestError(
                f"{root} holds neither ISIC2018_Task3_Training_Input nor HAM10000_metadata.csv: "
                "see raremix sources isic2018"
            )
        if self.protocol == "spmix":
            table = hold_out(table.filter(pl.col("split").is_null() | (pl.col("split") != "test")), seed=self.seed)
        numbers = np.array([ABOUT.classes.index(name) for name in table["dx"]], dtype=np.int64)
        extra = [name for name in ("dx_type", "age", "sex", "localization") if name in table.columns]
        manifest = assemble(
            card=Card(
                name="isic2018" if is_challenge else "ham10000",
                task="multiclass",
                classes=ABOUT.classes,
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=table["path"].to_list(),
            targets=one_hot(numbers, count=len(ABOUT.classes)),
            groups=table["lesion_id"].to_list(),
            splits=table["split"].to_list(),
            attributes=natural_columns(table.select(extra)) if extra else None,
        )
        return admit(manifest, cache=cache, progress=progress)


def hold_out(table: pl.DataFrame, *, seed: int, count: int = _HELD_OUT) -> pl.DataFrame:
    """Move whole lesions with exactly `count` images per class to test, and all others to train.

    Lesions are drawn in a random order; one that would overshoot is passed over. A row without a lesion counts as one.

    Args:
        table: columns `path`, `dx` and `lesion_id`.
        seed: of the order.
        count: images held out per class.

    Raises:
        ManifestError: if a class has too few images.
    """
    table = table.sort("path")
    unit = table.select(pl.coalesce("lesion_id", pl.format("image {}", "path")).alias("unit"))["unit"]
    held = set[str]()
    for k, name in enumerate(ABOUT.classes):
        units, sizes = np.unique(unit.filter(table["dx"] == name).to_numpy().astype(str), return_counts=True)
        left = count
        for i in rng(seed, "split", k).permutation(len(units)):
            if sizes[i] <= left:
                held.add(str(units[i]))
                left -= int(sizes[i])
        if left:
            raise ManifestError(
                f"class {name} has {int(sizes.sum())} images: cannot hold out {count} of whole lesions; "
                'use protocol = "official"'
            )
    return table.with_columns(pl.Series("split", ["test" if u in held else "train" for u in unit], dtype=pl.Utf8))


def _ham10000(root: Path, metadata: Path) -> pl.DataFrame:
    separator = "\t" if metadata.suffix == ".tab" else ","
    table = read_table(metadata, separator=separator)
    need_columns(table, ["image_id", "lesion_id", "dx"], table=metadata.name)
    parts = [root / name for name in ("HAM10000_images_part_1", "HAM10000_images_part_2")]
    if not any(part.is_dir() for part in parts):
        parts = [root / "HAM10000_images", root / "images"]
    images = images_by_name(root, parts)
    unknown = sorted(set(table["dx"].drop_nulls()) - set(ABOUT.classes))
    if unknown or table["dx"].null_count():
        raise TargetError(f"{metadata.name}: diagnosis {listed(unknown or ['empty'])}, expected {list(ABOUT.classes)}")
    paths = paths_of(table["image_id"].to_list(), images, table=metadata.name, root=root)
    # "unknown" stands for an empty cell in sex and localization.
    columns = [pl.when(pl.col(c) != "unknown").then(pl.col(c)).alias(c) for c in ("sex", "localization") if c in table]
    return table.with_columns(pl.Series("path", paths), pl.lit(None, dtype=pl.Utf8).alias("split"), *columns)


def _challenge(root: Path) -> pl.DataFrame:
    parts = []
    for part, split in _PARTS.items():
        folder = root / f"ISIC2018_Task3_{part}_Input"
        truth = maybe_file(root, _truth_files(part))
        if not folder.is_dir() or truth is None:
            if part == "Training":
                published_file(root, _truth_files(part), what="ground truth of the training images")
            continue
        table = read_table(truth)
        names = [name.upper() for name in ABOUT.classes]
        need_columns(table, ["image", *names], table=truth.name)
        values = table.select(pl.col(name).cast(pl.Float64, strict=False) for name in names).to_numpy()
        wrong = table["image"].filter(pl.Series((values == 1).sum(axis=1) != 1))
        if len(wrong):
            raise TargetError(f"{truth.name}: expected exactly one 1 per image, not so for {listed(wrong.to_list())}")
        # The archives unpack into a folder of their own name.
        images = images_by_name(root, [folder])
        parts.append(
            pl.DataFrame(
                {
                    "image": table["image"],
                    "path": paths_of(table["image"].to_list(), images, table=truth.name, root=root),
                    "dx": [ABOUT.classes[k] for k in values.argmax(axis=1)],
                    "split": [split] * table.height,
                }
            )
        )
    found = pl.concat(parts)
    return found.join(_lesions(root), on="image", how="left", maintain_order="left").with_columns(
        # A training set alone has no split yet.
        split=pl.col("split") if len(parts) > 1 else pl.lit(None, dtype=pl.Utf8)
    )


def _lesions(root: Path) -> pl.DataFrame:
    name = "ISIC2018_Task3_Training_LesionGroupings.csv"
    path = published_file(
        root, [name, f"*/{name}", f"*/*/{name}"], what="lesion groupings (without them one lesion would be split)"
    )
    table = read_table(path)
    need_columns(table, ["image", "lesion_id"], table=path.name)
    if table["image"].is_duplicated().any():
        raise ManifestError(f"{path.name} lists an image twice: keep one row per image")
    kind = "diagnosis_confirm_type"
    return table.select("image", "lesion_id", *([pl.col(kind).alias("dx_type")] if kind in table.columns else []))


def _truth_files(part: str) -> list[str]:
    name = f"ISIC2018_Task3_{part}_GroundTruth"
    return [f"{name}/{name}.csv", f"{name}.csv", f"{name}/{name}/{name}.csv"]
