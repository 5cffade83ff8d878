"""S1: whatever chance makes of a file, it is read or refused in one line, quickly and in bounded memory."""

import json
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.security import damage
from tests.security.damage import images, mutants

import raremix
from raremix.core import files, tables
from raremix.core.errors import CorruptError, RaremixError
from raremix.core.fitted import FITTED_ON, read_fitted
from raremix.data import guards
from raremix.data.manifest import Manifest
from raremix.data.readers import Reading, decode_image
from raremix.data.sources import MedMNIST, Table
from raremix.models.classifier import _read_weights
from raremix.models.label_embedding import read_label_vectors
from raremix.study.spec import read_study

READINGS = (
    Reading(),
    Reading(frames="max", window="range"),
    Reading(frames="middle", window=(40.0, 400.0), plane="coronal"),
)


Use = Callable[[Path, str, bytes, int], object]
"""What reads a mutant: in a folder of its own, of this kind, these bytes, with this number."""


def survive(seeds: Mapping[str, bytes], count: int, *, seed: int, use: Use, folder: Path) -> Counter[str]:
    """Read mutants; every refusal is an error of raremix for what was given, in one line, within five seconds."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for number, (name, data) in enumerate(mutants(dict(seeds), count, seed=seed)):
        start = time.process_time()
        try:
            use(folder, name, data, number)
        except RaremixError as error:
            outcomes["refused"] += 1
            assert error.exit_code == 2, repr(error)
            assert str(error).strip(), f"{name}, mutant {number}"
        else:
            outcomes["read"] += 1
        assert time.process_time() - start < 5, f"{name}, mutant {number}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB
    return outcomes


def read_picture(folder: Path, name: str, data: bytes, number: int) -> None:
    try:
        pixels = decode_image(data, name=f"row {number}", reading=READINGS[number % len(READINGS)])
    except RaremixError as error:
        assert str(error).startswith(f"row {number}: "), name
        raise
    assert pixels.ndim == 3


def read_arrays(folder: Path, name: str, data: bytes, number: int) -> None:
    path = folder / f"{number}.npz"
    path.write_bytes(data)
    MedMNIST(path=path).load(cache=folder / "cache")


def read_manifest(folder: Path, name: str, data: bytes, number: int) -> None:
    (folder / "card.json").write_bytes(damage.cards()["json"])
    path = folder / ("m.csv" if name == "csv" else f"{number}.parquet")
    path.write_bytes(data)
    manifest = Manifest.read(path)
    manifest.hash()
    guards.findings(manifest)


def read_labels(folder: Path, name: str, data: bytes, number: int) -> None:
    """The same bytes as a table of labels from elsewhere."""
    for row in range(6):
        if not (folder / f"{row}.png").exists():
            files.write_image(folder / f"{row}.png", np.full((4, 4, 1), row, dtype=np.uint8))
    (folder / "t.csv").write_bytes(data)
    Table(path=folder / "t.csv", image="path", label="split", group="group").load(cache=folder / "cache")


def read_card(folder: Path, name: str, data: bytes, number: int) -> None:
    for old in ("card.json", "card.toml"):
        (folder / old).unlink(missing_ok=True)
    (folder / f"card.{name}").write_bytes(data)
    (folder / "m.csv").write_text("path,target:a,target:b\nx.png,1,0\ny.png,0,1\n")
    Manifest.read(folder / "m.csv")


def read_vectors(folder: Path, name: str, data: bytes, number: int) -> None:
    path = folder / f"v.{name}"
    path.write_bytes(data)
    if name == "safetensors":
        _read_weights(path)
    read_label_vectors(path, ["a", "b"], names=["a", "b"] if name == "npy" else [])


def read_toml(folder: Path, name: str, data: bytes, number: int) -> None:
    (folder / "s.toml").write_bytes(data)
    read_study(folder / "s.toml")


def studies() -> dict[str, bytes]:
    own = Path(str(raremix.__file__)).parent / "study" / "demo.toml"
    rest = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))[:4]
    return {path.name: path.read_bytes() for path in [own, *rest]}


# Seeds, what reads them, and of 2,000 mutants how many.
PARTS: dict[str, tuple[Callable[[], Mapping[str, bytes]], Use, int]] = {
    "images": (images, read_picture, 1000),
    "npz": (lambda: {"npz": damage.arrays()}, read_arrays, 150),
    "csv": (lambda: damage.manifests("csv"), read_manifest, 150),
    "labels": (lambda: damage.manifests("csv"), read_labels, 150),
    "card": (damage.cards, read_card, 150),
    "vectors": (damage.vectors, read_vectors, 200),
    "toml": (studies, read_toml, 150),
}
PARQUET = 50


def test_two_thousand_in_all() -> None:
    assert sum(count for _, _, count in PARTS.values()) + PARQUET == 2000


@pytest.mark.parametrize("part", PARTS)
def test_mutants(part: str, tmp_path: Path) -> None:
    make, use, count = PARTS[part]
    outcomes = survive(make(), count, seed=0, use=use, folder=tmp_path)
    assert outcomes["read"] > 0
    assert outcomes["refused"] > count // 4


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_ten_times_as_many_mutants(part: str, tmp_path: Path) -> None:
    make, use, count = PARTS[part]
    survive(make(), 10 * count, seed=1, use=use, folder=tmp_path)


def parquet(count: int, *, seed: int, folder: Path) -> Counter[str]:
    """Mutants of Parquet, which end the process that decodes them: many are tried in one, as the audit does."""
    kept = list(mutants(damage.manifests("parquet"), count, seed=seed))
    for number, (_, data) in enumerate(kept):
        (folder / f"{number}.parquet").write_bytes(data)
    tables.try_parquet([folder / f"{number}.parquet" for number in range(count)])

    def use(folder: Path, name: str, data: bytes, number: int) -> None:
        (folder / "card.json").write_bytes(damage.cards()["json"])
        guards.findings(Manifest.read(folder / f"{number}.parquet"))

    return survive(damage.manifests("parquet"), count, seed=seed, use=use, folder=folder)


def test_parquet(tmp_path: Path) -> None:
    outcomes = parquet(PARQUET, seed=0, folder=tmp_path)
    assert outcomes["refused"] > PARQUET // 4


@pytest.mark.slow
def test_ten_times_as_much_parquet(tmp_path: Path) -> None:
    parquet(10 * PARQUET, seed=1, folder=tmp_path)


@pytest.mark.slow
def test_mutants_of_real_dicom(shared_data: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in sorted((shared_data / "dicom").rglob("*.dcm"))}
    small = {name: data for name, data in files.items() if len(data) < 200_000}
    survive(small, 4000, seed=2, use=read_picture, folder=tmp_path)


def test_a_damaged_record_of_fitted_rows_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"used_as": ["train"] * 3, "key": [1, 2, 3]}).write_parquet(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    places = np.linspace(4, len(whole) - 1, 12).astype(int)
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / FITTED_ON).write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
    tables.try_parquet([tmp_path / str(number) / FITTED_ON for number in range(len(places))])
    for number in range(len(places)):
        try:
            read_fitted(tmp_path / str(number))
        except CorruptError as error:
            assert str(tmp_path / str(number) / FITTED_ON) in str(error)


@pytest.mark.parametrize("kind", sorted(images()))
def test_every_cut_is_refused_or_read(kind: str) -> None:
    whole = images()[kind]
    for end in [*range(0, min(len(whole), 400), 7), *np.linspace(400, len(whole) - 1, 15).astype(int).tolist()]:
        try:
            decode_image(whole[:end], name="x", reading=READINGS[2])
        except RaremixError as error:
            assert error.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "t", "task": "binary", "classes": ["a", "b"], "root": 3}',
        '{"name": "t", "task": "binary", "classes": ["a", "b"], "attributes": ["age"]}',
        '{"name": "t", "task": "binary", "classes": ["a", "b"], "attributes": {"age": ["Int64"]}, "mask_root": {}}',
        '{"name": "t", "task": "binary", "classes": ["a", "b"], "root": "x\\u0000y"}',
        "[" * 100_000,
        json.dumps({"name": "t", "task": "binary", "classes": {"a": 1}}),
    ],
)
def test_cards_of_other_types(text: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(text)
    (tmp_path / "m.csv").write_text("path,target:a,target:b\nx.png,1,0\ny.png,0,1\n")
    with pytest.raises(RaremixError, match=r"card\.json") as caught:
        Manifest.read(tmp_path / "m.csv")
    assert caught.value.exit_code == 2


def test_a_wild_id_asks_for_no_memory(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(damage.cards()["json"])
    (tmp_path / "m.csv").write_text("id,path,target:a,target:b\n0,x.png,1,0\n4611686018427387904,y.png,0,1\n")
    with pytest.raises(
        RaremixError, match=r"m\.csv: ids are far larger than the 2 rows: look at row 4611686018427387904"
    ):
        Manifest.read(tmp_path / "m.csv")
