"""The contract suite sees what is broken: each promise is shown to fail for something that breaks it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tests.contract import loss_promises, mixer_promises
from torch import Tensor
from torch.nn import functional

from raremix.core.protocols import Loss, Mixer
from raremix.core.types import Batch, Boxes, MixPlan
from raremix.mix import CutMix, MixUp
from raremix.mix.mask import random_boxes


@dataclass(frozen=True, kw_only=True)
class InPlace(MixUp):
    """Mixes well, into its input (timm's Mixup writes into the batch it is given)."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        mixed, new_targets = super().__call__(images, targets, rng=rng)
        if not images.requires_grad and images.stride(0):
            images.copy_(mixed)
        return mixed, new_targets


@dataclass(frozen=True, kw_only=True)
class Alias(Mixer):
    """Does nothing, and gives back what it was given."""

    num_classes: int | None = None

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        return CutMix(probability=0.0).plan(batch, pool, rng=rng)

    def __call__(
        self, images: Tensor, targets: Tensor, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return images, targets


@dataclass(frozen=True, kw_only=True)
class OtherShare(CutMix):
    """Gives the label of the box to the image around it (kornia's default, and MONAI's for rows of labels)."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        return replace(plan, weight=1 - plan.weight)


@dataclass(frozen=True, kw_only=True)
class UnclippedShare(CutMix):
    """Weighs the label by the box as it was drawn, and not as it was clipped."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        share = rng.beta(1.0, 1.0, size=len(plan.own))
        boxes = random_boxes(share, height=batch.images.shape[2], width=batch.images.shape[3], rng=rng)
        return replace(plan, mask=boxes, weight=torch.from_numpy(share).float())


@dataclass(frozen=True, kw_only=True)
class OneWeightPerBatch(MixUp):
    """Draws one weight for all images."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        weight = plan.weight[:1].expand(len(plan.weight)).clone()
        return replace(plan, weight=weight, mask=weight[:, None, None, None])


@dataclass(frozen=True, kw_only=True)
class OneBoxPerBatch(CutMix):
    """Draws one box for all images (OpenMixup's SaliencyMix)."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        assert isinstance(plan.mask, Boxes)
        rows = len(plan.own)
        box = replace(plan.mask, edges=plan.mask.edges[:, :1].repeat(1, rows))
        return replace(plan, mask=box, weight=plan.weight[:1].repeat(rows))


@dataclass(frozen=True, kw_only=True)
class NumpyGlobal(MixUp):
    """Draws from numpy's global state."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        weight = torch.from_numpy(np.random.beta(1.0, 1.0, len(plan.own))).float()  # noqa: NPY002
        return replace(plan, weight=weight, mask=weight[:, None, None, None])


@dataclass(frozen=True, kw_only=True)
class TorchGlobal(MixUp):
    """Draws from torch's global state."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        return replace(plan, partner=torch.randint(len(pool.images), (len(plan.own),)))


@dataclass(frozen=True, kw_only=True)
class EvenOnly(MixUp):
    """Takes even batches only (timm's Mixup)."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        assert len(batch.images) % 2 == 0
        return super().plan(batch, pool, rng=rng)


@dataclass(frozen=True, kw_only=True)
class SpreadsNaN(MixUp):
    """Interpolates targets without looking, so that NaN times zero is NaN."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        assert rng is not None
        batch = Batch(images=images, targets=targets)
        plan = self.plan(batch, batch, rng=rng)
        share = plan.weight[:, None]
        return plan.apply(batch).images, share * targets + (1 - share) * targets[plan.partner] + 0 * targets.sum()


@dataclass(frozen=True, kw_only=True)
class ForgetsNaN(MixUp):
    """Takes a label that is missing for a zero."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        mixed, new_targets = super().__call__(images, targets, rng=rng)
        return mixed, new_targets.nan_to_num(0.0)


@dataclass(frozen=True, kw_only=True)
class WrongBeta(MixUp):
    """Draws from Beta(alpha, 1)."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        weight = torch.from_numpy(rng.beta(self.alpha, 1.0, size=len(plan.own))).float()
        return replace(plan, weight=weight, mask=weight[:, None, None, None])


@dataclass(frozen=True, kw_only=True)
class WrongSpread(MixUp):
    """Draws with the right mean and the wrong variance."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        return MixUp(alpha=1.2 * self.alpha).plan(batch, pool, rng=rng)


@dataclass(frozen=True, kw_only=True)
class AlwaysMixes(MixUp):
    """Does not heed its probability."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        return MixUp(alpha=self.alpha).plan(batch, pool, rng=rng)


@dataclass(frozen=True, kw_only=True)
class DrawsByType(MixUp):
    """Draws in the images' own precision."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        weight = plan.weight.to(batch.images.dtype).float()
        return replace(plan, weight=weight, mask=weight[:, None, None, None])


@dataclass(frozen=True, kw_only=True)
class IgnoresThePool(MixUp):
    """Takes partners from the batch, whatever the pool."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        return super().plan(batch, batch, rng=rng)


@dataclass(frozen=True, kw_only=True)
class CutsTheGraph(MixUp):
    """Mixes outside autograd."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return super().__call__(images.detach(), targets, rng=rng)


@dataclass(frozen=True, kw_only=True)
class LosesLayout(MixUp):
    """Gives back contiguous images, whatever it was given."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return super().__call__(images.contiguous(), targets, rng=rng)


@dataclass(frozen=True, kw_only=True)
class RoundsTheShare(MixUp):
    """Mixes half precision with a share of half precision, and labels in the images' type."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        mixed, new_targets = super().__call__(images, targets, rng=rng)
        return mixed, new_targets.to(images.dtype)


@dataclass(frozen=True, kw_only=True)
class TakesAnyClass(MixUp):
    """Wraps class numbers that are out of range."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        if targets.ndim == 1:
            targets = targets % (self.num_classes or 5)
        return super().__call__(images, targets, rng=rng) if self.num_classes else (images, targets)


@dataclass(frozen=True, kw_only=True)
class MultipliesMatrices(MixUp):
    """Weighs by a product of matrices, which autocast rounds."""

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        plan = super().plan(batch, pool, rng=rng)
        weight = (torch.eye(len(plan.weight)) @ plan.weight[:, None])[:, 0].float()
        return replace(plan, weight=weight, mask=weight[:, None, None, None])


@dataclass(kw_only=True)
class Thawed(Mixer):
    """Can be changed after the fact."""

    num_classes: int | None = None

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        return MixUp().plan(batch, pool, rng=rng)


BROKEN_MIXERS: list[tuple[Mixer, Callable[[Mixer], None]]] = [
    (InPlace(), mixer_promises.inputs_are_untouched),
    (Alias(), mixer_promises.inputs_are_untouched),
    (OtherShare(), mixer_promises.counted_pixels_equal_label_mass),
    (UnclippedShare(), mixer_promises.counted_pixels_equal_label_mass),
    (OneWeightPerBatch(), mixer_promises.weights_are_drawn_per_image),
    (OneBoxPerBatch(), mixer_promises.weights_are_drawn_per_image),
    (NumpyGlobal(), mixer_promises.global_randomness_is_untouched),
    (NumpyGlobal(), mixer_promises.same_stream_gives_same_result),
    (TorchGlobal(), mixer_promises.global_randomness_is_untouched),
    (EvenOnly(), mixer_promises.any_shape_and_type_will_do),
    (RoundsTheShare(), mixer_promises.any_shape_and_type_will_do),
    (SpreadsNaN(), mixer_promises.missing_labels_do_not_spread),
    (ForgetsNaN(), mixer_promises.missing_labels_do_not_spread),
    (TakesAnyClass(), mixer_promises.every_kind_of_target_is_taken),
    (WrongBeta(), mixer_promises.weights_have_betas_moments),
    (WrongSpread(), mixer_promises.weights_have_betas_moments),
    (AlwaysMixes(), mixer_promises.probability_is_the_share_of_mixed_rows),
    (DrawsByType(), mixer_promises.same_stream_gives_same_result),
    (IgnoresThePool(), mixer_promises.partners_come_from_the_pool),
    (CutsTheGraph(), mixer_promises.gradients_flow),
    (LosesLayout(), mixer_promises.layouts_agree),
    (MultipliesMatrices(), mixer_promises.autocast_changes_nothing),
    (Thawed(), mixer_promises.settings_are_values),
]


@pytest.mark.parametrize(
    ("mixer", "promise"), BROKEN_MIXERS, ids=lambda value: getattr(value, "__name__", type(value).__name__)
)
def test_broken_mixer_is_caught(mixer: Mixer, promise: Callable[[Mixer], None]) -> None:
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        promise(mixer)


def test_every_promise_of_mixers_is_shown_to_fail() -> None:
    assert {promise for _, promise in BROKEN_MIXERS} == set(mixer_promises.PROMISES)


@dataclass(frozen=True, kw_only=True)
class CountsUnlabelled:
    """Divides by all rows, labelled or not."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets.nan_to_num(0.0) * logits.log_softmax(dim=1)).sum(dim=1).mean()


@dataclass(frozen=True, kw_only=True)
class MasksTooLate:
    """Removes NaN from the loss, but not from its gradient."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        rows = -(targets * logits.log_softmax(dim=1)).sum(dim=1)
        labelled = ~targets.isnan().any(dim=1)
        return (torch.where(labelled, rows, 0.0) * (logits.sum() / logits.sum())).sum() / labelled.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class NoneIsNaN:
    """Takes the mean of nothing."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        labelled = ~targets.isnan().any(dim=1)
        return functional.cross_entropy(logits[labelled], targets[labelled])


@dataclass(frozen=True, kw_only=True)
class NaiveLog:
    """Takes the logarithm of a probability that has become zero."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets.nan_to_num(0.0) * logits.softmax(dim=1).log()).sum(dim=1).mean()


@dataclass(frozen=True, kw_only=True)
class FavoursTheFirst:
    """Weighs rows by their place."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        rows = -(targets.nan_to_num(0.0) * logits.log_softmax(dim=1)).sum(dim=1)
        return (rows * torch.arange(len(rows), 0, -1)).mean()


@dataclass(frozen=True, kw_only=True)
class AveragesTheLabels:
    """Averages over the batch before weighting, so that no row keeps its own soft label (VariMix's code)."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets.mean(dim=0) * logits.log_softmax(dim=1).mean(dim=0)).sum()


@dataclass(frozen=True, kw_only=True)
class Upside:
    """Has the sign wrong."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -functional.cross_entropy(logits, targets)


@dataclass(frozen=True, kw_only=True)
class StaysHalf:
    """Computes in the precision of the logits."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets.to(logits.dtype))


@dataclass(frozen=True, kw_only=True)
class RawWeights:
    """Weighs by 1 / n without bringing the weights to the mean of 1."""

    class_weights: str = "none"
    class_counts: object = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.class_weights == "none":
            return functional.cross_entropy(logits, targets)
        weights = 1 / torch.tensor(np.asarray(self.class_counts), dtype=torch.float32).clamp(min=1)
        return functional.cross_entropy(logits, targets, weight=weights)


@dataclass(frozen=True, kw_only=True)
class KeepsInference:
    """Keeps a tensor from its first call, whatever the mode."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = _KEPT.setdefault(logits.shape[1], torch.ones(logits.shape[1]))
        return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)


_KEPT: dict[int, Tensor] = {}


@dataclass(frozen=True, kw_only=True)
class WritesTargets:
    """Removes NaN from the caller's targets."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets.nan_to_num_(0.0))


class Positional:
    """Is no dataclass."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets)


@dataclass(frozen=True, kw_only=True)
class TakesMissingForNo:
    """Counts a cell without a label as a negative."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, targets.nan_to_num(0.0))


@dataclass(frozen=True, kw_only=True)
class AveragesByColumn:
    """Divides each class's sum by its number of labels, whatever that is."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        known = ~targets.isnan()
        cells = functional.binary_cross_entropy_with_logits(logits, targets.nan_to_num(0.0), reduction="none")
        return (torch.where(known, cells, 0.0).sum(dim=0) / known.sum(dim=0)).mean()


@dataclass(frozen=True, kw_only=True)
class TakesTheLargest:
    """Takes a soft target for its largest class."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets.argmax(dim=1))


@dataclass(frozen=True, kw_only=True)
class AsksEachClass:
    """Is a softmax loss in name only."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, targets)


@dataclass(frozen=True, kw_only=True)
class HoldsItsWeightsFixed:
    """Leaves the focal factor out of the gradient."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        scores = logits.log_softmax(dim=1)
        return -(targets.nan_to_num(0.0) * (1 - scores.exp()).detach() * scores).sum()


@dataclass(frozen=True, kw_only=True)
class GoesOnAndOn:
    """Is another loss whenever it is asked."""

    number: int = 0

    def at_step(self, step: int, *, steps: int) -> "GoesOnAndOn":
        return GoesOnAndOn(number=self.number + 1)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets)


BROKEN_LOSSES: list[tuple[type[Loss], Callable[[type[Loss]], None]]] = [
    (CountsUnlabelled, loss_promises.unlabelled_rows_are_dropped),
    (MasksTooLate, loss_promises.unlabelled_rows_are_dropped),
    (NoneIsNaN, loss_promises.nothing_labelled_is_zero),
    (NaiveLog, loss_promises.gradients_are_finite),
    (FavoursTheFirst, loss_promises.order_does_not_matter),
    (AveragesTheLabels, loss_promises.it_is_a_mean),
    (Upside, loss_promises.right_is_better_than_wrong),
    (StaysHalf, loss_promises.half_precision_is_computed_in_float32),
    (RawWeights, loss_promises.equal_counts_weigh_nothing),
    (KeepsInference, loss_promises.validation_first_is_no_trap),
    (WritesTargets, loss_promises.inputs_and_randomness_are_untouched),
    (Positional, loss_promises.settings_are_values),
    (TakesMissingForNo, loss_promises.unlabelled_cells_have_no_gradient),
    (AveragesByColumn, loss_promises.a_column_may_be_empty),
    (TakesTheLargest, loss_promises.soft_is_the_expanded_sum),
    (AsksEachClass, loss_promises.a_shared_shift_changes_nothing),
    (HoldsItsWeightsFixed, loss_promises.the_gradient_is_that_of_the_value),
    (GoesOnAndOn, loss_promises.a_step_changes_no_settings),
]


@pytest.mark.parametrize(("kind", "promise"), BROKEN_LOSSES, ids=lambda value: value.__name__)
def test_broken_loss_is_caught(kind: type[Loss], promise: Callable[[type[Loss]], None]) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        promise(kind)


def test_every_promise_of_losses_is_shown_to_fail() -> None:
    assert {promise for _, promise in BROKEN_LOSSES} == set(loss_promises.PROMISES)
