"""Importance maps per class, brought to one map per image."""

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import DataError
from raremix.core.types import Batch


def away_from_own(batch: Batch) -> Float[Tensor, "B 1 h w"]:
    """Return one map per image: of maps per class, the mean over all classes that the image does not show.

    Maps per class say what would change in the image if it showed that class; their mean is what would change if it
    showed another, whichever. A class is shown where its target is above a half, and not where it is missing. An image
    that shows all classes has a map of zeros.

    Args:
        batch: with importance maps, one per image or one per class; one per image is returned as it is.

    Raises:
        DataError: if there are neither as many maps as classes, nor one.

    Example:
        >>> maps = torch.tensor([0.9, 0.2, 0.4]).reshape(1, 3, 1, 1)
        >>> batch = Batch(images=torch.zeros(1, 1, 8, 8), targets=torch.eye(3)[:1], importance=maps)
        >>> away_from_own(batch).flatten()
        tensor([0.3000])
    """
    maps = batch.importance
    assert maps is not None
    if maps.shape[1] == 1:
        return maps
    is_shown = batch.targets.detach().nan_to_num(nan=0.0) > 0.5
    return weigh_classes(maps, (~is_shown).float())


def towards(maps: Float[Tensor, "B m h w"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
    """Return what would change towards the classes of some targets: the mean of their maps, weighed by the targets.

    Args:
        maps: one per class.
        targets: those of each image's partner. Where none is positive, all classes count alike.

    Raises:
        DataError: if there are not as many maps as classes.

    Example:
        >>> maps = torch.tensor([0.9, 0.2, 0.4]).reshape(1, 3, 1, 1)
        >>> towards(maps, torch.tensor([[0.0, 1.0, 1.0]])).flatten()
        tensor([0.3000])
    """
    weights = targets.detach().float().nan_to_num(nan=0.0).clamp(min=0)
    return weigh_classes(maps, torch.where(weights.sum(dim=1, keepdim=True) > 0, weights, 1.0))


def weigh_classes(maps: Float[Tensor, "B m h w"], weights: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
    """Return the weighted mean of each image's maps, without gradient; zeros where all weights are zero, or maps NaN.

    Raises:
        DataError: if there are not as many maps as weights.
    """
    if maps.shape[1] != weights.shape[1]:
        raise DataError(
            f"{maps.shape[1]} importance maps per image, but targets of {weights.shape[1]} classes: give one map per "
            "image, or one per class"
        )
    shares = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
    shares = shares.to(maps.device)[:, :, None, None]
    return (maps.detach().float().nan_to_num(nan=0.0) * shares).sum(dim=1, keepdim=True)
