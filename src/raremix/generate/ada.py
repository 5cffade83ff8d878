"""Adaptive augmentation: which changes of what the discriminator sees are drawn, and how often."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raremix.core.ranks import ALONE, Ranks

Change = Literal[
    "flip",
    "turn",
    "shift",
    "scale",
    "rotate",
    "stretch",
    "move",
    "brightness",
    "contrast",
    "luma_flip",
    "hue",
    "saturation",
    "filter",
    "noise",
    "cutout",
    "blit",
    "geometry",
    "color",
    "intensity",
]
"""A kind of change, or a group of them."""

GROUPS: dict[str, tuple[str, ...]] = {
    "blit": ("flip", "turn", "shift"),
    "geometry": ("scale", "rotate", "stretch", "move"),
    "color": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
    "intensity": ("brightness", "contrast"),
}
KINDS = tuple(name for name in get_args(Change) if name not in GROUPS)

SHIFT = 0.125
"""Largest shift by whole pixels and standard deviation of the fractional one, as shares of the side."""

BRIGHTNESS, CONTRAST, SATURATION, SCALE = 0.2, 0.5, 1.0, 0.2
"""Standard deviations: of brightness in the range -1 to 1; of the logarithms to base 2 of the others."""

BANDS = (10.0, 1.0, 1.0, 1.0)
"""How power is spread over an image's frequency bands, coarse to fine (13 in all), to keep it as it was."""

NOISE = 0.1
"""Standard deviation of the noise's strength."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """The drawn changes of a batch, one row each.

    Attributes:
        warp: where in the image each pixel is taken from, in coordinates from -1 to 1: 2 x 3 matrices.
        is_moved: rows that move by a flip, quarter turns and whole pixels alone, and so lose nothing.
        is_warped: rows that need pixels between pixels.
        color: what the channels become: C x (C + 1) matrices, the last column added.
        bands: factors of frequency bands, coarse to fine; None: no row is filtered.
        strength: of noise; None: no row gets any.
        seed: of the noise.
        hole: centre of the hole as shares of the side, NaN where there is none; None: no row has one.
        ranks: which rows of a larger batch these are: its noise is drawn for all of it.
    """

    warp: Float[Tensor, "B 2 3"]
    is_moved: Bool[np.ndarray, " B"]
    is_warped: Bool[np.ndarray, " B"]
    color: Float[Tensor, "B C D"] | None
    bands: Float[Tensor, "B 4"] | None
    strength: Float[Tensor, " B"] | None
    seed: int
    hole: Float[Tensor, "B 2"] | None
    ranks: Ranks = ALONE

    def own(self, ranks: Ranks) -> "Adaptation":
        """Return the changes of a rank's rows, of a batch that all ranks share."""
        if ranks.count == 1:
            return self
        mine = ranks.rows(len(self.warp) // ranks.count)
        return replace(
            self,
            warp=self.warp[mine],
            is_moved=self.is_moved[mine],
            is_warped=self.is_warped[mine],
            color=None if self.color is None else self.color[mine],
            bands=None if self.bands is None else self.bands[mine],
            strength=None if self.strength is None else self.strength[mine],
            hole=None if self.hole is None else self.hole[mine],
            ranks=ranks,
        )


def kinds_of(names: tuple[str, ...], *, channels: int) -> frozenset[str]:
    """Return the kinds of change that names and groups stand for; hue and saturation need three channels.

    Example:
        >>> sorted(kinds_of(("color",), channels=1))
        ['brightness', 'contrast', 'luma_flip']
    """
    found = {kind for name in names for kind in GROUPS.get(name, (name,))}
    return frozenset(found if channels == 3 else found - {"hue", "saturation"})


def draw_adaptation(
    count: int,
    *,
    side: int,
    channels: int,
    kinds: frozenset[str],
    probability: float,
    rng: np.random.Generator,
) -> Adaptation:
    """Draw the changes of `count` images; every kind happens to each with the probability.

    Karras et al., "ADA", NeurIPS 2020, appendix B, https://arxiv.org/abs/2006.06676.

    Args:
        count: how many.
        side: of the images in pixels.
        channels: of the images.
        kinds: which changes there are, from `KINDS`.
        probability: p, in [0, 1].
        rng: the stream.

    Example:
        >>> asked = {"kinds": kinds_of(("blit",), channels=1), "probability": 0.5, "rng": np.random.default_rng(0)}
        >>> draw_adaptation(2, side=32, channels=1, **asked).warp.shape
        torch.Size([2, 2, 3])
    """
    # All are drawn, wanted or not: what one kind does never depends on which others there are.
    happens = rng.random((count, len(KINDS)))
    chance = np.array([probability if kind in kinds else 0.0 for kind in KINDS])
    # Of its two rotations, one at least happens with the probability.
    chance[KINDS.index("rotate")] = 1 - np.sqrt(1 - chance[KINDS.index("rotate")])
    asked = {kind: happens[:, i] < chance[i] for i, kind in enumerate(KINDS)}
    again = rng.random(count) < chance[KINDS.index("rotate")]
    uniform, normal = rng.random((count, 10)), rng.standard_normal((count, 12))
    warp = _identity(count)
    steps = np.rint((uniform[:, 2:4] * 2 - 1) * SHIFT * side) / (side / 2)
    warp = warp @ _scaled(np.where(asked["flip"], 1 - 2 * (uniform[:, 0] < 0.5), 1.0), 1.0)
    warp = warp @ _rotated(np.where(asked["turn"], np.floor(uniform[:, 1] * 4), 0) * np.pi / 2, quarter=True)
    warp = warp @ _shifted(steps * asked["shift"][:, None])
    is_blit = asked["flip"] | asked["turn"] | asked["shift"]
    size = np.where(asked["scale"], np.exp2(-SCALE * normal[:, 0]), 1.0)
    warp = warp @ _scaled(size, size)
    warp = warp @ _rotated(np.where(asked["rotate"], (uniform[:, 4] * 2 - 1) * np.pi, 0.0))
    longer = np.where(asked["stretch"], np.exp2(-SCALE * normal[:, 1]), 1.0)
    warp = warp @ _scaled(longer, 1 / longer)
    warp = warp @ _rotated(np.where(again, (uniform[:, 5] * 2 - 1) * np.pi, 0.0))
    warp = warp @ _shifted(2 * SHIFT * normal[:, 2:4] * asked["move"][:, None])
    is_warped = asked["scale"] | asked["rotate"] | asked["stretch"] | again | asked["move"]
    strength = np.abs(normal[:, 7]) * NOISE * asked["noise"]
    hole = np.where(asked["cutout"][:, None], uniform[:, 7:9], np.nan)
    return Adaptation(
        warp=_tensor(warp[:, :2]),
        is_moved=is_blit & ~is_warped,
        is_warped=is_warped,
        color=_color(asked, uniform, normal, channels=channels),
        bands=_bands(happens[:, KINDS.index("filter")], chance[KINDS.index("filter")], normal[:, 8:12]),
        strength=_tensor(strength) if asked["noise"].any() else None,
        seed=int(rng.integers(2**63 - 1)),
        hole=_tensor(hole) if asked["cutout"].any() else None,
    )


def next_probability(
    probability: float, *, overfit: float, target: float, images: int, span: int, most: float = 1.0
) -> float:
    """Return the probability of augmentation from now on: more where the discriminator knows real images too well.

    p <- p + sign(r - target) images / span, within [0, most]; r = E[sign D(x)] over the real images.

    Args:
        probability: p now.
        overfit: r, in [-1, 1].
        target: what r is to be.
        images: real images seen since it was last changed.
        span: images over which p goes from 0 to 1; 0: p stays.
        most: largest p.

    Example:
        >>> next_probability(0.5, overfit=0.8, target=0.6, images=1000, span=10000)
        0.6
    """
    if span <= 0:
        return probability
    return float(np.clip(probability + np.sign(overfit - target) * images / span, 0.0, most))


def _color(
    asked: dict[str, np.ndarray], uniform: np.ndarray, normal: np.ndarray, *, channels: int
) -> Float[Tensor, "B C D"] | None:
    names = GROUPS["color"]
    if not np.any([asked[name] for name in names]):
        return None
    eye, grey = np.eye(channels), np.full((channels, channels), 1 / channels)
    sharper = np.where(asked["contrast"], np.exp2(CONTRAST * normal[:, 5]), 1.0)
    linear = eye * sharper[:, None, None]
    added = BRIGHTNESS * normal[:, 4] * asked["brightness"]
    turned = np.where(asked["luma_flip"] & (uniform[:, 6] < 0.5), 2.0, 0.0)[:, None, None]
    linear = (eye - turned * grey) @ linear
    if channels == 3:
        # Rodrigues' rotation about the grey axis.
        angle = np.where(asked["hue"], (uniform[:, 9] * 2 - 1) * np.pi, 0.0)[:, None, None]
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        linear = (np.cos(angle) * eye + np.sin(angle) * cross + (1 - np.cos(angle)) * grey) @ linear
        more = np.where(asked["saturation"], np.exp2(SATURATION * normal[:, 6]), 1.0)[:, None, None]
        linear = (grey + (eye - grey) * more) @ linear
    # Brightness comes first: it is seen through all that follows.
    return _tensor(np.concatenate([linear, linear @ np.tile(added[:, None, None], (1, channels, 1))], axis=2))


def _bands(happens: np.ndarray, chance: float, normal: np.ndarray) -> Float[Tensor, "B 4"] | None:
    if chance <= 0:
        return None
    power = np.array(BANDS) / sum(BANDS)
    factors = np.ones((len(happens), len(BANDS)))
    # Each band in turn, and the whole brought back to the power that it had.
    for band in range(len(BANDS)):
        alone = np.ones_like(factors)
        alone[:, band] = np.exp2(normal[:, band])
        alone /= np.sqrt((power * alone**2).sum(axis=1, keepdims=True))
        factors *= alone
    return _tensor(np.where((happens < chance)[:, None], factors, 1.0))


def _identity(count: int) -> Float[np.ndarray, "B 3 3"]:
    return np.tile(np.eye(3), (count, 1, 1))


def _scaled(across: Float[np.ndarray, " B"] | float, down: Float[np.ndarray, " B"] | float) -> np.ndarray:
    across, down = np.broadcast_arrays(np.atleast_1d(across), np.atleast_1d(down))
    found = _identity(len(across))
    found[:, 0, 0], found[:, 1, 1] = across, down
    return found


def _rotated(angle: Float[np.ndarray, " B"], *, quarter: bool = False) -> np.ndarray:
    found, cos, sin = _identity(len(angle)), np.cos(angle), np.sin(angle)
    if quarter:
        cos, sin = np.rint(cos), np.rint(sin)
    found[:, 0, 0], found[:, 0, 1], found[:, 1, 0], found[:, 1, 1] = cos, -sin, sin, cos
    return found


def _shifted(steps: Float[np.ndarray, "B 2"]) -> np.ndarray:
    found = _identity(len(steps))
    found[:, :2, 2] = -steps
    return found


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
