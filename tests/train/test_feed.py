import threading
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tests.train.toys import Arrays, Toy, digest

from raremix.core.errors import ConfigError
from raremix.core.types import Batch
from raremix.data.augment import Classical
from raremix.data.samplers import SAMPLERS
from raremix.train.feed import Feed, to_float

STEPS = 12


def said(batch: Batch) -> tuple[object, ...]:
    assert batch.ids is not None
    return tuple(batch.ids.tolist()), digest(batch.images), digest(batch.targets)


# R4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_number_of_threads_gives_the_same_batches(sampler: str) -> None:
    feed = Toy(sampler=sampler).feed()
    expected = [said(feed.batch(step)) for step in range(STEPS)]
    for workers, prefetch in product([0, 1, 2, 4], [1, 2, 8]):
        assert [said(batch) for batch in feed.batches(0, STEPS, workers=workers, prefetch=prefetch)] == expected
    # A fresh feed, begun in the middle, and asked backwards.
    fresh = Toy(sampler=sampler).feed()
    assert [said(batch) for batch in fresh.batches(5, STEPS, workers=2)] == expected[5:]
    assert [said(fresh.batch(step)) for step in reversed(range(STEPS))] == expected[::-1]


def test_every_epoch_shows_every_row_once_in_another_order() -> None:
    feed = Toy().feed()
    ids = np.concatenate([batch.ids.numpy() for batch in feed.batches(0, 12) if batch.ids is not None]).reshape(3, 20)
    assert all(sorted(order) == list(range(20)) for order in ids.tolist())
    assert len({tuple(order) for order in ids.tolist()}) == 3


def test_the_same_image_is_changed_in_another_way_each_time() -> None:
    """Not the same numbers in every worker or in every epoch: nothing that is drawn about a row repeats."""
    feed = replace(Toy().feed(), images=Arrays(np.full((20, 3, 12, 12), 77, dtype=np.uint8)))
    images = torch.cat([batch.images for batch in feed.batches(0, 40, workers=2)])
    assert len(torch.unique(images.reshape(200, -1), dim=0)) == 200


def test_other_seeds_give_other_batches() -> None:
    batches = {said(Toy(seed=seed).feed().batch(3)) for seed in range(8)}
    assert len(batches) == 8


# R5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ranks_share_the_global_batch(sampler: str) -> None:
    toy = Toy(sampler=sampler, spec=replace(Toy().spec, batch_size=6))
    whole = toy.feed()
    for ranks in (1, 2, 3, 6):
        for step in (0, 3, 7):
            expected = whole.batch(step)
            parts = [toy.feed(rank=rank, ranks=ranks).batch(step) for rank in range(ranks)]
            assert torch.equal(torch.cat([part.ids for part in parts if part.ids is not None]), expected.ids)  # type: ignore[arg-type]
            assert torch.equal(torch.cat([part.images for part in parts]), expected.images)
            assert torch.equal(torch.cat([part.targets for part in parts]), expected.targets)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size = 5 must be a multiple of the 2 devices"):
        Toy().feed(ranks=2)
    with pytest.raises(ConfigError, match="batch_size = 0"):
        replace(Toy().feed(), batch_size=0)


# What is in a batch


def test_a_batch_holds_what_the_rows_say() -> None:
    toy = Toy(augmentation="none", rows=7)
    ids = np.array([3, 5, 6, 8, 13, 21, 34])
    pixels = np.arange(35 * 3 * 4 * 4, dtype=np.uint32).reshape(35, 3, 4, 4).astype(np.uint8)
    targets = np.array([[1, 0], [0, 1], [np.nan, 1], [0.5, 0.5], [1, 0], [1, 0], [0, 1]])
    feed = replace(toy.feed(), images=Arrays(pixels), ids=ids, targets=targets, augmentation=None, batch_size=7)
    batch = feed.batch(0)
    assert batch.ids is not None
    rows = [ids.tolist().index(i) for i in batch.ids.tolist()]
    assert sorted(rows) == list(range(7))
    assert torch.equal(batch.images, torch.from_numpy(pixels[ids[rows]]).float() / 255)
    np.testing.assert_array_equal(batch.targets.numpy(), targets[rows].astype(np.float32))


def test_full_scale_is_one() -> None:
    for kind in (np.uint8, np.uint16):
        top = np.iinfo(kind).max
        values = np.array([0, 1, top // 2, top], dtype=kind).reshape(1, 1, 2, 2)
        found = to_float(values)
        assert found.dtype == torch.float32
        assert found.flatten().tolist() == pytest.approx([0, 1 / top, (top // 2) / top, 1])
    assert values.tolist() == [[[[0, 1], [32767, 65535]]]]


# Threads


def test_no_more_is_made_ahead_than_asked_for() -> None:
    feed, made = Toy().feed(), []

    class Counting(Arrays):
        def take(self, ids: np.ndarray) -> np.ndarray:
            made.append(threading.get_ident())
            return super().take(ids)

    stream = replace(feed, images=Counting(feed.images.take(np.arange(20)))).batches(0, 40, workers=2, prefetch=2)
    next(stream)
    time.sleep(0.2)
    assert len(made) <= 6
    assert threading.get_ident() not in made
    stream.close()  # type: ignore[attr-defined]


def test_what_goes_wrong_in_a_thread_is_raised_where_the_batch_is_asked_for() -> None:
    class Broken(Arrays):
        def take(self, ids: np.ndarray) -> np.ndarray:
            raise KeyError("row 7")

    feed = replace(Toy().feed(), images=Broken(np.zeros((1, 1, 1, 1), dtype=np.uint8)))
    for workers in (0, 1, 3):
        with pytest.raises(KeyError, match="row 7"):
            next(feed.batches(0, 4, workers=workers))


def test_threads_end_with_the_stream() -> None:
    stream = Toy().feed().batches(0, 100, workers=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    end = time.time() + 10
    while any(thread.name.startswith("raremix-feed") for thread in threading.enumerate()) and time.time() < end:
        time.sleep(0.01)
    assert not any(thread.name.startswith("raremix-feed") for thread in threading.enumerate())


def test_augmentation_draws_the_same_for_any_slice() -> None:
    plan = Classical().plan(8, rng=np.random.default_rng(0))
    assert torch.equal(plan[2:5].warp, plan.warp[2:5])
    assert isinstance(Toy().feed(), Feed)
