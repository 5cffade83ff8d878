"""TransMix: CutMix whose labels weigh what a vision transformer attends to."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.pixels import all_rows
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch, Boxes, MixPlan
from raremix.mix import mask
from raremix.mix.guidance import SALIENCY, maps_of, mass_in_boxes, partner_maps
from raremix.mix.label import LabelName
from raremix.mix.method import Method, Placement, one_per_image
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class TransMix(Method):
    """Mix images as CutMix does, and weigh labels by the attention that each region of the mixed image gets [1].

    A = map of the mixed image; v = sum of A outside the box / sum of A; y = v y_own + (1 - v) y_partner.

    The map has to be of the mixed image, so `importance` is called on mixed images. Where maps come with the batch,
    they are of single images: then v is the mass that the mixed image would hold of both, sum(A_own outside) /
    (sum(A_own outside) + sum(A_partner inside)). `pairing = "most_dissimilar"` compares maps of single images always.

    [1] Chen et al., "TransMix: Attend to Mix for Vision Transformers", CVPR 2022, https://arxiv.org/abs/2111.09833.
    Departures: boxes are drawn per image; the map costs a forward pass of its own here (there the attention is that of
    the training step); any map will do. The paper's formula has the attention alone; the authors' code takes its mean
    with the area, which is `area_share = 0.5`.

    Args:
        alpha: shape of the Beta distribution, > 0.
        area_share: how much the area counts beside the attention, in [0, 1].
        label: "own": as above; "mass": by maps of the single images; "area", "keep" and "remix" as everywhere.
        importance: what is attended to: `raremix.explain.ClassAttention` of the transformer that is trained. The
            default, which looks at pixels, only stands in for it.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha, area_share or probability is out of range.

    Example:
        >>> images, targets = TransMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    area_share: float = 0.0
    label: LabelName | Literal["own"] = "own"
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if not 0 <= self.area_share <= 1:
            raise ConfigError(f"area_share must lie in [0, 1], got {self.area_share}")

    def with_importance(self, batch: Batch) -> Batch:
        """Return the batch as it is, unless maps of single images are asked for: the mixed image is what is looked at.

        Raises:
            ConfigError: if there are neither maps nor a way to draw them.
        """
        if self.label == "own" and self.importance is not None:
            return batch
        return super().with_importance(batch)

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a box for each row of the batch, and weigh what the mixed image shows."""
        rows, _, height, width = batch.images.shape
        boxes = mask.random_boxes(kept_share(rows, alpha=self.alpha, rng=rng), height=height, width=width, rng=rng)
        if self.label != "own":
            return Placement(mask=boxes)
        kept, given = self._masses(batch, pool, pairs, boxes)
        total, area = kept + given, boxes.share().to(kept.device)
        weight = torch.where(total > 0, kept / total.clamp(min=1e-12), area)
        return Placement(mask=boxes, weight=(1 - self.area_share) * weight + self.area_share * area)

    def _masses(
        self, batch: Batch, pool: Batch, pairs: Pairs, boxes: Boxes
    ) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
        """Return how much importance there is outside and inside each box."""
        if batch.importance is not None and pool.importance is not None:
            outside = maps_of(batch)
            inside = partner_maps(pool, pairs, like=outside)
        elif self.importance is not None:
            plan = MixPlan(
                own=all_rows(len(batch.images)),
                partner=torch.from_numpy(pairs.partner),
                mask=boxes,
                weight=boxes.share(),
                policy=self.multilabel,
            )
            mixed = plan.apply(batch, pool)
            drawn = one_per_image(self.importance(mixed.images, mixed.targets))
            outside = inside = drawn.detach().float().nan_to_num(nan=0.0)
        else:
            raise ConfigError("only one of batch and pool brings importance maps: give both, or pass importance=")
        given = mass_in_boxes(inside, boxes)
        return (outside.sum(dim=(1, 2, 3)) - mass_in_boxes(outside, boxes)).clamp(min=0), given
