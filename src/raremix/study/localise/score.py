"""Where true masks exist: does each importance map of a classifier lie on the lesion, and beat knowing nothing?"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from raremix.core import files
from raremix.core.errors import ManifestError, UnknownNameError
from raremix.core.protocols import ImageReconstructor, ImportanceMap
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.evaluate.localisation import FIGURES, beats, localise, mean_by_patient
from raremix.explain import insertion_deletion
from raremix.generate.sampling import to_bytes
from raremix.models import ClassifierCard, load_classifier
from raremix.study.apply import FileImages
from raremix.study.generators.guard import refuse_leaking, refuse_other_form
from raremix.study.generators.pictures import draw_sheet
from raremix.study.generators.use import drawing_device, open_translator
from raremix.study.localise.maps import BASELINES, candidates
from raremix.study.localise.masks import masked_rows, read_masks
from raremix.train.feed import to_float

BATCH = 16
MASK_FREE = ("insertion", "deletion")
"""Figures that need no mask; deletion is better where it is lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """How maps are scored.

    Attributes:
        split: train, validation, test, or all. Images that the classifier was trained on are refused.
        maps: names, or None for all that the classifier allows.
        without: names that "all" leaves out.
        layer: where the Grad-CAM family looks, or None for the last stage.
        towards: the class that difference maps translate to, or None for all that an image does not show.
        most: at most so many images, drawn by `seed`.
        steps: of the insertion and deletion curves; 0 leaves them out.
        shown: images in the picture.
        resamples: of the patients.
        seed: of all that is drawn.
    """

    split: str = "test"
    maps: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    layer: str | None = None
    towards: str | None = None
    most: int = 300
    steps: int = 20
    shown: int = 6
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredMaps:
    """Scores of maps.

    Attributes:
        images: one row per image and map: id, path, group, class, map, area, the figures, is_flat,
            and `probability`, which the classifier gives to the classes that the image shows.
        summary: one row per map and figure: value, low, high, images, groups; `gain_uniform`, `gain_low_uniform`, ...
            by how much it is better than each baseline on the same images; `beats`: whether all of these intervals lie
            above 0.
        sheet: a few images, their masks and all maps.
        left_out: why maps are missing, by name.
        with_masks: images of the split whose mask is neither empty nor full, of which `images` holds at most `most`.
        without_masks: images of the split without a mask to find.
    """

    images: pl.DataFrame
    summary: pl.DataFrame
    sheet: UInt8[np.ndarray, "height width 3"]
    left_out: dict[str, str]
    with_masks: int
    without_masks: int

    @property
    def scored(self) -> tuple[int, int]:
        """How many images and patients were scored."""
        return self.images["id"].n_unique(), self.images["group"].n_unique()


def score_maps(
    classifier: Path,
    manifest: Manifest,
    *,
    translators: Mapping[str, Path] | None = None,
    settings: ScoreSettings | None = None,
    progress: Progress | None = None,
) -> ScoredMaps:
    """Score every map of a classifier on the images whose lesions are known.

    Each map is asked about the classes that an image shows. It is brought to the image's size (bilinear) and compared
    with the mask, which is resized as the image is. Images without a mask, or with an empty or full one, do not count.

    Args:
        classifier: its folder.
        manifest: the data, with splits and a column `mask`.
        translators: folders of fitted translators, for difference maps, by name; see `candidates` of
            `raremix.study.localise.maps`.
        settings: how.
        progress: called while masks are read and maps are drawn.

    Raises:
        ManifestError: if the data have other classes, no such rows, or no masks.
        HeldOutError: if the classifier was trained on these images, or a translator on held-out ones.
        ConfigError: if a translator draws other images.
        UnknownNameError: for a map, class or split that there is not.
        ReadError: naming the image or mask that cannot be read.
    """
    asked = settings or ScoreSettings()
    model, card = load_classifier(classifier)
    ids = masked_rows(classifier, manifest, asked.split)
    if asked.towards is not None and asked.towards not in card.classes:
        raise UnknownNameError("class", asked.towards, card.classes)
    device = drawing_device()
    model = model.to(device)
    drawers = {name: _translator(path, card, manifest) for name, path in (translators or {}).items()}
    maps = candidates(
        model,
        classes=len(card.classes),
        translators=drawers,
        towards=None if asked.towards is None else card.classes.index(asked.towards),
        names=asked.maps,
        without=asked.without,
        layer=asked.layer,
    )
    found = read_masks(manifest, ids, card, progress=progress)
    if not len(found.ids):
        raise ManifestError(f"no image of the {asked.split} split shows a class and has a mask with something to find")
    chosen = np.sort(rng(asked.seed, "show", len(found.ids)).permutation(found.ids)[: asked.most])
    shown = _shown(manifest, chosen, asked)
    rows: list[dict[str, Any]] = []
    cells: dict[int, list[UInt8[np.ndarray, "C H W"]]] = {}
    frame = manifest.frame[manifest.positions(chosen)].select("id", "path", "group")
    source = FileImages(paths=manifest.paths(chosen), card=card)
    for start in range(0, len(chosen), BATCH):
        block = np.arange(start, min(start + BATCH, len(chosen)))
        images = to_float(source.take(block)).to(device)
        targets = torch.from_numpy(manifest.targets(chosen[block])).float().to(device)
        drawn = {name: _drawn(one, images, targets) for name, one in maps.maps.items()}
        masks = [found.masks[number] for number in chosen[block].tolist()]
        facts = [
            {**row, "class": _classes(card, one)}
            for row, one in zip(frame[block].iter_rows(named=True), targets, strict=True)
        ]
        free = _mask_free(model, card, images, targets, drawn, asked)
        rows += _scored(facts, masks, drawn, free)
        for place, number in enumerate(chosen[block].tolist()):
            if number in shown:
                seen = [images[place], *(one[place] for name, one in drawn.items() if name != "uniform")]
                picture, *heat = (to_bytes(one.float().cpu()[None])[0] for one in seen)
                cells[number] = [picture, (masks[place][None] * np.uint8(255)).astype(np.uint8), *heat]
        if progress is not None:
            progress("scoring maps", int(block[-1]) + 1, len(chosen))
    table = pl.DataFrame(rows)
    sheet = draw_sheet(
        [cells[number] for number in shown],
        rows=[_classes(card, torch.from_numpy(manifest.targets(np.array([number])))[0]) for number in shown],
        columns=["image", "mask", *(name for name in maps.maps if name != "uniform")],
    )
    return ScoredMaps(
        images=table,
        summary=summarise(table, resamples=asked.resamples, seed=asked.seed),
        sheet=sheet,
        left_out=maps.left_out,
        with_masks=len(found.ids),
        without_masks=found.without,
    )


def summarise(images: pl.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Return mean figures by map with intervals over patients, and gains over the maps that know nothing.

    Args:
        images: one row per image and map; see `ScoredMaps`. Every map has the same images.
        resamples: of the patients.
        seed: of the resamples.
    """
    measured = [name for name in (*FIGURES, *MASK_FREE) if name in images.columns]
    tables = {str(name): part.sort("id") for (name,), part in images.group_by("map", maintain_order=True)}
    rows: list[dict[str, Any]] = []
    for name, part in tables.items():
        groups = part["group"].to_numpy()
        for figure in measured:
            values = part[figure].to_numpy()
            mean = mean_by_patient(values, groups, resamples=resamples, seed=seed)
            gains = beats(
                values,
                {base: tables[base][figure].to_numpy() for base in BASELINES if base != name},
                groups,
                is_lower_better=figure == "deletion",
                resamples=resamples,
                seed=seed,
            )
            lows = {base: gain.interval.low if gain.interval else None for base, gain in gains.items()}
            row: dict[str, Any] = {"map": name, "figure": figure, "value": mean.value}
            row |= {
                "low": mean.interval.low if mean.interval else None,
                "high": mean.interval.high if mean.interval else None,
                "images": mean.images,
                "groups": mean.groups,
                "flat": int(part["is_flat"].sum()),
            }
            for base in BASELINES:
                row |= {
                    f"gain_{base}": gains[base].value if base in gains else None,
                    f"gain_low_{base}": lows.get(base),
                }
            row["beats"] = name not in BASELINES and all(low is not None and low > 0 for low in lows.values())
            rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def write_scores(found: ScoredMaps, folder: Path, *, facts: dict[str, Any]) -> dict[str, str]:
    """Write the table per image, the summary and the picture.

    Args:
        found: what was scored.
        folder: where; made if need be.
        facts: of the run, for the JSON file.

    Returns:
        The paths, by kind.
    """
    paths = {"images": folder / "images.csv", "summary": folder / "maps.json", "picture": folder / "maps.png"}
    files.write_csv(paths["images"], found.images)
    files.write_json(
        paths["summary"],
        {
            **facts,
            "with_masks": found.with_masks,
            "without_masks": found.without_masks,
            "scored": found.scored[0],
            "left_out": found.left_out,
            "maps": found.summary.to_dicts(),
        },
    )
    files.write_image(paths["picture"], found.sheet)
    return {name: str(path) for name, path in paths.items()}


def _translator(folder: Path, card: ClassifierCard, manifest: Manifest) -> ImageReconstructor:
    drawer, form = open_translator(folder)
    refuse_other_form(folder, form, manifest, size=card.size, channels=card.channels)
    refuse_leaking(folder, manifest, what=f"the translator {folder}")
    return drawer


def _mask_free(
    model: nn.Module,
    card: ClassifierCard,
    images: Float[Tensor, "B C H W"],
    targets: Float[Tensor, "B K"],
    drawn: dict[str, Tensor],
    asked: ScoreSettings,
) -> dict[str, list[dict[str, float]]]:
    """Return what is measured without masks, by map: one table per image."""
    link = torch.sigmoid if card.task == "multilabel" else partial(torch.softmax, dim=1)
    wanted = targets.nan_to_num(0)
    with torch.no_grad():
        sure = ((link(model(images)) * wanted).sum(dim=1) / wanted.sum(dim=1)).tolist()
    found: dict[str, list[dict[str, float]]] = {}
    for name, one in drawn.items():
        found[name] = [{"probability": value} for value in sure]
        if asked.steps:
            curves = insertion_deletion(
                model, images, targets, one, steps=asked.steps, seed=asked.seed, probabilities=link
            )
            areas = zip(sure, curves.inserted.tolist(), curves.deleted.tolist(), strict=True)
            found[name] = [{"probability": p, "insertion": i, "deletion": d} for p, i, d in areas]
    return found


def _scored(
    facts: list[dict[str, Any]],
    masks: list[Bool[np.ndarray, "S S"]],
    drawn: dict[str, Tensor],
    free: dict[str, list[dict[str, float]]],
) -> Iterator[dict[str, Any]]:
    """Yield one row per image and map."""
    for place, (own, mask) in enumerate(zip(facts, masks, strict=True)):
        for name, one in drawn.items():
            scores = localise(one[place, 0].double().cpu().numpy(), mask)
            assert scores is not None  # masks without anything to find were left out
            yield {**own, "map": name, **asdict(scores), **free[name][place]}


def _drawn(
    importance: ImportanceMap, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]
) -> Float[Tensor, "B 1 H W"]:
    """Draw maps, as large as the images."""
    maps = importance(images, targets)
    if maps.shape[-2:] != images.shape[-2:]:
        maps = functional.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return maps.clamp(0, 1)


def _classes(card: ClassifierCard, targets: Tensor) -> str:
    return " + ".join(card.classes[k] for k in (targets.nan_to_num(0) > 0.5).nonzero()[:, 0].tolist())


def _shown(manifest: Manifest, ids: Int[np.ndarray, " n"], asked: ScoreSettings) -> list[int]:
    """Choose the images of the picture: of every class in turn."""
    targets = manifest.targets(ids)
    mixed = [
        rng(asked.seed, "show", k, 3).permutation(ids[targets[:, k] > 0.5]).tolist() for k in range(targets.shape[1])
    ]
    turns = [row[turn] for turn in range(max(map(len, mixed))) for row in mixed if turn < len(row)]
    return list(dict.fromkeys(turns))[: asked.shown]
