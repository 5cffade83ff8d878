import json
from hashlib import md5
from pathlib import Path

import pytest
from tests.data.sources.web import serve

from raremix.cli import main
from raremix.data.sources import fetch
from raremix.data.sources.fetch import Part


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["raremix", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "sources", "--json") == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["sources"]}
    assert len(listed) == 10
    assert listed["isic2018"]["licence"] == "CC BY-NC 4.0"
    assert [name for name, entry in listed.items() if entry["fetch"]] == [
        "isic2018",
        "kermany",
        "fetal_planes",
        "medmnist",
    ]
    assert run(monkeypatch, "sources") == 0
    assert "raremix sources fetch NAME FOLDER" in capsys.readouterr().out


def test_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "sources", "isic2018") == 0
    text = capsys.readouterr().out
    assert "ISIC2018_Task3_Training_Input/ISIC_0024306.jpg" in text
    assert '[data]\nsource = "isic2018"' in text
    assert "raremix sources fetch isic2018 FOLDER" in text
    assert run(monkeypatch, "sources", "chexpert", "--json") == 0
    assert json.loads(capsys.readouterr().out)["access"] == "registration"
    assert run(monkeypatch, "sources", "kermny") == 2
    assert "did you mean 'kermany'" in " ".join(capsys.readouterr().err.split())


def test_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "data")
    assert run(monkeypatch, "sources", "fetch", "retinamnist", folder, "--size", "64", "--dry-run", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["files"] == ["https://zenodo.org/records/10519652/files/retinamnist_64.npz?download=1"]
    assert not (tmp_path / "data").exists()
    assert run(monkeypatch, "sources", "fetch", "padchest", folder) == 2
    assert "raremix sources padchest shows" in " ".join(capsys.readouterr().err.split())
    with serve() as web:
        web.files["/x.npz"] = b"data"
        part = Part(url=f"{web.url}/x.npz", name="x.npz", checksum=f"md5:{md5(b'data').hexdigest()}")
        monkeypatch.setattr(fetch, "parts_of", lambda name, size: (part,))
        assert run(monkeypatch, "sources", "fetch", "retinamnist", folder) == 0
    captured = capsys.readouterr()
    assert (tmp_path / "data" / "x.npz").read_bytes() == b"data"
    assert "Use it: raremix study" in captured.out
    assert "CC BY 4.0" in captured.err
