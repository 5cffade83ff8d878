"""What the label becomes: rules from a mask to the share that each row keeps of its own label."""

from jaxtyping import Float
from torch import Tensor

from raremix.core.types import Boxes


def area(mask: Float[Tensor, "R 1 h w"] | Boxes) -> Float[Tensor, " R"]:
    """Weigh labels by counted pixels: the mean of the mask.

    Example:
        >>> import torch
        >>> area(torch.tensor([[[[1.0, 0.0]]]]))
        tensor([0.5000])
    """
    if isinstance(mask, Boxes):
        return mask.share()
    if mask.shape[-2:] == (1, 1):
        return mask.reshape(-1)
    return mask.double().mean(dim=(1, 2, 3)).float()
