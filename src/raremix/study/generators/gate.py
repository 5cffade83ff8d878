"""Whether a translator's changes are about the class, asked of a classifier that did not train it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import GuardError
from raremix.core.features import features_seen
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.evaluate import wilson
from raremix.evaluate.generative import kernel_distance
from raremix.generate import ClassTranslator
from raremix.models import load_classifier
from raremix.study.apply import refuse_other_classes, refuse_seen
from raremix.study.generators.guard import refuse_leaking, refuse_other_form
from raremix.study.generators.use import drawing_device, open_translator
from raremix.study.prepare import Prepared
from raremix.train.feed import to_float

BATCH, MOST, LEAST = 32, 256, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Towards:
    """Translations of held-out images to one class.

    Attributes:
        name: the class.
        images: how many images of other classes were translated.
        flipped, low, high: share of the translations that the classifier takes for the class, with its 95 % interval.
        before: the same share of the images as they were.
        change: mean absolute difference of a translation to its image.
        cycle: mean absolute difference of an image to itself, translated there and back.
        kernel: kernel distance, in the classifier's features, of the translations to real images of the class; None
            where there are fewer than eight of these.
        kernel_before: the same of the images as they were.
    """

    name: str
    images: int
    flipped: float
    low: float
    high: float
    before: float
    change: float
    cycle: float
    kernel: float | None
    kernel_before: float | None

    def words(self, classes: int) -> str:
        """Say in plain words what the numbers mean for difference maps."""
        chance = max(1 / classes, self.before)
        rate = f"{100 * self.flipped:.0f} % of the translations to {self.name} are taken for it"
        what = "by chance" if self.before < 1 / classes else "of the images before they were translated"
        least = f"{what} ({100 * chance:.0f} %)"
        if self.low > max(0.5, chance):
            return f"{rate}: difference maps towards it show what makes the class, as this classifier sees it."
        if self.low > chance:
            return f"{rate}, more than {least} and not most: maps towards it are partly about it."
        return (
            f"{rate}, no more than {least}: maps towards it are NOT about the class. "
            "Train the translator longer, with class_heads, or with an auxiliary classifier."
        )


def judge_translations(
    generator: Path,
    classifier: Path,
    prepared: Prepared,
    *,
    split: str = "validation",
    seed: int = 0,
    drawing: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Towards]:
    """Translate held-out images to every class, and ask a classifier what it sees.

    Args:
        generator: folder of a translator.
        classifier: folder of a classifier that was trained on real images, and did not train the translator.
        prepared: the data.
        split: whose images; never those that either was trained on.
        seed: of the styles, and which images: one of each patient, and at most 256.
        drawing: settings of drawing, as `raremix.study.generators.use.drawn_with` takes them.
        progress: called as images are translated.

    Raises:
        ConfigError: if the translator draws something else than the data hold.
        ManifestError: if the classifier tells something else apart, or the split has no images.
        GuardError: if the split is train.
        HeldOutError: if either was trained on these images.
    """
    manifest, classes = prepared.manifest, prepared.manifest.card.classes
    if split not in {"validation", "test"}:
        raise GuardError(f"split {split}: the translator knows its training images; take validation or test")
    drawer, card = open_translator(generator, drawing=drawing)
    refuse_other_form(generator, card, manifest, size=prepared.cache.shape[-1], channels=prepared.channels)
    refuse_leaking(generator, manifest, what=f"the generator {generator}")
    model, facts = load_classifier(classifier)
    refuse_other_classes(facts, manifest)
    ids = manifest.rows_of(split)
    refuse_seen(classifier, manifest, ids)
    # One image of each patient: several are no independent witnesses.
    drawn = rng(seed, "sample", 11).permutation(ids)
    patients = manifest.frame["group"].gather(manifest.positions(drawn)).to_numpy().astype(str)
    ids = np.sort(drawn[np.sort(np.unique(patients, return_index=True)[1])][:MOST])
    labels = manifest.targets(ids).argmax(axis=1)
    device = drawing_device()
    model.eval().to(device)
    images = to_float(prepared.cache.take(ids))
    called, features = _ask(model, images, device)
    found = []
    for k, name in enumerate(classes):
        rows = np.flatnonzero(labels != k)
        if not len(rows):
            continue
        there, back = _there_and_back(drawer, images[rows], labels[rows], k, len(classes), seed, device)
        then, vectors = _ask(model, there, device)
        hits = int((then == k).sum())
        share = wilson(hits, len(rows))
        real = features[labels == k]
        is_enough = len(real) >= LEAST and len(rows) >= LEAST
        found.append(
            Towards(
                name=name,
                images=len(rows),
                flipped=hits / len(rows),
                low=float(share.low),
                high=float(share.high),
                before=float((called[rows] == k).mean()),
                change=float((there - images[rows]).abs().mean()),
                cycle=float((back - images[rows]).abs().mean()),
                kernel=kernel_distance(real, vectors) if is_enough else None,
                kernel_before=kernel_distance(real, features[rows]) if is_enough else None,
            )
        )
        if progress is not None:
            progress("classes", k + 1, len(classes))
    return found


def _there_and_back(
    drawer: ClassTranslator,
    images: Float[Tensor, "n C H W"],
    labels: np.ndarray,
    other: int,
    classes: int,
    seed: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    there, back = [], []
    for start in range(0, len(images), BATCH):
        some = images[start : start + BATCH].to(device)
        wanted = torch.eye(classes, device=device)[other].expand(len(some), -1)
        own = torch.eye(classes, device=device)[torch.from_numpy(labels[start : start + BATCH]).to(device)]
        stream = rng(seed, "mask", other, start)
        moved = drawer(some, wanted, rng=stream)
        there.append(moved.cpu())
        back.append(drawer(moved, own, rng=stream).cpu())
    return torch.cat(there), torch.cat(back)


def _ask(
    model: torch.nn.Module, images: Float[Tensor, "n C H W"], device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that is called, and the features."""
    logits = []
    with torch.inference_mode(), features_seen(model) as seen:
        for start in range(0, len(images), BATCH):
            logits.append(model(images[start : start + BATCH].to(device)).float().cpu())
        return torch.cat(logits).argmax(dim=1).numpy(), torch.cat([part.float().cpu() for part in seen]).numpy()
