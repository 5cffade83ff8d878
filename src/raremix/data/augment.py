"""Classical augmentation: flips, rotation, crop, colour; drawn for a batch, applied in one warp."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

UPRIGHT_MODALITIES = frozenset({"chest_xray", "mammography", "xray", "ct", "mri"})
"""Modalities in which left and right, or up and down, mean something: no flips unless asked for."""

FREE_MODALITIES = frozenset({"dermatoscopy", "histology"})
"""Modalities that look alike from every side: flips both ways and any rotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentPlan:
    """The drawn changes of a batch; slicing it slices its rows.

    Attributes:
        warp: from output to input coordinates in [-1, 1], as `torch.nn.functional.affine_grid` takes them.
        moved: which rows are warped at all.
        brightness: added to every pixel.
        contrast: factor about the image's mean.
        saturation: factor about the pixel's grey value; colour images only.
    """

    warp: Float[Tensor, "B 2 3"]
    moved: Bool[Tensor, " B"]
    brightness: Float[Tensor, " B"]
    contrast: Float[Tensor, " B"]
    saturation: Float[Tensor, " B"]

    def __getitem__(self, rows: slice) -> "AugmentPlan":
        """Return the plan of some rows."""
        return AugmentPlan(
            warp=self.warp[rows],
            moved=self.moved[rows],
            brightness=self.brightness[rows],
            contrast=self.contrast[rows],
            saturation=self.saturation[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Classical:
    """Flips, rotation, crop and colour, the set that every comparison should contain.

    Attributes:
        horizontal_flip: probability of a left-right flip; None asks the modality (off for chest X-rays).
        vertical_flip: probability of an up-down flip; None asks the modality.
        rotation: largest angle in degrees, to either side; None asks the modality.
        crop: smallest share of the side that a random crop keeps, in (0, 1].
        brightness, contrast, saturation: largest change, as a share.
        modality: the data card's modality, filled in by the study.
    """

    horizontal_flip: float | None = None
    vertical_flip: float | None = None
    rotation: float | None = None
    crop: float = 0.85
    brightness: float = 0.1
    contrast: float = 0.15
    saturation: float = 0.1
    modality: str = "other"

    def resolved(self) -> "Classical":
        """Return the same with what the modality decides filled in."""
        upright, free = self.modality in UPRIGHT_MODALITIES, self.modality in FREE_MODALITIES
        horizontal = 0.0 if upright else 0.5
        return replace(
            self,
            horizontal_flip=horizontal if self.horizontal_flip is None else self.horizontal_flip,
            vertical_flip=(0.5 if free else 0.0) if self.vertical_flip is None else self.vertical_flip,
            rotation=(180.0 if free else 10.0) if self.rotation is None else self.rotation,
        )

    def plan(self, count: int, *, rng: np.random.Generator) -> AugmentPlan:
        """Draw the changes of `count` images."""
        asked = self.resolved()
        # Always the same number of draws per image, whatever the settings: one row of uniforms each.
        u = rng.random((count, 9))
        angle = np.deg2rad(asked.rotation or 0.0) * (2 * u[:, 0] - 1)
        scale = 1 - (1 - self.crop) * u[:, 1]
        flip_x = np.where(u[:, 2] < (asked.horizontal_flip or 0.0), -1.0, 1.0)
        flip_y = np.where(u[:, 3] < (asked.vertical_flip or 0.0), -1.0, 1.0)
        room = 1 - scale
        cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
        warp = np.stack(
            [
                np.stack([cos * flip_x, -sin * flip_y, room * (2 * u[:, 4] - 1)], axis=1),
                np.stack([sin * flip_x, cos * flip_y, room * (2 * u[:, 5] - 1)], axis=1),
            ],
            axis=1,
        )
        still = math.isclose(asked.rotation or 0.0, 0.0) and math.isclose(self.crop, 1.0)
        moved = np.full(count, not still) | (flip_x < 0) | (flip_y < 0)
        signed = 2 * u[:, 6:9] - 1
        return AugmentPlan(
            warp=torch.from_numpy(warp).float(),
            moved=torch.from_numpy(moved),
            brightness=torch.from_numpy(self.brightness * signed[:, 0]).float(),
            contrast=torch.from_numpy(1 + self.contrast * signed[:, 1]).float(),
            saturation=torch.from_numpy(1 + self.saturation * signed[:, 2]).float(),
        )

    def apply(self, images: Float[Tensor, "B C H W"], plan: AugmentPlan) -> Float[Tensor, "B C H W"]:
        """Make the changes: one bilinear warp (edges mirrored), then colour; values stay in [0, 1]."""
        if bool(plan.moved.any()):
            grid = functional.affine_grid(plan.warp.to(images), list(images.shape), align_corners=False)
            images = functional.grid_sample(
                images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
            )
        column = (-1, 1, 1, 1)
        if self.saturation > 0 and images.shape[1] == 3:
            grey = images.mean(dim=1, keepdim=True)
            images = torch.lerp(grey, images, plan.saturation.to(images).view(column))
        if self.contrast > 0 or self.brightness > 0:
            mean = images.mean(dim=(1, 2, 3), keepdim=True)
            factor = plan.contrast.to(images).view(column)
            shift = plan.brightness.to(images).view(column) + mean * (1 - factor)
            images = torch.addcmul(shift, images, factor)
        return images.clamp(0.0, 1.0)

    def warp(self, plan: AugmentPlan) -> Float[Tensor, "B 2 3"] | None:
        """Return how a plan moves pixels, from output to input coordinates in [-1, 1]; None where nothing moves."""
        return plan.warp if bool(plan.moved.any()) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAugmentation:
    """Leave images as they are."""

    def plan(self, count: int, *, rng: np.random.Generator) -> Any:
        """Draw nothing."""
        return range(count)

    def apply(self, images: Float[Tensor, "B C H W"], plan: Any) -> Float[Tensor, "B C H W"]:
        """Return the images."""
        return images

    def warp(self, plan: Any) -> None:
        """Return None: nothing moves."""


AUGMENTATIONS: dict[str, type] = {"none": NoAugmentation, "classical": Classical}
