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
    share = mask.share() if isinstance(mask, Boxes) else mask.double().mean(dim=(1, 2, 3))
    return share.float()
