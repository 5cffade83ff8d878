"""What a discriminator and a generator play for, and the penalty that keeps the game stable."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Game = Literal["hinge", "non_saturating"]


def discriminator_loss(
    real: Float[Tensor, " B"], fake: Float[Tensor, " B"], *, game: Game = "non_saturating"
) -> Float[Tensor, ""]:
    """Return what the discriminator pays for its logits.

    non_saturating: BCE(real, 1) + BCE(fake, 0) (https://arxiv.org/abs/1406.2661);
    hinge: mean(max(0, 1 - real)) + mean(max(0, 1 + fake)) (https://arxiv.org/abs/1705.02894).

    Example:
        >>> float(discriminator_loss(torch.tensor([2.0]), torch.tensor([0.0]), game="hinge"))
        1.0
    """
    if game == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def generator_loss(fake: Float[Tensor, " B"], *, game: Game = "non_saturating") -> Float[Tensor, ""]:
    """Return what the generator pays: BCE(fake, 1), or minus the mean logit under the hinge."""
    return -fake.mean() if game == "hinge" else functional.softplus(-fake).mean()


def gradient_penalty(logits: Float[Tensor, " B"], images: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Return R1: half the squared gradient of the logits of real images by their pixels, mean over images.

    Mescheder et al., ICML 2018, https://arxiv.org/abs/1801.04406.

    Args:
        logits: of the images, row by row.
        images: what they were computed from, with `requires_grad`.

    Example:
        >>> images = torch.ones(1, 1, 1, 2, requires_grad=True)
        >>> float(gradient_penalty((3 * images).sum(dim=(1, 2, 3)), images))
        9.0
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


def exact(network: nn.Module) -> nn.Module:
    """Return a network without what the loop has around it to compute in fewer bits.

    Penalties are small differences of large numbers, of which bf16 keeps eight bits. In 32 bits it is the same network.
    """
    inner = getattr(network, "module", network)
    assert isinstance(inner, nn.Module)
    return inner
