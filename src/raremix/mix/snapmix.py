"""SnapMix: paste one box into another, and weigh labels by what either box holds of the evidence."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from raremix.core.pixels import all_rows, empty_rows, take_rows
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch, Boxes
from raremix.mix import mask
from raremix.mix.guidance import SALIENCY, maps_of, mass_in_boxes
from raremix.mix.label import LabelName
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class SnapMix(Method):
    """Resize a box of the partner into another box of the image; labels weigh what each box holds of its map [1].

    Two boxes as CutMix draws them, b in the own image and b' in the partner, each with its own w ~ Beta(alpha, alpha);
    S = map scaled to a sum of one; y = (1 - S_own(b)) y_own + S_partner(b') y_partner. The two weights need not add up
    to one: a box of background pasted on background leaves the label and adds none, and one of background that covers
    all of the evidence leaves no label at all, a row of zeros.

    [1] Huang, Wang, Tao, "SnapMix: Semantically Proportional Mixing for Augmenting Fine-grained Data", AAAI 2021,
    https://arxiv.org/abs/2012.04846. Departures: boxes are drawn per image (there: per batch). Where both weights add
    up to more than one (evidence of both is seen) they are scaled to a sum of one, so that targets stay in [0, 1]; the
    authors' loss counts such rows up to twice. A row stays whole if either box is empty, or if it meets itself. An
    image whose map holds nothing weighs by area.

    Args:
        alpha: shape of the Beta distribution, > 0; 5 is the authors' for networks that are pretrained.
        label: "own": as above; "mass": both weights over their sum; "area", "keep" and "remix" as everywhere.
        importance: where the evidence is; in the paper the class activation map of the own class, from the network that
            is being trained.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> images, targets = SnapMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 5.0
    label: LabelName | Literal["own"] = "own"
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw both boxes, resize the partner's into the own, and weigh the labels."""
        rows, _, height, width = batch.images.shape
        into, cut = (
            mask.random_boxes(kept_share(rows, alpha=self.alpha, rng=rng), height=height, width=width, rng=rng)
            for _ in range(2)
        )
        partner = torch.from_numpy(pairs.partner)
        is_whole = (into.share() == 1) | (cut.share() == 1)
        if pool is batch:
            is_whole |= partner == all_rows(rows)
        into = Boxes(edges=torch.where(is_whole, 0, into.edges).to(torch.int32), height=height, width=width)
        warped = resize_boxes(pool.images, partner, cut=cut, into=into)
        if self.label not in {"own", "mass"}:
            return Placement(mask=into, partner_images=warped)
        area = into.share()
        kept = 1 - _share_in(maps_of(batch), into, otherwise=1 - area)
        given = _share_in(take_rows(maps_of(pool), partner), cut, otherwise=1 - area)
        given = torch.where(is_whole.to(given.device), 0.0, given).to(kept.device)
        total = kept + given
        if self.label == "mass":
            weight = torch.where(total > 0, kept / total.clamp(min=1e-12), area.to(kept.device))
            return Placement(mask=into, partner_images=warped, weight=weight)
        most = total.clamp(min=1)
        return Placement(mask=into, partner_images=warped, weight=kept / most, partner_weight=given / most)


def resize_boxes(
    images: Float[Tensor, "P C H W"], rows: Int[Tensor, " R"], *, cut: Boxes, into: Boxes
) -> Float[Tensor, "R C H W"]:
    """Resize a box of each of some rows into another box, bilinearly; zeros outside of that.

    Image by image: sampling all pixels at once, in and outside of the boxes, takes three times as long.

    Args:
        images: where pixels come from.
        rows: which of them.
        cut: what is taken of each row.
        into: where it goes.
    """
    resized = empty_rows(len(rows), like=images).zero_()
    for i, row, (top, left, bottom, right), (to_top, to_left, to_bottom, to_right) in zip(
        range(len(rows)), rows.tolist(), cut.edges.T.tolist(), into.edges.T.tolist(), strict=True
    ):
        size = (to_bottom - to_top, to_right - to_left)
        if min(*size, bottom - top, right - left) > 0:
            # Of the same numbers in any memory layout, and as precise as they come.
            part = images[row : row + 1, :, top:bottom, left:right].contiguous()
            part = part.to(torch.promote_types(part.dtype, torch.float32))
            part = functional.interpolate(part, size=size, mode="bilinear", align_corners=False)
            resized[i, :, to_top:to_bottom, to_left:to_right] = part[0]
    return resized


def _share_in(maps: Float[Tensor, "R 1 h w"], boxes: Boxes, *, otherwise: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """Return which share of each map lies in its box; another share where the map holds nothing."""
    total = maps.sum(dim=(1, 2, 3))
    share = (mass_in_boxes(maps, boxes) / total.clamp(min=1e-12)).clamp(0, 1)
    return torch.where(total > 0, share, otherwise.to(maps.device))
