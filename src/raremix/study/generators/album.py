"""The album of a generator's training: a grid at every moment, from the same noise or the same images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from raremix.core import files
from raremix.core.memory import InParts
from raremix.core.protocols import RankedTrainable, Trainable
from raremix.core.random import rng
from raremix.core.ranks import Ranks
from raremix.core.types import Batch
from raremix.data.manifest import Manifest
from raremix.generate import ClassTranslator, Form, GeneratorMethod, ImageGenerator
from raremix.generate.sampling import BLOCK, latent, redraw, to_bytes
from raremix.study.generators.collapse import figures_of, notes_of
from raremix.study.generators.pictures import draw_sheet, evenly
from raremix.study.prepare import Prepared
from raremix.train.feed import to_float

KINDS = ("diversity", "apart", "coverage")
"""Figures of the drawn images of a class."""

COLUMNS, ROWS, STRIP = 8, 2, 12
"""Pictures per class in a grid of drawn images; images per class in a grid of translations; moments in the strip."""

MANY, SOME = 64, 32
"""Images of a class that are drawn at a moment to look for collapse; and those of a generator that takes many passes
through its network for an image, which draws them at the last moment alone."""

UNCHANGED, STYLELESS = 0.01, 0.1
"""Translations that differ from reconstructions by less than this, of the full range, do not change anything; those in
two styles that differ by less than this share of the change do not heed the style."""


class Noticed:
    """A trainable whose step an album notices, since the loop tells it to the trainable alone."""

    def __init__(self, inner: Trainable, album: "Album") -> None:
        assert isinstance(inner, RankedTrainable)  # every generator is
        self._inner, self._album = inner, album

    @property
    def ranks(self) -> Ranks:
        """Those of the trainable."""
        return self._inner.ranks

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Those of the trainable."""
        return self._inner.modules

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """Those of the trainable."""
        return self._inner.optimizers

    @property
    def averaged(self) -> tuple[str, ...]:
        """Those of the trainable."""
        return self._inner.averaged

    @property
    def memory(self) -> dict[str, Tensor]:
        """That of the trainable."""
        return self._inner.memory

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the trainable's losses."""
        return self._inner.loss(phase, batch, step=step)

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Tell the album the step."""
        self._inner.after_step(step, averaged)
        self._album.step = step + 1


@dataclass(slots=True, kw_only=True)
class Album:
    """The grids of a training.

    Attributes:
        folder: the generator's; grids go into `samples/`.
        method: its hyper-parameters.
        seed: of the noise, or of the choice of images.
        prepared: the data.
        form: what is drawn.
        ids: the rows that it is fitted on.
        steps: of the whole training.
        step: of the training, kept up to date by `Noticed`.
        last: figures of the last grid.
    """

    folder: Path
    method: GeneratorMethod
    seed: int
    prepared: Prepared
    form: Form
    ids: Int[np.ndarray, " n"]
    steps: int
    step: int = 0
    last: dict[str, float] = field(default_factory=dict)

    def add(self, modules: Mapping[str, nn.Module]) -> Mapping[str, float]:
        """Draw the grid of this moment.

        Returns:
            Figures for the log: of drawn images, by class, those of `collapse.figures_of`; of translations, the mean
            absolute error of reconstructions, the mean absolute change beyond it, and the mean absolute difference of
            translations in two styles.
        """
        drawer = self.method.drawer({name: modules[name] for name in self.method.kept}, self.form)
        device = next(modules[self.method.kept[0]].parameters()).device
        if isinstance(drawer, ImageGenerator):
            sheet, strip = self._drawn(drawer, device)
        else:
            assert isinstance(drawer, ClassTranslator)
            sheet, strip = self._translated(drawer, device)
        path = self.folder / "samples" / f"step-{self.step:08d}.png"
        files.write_image(path, sheet)
        files.write_tensors(path.with_suffix(".safetensors"), {"strip": torch.from_numpy(strip)})
        return self.last

    def evolve(self) -> None:
        """Draw how one image of each class came about, and drop what was kept for it."""
        kept = sorted((self.folder / "samples").glob("step-*.safetensors"))
        if not kept:
            return
        shown = [kept[i] for i in evenly(len(kept), most=STRIP)]
        strips = [safetensors.torch.load_file(path)["strip"].numpy() for path in shown]
        names = self.prepared.manifest.card.classes
        cells = [[strip[k] for strip in strips] for k in range(len(names))]
        steps = [str(int(path.stem.removeprefix("step-"))) for path in shown]
        files.write_image(
            self.folder / "evolution.png", draw_sheet(cells, rows=names, columns=steps, title="after step")
        )
        for path in kept:
            files.remove_file(path)

    def verdict(self) -> tuple[tuple[str, ...], dict[str, float]]:
        """Say in words what the last grid shows to be wrong, or the fit as a whole, and return the last figures."""
        log, notes = files.read_records(self.folder / "log.jsonl"), []
        for name in self.prepared.manifest.card.classes:
            mine = {kind: self.last[f"{kind}_{name}"] for kind in KINDS if f"{kind}_{name}" in self.last}
            best = [line[key] for line in log if (key := f"validation/coverage_{name}") in line]
            notes += notes_of(name, mine, max(best, default=0.0))
        change = self.last.get("change", 1.0)
        if change < UNCHANGED:
            notes.append("translations hardly differ from reconstructions: their difference maps show nothing")
        elif self.last.get("styles", change) < STYLELESS * change:
            notes.append(
                f"translations of an image in two styles differ by {self.last['styles'] / change:.0%} of what they "
                "change: the style is ignored, and there is one translation to a class"
            )
        return tuple(notes), dict(self.last)

    def _translated(self, drawer: ClassTranslator, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        chosen = examples(self.prepared.manifest, self.ids, per_class=ROWS, seed=self.seed)
        columns = translations(drawer, self.prepared, chosen, device=device)
        again, others = columns[1], torch.stack(columns[2:])
        self.last = {
            "reconstruction": _mean_change(columns[0], again),
            "change": _mean_change(again, others),
            "styles": _mean_change(others, torch.stack(self._restyled(drawer, columns[0], device))),
        }
        sheet = _sheet_of(columns, self.prepared, chosen, title=f"step {self.step}")
        return sheet, to_bytes(others[:, 0])

    def _restyled(self, drawer: ClassTranslator, images: Tensor, device: torch.device) -> list[Tensor]:
        """Translate images to each class, in other styles than those of the grid."""
        count, parts = len(self.prepared.manifest.card.classes), InParts()
        streams = [[(k, i, 3) for i in range(len(images))] for k in range(count)]
        wanted = [torch.eye(count)[k].expand(len(images), -1) for k in range(count)]
        return [
            redraw(drawer, images.to(device), one.to(device), some, seed=0, parts=parts).cpu()
            for one, some in zip(wanted, streams, strict=True)
        ]

    def _drawn(self, drawer: ImageGenerator, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        manifest, cells = self.prepared.manifest, []
        classes, parts = manifest.card.classes, InParts(most=BLOCK)
        is_slow = hasattr(drawer, "num_inference_steps")
        count = MANY if not is_slow else SOME if self.step >= self.steps else COLUMNS
        self.last = {}
        for k, name in enumerate(classes):
            latents = torch.stack([latent(self.seed, k, i, drawer.latent) for i in range(count)])
            wanted = torch.eye(len(classes))[k].expand(count, -1)
            drawn = parts(drawer.generate, wanted.to(device), latents.to(device)).cpu()
            cells.append(list(to_bytes(drawn[:COLUMNS])))
            mine = self.ids[manifest.targets(self.ids)[:, k] > 0.5]
            shown = mine[rng(self.seed, "show", k, 3).permutation(len(mine))[:MANY]]
            found = figures_of(drawn.float(), to_float(self.prepared.cache.take(np.sort(shown))))
            # Of eight images too little can be said.
            self.last |= {
                f"{kind}_{name}": found[kind] for kind in KINDS[: 3 if count > COLUMNS else 1] if kind in found
            }
        return draw_sheet(cells, rows=classes, title=f"step {self.step}"), np.stack([row[0] for row in cells])


def translations(
    drawer: ClassTranslator, prepared: Prepared, chosen: Int[np.ndarray, " m"], *, device: torch.device | None = None
) -> list[Float[Tensor, "m C H W"]]:
    """Return images, their reconstructions, and their translations to each class."""
    count = len(prepared.manifest.card.classes)
    where = torch.device("cpu") if device is None else device
    images = to_float(prepared.cache.take(chosen)).to(where)
    targets = torch.from_numpy(prepared.manifest.targets(chosen)).float().to(where)
    parts = InParts()
    columns = [images, parts(drawer.reconstruct, images, targets)]
    for k in range(count):
        wanted = torch.eye(count, device=where)[k].expand(len(chosen), -1)
        streams = [(k, i, 2) for i in range(len(chosen))]
        columns.append(redraw(drawer, images, wanted, streams, seed=0, parts=parts))
    return [column.cpu() for column in columns]


def draw_translations(
    drawer: ClassTranslator, prepared: Prepared, chosen: Int[np.ndarray, " m"], *, title: str
) -> np.ndarray:
    """Draw images beside their reconstructions and their translations to each class."""
    return _sheet_of(translations(drawer, prepared, chosen), prepared, chosen, title=title)


def examples(manifest: Manifest, ids: Int[np.ndarray, " n"], *, per_class: int, seed: int) -> Int[np.ndarray, " m"]:
    """Choose rows of every class."""
    targets = manifest.targets(ids)
    rows = [ids[targets[:, k] > 0.5] for k in range(targets.shape[1])]
    return np.concatenate(
        [mine[rng(seed, "show", k, 2).permutation(len(mine))[:per_class]] for k, mine in enumerate(rows)]
    )


def _sheet_of(columns: list[Tensor], prepared: Prepared, chosen: np.ndarray, *, title: str) -> np.ndarray:
    classes = prepared.manifest.card.classes
    pictures = [to_bytes(column) for column in columns]
    cells = [[column[i] for column in pictures] for i in range(len(chosen))]
    names = [classes[k] for k in np.nan_to_num(prepared.manifest.targets(chosen)).argmax(axis=1)]
    return draw_sheet(cells, rows=names, columns=["own", "again", *(f"to {name}" for name in classes)], title=title)


def _mean_change(images: Tensor, others: Tensor) -> float:
    return float((others - images).abs().mean())
