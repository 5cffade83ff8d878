"""Simulated studies: two arms that are equally good, patients with several images, few positives."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Null:
    """One simulated study without a difference between the arms."""

    targets: np.ndarray
    groups: np.ndarray
    a: np.ndarray
    b: np.ndarray


def null_study(
    number: int,
    *,
    patients: int = 60,
    positives: int = 13,
    images: int = 3,
    seeds: int = 3,
    signal: float = 2.0,
    patient_sd: float = 0.7,
    image_sd: float = 0.5,
    arm_sd: float = 0.5,
    seed_sd: float = 0.3,
    noise_sd: float = 0.5,
) -> Null:
    """Draw a study: each arm is right about other patients (arm_sd), each of its seeds has another signal (seed_sd)."""
    rng = np.random.default_rng((number, seeds, positives))
    ill = np.zeros(patients)
    ill[:positives] = 1
    groups = np.repeat(np.arange(patients), rng.integers(1, 2 * images, size=patients))
    N, truth = len(groups), ill[groups]
    shared = rng.normal(0, patient_sd, patients)[groups] + rng.normal(0, image_sd, N)
    arms = []
    for _ in range(2):
        own = rng.normal(0, arm_sd, patients)[groups]
        strength = signal + rng.normal(0, seed_sd, seeds)
        logit = strength[:, None] * (truth - 0.5) + shared + own + rng.normal(0, noise_sd, (seeds, N))
        score = 1 / (1 + np.exp(-logit))
        arms.append(np.stack([1 - score, score], axis=-1))
    return Null(targets=np.eye(2)[truth.astype(int)], groups=groups, a=arms[0], b=arms[1])


@pytest.fixture(scope="session")
def simulate() -> Callable[..., Null]:
    """The simulator."""
    return null_study
