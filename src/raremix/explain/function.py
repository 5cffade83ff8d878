"""FunctionMap: any function as an importance map, checked."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import DataError
from raremix.explain.scale import min_max


@dataclass(frozen=True, kw_only=True)
class FunctionMap:
    """Use a function of your own as an importance map, and be told at once where its maps do not fit.

    Args:
        function: (images, targets) -> maps of shape (B, 1, h, w) or (B, h, w), of any size.
        rescale: scale each map so that its smallest value is 0 and its largest 1 (a flat one becomes all 0). Without
            it the values have to be in [0, 1].

    Raises:
        DataError: if the maps have another shape, are not finite, or leave [0, 1].

    Example:
        >>> brightness = FunctionMap(function=lambda images, targets: images.mean(dim=1))
        >>> brightness(torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 1)).shape
        torch.Size([2, 1, 4, 4])
    """

    function: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    rescale: bool = False

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
        """Return the function's maps, on the images' device and in float32 or better."""
        maps = self.function(images, targets)
        if not isinstance(maps, Tensor):
            raise DataError(f"the function returned {type(maps).__name__}: it must return a tensor of maps")
        maps = maps[:, None] if maps.ndim == 3 else maps
        if maps.ndim != 4 or maps.shape[:2] != (len(images), 1) or maps.numel() == 0:
            raise DataError(
                f"the function returned shape {tuple(maps.shape)} for {len(images)} images: it must return "
                f"({len(images)}, 1, h, w) or ({len(images)}, h, w)"
            )
        maps = maps.detach().to(images.device, torch.promote_types(maps.dtype, torch.float32))
        low, high = (float(bound) for bound in maps.aminmax())
        if not -float("inf") < low <= high < float("inf"):
            raise DataError("the function returned values that are not finite: look for divisions by zero in it")
        if self.rescale:
            return min_max(maps)
        if low < 0 or high > 1:
            raise DataError(
                f"the function returned values from {low:.4g} to {high:.4g}, not in [0, 1]: set rescale=True"
            )
        return maps
