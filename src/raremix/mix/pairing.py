"""Who is mixed with whom: functions from two batches to a partner for every row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.types import Batch
from raremix.mix.class_maps import away_from_own

PairingName = Literal[
    "any", "different_class", "same_class", "tail_with_head", "most_dissimilar", "synthetic_with_real"
]

GRID = 16
"""Side of the maps that `most_dissimilar` compares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A partner for every row.

    Attributes:
        partner: row of the pool.
        is_paired: False where the pool holds no row that the rule allows; such a row stays whole. None: all are paired.
    """

    partner: Int[np.ndarray, " rows"]
    is_paired: Bool[np.ndarray, " rows"] | None = None


@runtime_checkable
class Pairing(Protocol):
    """Choose a partner for every row of a batch."""

    def __call__(
        self,
        batch: Batch,
        pool: Batch,
        *,
        rng: np.random.Generator,
        class_counts: Float[np.ndarray, " K"] | None = None,
    ) -> Pairs:
        """Draw partners from the pool."""
        ...


def any_partner(rows: int, pool_rows: int, *, rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """Draw a partner for every row, of any class, using the rows of the pool equally often.

    Where the pool has as many rows as the batch this is a random permutation, in which a row may meet itself. A larger
    pool gives a random choice without repetition; a smaller one is gone through again, in a new order, as often as
    needed.

    Args:
        rows: number of rows that need a partner.
        pool_rows: number of rows to choose from, at least 1.
        rng: the stream to draw from.

    Returns:
        Rows of the pool.

    Raises:
        ConfigError: if the pool is empty.

    Example:
        >>> sorted(any_partner(3, 3, rng=np.random.default_rng(0)).tolist())
        [0, 1, 2]
    """
    if pool_rows < 1:
        raise ConfigError(f"a pool to mix with needs at least 1 row, got {pool_rows}: pass a batch that is not empty")
    if rows <= pool_rows:
        return rng.permutation(pool_rows)[:rows]
    return np.concatenate([rng.permutation(pool_rows) for _ in range(-(-rows // pool_rows))])[:rows]


def pair_any(
    batch: Batch, pool: Batch, *, rng: np.random.Generator, class_counts: Float[np.ndarray, " K"] | None = None
) -> Pairs:
    """Pair at random, whatever the classes; a row may meet itself."""
    return Pairs(partner=any_partner(len(batch.images), len(pool.images), rng=rng))


def pair_different_class(
    batch: Batch, pool: Batch, *, rng: np.random.Generator, class_counts: Float[np.ndarray, " K"] | None = None
) -> Pairs:
    """Pair each row with one of another class (other labels, where there are several)."""
    own, others = row_classes(batch, pool)
    return _draw((own[:, None] != others[None, :]) & _both_labelled(batch, pool), rng=rng)


def pair_same_class(
    batch: Batch, pool: Batch, *, rng: np.random.Generator, class_counts: Float[np.ndarray, " K"] | None = None
) -> Pairs:
    """Pair each row with another one of its class (the same labels, where there are several)."""
    own, others = row_classes(batch, pool)
    allowed = own[:, None] == others[None, :]
    if pool is batch:
        np.fill_diagonal(allowed, False)
    return _draw(allowed & _both_labelled(batch, pool), rng=rng)


def pair_tail_with_head(
    batch: Batch, pool: Batch, *, rng: np.random.Generator, class_counts: Float[np.ndarray, " K"] | None = None
) -> Pairs:
    """Pair each row with one whose class is more frequent; rows of the most frequent class stay whole.

    The frequency of a row is that of its rarest class, in the training set where `class_counts` are given, else in the
    pool.
    """
    own, others = row_frequencies(batch, pool, class_counts=class_counts)
    return _draw((others[None, :] > own[:, None]) & _both_labelled(batch, pool), rng=rng)


def pair_synthetic_with_real(
    batch: Batch, pool: Batch, *, rng: np.random.Generator, class_counts: Float[np.ndarray, " K"] | None = None
) -> Pairs:
    """Pair generated images with real ones, and the other way round.

    Raises:
        ConfigError: if neither batch nor pool says which images are generated; where one does, all of the other are
            real by default.
    """
    if batch.is_synthetic is None and pool.is_synthetic is None:
        raise ConfigError(
            'pairing = "synthetic_with_real" needs to know which images are generated, and nothing says so: plan with '
            "Batch(is_synthetic=...), or call the mixer with pool=(generated images, their targets); in a study, add "
            'rows whose column "origin" says synthetic'
        )
    own, others = (
        np.zeros(len(b.images), dtype=bool) if b.is_synthetic is None else b.is_synthetic.cpu().numpy()
        for b in (batch, pool)
    )
    return _draw(own[:, None] != others[None, :], rng=rng)


def pair_most_dissimilar(
    batch: Batch, pool: Batch, *, rng: np.random.Generator, class_counts: Float[np.ndarray, " K"] | None = None
) -> Pairs:
    """Pair rows whose importance lies in different places, each row of the pool being used once (GuidedMixup [1]).

    Rows are gone through in random order; each takes the free row whose map, averaged to 16 x 16 and scaled to a sum of
    one, is farthest from its own in squared distance. Without importance maps the grey images are compared; of maps per
    class, the mean over all classes that the image does not show.

    [1] Kang, Kim, "GuidedMixup: An Efficient Mixup Strategy Guided by Saliency Maps", AAAI 2023,
    https://arxiv.org/abs/2306.16612.
    """
    own, others = _vectors(batch, pool)
    distance = (own**2).sum(1)[:, None] + (others**2).sum(1)[None, :] - 2 * own @ others.T
    if pool is batch and len(own) > 1:
        np.fill_diagonal(distance, -1.0)
    partner = np.empty(len(own), dtype=np.int64)
    free = np.zeros(len(others))
    for count, row in enumerate(rng.permutation(len(own)).tolist()):
        if count and count % len(others) == 0:
            free[:] = 0.0
        chosen = int((distance[row] + free).argmax())
        partner[row], free[chosen] = chosen, -np.inf
    return Pairs(partner=partner)


PAIRINGS: Mapping[str, Pairing] = {
    "any": pair_any,
    "different_class": pair_different_class,
    "same_class": pair_same_class,
    "tail_with_head": pair_tail_with_head,
    "most_dissimilar": pair_most_dissimilar,
    "synthetic_with_real": pair_synthetic_with_real,
}
"""Every pairing, by name."""


def row_classes(batch: Batch, pool: Batch) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " P"]]:
    """Number the sets of labels: rows with the same labels (targets above a half) have the same number."""
    own = _labels(batch)
    if pool is batch:
        codes = np.unique(own, axis=0, return_inverse=True)[1].reshape(-1)
        return codes, codes
    codes = np.unique(np.concatenate([own, _labels(pool)]), axis=0, return_inverse=True)[1].reshape(-1)
    return codes[: len(own)], codes[len(own) :]


def row_frequencies(
    batch: Batch, pool: Batch, *, class_counts: Float[np.ndarray, " K"] | None
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " P"]]:
    """Return how frequent the rarest class of each row is; a row without any label is as frequent as can be."""
    own = _labels(batch)
    others = own if pool is batch else _labels(pool)
    counts = others.sum(axis=0).astype(np.float64) if class_counts is None else class_counts
    if len(counts) != own.shape[1]:
        raise ConfigError(f"class_counts holds {len(counts)} counts, the targets have {own.shape[1]} classes")
    first, second = (np.where(labels, counts, np.inf).min(axis=1) for labels in (own, others))
    return first, second


def _labels(batch: Batch) -> Bool[np.ndarray, "B K"]:
    return batch.targets.detach().cpu().numpy() > 0.5  # NaN is not


def _both_labelled(batch: Batch, pool: Batch) -> Bool[np.ndarray, "B P"]:
    """Say for which pairs a class is known of both: a row without any label has none to go by."""
    own, others = (~b.targets.detach().isnan().all(dim=1).cpu().numpy() for b in (batch, pool))
    return own[:, None] & others[None, :]


def _draw(allowed: Bool[np.ndarray, "B P"], *, rng: np.random.Generator) -> Pairs:
    """Draw one of the allowed rows for each, all with the same probability."""
    partner = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)
    is_paired = np.asarray(allowed.any(axis=1))
    return Pairs(partner=partner, is_paired=None if bool(is_paired.all()) else is_paired)


def _vectors(batch: Batch, pool: Batch) -> tuple[Float[np.ndarray, "B D"], Float[np.ndarray, "P D"]]:
    """Return what lies where in either, on the finest grid of at most `GRID` a side that both their maps have."""
    batches = [batch] if pool is batch else [batch, pool]
    maps = [b.images.mean(dim=1, keepdim=True) if b.importance is None else away_from_own(b) for b in batches]
    down, across = (min(GRID, *(m.shape[axis] for m in maps)) for axis in (-2, -1))
    pooled = (
        m if m.shape[-2:] == (down, across) else functional.adaptive_avg_pool2d(m.float(), (down, across)) for m in maps
    )
    small = [p.detach().flatten(1).cpu().double().nan_to_num().numpy() for p in pooled]
    shares = [s / np.maximum(s.sum(axis=1, keepdims=True), 1e-12) for s in small]
    return shares[0], shares[-1]
