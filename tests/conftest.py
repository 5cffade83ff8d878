"""Fixtures shared by all tests."""

import os
from collections.abc import Callable, Iterator
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


@pytest.fixture(scope="module")
def no_fsync_in_module() -> Iterator[None]:
    """No fsync in a file of tests that ask what is written, not whether it lasts, nor in what its fixtures make."""
    # Imported here: the package must not be decorated before the generator above is in place.
    from raremix.core import files
    from tests.core.faults import CountingDisk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "DISK", CountingDisk())
        yield


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for one test."""
    from raremix.core import files
    from tests.core.faults import CountingDisk

    monkeypatch.setattr(files, "DISK", CountingDisk())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process; returns exit code, standard output, standard error."""
    from raremix import cli

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["raremix", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
