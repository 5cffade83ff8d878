"""Grey images, for the maps that know no colour."""

from jaxtyping import Float
from torch import Tensor

# ITU-R BT.601, which OpenCV and torchvision use too.
LUMA = (0.299, 0.587, 0.114)


def grey_weights(channels: int) -> list[float]:
    """Return what each channel adds to the grey value: BT.601 for three channels, the mean for any other number.

    Example:
        >>> grey_weights(3), grey_weights(2)
        ([0.299, 0.587, 0.114], [0.5, 0.5])
    """
    return list(LUMA) if channels == len(LUMA) else [1 / channels] * channels


def grey_of(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
    """Return grey images.

    Example:
        >>> import torch
        >>> grey_of(torch.tensor([0.25, 0.75]).reshape(1, 2, 1, 1)).item()
        0.5
    """
    first, *rest = zip(images.unbind(1), grey_weights(images.shape[1]), strict=True)
    grey = first[0] * first[1]
    for channel, weight in rest:
        grey = grey.add_(channel, alpha=weight)
    return grey[:, None]
