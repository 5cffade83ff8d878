"""Distribution-balanced loss: weights that know which labels come together, and negatives that are let off early."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.class_weights import check_classes, required_counts
from raremix.losses.focal import check_gamma
from raremix.losses.labelled import labelled_cells


def distribution_balanced(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    class_counts: Sequence[float | int] | np.ndarray,
    labelled_counts: Sequence[float | int] | np.ndarray,
    floor: float = 0.1,
    steepness: float = 10.0,
    centre: float = 0.2,
    negative_scale: float = 2.0,
    bias: float = 0.05,
    gamma: float = 2.0,
    factor: float = 2.0,
) -> Float[Tensor, ""]:
    """Compute the mean distribution-balanced focal loss over the labelled cells.

    L = (1 / n) sum_ic w_ic f [ y (1 - p)^g softplus(-x) + (1 - y) q^g softplus(a x) / a ], x = z - v_c, p = s(x),
    q = s(a x) [1], with

        w_ic = floor + s(steepness (r_ic - centre)),  r_ic = (1 / n_c) / sum_k (y_ik / n_k)
        v_c = (bias / a) log(N_c / n_c - 1)

    r is the rate at which class-balanced sampling would draw the image for label c over the rate at which it draws it
    for any of its labels. The forms of the authors' code are followed, in which an image without a positive label
    takes the largest weight, and the bias is divided by a.

    [1] Wu et al., "Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets", ECCV 2020,
    https://arxiv.org/abs/2007.09654.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell does not count. Soft targets weigh both parts, and enter r as they are.
        class_counts: n, training images that show each label, > 0.
        labelled_counts: N, training images in which each label is known, > n.
        floor: least weight.
        steepness: of the map from rates to weights.
        centre: the rate at which the weight is in the middle.
        negative_scale: a, >= 1: negatives that are well below 0 are let off sooner.
        bias: strength of the prior's shift; 0 leaves it out.
        gamma: g, exponent of the focal factor, >= 0; 0 leaves it, and f, out.
        factor: f, constant that makes up for the focal factor's size.

    Returns:
        The mean over labelled cells; 0, with a gradient of 0, where there is none.

    Example:
        >>> targets = torch.tensor([[1.0, 0.0]])
        >>> distribution_balanced(torch.zeros(1, 2), targets, class_counts=(5.0, 5.0), labelled_counts=(10.0, 10.0))
        tensor(0.2858)
    """
    part = labelled_cells(logits, targets)
    counts, labelled = checked_label_counts(class_counts, labelled_counts, loss="distribution_balanced")
    check_classes(counts, logits)
    rarity, shift = _rarity_and_shift(counts, labelled, bias / negative_scale, logits.device)
    rarity, shift = rarity.to(part.logits), shift.to(part.logits)
    drawn = (part.shares * rarity).sum(dim=1, keepdim=True)
    rates = rarity / drawn.clamp(min=torch.finfo(drawn.dtype).tiny)
    weights = floor + torch.sigmoid(steepness * (rates - centre))
    moved = part.logits - shift
    positive, negative = functional.softplus(-moved), functional.softplus(negative_scale * moved)
    if gamma > 0:
        # s(x)^g = exp(-g softplus(-x)) has a finite gradient for any g
        focus = torch.exp(-gamma * functional.softplus(moved))
        focus_negative = torch.exp(-gamma * functional.softplus(-negative_scale * moved))
        positive, negative = factor * focus * positive, factor * focus_negative * negative
    cells = weights * (part.shares * positive + (1 - part.shares) * negative / negative_scale)
    return part.mean_of_cells(cells)


@lru_cache(maxsize=64)
def _rarity_and_shift(
    class_counts: tuple[float, ...], labelled_counts: tuple[float, ...], strength: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    counts, labelled = np.asarray(class_counts), np.asarray(labelled_counts)
    with torch.inference_mode(False):  # a validation may come first, and both are kept for training
        rarity = torch.tensor(1 / counts, dtype=torch.float32, device=device)
        shift = torch.tensor(strength * np.log(labelled / counts - 1), dtype=torch.float32, device=device)
    return rarity, shift


@dataclass(frozen=True, kw_only=True)
class DistributionBalanced(Loss):
    """Distribution-balanced focal loss, for multilabel tasks; NaN cells do not count.

    Args:
        floor, steepness, centre: least weight, and the map from sampling rates to weights.
        negative_scale: >= 1; negatives that are well below 0 are let off sooner.
        bias: strength of the prior's shift of the logits, >= 0.
        gamma: exponent of the focal factor, >= 0.
        factor: constant that makes up for the focal factor's size.
        class_counts: training images that show each label; a study fills them in.
        labelled_counts: training images in which each label is known; a study fills them in.

    Raises:
        ConfigError: if counts are missing or do not fit together, or a value is out of range.

    Example:
        >>> loss = DistributionBalanced(class_counts=(5, 5), labelled_counts=(10, 10))
        >>> loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.2858)
    """

    floor: float = 0.1
    steepness: float = 10.0
    centre: float = 0.2
    negative_scale: float = 2.0
    bias: float = 0.05
    gamma: float = 2.0
    factor: float = 2.0
    class_counts: Sequence[float | int] | np.ndarray | None = None
    labelled_counts: Sequence[float | int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        known = (self.floor, self.steepness, self.centre, self.negative_scale, self.bias, self.factor)
        if not (np.isfinite(known).all() and self.floor >= 0 and self.negative_scale >= 1 and self.bias >= 0):
            raise ConfigError(
                "distribution_balanced needs finite numbers, floor >= 0, negative_scale >= 1 and bias >= 0; got floor, "
                f"steepness, centre, negative_scale, bias and factor {', '.join(map(str, known))}"
            )
        if not self.factor > 0:
            raise ConfigError(f"distribution_balanced needs factor > 0, got {self.factor}")
        counts, labelled = checked_label_counts(self.class_counts, self.labelled_counts, loss="distribution_balanced")
        object.__setattr__(self, "class_counts", counts)
        object.__setattr__(self, "labelled_counts", labelled)

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of the labelled cells.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        assert isinstance(self.class_counts, tuple)
        assert isinstance(self.labelled_counts, tuple)
        return distribution_balanced(
            logits,
            targets,
            class_counts=self.class_counts,
            labelled_counts=self.labelled_counts,
            floor=self.floor,
            steepness=self.steepness,
            centre=self.centre,
            negative_scale=self.negative_scale,
            bias=self.bias,
            gamma=self.gamma,
            factor=self.factor,
        )


def checked_label_counts(
    class_counts: Sequence[float | int] | np.ndarray | None,
    labelled_counts: Sequence[float | int] | np.ndarray | None,
    *,
    loss: str,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the numbers of images that show each label, and of those in which it is known, as tuples.

    Raises:
        ConfigError: if one is missing, a label is nowhere shown, or nowhere absent.
    """
    counts = required_counts(class_counts, loss=loss)
    labelled = required_counts(labelled_counts, loss=loss, what="labelled_counts")
    if len(counts) != len(labelled):
        raise ConfigError(f"{loss}: class_counts has {len(counts)} entries, labelled_counts {len(labelled)}")
    always = [k for k, (n, known) in enumerate(zip(counts, labelled, strict=True)) if n >= known]
    if always:
        raise ConfigError(
            f"{loss}: label {', '.join(map(str, always))} (counted from 0) is positive in every training image in "
            "which it is known: there is nothing to tell it from. Leave the label out"
        )
    return counts, labelled
