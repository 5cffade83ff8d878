"""DifferenceMap: what would change if the image showed something else."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import ImageReconstructor, ImageTranslator
from raremix.core.random import RowStreams, rng
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
        to_reconstruction: compare with `translator.reconstruct(images, own)` instead of the images.
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
    def __call__(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"], own: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B 1 H W"]:
        """Return what changes when the images are translated to the targets' classes.

        Args:
            images: values in [0, 1].
            targets: the classes to go to.
            own: the images' own classes, which reconstructions ask for; without them the translator has to guess.
        """
        others = self.translator(images, targets, rng=rng(self.seed, "mask"))
        return difference_map(self._start(images, own), others, robust=self.robust)

    @torch.no_grad()
    def towards_every(
        self,
        images: Float[Tensor, "B C H W"],
        own: Float[Tensor, "B K"],
        *,
        numbers: Int[np.ndarray, " B"] | None = None,
        with_own: bool = True,
    ) -> Float[Tensor, "B K H W"]:
        """Return what changes when the images are translated to each class in turn.

        Each image is drawn once per class, and once more as its own class where reconstructions are compared with.

        Args:
            images: values in [0, 1].
            own: their own classes.
            numbers: of the images; an image of the same number is translated in the same style, whatever is beside it.
                None: their places.
            with_own: also towards an image's own class, whose map is zero otherwise.
        """
        start, classes = self._start(images, own), own.shape[1]
        known = np.arange(len(images)) if numbers is None else numbers
        found = torch.zeros(len(images), classes, *images.shape[-2:], device=images.device)
        for k in range(classes):
            rows = torch.arange(len(images)) if with_own else (own.argmax(dim=1) != k).nonzero()[:, 0].cpu()
            if len(rows):
                wanted = torch.eye(classes, device=images.device)[k].expand(len(rows), -1)
                styles = RowStreams([rng(self.seed, "mask", int(n), k) for n in known[rows.numpy()]])
                others = self.translator(images[rows], wanted, rng=styles)
                found[rows, k] = difference_map(start[rows], others, robust=self.robust)[:, 0].float()
        return found

    def _start(self, images: Float[Tensor, "B C H W"], own: Float[Tensor, "B K"] | None) -> Float[Tensor, "B C H W"]:
        if not self.to_reconstruction:
            return images
        assert isinstance(self.translator, ImageReconstructor)
        return self.translator.reconstruct(images) if own is None else self.translator.reconstruct(images, own)


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
