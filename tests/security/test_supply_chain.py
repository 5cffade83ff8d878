"""S7: what is depended on is locked with hashes, above versions known to be broken, and no binary hides."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
# What the fixes of known vulnerabilities are in; each is named beside its bound in pyproject.toml.
FIXED = {"torch": "2.10", "pillow": "12.3", "pydicom": "3.0.2", "safetensors": "0.8", "lightning-fabric": "2.6.6"}


def asked() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    return {canonicalize_name(one.name): one for one in map(Requirement, texts)}


def locked() -> dict[str, list[tuple[Version, list[str]]]]:
    """The locked versions of each package, by platform where they differ, with their hashes."""
    found: dict[str, list[tuple[Version, list[str]]]] = {}
    text = re.sub(r"^#.*\n|\s+# via.*(\n\s+#.*)*", "", (ROOT / "requirements.lock").read_text(), flags=re.M)
    for entry in re.split(r"\n(?=\S)", text.replace("\\\n", " ")):
        line, *hashes = re.split(r"\s+--hash=sha256:", entry.strip())
        name, equals, rest = line.partition("==")
        assert equals, line
        found.setdefault(canonicalize_name(name), []).append((Version(re.split(r"[ ;]", rest)[0]), hashes))
    return found


def test_the_lock_holds_all_that_is_asked_for() -> None:
    lock = locked()
    missing = [str(one) for name, one in asked().items() if name not in lock]
    assert not missing, f"run make lock: {missing}"
    wrong = [
        f"{one} is locked at {version}"
        for name, one in asked().items()
        for version, _ in lock[name]
        if not one.specifier.contains(version, prereleases=True)
    ]
    assert not wrong, f"run make lock: {wrong}"


def test_every_locked_file_has_its_hash() -> None:
    lock = locked()
    assert len(lock) > 100
    for name, versions in lock.items():
        for _, hashes in versions:
            assert hashes, name
            assert all(re.fullmatch("[0-9a-f]{64}", one.strip()) for one in hashes), name


@pytest.mark.parametrize("name", FIXED)
def test_lower_bounds_are_above_known_vulnerabilities(name: str) -> None:
    (bound,) = [one for one in asked()[name].specifier if one.operator == ">="]
    assert Version(bound.version) >= Version(FIXED[name])
    line = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if f'"{name}>=' in line)
    assert "#" in line, "a bound that exists for a reason says which"


def test_no_binary_but_pictures_and_arrays_is_kept() -> None:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout: what is kept cannot be listed")
    odd = []
    for name in filter(None, done.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.suffix in {".png", ".jpg", ".npz"}:
            continue
        try:
            path.read_bytes().decode()
        except UnicodeDecodeError:
            odd.append(name)
    assert not odd
