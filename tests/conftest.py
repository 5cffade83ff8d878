"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside a developer's checkout; tests that use it are skipped where it is absent."""
    path = Path(os.environ.get("RAREMIX_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"real test images are not at {path}")
    return path
