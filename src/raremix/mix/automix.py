"""AutoMix: a network learns where to mix, beside the classifier that is trained on what it mixes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.pixels import take_rows
from raremix.core.types import Batch
from raremix.mix.label import LabelName
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share

EDGE = 1e-3
"""Shares nearer to 0 or 1 are taken for so much: their logit would be infinite."""


class MixBlock(nn.Module):
    """Draw masks from the features of two images, each looking for what it has and the other has not.

    f(a, b, w)_p = sum_q softmax_q(Q(a, w)_p . K(b, 1 - w)_q / sqrt(d)) V(b, 1 - w)_q + U(a, w)_p
    mask = sigmoid(f(own, partner, w) - f(partner, own, 1 - w) + logit(w))

    with Q, K, V and U linear at every position. Exchanged images get the opposite mask. V and U start at zero, so that
    untrained masks are w everywhere: MixUp.

    Args:
        channels: of the features.
        hidden: of queries and keys; half of `channels` by default.
    """

    def __init__(self, channels: int, *, hidden: int | None = None) -> None:
        super().__init__()
        hidden = max(1, channels // 2) if hidden is None else hidden
        self.query = nn.Conv2d(channels + 1, hidden, 1)
        self.key = nn.Conv2d(channels + 1, hidden, 1)
        self.value = nn.Conv2d(channels + 1, 1, 1)
        self.own = nn.Conv2d(channels + 1, 1, 1)
        for layer in (self.value, self.own):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(
        self, own: Float[Tensor, "R D h w"], partner: Float[Tensor, "R D h w"], weight: Float[Tensor, " R"]
    ) -> Float[Tensor, "R 1 h w"]:
        """Return the share that each position keeps of the own image."""
        own, partner = _with_weight(own, weight), _with_weight(partner, 1 - weight)
        prior = torch.logit(weight, eps=EDGE)[:, None, None, None]
        return torch.sigmoid(self._ask(own, partner) - self._ask(partner, own) + prior)

    def _ask(self, one: Float[Tensor, "R _ h w"], other: Float[Tensor, "R _ h w"]) -> Float[Tensor, "R 1 h w"]:
        queries, keys, values = (
            layer(maps).flatten(2).mT for layer, maps in ((self.query, one), (self.key, other), (self.value, other))
        )
        found = functional.scaled_dot_product_attention(queries, keys, values)
        return found.mT.unflatten(2, one.shape[-2:]) + self.own(one)


@dataclass(frozen=True, kw_only=True)
class AutoMix(Method):
    """Mix by masks that a network draws, which is trained so that a slowly moving classifier sees both images [1].

    mask = enlarged MixBlock(features(own), features(partner), w), w ~ Beta(alpha, alpha)

    `raremix.train.AutoMixing` trains the network beside the classifier, by the cross-entropy of a moving average of the
    classifier on mixed images, and a penalty on masks whose mean is far from w. Features cost a forward pass without
    gradient, up to a stage of that average.

    [1] Liu et al., "AutoMix: Unveiling the Power of Mixup for Stronger Classifiers", ECCV 2022,
    https://arxiv.org/abs/2103.13027. Departures: labels go by the counted area of the mask unless `label = "own"`,
    which takes w, as the paper does; w is drawn per image; the mask of exchanged images is the opposite one by the
    network's form, and masks begin as those of MixUp.

    Args:
        alpha: shape of the Beta distribution, > 0.
        network: draws masks from (features of the own images, of the partners, shares w): a trained `MixBlock`.
        features: images -> the maps that the network was trained on, such as
            `functools.partial(raremix.core.features.output_of, classifier.eval(), "stage3")`.
        is_learning: whether masks carry gradients to the network.
        label: "area": counted; "own": the share w that was drawn; others as everywhere.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range; on mixing, if there is no network.

    Example:
        >>> from functools import partial
        >>> from raremix.core.features import output_of
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 9, 2))
        >>> mixer = AutoMix(network=MixBlock(4), features=partial(output_of, net, "0"), num_classes=2)
        >>> images, targets = mixer(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 2.0
    network: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    features: Callable[[Tensor], Tensor] | None = None
    is_learning: bool = False
    label: LabelName | Literal["own"] = "area"

    is_guided = True  # by what the network sees

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def with_importance(self, batch: Batch) -> Batch:
        """Return the batch as it is, unless the label goes by importance: the network needs no maps."""
        return super().with_importance(batch) if self.label == "mass" else batch

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a share for each row, and let the network draw the masks."""
        if self.network is None or self.features is None:
            raise ConfigError(
                "AutoMix learns its masks: train them with raremix.train.AutoMixing, or pass the network and the "
                "features of a trained one, as its documentation shows"
            )
        partner = torch.from_numpy(pairs.partner)
        share = kept_share(len(partner), alpha=self.alpha, rng=rng).astype(np.float32)
        with torch.no_grad():
            own = self.features(batch.images.detach())
            others = take_rows(own if pool is batch else self.features(pool.images.detach()), partner)
        weight = torch.from_numpy(share).to(own.device)
        with torch.set_grad_enabled(self.is_learning and torch.is_grad_enabled()):
            mask = self.network(own, others, weight).float()
            mask = functional.interpolate(mask, size=batch.images.shape[-2:], mode="bilinear", align_corners=False)
        return Placement(mask=mask, weight=weight.cpu() if self.label == "own" else None)


def _with_weight(maps: Float[Tensor, "R D h w"], weight: Float[Tensor, " R"]) -> Float[Tensor, "R _ h w"]:
    shares = weight.to(maps.dtype)[:, None, None, None].expand(-1, 1, *maps.shape[-2:])
    return torch.cat([maps, shares], dim=1)
