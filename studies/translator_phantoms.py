"""Why a translator's difference maps miss the lesion: what it takes away, and what it changes besides.

    python studies/translator_phantoms.py runs/generators/early runs/generators/late

Phantoms can be drawn a second time without their lesion, in all else the same to the last grain of noise: what a
perfect translator to "normal" would return. Held-out images with a lesion are translated to "normal" by fitted
translators (of `localise_phantom.toml`, in the order of their training), and three things are measured against that
truth:

* taken away: the share of the lesion's own contrast that the translation removes, by least squares within the mask;
* besides: how much the translation changes of the very same scene without a lesion, where there is nothing to remove,
  over how much the lesion changes inside its mask;
* how well maps point: that of the true change; of the true change with a quarter, half and all of what the translator
  changes besides; and the translator's own.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from torch import Tensor

from raremix.core import files
from raremix.core.random import rng
from raremix.data.sources.phantom import Phantom
from raremix.evaluate.localisation import FIGURES, localise, mean_by_patient
from raremix.explain.difference import difference_map
from raremix.generate import ClassTranslator
from raremix.generate.sampling import to_bytes
from raremix.study import read_study
from raremix.study.generators.pictures import draw_sheet
from raremix.study.generators.use import open_translator
from raremix.study.prepare import Prepared, default_cache, prepare
from raremix.train.feed import to_float

HERE = Path(__file__).parent
STUDY = HERE / "localise_phantom.toml"
SHARES = (0.25, 0.5, 1.0)
SHOWN = 4


def main() -> None:
    """Translate, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("translators", type=Path, nargs="+", help="folders of fitted translators")
    parser.add_argument("--most", type=int, default=96, help="images")
    parser.add_argument("--cache", type=Path, help="decoded images")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "translator_phantoms.json")
    parser.add_argument("--picture", type=Path, default=HERE.parent / "docs" / "images" / "translator_phantoms.png")
    asked = parser.parse_args()
    spec = read_study(STUDY)
    prepared = prepare(spec, cache=asked.cache or default_cache())
    assert isinstance(spec.source, Phantom)
    scenes = Scenes.of(spec.source, prepared, most=asked.most)
    rows: list[dict[str, Any]] = []
    sheets: dict[str, Tensor] = {"true change": difference_map(scenes.images, scenes.healthy)}
    found: list[dict[str, Any]] = []
    for folder in asked.translators:
        drawer, card = open_translator(folder)
        facts, maps = judged(drawer, scenes)
        name = f"{card.steps} steps"
        found.append({"translator": name, "images": len(scenes.images), **facts})
        for what, one in maps.items():
            rows += scenes.scored(f"{name}: {what}", one)
        sheets[name] = maps["its own"]
    rows += scenes.scored("true change", sheets["true change"])
    summary = summarised(pl.DataFrame(rows))
    files.write_json(
        asked.json, {"study": (HERE / "localise_phantom.toml").name, "translators": found, "maps": summary}
    )
    files.write_image(asked.picture, sheet_of(scenes, sheets))
    console = Console()
    for one in found:
        console.print(one)
    for row in summary:
        console.print(row["map"], *(f"{name} {row[name]['value']:.3f}" for name in FIGURES))


class Scenes:
    """Held-out phantoms with a lesion, and the same scenes without it.

    Attributes:
        images, healthy: with and without, in [0, 1].
        masks: where the lesion is.
        own: classes.
        groups: patients.
    """

    def __init__(
        self,
        images: Float[Tensor, "n C H W"],
        healthy: Float[Tensor, "n C H W"],
        masks: Bool[np.ndarray, "n H W"],
        own: Float[Tensor, "n K"],
        groups: np.ndarray,
    ) -> None:
        self.images, self.healthy, self.masks, self.own, self.groups = images, healthy, masks, own, groups
        self.normal = torch.eye(own.shape[1])[0].expand(len(own), -1)

    @classmethod
    def of(cls, source: Phantom, prepared: Prepared, *, most: int) -> "Scenes":
        """Draw test phantoms, as many as asked for."""
        manifest = prepared.manifest
        ids = manifest.rows("test")
        ids = ids[manifest.targets(ids)[:, 0] < 0.5]
        ids = np.sort(rng(0, "show", len(ids)).permutation(ids)[:most])
        cohort = source.draw_cohort()
        healthy, masks = [], []
        for number in ids.tolist():
            sick = source.render(number, cohort=cohort)
            assert (np.squeeze(prepared.cache.take(np.array([number]))) == np.squeeze(sick.image)).all()
            well = source.render(number, cohort=cohort, with_lesion=False)
            healthy.append(np.atleast_3d(well.image).transpose(2, 0, 1))
            masks.append(np.any(list(sick.masks.values()), axis=0))
        place = manifest.positions(ids)
        return cls(
            to_float(prepared.cache.take(ids)),
            to_float(np.stack(healthy)),
            np.stack(masks),
            torch.from_numpy(manifest.targets(ids)).float(),
            manifest.frame["group"].gather(place).to_numpy(),
        )

    def scored(self, name: str, maps: Float[Tensor, "n 1 H W"]) -> list[dict[str, Any]]:
        """Return one row per image."""
        rows = []
        for number, (one, mask) in enumerate(zip(maps[:, 0].double().numpy(), self.masks, strict=True)):
            scores = localise(one, mask)
            if scores is not None:
                rows.append({"id": number, "group": self.groups[number], "map": name, **asdict(scores)})
        return rows


def judged(drawer: ClassTranslator, scenes: Scenes) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return what a translator takes away and changes besides, and maps: its own, and truth with what it adds."""
    again = drawer.reconstruct(scenes.images, scenes.own)
    changed = drawer(scenes.images, scenes.normal, rng=rng(0, "mask")) - again
    true = scenes.healthy - scenes.images
    besides = drawer(scenes.healthy, scenes.normal, rng=rng(0, "mask"))
    besides = besides - drawer.reconstruct(scenes.healthy, scenes.normal)
    inside = torch.from_numpy(scenes.masks)[:, None].expand_as(true)
    facts = {
        "reconstruction_error": float((again - scenes.images).abs().mean()),
        "change": float(changed.abs().mean()),
        "true_change_inside": float(true[inside].abs().mean()),
        "besides": float(besides.abs().mean()),
        "besides_over_true_inside": float(besides[inside].abs().mean() / true[inside].abs().mean()),
        "taken_away": float((changed * true)[inside].sum() / true[inside].square().sum()),
    }
    maps = {"its own": difference_map(again, again + changed)}
    for share in SHARES:
        maps[f"truth and {share:g} of what it changes besides"] = difference_map(
            scenes.images, scenes.healthy + share * besides
        )
    return facts, maps


def summarised(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the mean figures of each map, with intervals over patients."""
    rows = []
    for (name,), part in table.group_by("map", maintain_order=True):
        row: dict[str, Any] = {"map": name}
        for figure in FIGURES:
            mean = mean_by_patient(part[figure].to_numpy(), part["group"].to_numpy(), resamples=2000, seed=0)
            low, high = (mean.interval.low, mean.interval.high) if mean.interval else (None, None)
            row[figure] = {"value": mean.value, "low": low, "high": high}
        rows.append(row)
    return rows


def sheet_of(scenes: Scenes, maps: dict[str, Tensor]) -> np.ndarray:
    """Draw some images, the scenes without the lesion, and the maps."""
    cells = []
    for number in range(SHOWN):
        seen = [scenes.images[number], scenes.healthy[number], *(one[number] for one in maps.values())]
        cells.append([to_bytes(one[None])[0] for one in seen])
    return draw_sheet(cells, rows=[""] * SHOWN, columns=["image", "without", *maps])


if __name__ == "__main__":
    main()
