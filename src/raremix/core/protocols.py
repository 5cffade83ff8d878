"""The seams of raremix: what a mixer, a loss, a map, a source and a trainable promise."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor, nn

from raremix.core.errors import DataError, TargetError
from raremix.core.random import ambient_rng
from raremix.core.ranks import Ranks
from raremix.core.types import Batch, MixPlan, Progress, Streams, check_pool


@runtime_checkable
class Mixer(Protocol):
    """Decide who is mixed with whom, where, and what the label becomes.

    A mixer is a frozen dataclass whose fields are its hyper-parameters. `plan` draws all randomness into a `MixPlan`;
    applying the plan is pure. Calling a mixer plans and applies.
    """

    num_classes: int | None
    """Number of classes, needed only where targets are integers."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Draw a plan for a batch whose partners come from `pool` (which may be the batch itself)."""
        ...

    @property
    def streams(self) -> Streams:
        """How the rows that are mixed and their partners are sampled; a study's loader provides them so."""
        return Streams()

    def at_step(self, step: int, *, steps: int) -> "Mixer":
        """Return the mixer that is in force at a step; itself, unless it follows a schedule.

        Args:
            step: number of the optimiser step, from 0.
            steps: number of steps of the whole training.
        """
        return self

    def __call__(
        self,
        images: Num[Tensor, "B C H W"],
        targets: Shaped[Tensor, " B"] | Shaped[Tensor, "B K"],
        *,
        pool: tuple[Num[Tensor, "P C H W"], Shaped[Tensor, "P ..."]] | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[Float[Tensor, "R C H W"], Float[Tensor, "R K"]]:
        """Mix a batch with itself, or with another one.

        Args:
            images: floats in [0, 1], or already normalised: mixing is linear.
            targets: class numbers (needs `num_classes`), probabilities, or multi-hot labels; NaN means not labelled.
            pool: images and targets that partners are drawn from, such as synthetic ones; the batch itself by default.
                Where it matters which images are synthetic, those of the pool are, and those of the batch are not; say
                anything else by `plan` and `Batch(is_synthetic=...)`.
            rng: the stream to draw from; left out, a fresh one comes from torch's initial seed and a count of calls.

        Returns:
            New images and float targets; the inputs are not touched.

        Raises:
            DataError: if the images are integers or no batch, or those of the pool have another shape.
            TargetError: if integer targets come without `num_classes` or lie outside it, or targets do not have one row
                per image, or one column per class.
        """
        batch = others = _as_batch(images, targets, num_classes=self.num_classes)
        if pool is not None:
            others = _as_batch(*pool, num_classes=self.num_classes, of="the pool: ")
            check_pool(batch, others)
            batch = replace(batch, is_synthetic=torch.zeros(len(batch.images), dtype=torch.bool))
            others = replace(others, is_synthetic=torch.ones(len(others.images), dtype=torch.bool))
        mixed = self.plan(batch, others, rng=ambient_rng("mix") if rng is None else rng).apply(batch, others)
        return mixed.images, mixed.targets


def _as_batch(images: Tensor, targets: Tensor, *, num_classes: int | None, of: str = "") -> Batch:
    if not images.is_floating_point():
        raise DataError(f"{of}images must be floats in [0, 1], got {images.dtype}: divide 8-bit images by 255 first")
    if images.ndim != 4:
        raise DataError(
            f"{of}images must have shape (B, C, H, W), got {tuple(images.shape)}: images[None] is one image"
        )
    if targets.ndim and len(targets) != len(images):
        raise TargetError(
            f"{of}{len(images)} images, but targets of shape {tuple(targets.shape)}: give one row per image"
        )
    if targets.ndim == 2 and num_classes not in {None, targets.shape[1]}:
        raise TargetError(
            f"{of}targets of shape {tuple(targets.shape)} do not have num_classes = {num_classes} columns: give one "
            f"column per class, or class numbers of shape ({len(images)},)"
        )
    return Batch(images=images, targets=dense_targets(targets, num_classes=num_classes))


def dense_targets(
    targets: Shaped[Tensor, " B"] | Shaped[Tensor, "B K"], *, num_classes: int | None
) -> Float[Tensor, "B K"]:
    """Turn class numbers into one-hot rows; pass (B, K) targets on as floats: float32, whatever the images are.

    Raises:
        TargetError: if class numbers come without `num_classes`, or lie outside 0 .. num_classes - 1, or (B, K) targets
            hold integers other than 0 and 1.
    """
    if targets.ndim == 2:
        return targets if targets.is_floating_point() else _dense_rows(targets)
    if targets.is_floating_point() or targets.ndim != 1:
        raise TargetError(
            f"targets of shape {tuple(targets.shape)} and type {targets.dtype} must be integers of shape (B,), class "
            "numbers, or have shape (B, K)"
        )
    if num_classes is None:
        raise TargetError(
            "integer targets need num_classes: build the mixer with num_classes=K, or pass (B, K) targets"
        )
    is_plain = targets.device.type == "cpu" and targets.dtype == torch.int64  # each conversion costs microseconds
    try:
        rows = _identity(num_classes).index_select(0, targets if is_plain else targets.cpu().long())
        return rows if is_plain else rows.to(targets.device)
    except IndexError as error:
        low, high = (int(bound) for bound in targets.aminmax())
        raise TargetError(f"targets hold classes {low} to {high}, but num_classes is {num_classes}") from error


def _dense_rows(targets: Tensor) -> Tensor:
    if targets.dtype != torch.bool and targets.numel():
        low, high = (int(bound) for bound in targets.aminmax())
        if low < 0 or high > 1:
            raise TargetError(
                f"targets of shape {tuple(targets.shape)} hold integers from {low} to {high}, where a column holds "
                f"0 or 1: class numbers have shape ({len(targets)},)"
            )
    return targets.float()


@lru_cache(maxsize=64)
def _identity(num_classes: int) -> Tensor:
    return torch.eye(num_classes)


@runtime_checkable
class Loss(Protocol):
    """A loss on soft targets: rows or cells whose target is NaN do not count."""

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Return the mean loss over what is labelled; zero, with a gradient of zero, where nothing is."""
        ...

    def at_step(self, step: int, *, steps: int) -> "Loss":
        """Return the loss that is in force at a step; itself, unless it follows a schedule.

        Args:
            step: number of the optimiser step, from 0.
            steps: number of steps of the whole training.
        """
        return self


@runtime_checkable
class Prototypes(Protocol):
    """A classifier's last layer that measures distances to one point per class: logit = scale (margin - |f - p|^2)."""

    scale: Tensor
    margin: Tensor
    label_vectors: Tensor | None

    def points(self) -> Float[Tensor, "K D"]:
        """Return the prototypes, of length 1."""
        ...


@runtime_checkable
class HeadLoss(Loss, Protocol):
    """A loss that also looks at the classifier's last layer. Called as any loss it takes that layer's first values."""

    def with_head(
        self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, head: Prototypes
    ) -> Float[Tensor, ""]:
        """Return the mean loss over what is labelled."""
        ...


@runtime_checkable
class FeatureLoss(Loss, Protocol):
    """A loss that also compares features of images: of the batch, and of earlier ones that are kept in a queue.

    The training puts a learnt projection on what goes into the classifier's last layer, and keeps the queue; the loss
    itself holds settings alone. Called as any loss it is what remains without features.
    """

    width: int
    """Length of the projected features."""

    queue: int
    """How many features of earlier images are kept."""

    momentum: float | None
    """Decay of the moving average that draws the kept features; None: the trained network draws them itself."""

    def with_features(
        self,
        logits: Float[Tensor, "B K"],
        targets: Float[Tensor, "B K"],
        *,
        features: Float[Tensor, "B D"],
        keys: Float[Tensor, "Q D"],
        key_targets: Float[Tensor, "Q K"],
    ) -> Float[Tensor, ""]:
        """Return the mean loss over what is labelled.

        Args:
            logits, targets: as in any loss.
            features: of the same rows, of length 1.
            keys: features to compare with, of length 1, without a gradient.
            key_targets: what they show; NaN rows are empty places and do not count.
        """
        ...


@runtime_checkable
class ImportanceMap(Protocol):
    """Say which pixels matter: saliency, class activation, or what would change with the class."""

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
        """Return maps in [0, 1].

        Args:
            images: values in [0, 1].
            targets: what is asked about: the classes whose evidence is wanted. Maps that know no class do not look.
        """
        ...


@runtime_checkable
class ImageTranslator(Protocol):
    """Show what images would look like if they belonged to other classes."""

    def __call__(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"], *, rng: np.random.Generator
    ) -> Float[Tensor, "B C H W"]:
        """Return translated images.

        Args:
            images: values in [0, 1].
            targets: the classes that the translations are to show.
            rng: the stream to draw styles and latents from.
        """
        ...


@runtime_checkable
class ImageReconstructor(ImageTranslator, Protocol):
    """A translator that can also draw images as what they are, so that its errors can be told from its changes."""

    def reconstruct(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Return the images as the translator draws them when nothing is to change.

        Args:
            images: values in [0, 1].
            targets: their own classes, if they are known.
        """
        ...


@runtime_checkable
class Trainable(Protocol):
    """What the one training loop trains: a classifier or a generator.

    A step goes through the optimisers in their order; each is a phase (a classifier has one, a GAN two). The loop asks
    for the phase's loss, takes its gradient, and moves that optimiser.
    """

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules that are trained and saved, by name; the loop puts their device-ready forms in their places."""
        ...

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One optimiser per phase, in the order in which they move."""
        ...

    @property
    def averaged(self) -> tuple[str, ...]:
        """Names of the modules of which an exponential moving average is kept."""
        ...

    @property
    def memory(self) -> dict[str, Tensor]:
        """Tensors beside the modules that a resumed run needs, changed in place: kept importance maps, for example."""
        ...

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Compute a phase's losses; the entry "loss" is the one whose gradient is taken, the others are logged.

        Args:
            phase: a key of `optimizers`.
            batch: this rank's images.
            step: number of the step, the address of every draw that is made here.
        """
        ...

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Do what is to be done after a step, when all optimisers have moved.

        Args:
            step: number of the step.
            averaged: the moving averages, by the names of their modules; the modules themselves where none is kept.
        """
        ...


@runtime_checkable
class RankedTrainable(Trainable, Protocol):
    """A trainable that several ranks train without a wrapper around its modules, a generator for example.

    `DistributedDataParallel` hears of a module's calls, and expects one backward pass for each. A generator calls one
    network for another's loss, twice before a backward pass, or for a gradient by pixels; so the loop takes the mean of
    the phase's gradients over the ranks itself. After a step it does so with the modules' statistics.
    """

    @property
    def ranks(self) -> Ranks:
        """Which rank of how many this is; the same as the loop's."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where labelled images come from."""

    def load(self, *, cache: Path, progress: Progress | None = None) -> Any:
        """Return the data set's manifest; files that a source makes go into `cache`."""
        ...
