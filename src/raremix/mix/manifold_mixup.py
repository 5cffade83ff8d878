"""Manifold MixUp: blend the images, or what a layer drawn per batch makes of them."""

from dataclasses import dataclass, replace

import numpy as np

from raremix.core.errors import ConfigError
from raremix.core.types import Batch, MixPlan
from raremix.mix import mask
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share

INPUT = "input"
"""The layer that is not one: the images are mixed."""


@dataclass(frozen=True, kw_only=True)
class ManifoldMixUp(Method):
    """Blend two images and their labels as MixUp does, at a layer drawn anew for every batch [1].

    h = w h_own + (1 - w) h_partner, y = w y_own + (1 - w) y_partner, w ~ Beta(alpha, alpha), where h is the output of
    one of `layers`, all with the same probability.

    The plan names the layer (`MixPlan.at`); `raremix.core.features.forward_mixed` runs a network by it, and a study
    does so by itself. Calling the mixer on images has no network to mix in: it blends the images.

    [1] Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019,
    https://arxiv.org/abs/1806.05236. Departure: the authors draw one weight per batch; here every row draws its own.
    The layer is one for the batch, as theirs, since a batch goes through the network together.

    Args:
        alpha: shape of the Beta distribution, > 0; 2 is what the authors use on CIFAR.
        layers: where may be mixed: "input", "stem", "stage1", "stage2" ..., or a module's dotted name. The paper takes
            the input and the outputs of the first two residual stages.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range, or no layer is given.

    Example:
        >>> import torch
        >>> from raremix.core.random import rng
        >>> batch = Batch(images=torch.rand(4, 3, 8, 8), targets=torch.eye(4))
        >>> ManifoldMixUp(layers=("stage2",)).plan(batch, batch, rng=rng(0, "mix")).at
        'stage2'
    """

    alpha: float = 2.0
    layers: tuple[str, ...] = (INPUT, "stage1", "stage2")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if not self.layers or not all(self.layers):
            raise ConfigError(f'layers names where to mix, such as ["input", "stage1"], got {list(self.layers)}')

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Plan as MixUp does, and draw the layer."""
        plan = super().plan(batch, pool, rng=rng)
        layer = self.layers[int(rng.integers(len(self.layers)))]
        return replace(plan, at=None if layer == INPUT else layer)

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a weight for each row of the batch."""
        return Placement(mask=mask.blend(kept_share(len(batch.images), alpha=self.alpha, rng=rng)))
