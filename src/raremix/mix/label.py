"""What the label becomes: rules from a mask to the share that each row keeps of its own label.

area    mean of the mask: what the eye sees
mass    share of the importance that the mask keeps: sum(m A_own) / (sum(m A_own) + sum((1 - m) A_partner))
keep    1: the label stays the row's own
remix   area, but the rarer class takes all where the other's is much larger and its share small
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.masks import resize_mask
from raremix.core.types import Boxes

LabelName = Literal["area", "mass", "keep", "remix"]


def area(mask: Float[Tensor, "R 1 h w"] | Boxes) -> Float[Tensor, " R"]:
    """Weigh labels by counted pixels: the mean of the mask.

    Example:
        >>> area(torch.tensor([[[[1.0, 0.0]]]]))
        tensor([0.5000])
    """
    if isinstance(mask, Boxes):
        return mask.share()
    if mask.shape[-2:] == (1, 1):
        return mask.reshape(-1)
    return mask.float().mean(dim=(1, 2, 3))


def mass(
    mask: Float[Tensor, "R 1 h w"] | Boxes, own: Float[Tensor, "R 1 a b"], partner: Float[Tensor, "R 1 c d"]
) -> Float[Tensor, " R"]:
    """Weigh labels by the importance that each image contributes; by area where nothing important is left of either.

    Args:
        mask: share each pixel keeps of its own image.
        own, partner: importance maps of the images, row by row; their sizes may differ.

    Example:
        >>> left = torch.tensor([[[[1.0, 0.0]]]])
        >>> mass(left, own=left, partner=1 - left)
        tensor([0.5000])
    """
    counted = area(mask)
    if partner.shape[-2:] != own.shape[-2:]:
        partner = functional.interpolate(partner, size=own.shape[-2:], mode="area")
    full = mask.to_mask() if isinstance(mask, Boxes) else mask
    full = resize_mask(full.to(own.device), *own.shape[-2:])
    kept, given = (own * full).sum(dim=(1, 2, 3)), (partner * (1 - full)).sum(dim=(1, 2, 3))
    total = kept + given
    return torch.where(total > 0, kept / total.clamp(min=1e-12), counted.to(own.device)).to(counted.device)


def remix(
    weight: Float[Tensor, " R"],
    own_counts: Float[np.ndarray, " R"],
    partner_counts: Float[np.ndarray, " R"],
    *,
    kappa: float = 3.0,
    tau: float = 0.5,
) -> Float[Tensor, " R"]:
    """Give the whole label to the rarer class where the other is much larger and the rarer one's share small [1].

    With n the class counts and w the weight: 0 if n_own / n_partner >= kappa and w < tau; 1 if n_own / n_partner <= 1 /
    kappa and 1 - w < tau; else w.

    [1] Chou et al., "Remix: Rebalanced Mixup", ECCV Workshops 2020, https://arxiv.org/abs/2007.03943.

    Args:
        weight: share of its own label that each row would keep.
        own_counts, partner_counts: training images of the classes of both.
        kappa: ratio of counts from which the rule holds.
        tau: share below which it holds.

    Example:
        >>> remix(torch.tensor([0.4, 0.6]), np.array([90.0, 90.0]), np.array([10.0, 10.0]))
        tensor([0.0000, 0.6000])
    """
    with np.errstate(invalid="ignore"):  # two rows without any label
        quotient = np.nan_to_num(own_counts / np.maximum(partner_counts, 1e-12), nan=1.0)
    ratio = torch.from_numpy(quotient).to(weight.device)
    weight = torch.where((ratio >= kappa) & (weight < tau), torch.zeros_like(weight), weight)
    return torch.where((ratio <= 1 / kappa) & (1 - weight < tau), torch.ones_like(weight), weight)
