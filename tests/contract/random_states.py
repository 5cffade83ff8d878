"""The global random states that nothing in raremix may move."""

import random

import numpy as np
import torch


def random_states() -> tuple[object, ...]:
    """Return the states of the generators of Python, numpy and torch, as values that can be compared."""
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return (random.getstate(), np.asarray(keys).tobytes(), tuple(rest), torch.get_rng_state().numpy().tobytes())
