"""InputGradient: which pixels the loss hangs on."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.protocols import Loss
from raremix.explain.network import images_for, logits_of, undisturbed
from raremix.explain.scale import over_peak, working_type


@dataclass(frozen=True, kw_only=True)
class InputGradient:
    """Size of the loss's gradient by each pixel [1], which PuzzleMix and Co-Mixup are guided by.

    map = sum over channels of |d loss / d pixel|, divided by its largest value within the image. The network is run for
    evaluation and left as it was: modes, statistics and gradients.

    [1] Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and
    Saliency Maps", 2013, https://arxiv.org/abs/1312.6034. Departures: of the loss, as in PuzzleMix, instead of one
    class's logit; the sum over channels instead of the largest.

    Args:
        model: images in [0, 1] -> logits.
        loss: its gradient is taken. None: cross-entropy of the softmax, with soft targets, where missing ones do not
            count; for multi-label targets pass one that fits, such as `raremix.losses.BinaryCrossEntropy()`.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
        >>> InputGradient(model=net)(torch.rand(5, 3, 8, 8), torch.eye(2)[[0, 1, 1, 0, 1]]).shape
        torch.Size([5, 1, 8, 8])
    """

    model: nn.Module = field(repr=False)
    loss: Loss | None = None

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
        """Return which pixels the loss on the targets depends on; zeros where nothing is labelled."""
        loss = soft_cross_entropy if self.loss is None else self.loss
        with undisturbed(self.model), torch.enable_grad():
            pixels = images_for(self.model, images).requires_grad_()
            logits = logits_of(self.model, pixels, targets)
            (gradient,) = torch.autograd.grad(loss(logits, targets.to(logits)), pixels)
        return over_peak(gradient.to(working_type(images)).abs().sum(dim=1, keepdim=True))


def soft_cross_entropy(logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Return the sum of -target log softmax(logits) over what is labelled."""
    return -(targets.nan_to_num(0) * logits.log_softmax(dim=1)).sum()
