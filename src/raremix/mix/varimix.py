"""VariMix: give and take what would change between two classes, both ways."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.pixels import all_rows, take_rows
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch, MixPlan
from raremix.mix import label as rules
from raremix.mix.class_maps import towards
from raremix.mix.guidance import SALIENCY, fit
from raremix.mix.label import LabelName
from raremix.mix.method import Method, Placement, one_per_image
from raremix.mix.pairing import Pairs


@dataclass(frozen=True, kw_only=True)
class VariMix(Method):
    """Swap between two images what would change if the first were of the other's class; two mixed rows per pair [1].

    a = difference map of x_own towards the partner's class, in [0, 1]; m = 1[a >= t], t ~ Beta(1, 1) per image;
    u = m x_own + (1 - m) x_partner, v = (1 - m) x_own + m x_partner; label(u) = |m| y_own + (1 - |m|) y_partner,
    label(v) = (1 - |m|) y_own + |m| y_partner, |m| = mean of the mask ("area"), or the share of a that it holds
    ("mass"). Of B images come 2 B rows: all u, then all v. Where a map is flat zero, u is the partner and v the image.

    The map is asked about the partner's class: `importance(images, targets of the partners)`. With
    `raremix.explain.DifferenceMap` and a trained translator this is VariMix. With the default, saliency, it is not: the
    map says what stands out, not what would change with the class, which is what the paper argues against; it lets the
    method be tried, and be compared with what saliency does in its place.

    Where maps per class come with the batch, the map is the mean of those of the partner's classes, weighed by its
    targets; a partner without any class, such as an image without finding, has the mean over all classes.

    [1] Xiong et al., "VariMix", Comput. Methods Programs Biomed. 271:109016, 2025. Departures: t is drawn per image
    (there: per batch), and each row keeps its own label weights (the authors' loss averages over the batch before
    weighting). A flat map is zero (there: NaN).

    Args:
        label: "area", as published, or "mass".
        pairing: who is mixed with whom; "any", as published, has pairs of one class, which "different_class" avoids.
        importance: what would change with the class. `pairing = "most_dissimilar"` has no partners yet, and asks about
            the images' own classes.

    The other settings are those of every method: `raremix.mix.method.Method`. A row that is not mixed (`probability`,
    or no partner allowed) comes out whole, twice.

    Raises:
        ConfigError: if label or probability is out of range.

    Example:
        >>> images = torch.rand(3, 3, 8, 8)
        >>> mixed, targets = VariMix(num_classes=2)(images, torch.tensor([0, 1, 1]))
        >>> mixed.shape, targets.sum(dim=0)
        (torch.Size([6, 3, 8, 8]), tensor([2., 4.]))
    """

    label: LabelName | Literal["own"] = "area"
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label not in {"area", "mass"}:
            raise ConfigError(f'label must be "area" or "mass", got {self.label!r}: each pair fills two rows')

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Draw partners and masks, and make two rows of each pair."""
        rows = len(batch.images)
        pairs = self.pair(batch, pool, rng=rng)
        is_mixed = np.ones(rows, dtype=bool) if pairs.is_paired is None else pairs.is_paired
        if self.probability < 1:
            is_mixed = is_mixed & (rng.random(rows) < self.probability)
        placed = self.place(batch, pool, pairs, rng=rng)
        assert isinstance(placed.mask, Tensor)
        assert placed.weight is not None
        whole = torch.from_numpy(~is_mixed).to(placed.mask.device).repeat(2)
        mask = torch.cat([placed.mask, 1 - placed.mask])
        weight = torch.cat([placed.weight, 1 - placed.weight])
        return MixPlan(
            own=all_rows(rows).repeat(2),
            partner=torch.from_numpy(pairs.partner).repeat(2),
            mask=torch.where(whole[:, None, None, None], 1.0, mask),
            weight=torch.where(whole, 1.0, weight),
            policy=self.multilabel,
        )

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Threshold each image's difference map; the mask and the weight are those of u."""
        height, width = batch.images.shape[-2:]
        maps = self._differences(batch, pool, pairs)
        level = torch.from_numpy(rng.random(len(maps)).astype(np.float32)).to(maps.device)
        mask = keep_from(maps, level)
        fitted = fit(mask, height=height, width=width)
        weight = rules.area(fitted)
        if self.label == "mass":
            total = maps.sum(dim=(1, 2, 3))
            weight = torch.where(total > 0, (mask * maps).sum(dim=(1, 2, 3)) / total.clamp(min=1e-12), weight)
            weight = weight.clamp(0, 1)
        return Placement(mask=fitted, weight=weight)

    def _differences(self, batch: Batch, pool: Batch, pairs: Pairs) -> Float[Tensor, "B 1 h w"]:
        if batch.importance is None and self.importance is None:
            raise ConfigError(
                "VariMix needs to know what would change with the class: pass importance=, for example "
                "raremix.explain.DifferenceMap(...), or a batch with such maps"
            )
        maps, partners = batch.importance, take_rows(pool.targets, torch.from_numpy(pairs.partner))
        if maps is None:
            assert self.importance is not None
            maps = one_per_image(self.importance(batch.images, partners))
        elif maps.shape[1] > 1:
            maps = towards(maps, partners)
        return maps.detach().float().nan_to_num(nan=0.0)


def keep_from(maps: Float[Tensor, "R 1 h w"], level: Float[Tensor, " R"]) -> Float[Tensor, "R 1 h w"]:
    """Return a mask that is 1 where a map reaches its row's level.

    Example:
        >>> keep_from(torch.tensor([[[[0.2, 0.8]]]]), torch.tensor([0.5]))
        tensor([[[[0., 1.]]]])
    """
    return (maps >= level[:, None, None, None]).float()
