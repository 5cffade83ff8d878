"""Whether a translator's changes are about the class, asked of a classifier that did not train it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core import files
from raremix.core.errors import GuardError
from raremix.core.features import features_seen
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.evaluate import wilson
from raremix.evaluate.generative import kernel_distance
from raremix.explain.difference import difference_map
from raremix.generate import ClassTranslator
from raremix.models import load_classifier
from raremix.study.apply import refuse_other_classes, refuse_other_images, refuse_seen
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
        redrawn: the same share of the images as the translator draws them when nothing is to change: what it cannot
            draw may look like another class by itself.
        change: mean absolute difference of a translation to its image.
        cycle: mean absolute difference of an image to itself, translated there and back.
        area, tenth: mean and 10 % quantile over the images of the mean of their difference map, which is the area that
            a mask by it has under a uniform threshold, as a share of the image. Maps are to the image itself here, as
            published, not to its redrawing.
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
    redrawn: float
    change: float
    cycle: float
    area: float
    tenth: float
    kernel: float | None
    kernel_before: float | None

    def words(self, classes: int) -> str:
        """Say in plain words what the numbers mean for difference maps."""
        least, what = max(
            (1 / classes, "by chance"),
            (self.before, "of the images before they were translated"),
            (self.redrawn, "of the images redrawn without a change of class"),
        )
        rate = f"{100 * self.flipped:.0f} % of the translations to {self.name} are taken for it"
        if self.low > max(0.5, least):
            return f"{rate}: difference maps towards it show what makes the class, as this classifier sees it."
        if self.low > least:
            return f"{rate}, more than {what} ({100 * least:.0f} %) and not most: maps towards it are partly about it."
        return (
            f"{rate}, no more than {what} ({100 * least:.0f} %): maps towards it are NOT about the class. "
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
        ConfigError: if the translator draws something else than the data hold, or the classifier looks at other images.
        ManifestError: if the classifier tells something else apart, or the split has no images.
        GuardError: if the split is train, or the classifier is the one that helped to train the translator.
        HeldOutError: if either was trained on these images.
    """
    manifest, classes = prepared.manifest, prepared.manifest.card.classes
    if split not in {"validation", "test"}:
        raise GuardError(f"split {split}: the translator knows its training images; take validation or test")
    drawer, card = open_translator(generator, drawing=drawing)
    refuse_other_form(generator, card, manifest, size=prepared.cache.shape[-1], channels=prepared.channels)
    refuse_leaking(generator, manifest, what=f"the generator {generator}")
    refuse_own_judge(generator, card.classifier, classifier)
    model, facts = load_classifier(classifier)
    refuse_other_classes(facts, manifest)
    refuse_other_images(classifier, facts, prepared.cache.shape)
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
    again, _ = _ask(model, _redrawn(drawer, images, labels, len(classes), device), device)
    found = []
    for k, name in enumerate(classes):
        rows = np.flatnonzero(labels != k)
        if not len(rows):
            continue
        there, back = _there_and_back(drawer, images[rows], labels[rows], k, len(classes), seed, device)
        then, vectors = _ask(model, there, device)
        hits = int((then == k).sum())
        areas = difference_map(images[rows], there).mean(dim=(1, 2, 3)).numpy()
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
                redrawn=float((again[rows] == k).mean()),
                change=float((there - images[rows]).abs().mean()),
                cycle=float((back - images[rows]).abs().mean()),
                area=float(areas.mean()),
                tenth=float(np.quantile(areas, 0.1)),
                kernel=kernel_distance(real, vectors) if is_enough else None,
                kernel_before=kernel_distance(real, features[rows]) if is_enough else None,
            )
        )
        if progress is not None:
            progress("classes", k + 1, len(classes))
    return found


def refuse_own_judge(generator: Path, teacher: str, classifier: Path) -> None:
    """Refuse the classifier that a translator was trained to please, which would praise it.

    Args:
        generator: folder of the translator.
        teacher: hash of the weights of the classifier that helped to train it; empty: none did.
        classifier: folder of the one that is to judge.

    Raises:
        GuardError: saying what to do.
    """
    if teacher and files.hash_file(classifier / "model.safetensors") == teacher:
        raise GuardError(
            f"{classifier} helped to train {generator}: take one that did not, for example of another seed of the study"
        )


def _redrawn(
    drawer: ClassTranslator, images: Float[Tensor, "n C H W"], labels: np.ndarray, classes: int, device: torch.device
) -> Float[Tensor, "n C H W"]:
    own = torch.eye(classes)[torch.from_numpy(labels)]
    parts = zip(images.split(BATCH), own.split(BATCH), strict=True)
    return torch.cat([drawer.reconstruct(some.to(device), one.to(device)).cpu() for some, one in parts])


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
