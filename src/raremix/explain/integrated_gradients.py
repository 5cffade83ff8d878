"""IntegratedGradients: what each pixel adds to a class on the way from an empty image to this one."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.explain.network import images_for, logits_of, undisturbed
from raremix.explain.scale import over_peak, working_type


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients:
    """Gradient of the asked classes' logits, averaged on the straight way from a flat image, times the way [1].

    s = sum_k target_k logit_k; x: an image, x0: the flat one; of each pixel and channel

        a = (x - x0) mean over t of ds/dx at x0 + t (x - x0), t = (i + 1/2) / steps

    and sum(a) = s(x) - s(x0), up to the error of `steps` (completeness); map = the positive part of the sum of a over
    channels, divided by its largest value. What speaks against the classes, and what is as dark as the flat image,
    counts for nothing.

    [1] Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017,
    https://arxiv.org/abs/1703.01365. Departures: several classes at once, weighted by the targets (missing ones do not
    count); of logits, as in Grad-CAM, since probabilities near 1 have no gradient; the midpoint rule, which is exact
    where the gradient is linear along the way.

    The network is run for evaluation and left as it was: modes, statistics and gradients.

    Args:
        model: images in [0, 1] -> logits.
        steps: points of the way, each a forward and a backward pass.
        baseline: value of the flat image, in [0, 1]; 0 is black.

    Raises:
        ConfigError: if there is no step, or the baseline is no grey value.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
        >>> IntegratedGradients(model=net, steps=4)(torch.rand(5, 3, 8, 8), torch.eye(2)[[0, 1, 1, 0, 1]]).shape
        torch.Size([5, 1, 8, 8])
    """

    model: nn.Module = field(repr=False)
    steps: int = 32
    baseline: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.baseline <= 1:
            raise ConfigError(
                f"expected steps >= 1 and a baseline in [0, 1], got {self.steps} and {self.baseline}: images are in "
                "[0, 1]"
            )

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
        """Return what each pixel adds to the targets' classes; zeros where nothing is asked about."""
        return over_peak(self.attributions(images, targets).sum(dim=1, keepdim=True))

    def attributions(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B C H W"]:
        """Return what each pixel of each channel adds, with its sign, in units of logits."""
        with undisturbed(self.model):
            inputs = images_for(self.model, images)
            way = inputs - self.baseline
            total = torch.zeros_like(inputs, dtype=working_type(images))
            for step in range(self.steps):
                with torch.enable_grad():
                    point = (self.baseline + (step + 0.5) / self.steps * way).requires_grad_()
                    logits = logits_of(self.model, point, targets)
                    score = (logits * targets.nan_to_num(0).to(logits)).sum()
                    (gradient,) = torch.autograd.grad(score, point)
                total += gradient
            return total / self.steps * way
