"""Fixtures shared by all tests."""

import os
from pathlib import Path
from random import Random

import pytest
from beartype._check.code import codemain

# Of a list or tuple beartype checks one item, drawn from Python's global generator; tests that watch this generator
# must not see it move, so it is given one of its own before anything is decorated.
codemain.getrandbits = Random(0).getrandbits  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside a developer's checkout; tests that use it are skipped where it is absent."""
    path = Path(os.environ.get("RAREMIX_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"real test images are not at {path}")
    return path
