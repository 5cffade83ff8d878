"""Pairing: every row meets those it may meet, equally often, and no other; one that may meet none stays whole."""

from typing import get_args

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import CutMix
from raremix.mix.pairing import (
    PAIRINGS,
    Pairing,
    PairingName,
    any_partner,
    pair_different_class,
    pair_most_dissimilar,
    pair_same_class,
    pair_synthetic_with_real,
    pair_tail_with_head,
)


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_a_batch_with_itself_is_a_permutation(rows: int) -> None:
    assert sorted(any_partner(rows, rows, rng=rng(0, "mix"))) == list(range(rows))


def test_a_larger_pool_is_drawn_from_without_repetition() -> None:
    partner = any_partner(5, 100, rng=rng(0, "mix"))
    assert len(set(partner.tolist())) == 5
    assert partner.max() > 5


@pytest.mark.parametrize(("rows", "pool_rows"), [(7, 3), (6, 3), (5, 1)])
def test_a_smaller_pool_is_gone_through_again(rows: int, pool_rows: int) -> None:
    counts = np.bincount(any_partner(rows, pool_rows, rng=rng(0, "mix")), minlength=pool_rows)
    assert counts.sum() == rows
    assert counts.max() - counts.min() <= 1


def test_partners_are_uniform() -> None:
    stream = rng(0, "mix")
    firsts = np.bincount([any_partner(4, 4, rng=stream)[0] for _ in range(2000)], minlength=4)
    assert abs(firsts - 500).max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 row"):
        any_partner(2, 0, rng=rng(0, "mix"))


def batch_of(targets: torch.Tensor, **more: torch.Tensor) -> Batch:
    return Batch(images=torch.rand(len(targets), 1, 4, 4), targets=targets, **more)  # type: ignore[arg-type]


def classes(*numbers: int, of: int = 3) -> torch.Tensor:
    return torch.eye(of)[list(numbers)]


def drawn(pairing: Pairing, batch: Batch, pool: Batch, times: int = 1000, **more: np.ndarray) -> np.ndarray:
    """Return how often each row of the batch got each row of the pool; all zeros where it got none."""
    stream, counts = rng(0, "pair"), np.zeros((len(batch.images), len(pool.images)), dtype=int)
    for _ in range(times):
        pairs = pairing(batch, pool, rng=stream, **more)
        paired = np.ones(len(counts), dtype=bool) if pairs.is_paired is None else pairs.is_paired
        counts[np.flatnonzero(paired), pairs.partner[paired]] += 1
        assert ((pairs.partner >= 0) & (pairs.partner < len(pool.images))).all()
    return counts


def assert_uniform(counts: np.ndarray, allowed: list[list[int]], times: int = 1000) -> None:
    """Every row met the rows it may meet, equally often, and no other."""
    for row, rows in enumerate(allowed):
        assert np.flatnonzero(counts[row]).tolist() == rows, row
        if rows:
            share = 1 / len(rows)
            assert abs(counts[row, rows] - times * share).max() <= 5 * (times * share * (1 - share)) ** 0.5
            assert counts[row].sum() == times


def test_different_class() -> None:
    batch = batch_of(classes(0, 0, 1, 2))
    assert_uniform(drawn(pair_different_class, batch, batch), [[2, 3], [2, 3], [0, 1, 3], [0, 1, 2]])
    pool = batch_of(classes(0, 0, 1, 1, 1))
    assert_uniform(drawn(pair_different_class, batch, pool), [[2, 3, 4], [2, 3, 4], [0, 1], [0, 1, 2, 3, 4]])


def test_different_class_with_several_labels() -> None:
    """Rows differ where any label does; what is not labelled counts as absent."""
    batch = batch_of(torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, torch.nan], [0, 0, 0]]))
    assert_uniform(drawn(pair_different_class, batch, batch), [[1, 3], [0, 2, 3], [1, 3], [0, 1, 2]])


def test_same_class() -> None:
    """A row does not meet itself; one that is alone in its class is not paired."""
    batch = batch_of(classes(0, 0, 0, 2))
    assert_uniform(drawn(pair_same_class, batch, batch), [[1, 2], [0, 2], [0, 1], []])
    pool = batch_of(classes(2, 0))
    assert_uniform(drawn(pair_same_class, batch, pool), [[1], [1], [1], [0]])


def test_all_rows_of_one_class_cannot_be_told_apart() -> None:
    batch = batch_of(classes(1, 1, 1))
    pairs = pair_different_class(batch, batch, rng=rng(0, "pair"))
    assert pairs.is_paired is not None
    assert not pairs.is_paired.any()
    mixed = CutMix(pairing="different_class").plan(batch, batch, rng=rng(0, "mix"))
    assert mixed.weight.tolist() == [1.0] * 3
    assert torch.equal(mixed.apply(batch).images, batch.images)


def test_tail_with_head() -> None:
    """Counted in the batch: three of class 0, two of class 1, one of class 2; each meets more frequent classes only."""
    batch = batch_of(classes(0, 0, 0, 1, 1, 2))
    assert_uniform(drawn(pair_tail_with_head, batch, batch), [[], [], [], [0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4]])
    counts = np.array([1.0, 5.0, 9.0])  # in the training set it is the other way round
    turned = drawn(pair_tail_with_head, batch, batch, class_counts=counts)
    assert_uniform(turned, [[3, 4, 5]] * 3 + [[5]] * 2 + [[]])
    pool = batch_of(classes(2, 1))
    turned = drawn(pair_tail_with_head, batch, pool, class_counts=counts)
    assert_uniform(turned, [[0, 1]] * 3 + [[0]] * 2 + [[]])


def test_tail_with_head_with_several_labels() -> None:
    """A row is as frequent as its rarest label; a row without labels is more frequent than all."""
    batch = batch_of(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    counts = drawn(pair_tail_with_head, batch, batch, class_counts=np.array([9.0, 2.0]))
    assert_uniform(counts, [[1, 2], [2], []])


def test_counts_must_fit_the_targets() -> None:
    batch = batch_of(classes(0, 1))
    with pytest.raises(ConfigError, match="2 counts, the targets have 3"):
        pair_tail_with_head(batch, batch, rng=rng(0, "pair"), class_counts=np.ones(2))


def test_synthetic_with_real() -> None:
    batch = batch_of(classes(0, 1, 2), is_synthetic=torch.tensor([True, False, False]))
    assert_uniform(drawn(pair_synthetic_with_real, batch, batch), [[1, 2], [0], [0]])
    pool = batch_of(classes(0, 1))  # all real
    assert_uniform(drawn(pair_synthetic_with_real, batch, pool), [[0, 1], [], []])


def test_synthetic_with_real_needs_to_know_which_are() -> None:
    batch = batch_of(classes(0, 1, 2))
    with pytest.raises(ConfigError, match=r"Batch\(is_synthetic="):
        pair_synthetic_with_real(batch, batch_of(classes(0)), rng=rng(0, "pair"))


def spots(*places: int) -> torch.Tensor:
    """Return maps of 2 x 2 of which one pixel matters."""
    return torch.eye(4)[list(places)].reshape(-1, 1, 2, 2)


def test_most_dissimilar_takes_each_row_once() -> None:
    """Two images look left, two look right: each meets one of the others, whatever the order."""
    batch = batch_of(classes(0, 0, 1, 1), importance=spots(0, 0, 3, 3))
    for seed in range(20):
        partner = pair_most_dissimilar(batch, batch, rng=rng(seed, "pair")).partner
        assert sorted(partner) == [0, 1, 2, 3]
        assert set(partner[:2]) == {2, 3}


def test_most_dissimilar_looks_at_importance_and_not_at_its_amount() -> None:
    batch = batch_of(classes(0), importance=spots(0))
    importance = torch.cat([9 * spots(0), 0.1 * spots(3), spots(0) + 0.2])
    pool = batch_of(classes(0, 0, 0), importance=importance)
    assert pair_most_dissimilar(batch, pool, rng=rng(0, "pair")).partner.tolist() == [1]


def test_most_dissimilar_goes_through_a_smaller_pool_again() -> None:
    batch, pool = batch_of(torch.eye(7)), batch_of(torch.eye(7)[:3])
    counts = np.bincount(pair_most_dissimilar(batch, pool, rng=rng(0, "pair")).partner, minlength=3)
    assert counts.max() - counts.min() <= 1


def test_most_dissimilar_without_importance_compares_images() -> None:
    images = spots(0, 1, 0)
    pool = Batch(images=images, targets=torch.eye(3))
    batch = Batch(images=images[:1], targets=torch.eye(3)[:1])
    assert pair_most_dissimilar(batch, pool, rng=rng(0, "pair")).partner.tolist() == [1]


@pytest.mark.parametrize("name", PAIRINGS)
def test_a_single_row_meets_itself_or_stays_whole(name: str) -> None:
    batch = batch_of(classes(1), is_synthetic=torch.tensor([True]))
    pairs = PAIRINGS[name](batch, batch, rng=rng(0, "pair"))
    assert pairs.partner.tolist() == [0]
    mixed = CutMix(pairing=name).plan(batch, batch, rng=rng(0, "mix")).apply(batch)  # type: ignore[arg-type]
    assert torch.equal(mixed.images, batch.images)
    assert torch.equal(mixed.targets, batch.targets)


def test_the_names_are_those_of_the_setting() -> None:
    assert set(PAIRINGS) == set(get_args(PairingName))


@pytest.mark.parametrize("name", ["tail_with_head", "same_class", "different_class"])
def test_rows_without_any_label_are_not_paired_by_class(name: str) -> None:
    targets = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    batch = Batch(images=torch.zeros(5, 1, 2, 2), targets=targets)
    for seed in range(20):
        pairs = PAIRINGS[name](batch, batch, rng=rng(seed, "pair"))
        assert pairs.is_paired is not None
        assert not pairs.is_paired[1]
        assert 1 not in pairs.partner[pairs.is_paired]
