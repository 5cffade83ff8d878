"""Streams of the adapters: new at each call, the same after the same seed, and no global state."""

import pytest
import torch
from tests.contract.random_states import random_states

from raremix.adapt.streams import Streams
from raremix.core.errors import ConfigError


def draws(streams: Streams, times: int) -> list[float]:
    return [float(streams.next().random()) for _ in range(times)]


def test_streams_follow_from_torchs_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, again, other = draws(Streams(), 3), draws(Streams(), 3), draws(Streams(seed=1), 3)
        torch.manual_seed(4)
        reseeded = draws(Streams(), 3)
    assert first == again
    assert len({*first, *other, *reseeded}) == 9


def test_no_global_state_moves() -> None:
    before = random_states()
    draws(Streams(), 2)
    assert random_states() == before


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match=">= 0"):
        Streams(seed=-1)
