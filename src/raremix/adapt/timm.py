"""timm: stand-ins for `timm.data.Mixup` and `timm.data.FastCollateMixup` that mix by any mixer of raremix."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Num, Shaped
from timm.data import mixup as timm_mixup
from timm.data.loader import fast_collate
from torch import Tensor

from raremix.adapt.loop import Loop
from raremix.adapt.sample import PoolBatch, mix
from raremix.core.errors import ConfigError
from raremix.core.protocols import Mixer, dense_targets
from raremix.mix import CutMix, MixUp, OneOf


class Mixup:
    """Mix a batch on the device, as `timm.data.Mixup` does in timm's training loop: `x, target = mixup_fn(x, target)`.

    What differs: every image has a weight and a partner of its own, batches may be odd, the batch that is given stays
    as it is, and labels may be multi-hot. Images may be 8-bit (as timm's collate makes them) or floats (as its
    prefetcher does); they come back as they came.

    Args:
        mixer: what mixes; with `num_classes` where targets are class numbers.
        label_smoothing: share of the label that is spread over all classes, in [0, 1); over both answers of each class
            with `multi_label`.
        multi_label: whether an image may have several labels.
        seed: an integer >= 0; see `raremix.adapt.streams`.
        steps: calls of the whole training, `epochs * len(loader)`, for a mixer that follows a schedule.
        first_step: calls before the first one, of a training that is resumed.
        pool: what partners are drawn from, batch by batch, without end: yields (images, targets), (images, targets,
            is_synthetic) or `raremix.core.types.Batch`, as a DataLoader does; normalised if the batches are.

    Attributes:
        mixup_enabled: False switches mixing off, as timm's loop does from `--mixup-off-epoch` on; labels are still made
            dense, and smoothed.

    Raises:
        ConfigError: if label_smoothing is out of range, the mixer follows a schedule and steps is missing, or it needs
            a pool and there is none.

    Example:
        >>> mixup_fn = Mixup(CutMix(num_classes=2))
        >>> x, target = mixup_fn(torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 1]))
        >>> mixup_fn.mixup_enabled = False
        >>> mixup_fn(x, torch.tensor([0, 1, 1]))[1]
        tensor([[1., 0.],
                [0., 1.],
                [0., 1.]])
    """

    def __init__(
        self,
        mixer: Mixer,
        *,
        label_smoothing: float = 0.0,
        multi_label: bool = False,
        seed: int = 0,
        steps: int | None = None,
        first_step: int = 0,
        pool: Iterable[PoolBatch] | None = None,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.mixer = mixer
        self.mixup_enabled = True
        self._smoothing, self._is_multilabel = label_smoothing, multi_label
        self._loop = Loop(mixer, seed=seed, steps=steps, first_step=first_step, pool=pool)

    def __call__(
        self, x: Num[Tensor, "B C H W"], target: Shaped[Tensor, " B"] | Shaped[Tensor, "B K"]
    ) -> tuple[Num[Tensor, "R C H W"], Float[Tensor, "R K"]]:
        """Return mixed images and dense targets."""
        if not self.mixup_enabled:
            self._loop.skip()
            return x, self._smoothed(dense_targets(target, num_classes=self.mixer.num_classes))
        turn = self._loop.next()
        mixed = mix(turn.mixer, x, target, rng=turn.rng, pool=turn.pool)
        return mixed.images, self._smoothed(mixed.targets)

    def _smoothed(self, targets: Float[Tensor, "R K"]) -> Float[Tensor, "R K"]:
        rest = 0.5 if self._is_multilabel else 1 / targets.shape[1]
        return targets * (1 - self._smoothing) + self._smoothing * rest if self._smoothing else targets


class FastCollateMixup(timm_mixup.FastCollateMixup):
    """Collate and mix in the workers, as `timm.data.FastCollateMixup` does: `create_loader(..., collate_fn=this)`.

    A subclass of timm's, because its loader asks for one where it switches mixing off; that reaches workers that live
    on from epoch to epoch too. Arrays of the data set are only read.

    Args:
        mixer, label_smoothing, multi_label, seed, first_step: as for `Mixup`.
        steps: as for `Mixup`. All workers count together, and make batches ahead: where a schedule starts and ends may
            differ by a few batches from run to run.
        pool: as for `Mixup`, of 8-bit images; each worker goes through it by itself.

    Example:
        >>> import numpy as np
        >>> rows = [(np.zeros((3, 8, 8), dtype=np.uint8), label) for label in (0, 1, 1)]
        >>> images, targets = FastCollateMixup(MixUp(num_classes=2))(rows)
        >>> images.dtype, targets.shape
        (torch.uint8, torch.Size([3, 2]))
    """

    def __init__(
        self,
        mixer: Mixer,
        *,
        label_smoothing: float = 0.0,
        multi_label: bool = False,
        seed: int = 0,
        steps: int | None = None,
        first_step: int = 0,
        pool: Iterable[PoolBatch] | None = None,
    ) -> None:
        self._is_enabled = torch.ones(1).share_memory_()
        super().__init__(label_smoothing=label_smoothing, multi_label=multi_label)
        self._mixup = Mixup(
            mixer,
            label_smoothing=label_smoothing,
            multi_label=multi_label,
            seed=seed,
            steps=steps,
            first_step=first_step,
            pool=pool,
        )

    @property
    def mixup_enabled(self) -> bool:
        """Whether batches are mixed, in this process and in all workers."""
        return bool(self._is_enabled.item())

    @mixup_enabled.setter
    def mixup_enabled(self, is_enabled: bool) -> None:
        self._is_enabled.fill_(float(is_enabled))

    def __call__(self, batch: Sequence[tuple[Any, Any]], _: Any = None) -> tuple[Tensor, Tensor]:
        """Return 8-bit images and dense targets."""
        self._mixup.mixup_enabled = self.mixup_enabled
        return self._mixup(*fast_collate(batch))


def mixer_like_timm(
    *,
    mixup_alpha: float = 1.0,
    cutmix_alpha: float = 0.0,
    cutmix_minmax: Sequence[float] | None = None,
    prob: float = 1.0,
    switch_prob: float = 0.5,
    num_classes: int = 1000,
) -> Mixer:
    """Return the mixer that timm's settings describe, with weights per image.

    Args:
        mixup_alpha, cutmix_alpha: shapes of the Beta distributions; 0 leaves a method out.
        cutmix_minmax: not offered: the label of such a box is not what the paper defines; must be None.
        prob: probability that an image is mixed.
        switch_prob: probability that a batch is mixed by CutMix, where both methods are asked for.
        num_classes: number of classes.

    Raises:
        ConfigError: if both methods are left out, or cutmix_minmax is given.

    Example:
        >>> mixer_like_timm(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=7).probabilities
        (0.5, 0.5)
    """
    if cutmix_minmax is not None:
        raise ConfigError("cutmix_minmax is not offered: take cutmix_alpha, whose boxes follow the paper")
    mixup = MixUp(alpha=mixup_alpha, probability=prob, num_classes=num_classes) if mixup_alpha > 0 else None
    cutmix = CutMix(alpha=cutmix_alpha, probability=prob, num_classes=num_classes) if cutmix_alpha > 0 else None
    if mixup is not None and cutmix is not None:
        return OneOf(mixers=(mixup, cutmix), probabilities=(1 - switch_prob, switch_prob), num_classes=num_classes)
    chosen = mixup or cutmix
    if chosen is None:
        raise ConfigError("mixup_alpha and cutmix_alpha are both 0: make one of them > 0")
    return chosen
