"""DifferenceMap: what would change if the image showed something else."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import ImageReconstructor, ImageTranslator
from raremix.core.random import rng
from raremix.explain.scale import min_max, working_type

ROBUST = 0.995  # a few broken pixels of a translation do not set the scale


@dataclass(frozen=True, kw_only=True)
class DifferenceMap:
    """Absolute difference between each image and its translation to the classes that the targets name [1].

    d = |translation - image|, scaled within the image, over all its channels and pixels, so that its smallest value is
    0 and its largest 1; map = mean of d over channels. A translation that changes nothing, or all values alike, has a
    map of zeros.

    [1] Xiong et al., "VariMix", Computer Methods and Programs in Biomedicine 271:109016, 2025,
    https://github.com/yXiangXiong/VariMix. Departures, by option: the difference to the image's reconstruction, so that
    what the translator cannot draw does not count; a scale that a few pixels do not set.

    Args:
        translator: (images, targets, rng=...) -> images that show the classes of the targets.
        to_reconstruction: compare with `translator.reconstruct(images)` instead of the images.
        robust: scale by the 99.5th percentile instead of the largest value, and cut what exceeds it.
        seed: address of the translator's random draws, which are the same in every call.

    Raises:
        ConfigError: if a reconstruction is asked of a translator that makes none.

    Example:
        >>> brighter = lambda images, targets, rng: images + torch.tensor([0.0, 0.1])
        >>> DifferenceMap(translator=brighter)(torch.zeros(1, 3, 1, 2), torch.ones(1, 1))
        tensor([[[[0., 1.]]]])
    """

    translator: ImageTranslator = field(repr=False)
    to_reconstruction: bool = False
    robust: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.to_reconstruction and not isinstance(self.translator, ImageReconstructor):
            raise ConfigError(
                "to_reconstruction needs a translator with reconstruct(images): set to_reconstruction = false"
            )

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
        """Return what changes when the images are translated to the targets' classes."""
        others = self.translator(images, targets, rng=rng(self.seed, "mask"))
        if self.to_reconstruction:
            assert isinstance(self.translator, ImageReconstructor)
            images = self.translator.reconstruct(images)
        return difference_map(images, others, robust=self.robust)


def difference_map(
    images: Float[Tensor, "B C H W"], others: Float[Tensor, "..."], *, robust: bool = False
) -> Float[Tensor, "B 1 H W"]:
    """Return the scaled absolute difference of two sets of images; see `DifferenceMap`.

    Args:
        images: values in [0, 1].
        others: the same images, translated.
        robust: scale by the 99.5th percentile.

    Raises:
        DataError: if the two differ in shape.

    Example:
        >>> difference_map(torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[[[0.25, 0.5]]]])).flatten()
        tensor([1., 0.])
    """
    if images.shape != others.shape:
        raise DataError(
            f"images have shape {tuple(images.shape)}, their translations {tuple(others.shape)}: resize them to match"
        )
    dtype = torch.promote_types(working_type(images), others.dtype)
    change = (others.to(dtype) - images.to(dtype)).abs()
    if robust:
        change = change.minimum(_percentile(change))
    return min_max(change).mean(dim=1, keepdim=True)


def _percentile(change: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 1 1"]:
    """Return the smallest value of each row that at least `ROBUST` of its values do not exceed.

    `torch.quantile` refuses large inputs.
    """
    values = change.flatten(1)
    rank = max(-int(-ROBUST * values.shape[1] // 1), 1)
    return values.kthvalue(rank, dim=1).values[:, None, None, None]
