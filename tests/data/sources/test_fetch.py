import io
import tomllib
import zipfile
from dataclasses import fields, replace
from hashlib import md5
from pathlib import Path

import pytest
from tests.data.sources.miniatures import put_images, put_table
from tests.data.sources.web import Web

from raremix.config import build
from raremix.core.errors import ConfigError, ReadError, UnknownNameError
from raremix.data.sources import SOURCES, fetch
from raremix.data.sources.catalogue import CATALOGUE
from raremix.data.sources.fetch import OPEN, Part, fetchable, parts_of
from raremix.data.sources.medmnist_sets import SETS


def zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()


@pytest.mark.parametrize("name", CATALOGUE)
def test_cards_are_complete(name: str) -> None:
    about = CATALOGUE[name]
    assert about.name == name
    assert name in SOURCES
    for field in fields(about):
        assert getattr(about, field.name) or field.name in {"classes", "notes"}, field.name
    assert about.url.startswith("https://")
    # The study file of the card makes the source.
    table = tomllib.loads(about.study)["data"]
    assert table.pop("source") == name
    own = {"size", "channels"} if name != "medmnist" else {"channels"}
    build(SOURCES[name], {k: v for k, v in table.items() if k not in own}, where="data")


def test_a_public_set_names_licence_and_paper_in_its_manifest(tmp_path: Path) -> None:
    put_images(tmp_path, ["train/NORMAL/IM-0115-0001.jpeg", "train/PNEUMONIA/person1_virus_6.jpeg", "test/x/.keep.png"])
    put_images(tmp_path, ["test/NORMAL/IM-0001-0001.jpeg"])
    card = SOURCES["kermany"](path=tmp_path).load(cache=tmp_path / "c").card
    about = CATALOGUE["kermany"]
    assert (card.licence, card.citation, card.source) == (about.licence, about.citation, about.url)


def test_parts() -> None:
    (part,) = parts_of("bloodmnist", size=224)
    assert part.url == "https://zenodo.org/records/10519652/files/bloodmnist_224.npz?download=1"
    assert part.checksum == f"md5:{SETS['bloodmnist'].md5[3]}"
    assert len(parts_of("isic2018")) == 7
    assert set(fetchable()) == {*SETS, "isic2018", "fetal_planes", "kermany"}
    for parts in OPEN.values():
        # Where no checksum is published, the CRC of every member of an archive stands in.
        assert all(part.url.startswith("https://") for part in parts)
        assert all(part.checksum is not None or part.unpack is not None for part in parts)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("chexpert", ConfigError, "asks for an account or agreement: get it at https://stanfordmlgroup"),
        ("vindr_pcxr", ConfigError, "asks for an account or agreement: get it at https://physionet.org"),
        ("busi", ConfigError, "has no address that stays: get it at"),
        ("medmnist", ConfigError, "medmnist is 12 sets: name one of pathmnist"),
        ("organmnist3d", ConfigError, "holds volumes"),
        ("retinamist", UnknownNameError, "did you mean 'retinamnist'"),
    ],
)
def test_what_cannot_be_fetched(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parts_of(name)


def test_sizes() -> None:
    with pytest.raises(ConfigError, match="size = 32: MedMNIST has 28, 64, 128, 224"):
        parts_of("retinamnist", size=32)


def test_fetch_and_load_an_archive(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    header = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
    rows = [f"Patient0000{i}_Plane1_1_of_1;{i};Other;Not A Brain;Op. 1;Aloka;{int(i < 3)}" for i in range(4)]
    put_table(source / "FETAL_PLANES_DB_data.csv", [header, *rows])
    put_images(source, [f"Images/{row.split(';')[0]}.png" for row in rows], size=64)
    data = zipped(source)
    web.files["/planes.zip"] = data
    part = replace(
        OPEN["fetal_planes"][0], url=f"{web.url}/planes.zip", name="planes.zip", checksum=f"md5:{md5(data).hexdigest()}"
    )
    monkeypatch.setattr(fetch, "OPEN", {"fetal_planes": (part,)})
    monkeypatch.setattr("raremix.data.sources.download.PAUSE", 0.0)
    web.breaks = [len(data) // 2]
    root = fetch.fetch("fetal_planes", tmp_path / "data")
    assert [span for _, span in web.asked] == [None, f"bytes={len(data) // 2}-"]
    assert root == tmp_path / "data" / "fetal_planes"
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["fetal_planes"]
    assert len(SOURCES["fetal_planes"](path=root).load(cache=tmp_path / "c")) == 4
    # It is there: nothing is asked again.
    fetch.fetch("fetal_planes", tmp_path / "data")
    assert len(web.asked) == 2
    fetch.fetch("fetal_planes", tmp_path / "more", keep_archives=True)
    assert (tmp_path / "more" / "planes.zip").is_file()


def test_several_parts_go_on_where_they_stopped(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        put_table(tmp_path / name / f"{name}.csv", ["a", "1"])
        web.files[f"/{name}.zip"] = zipped(tmp_path / name)
    whole = web.files["/two.zip"]
    web.files["/two.zip"] = whole[: len(whole) // 2]
    parts = tuple(Part(url=f"{web.url}/{n}.zip", name=f"{n}.zip", unpack=n) for n in ("one", "two"))
    monkeypatch.setattr(fetch, "OPEN", {"isic2018": parts})
    with pytest.raises(ReadError, match=r"two.zip: is not a whole zip archive"):
        fetch.fetch("isic2018", tmp_path / "data")
    web.files["/two.zip"] = whole
    (tmp_path / "data" / "isic2018" / "two.zip").unlink()
    root = fetch.fetch("isic2018", tmp_path / "data")
    assert sorted(p.relative_to(root).as_posix() for p in root.rglob("*")) == [
        "one",
        "one/one.csv",
        "two",
        "two/two.csv",
    ]
    assert [path for path, _ in web.asked] == ["/one.zip", "/two.zip", "/two.zip"]


def test_fetch_a_set_of_medmnist(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/breastmnist_64.npz"] = b"x"
    monkeypatch.setattr(fetch, "RECORD", web.url)
    with pytest.raises(ReadError, match=r"breastmnist_64.npz: md5 .*, expected 742edef2a1fd1524b2efff4bd7ba9364"):
        fetch.fetch("breastmnist", tmp_path, size=64)
    assert list(tmp_path.iterdir()) == []
