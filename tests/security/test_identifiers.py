"""S6: canaries of a patient in every place where one can be; after a whole training no byte of them is anywhere."""

import base64
import logging
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset
from tests.data.dicoms import dicom
from tests.study.generators.synthetic_sets import plain_features

from raremix import cli
from raremix.core.errors import RaremixError

# Twelve elements, each with a canary of its own; {} is the number of the file.
TAGS = {
    "PatientName": "Kanarienvogel^Erika",
    "PatientID": "MRN-4711-{}",
    "PatientBirthDate": "19530417",
    "OtherPatientIDs": "OTHER-8153",
    "PatientAddress": "Sperlingsgasse 7, 10178",
    "PatientComments": "canary comment about a canary",
    "AccessionNumber": "ACC-90210",
    "InstitutionName": "Klinikum Vogelsang",
    "ReferringPhysicianName": "Finkenstein^Adebar",
    "StudyDate": "20190823",
    "StudyInstanceUID": "1.2.826.0.1.4711.77",
    "SOPInstanceUID": "1.2.826.0.1.4711.88.{}",
}
TEXTS = ["Zeisig^Exif", "Amsel^PngText", "Drossel^JpegComment"]
NAME = "Rotkehlchen_File"
PATIENT = "MRN-1953-Nachtigall"
SMALL = {
    "generator.width": 2, "generator.latent": 4, "train.batch_size": 2, "train.steps": 2, "train.validations": 1,
    "train.checkpoints": 1, "train.workers": 0, "train.accelerator": "cpu", "train.precision": '"32"',
}  # fmt: skip
STUDY = """
[study]
name = "s"
seeds = [0]
resamples = 100
[data]
source = "{source}"
path = "{path}"
size = 16
{more}
[model]
name = "resnet10t"
stem = "standard"
[train]
steps = 2
batch_size = 8
validations = 1
checkpoints = 1
workers = 0
[[arm]]
name = "plain"
"""


def dicoms(folder: Path, count: int = 30) -> None:
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 4000, (20, 20), dtype=np.uint16)
        values[:, : 10 if number % 2 else 2] = 0
        tags = {key: text.format(number) for key, text in TAGS.items()}
        private = Dataset()
        private.PatientName = TAGS["PatientName"]
        place = folder / "ab"[number % 2] / f"{number}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(dicom(values, **tags, RequestAttributesSequence=[private]))


def pictures(folder: Path, count: int = 30) -> None:
    for number in range(count):
        image = Image.fromarray(np.random.default_rng(number).integers(0, 255, (20, 20), dtype=np.uint8))
        place = folder / "ab"[number % 2] / f"{NAME}{number}"
        place.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x010E] = exif[0x013B] = TEXTS[0]
        if number % 3:
            text = PngInfo()
            text.add_text("Patient", TEXTS[1])
            text.add_itxt("XML:com.adobe.xmp", f"<x>{TEXTS[1]}</x>", zip=True)
            image.save(place.with_suffix(".png"), pnginfo=text, exif=exif)
        else:
            image.save(place.with_suffix(".jpg"), comment=TEXTS[2], exif=exif)


class Said:
    """What a command printed, logged and raised."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self.caplog, self.capfd, self.texts = caplog, capfd, [""]

    def succeeds(self, monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
        """Run a command line that must end well, and say what it said where it does not."""
        code, printed = self.run(monkeypatch, *words)
        assert code == 0, printed

    def run(self, monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> tuple[int, str]:
        """Run a command line; return its exit code and what it printed."""
        monkeypatch.setattr(sys, "argv", ["raremix", *map(str, words)])
        code = 0
        self.caplog.clear()
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        except RaremixError as error:  # pragma: no cover - main turns these into exit codes
            raise AssertionError(repr(error)) from error
        printed = "".join(self.capfd.readouterr())
        self.texts += [printed, self.caplog.text]
        return code, printed


def forms(secret: str) -> list[bytes]:
    """A secret as text, as UTF-16, and as base64 at each of its three offsets."""
    plain = secret.encode()
    return [
        plain,
        secret.encode("utf-16-le"),
        *(base64.b64encode(b"x" * shift + plain)[4 if shift else 0 : -4] for shift in range(3)),
    ]


def found(secrets: list[str], folders: list[Path], texts: list[str], *, but: tuple[str, ...] = ()) -> list[str]:
    """Say which secret stands where: in files, their names, or what was said."""
    where = []
    files = {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}
    assert len(files) > 10
    for secret in secrets:
        for path, data in files.items():
            if path.name not in but and any(form in data or form in str(path).encode() for form in forms(secret)):
                where.append(f"{secret} in {path.name}")
        if any(secret in text for text in texts):
            where.append(f"{secret} was said")
    return where


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Said:
    caplog.set_level(logging.DEBUG)
    return Said(caplog, capfd)


def test_the_search_finds(tmp_path: Path) -> None:
    for number, form in enumerate(forms("Erika^Mustermann")):
        (tmp_path / str(number)).write_bytes(b"zzz" + form + b"zzz")
    for number in range(9):
        (tmp_path / f"x{number}").write_bytes(base64.b64encode(b"." * number + b"Erika^Mustermann" + b".."))
    assert len(found(["Erika^Mustermann"], [tmp_path], ["Erika^Mustermann"])) == 5 + 9 + 1
    assert not found(["Max^Mustermann"], [tmp_path], ["Erika"])


def test_dicom(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on DICOM, write every output, score the files, and fail on purpose."""
    data, out = tmp_path / "set", tmp_path / "out"
    dicoms(data)
    raw = b"".join(path.read_bytes() for path in data.rglob("*.dcm"))
    secrets = [text.partition("{}")[0] for text in TAGS.values()]
    assert all(secret.encode() in raw for secret in secrets)
    study = tmp_path / "s.toml"
    study.write_text(STUDY.format(source="dicom", path=data, more='header = ["sex", "age", "modality"]'))
    places = ("--runs", out / "runs", "--cache", out / "cache")
    said.succeeds(monkeypatch, "study", study, *places)
    assert (out / "runs" / "s" / "report.html").is_file()
    (classifier,) = (out / "runs").glob("*/jobs/*/result/classifier")
    said.succeeds(monkeypatch, "predict", classifier, data, "-o", out / "scores.csv")
    said.succeeds(monkeypatch, "audit", study, *places, "--markdown", out / "audit.md")
    said.succeeds(monkeypatch, "inspect", data, "-o", out / "inspected.md", "--picture", out / "sheet.png")
    # Cut within the name, so that every decoder complains about just that.
    broken = data / "a" / "0.dcm"
    whole = broken.read_bytes()
    place = whole.index(b"Kanarienvogel")
    for damage in (whole[: place + 9], whole[: place - 2] + b"\xff\xff" + whole[place:], whole[:-200]):
        broken.write_bytes(damage)
        assert said.run(monkeypatch, "study", study, *places)[0] in {1, 2}
        assert said.run(monkeypatch, "inspect", data)[0] == 1
    assert said.run(monkeypatch, "study", study, *places, "--on-unreadable", "skip", "--dry-run")[0] in {0, 2}
    assert not found(secrets, [out], said.texts)


def test_pictures(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """EXIF, text and comments stay behind; names of files stand only where they were asked for."""
    data, out = tmp_path / "set", tmp_path / "out"
    pictures(data)
    raw = b"".join(path.read_bytes() for path in data.rglob("*.*"))
    assert all(text.encode() in raw for text in TEXTS)
    study = tmp_path / "s.toml"
    study.write_text(STUDY.format(source="folder", path=data, more='on_unreadable = "skip"'))
    places = ("--runs", out / "runs", "--cache", out / "cache")
    (data / "a" / f"{NAME}0.jpg").write_bytes((data / "a" / f"{NAME}0.jpg").read_bytes()[:300])
    code, printed = said.run(monkeypatch, "study", study, *places)
    assert code == 0, printed
    said.succeeds(monkeypatch, "audit", study, *places, "--markdown", out / "audit.md")
    assert not found(TEXTS, [out], said.texts)
    # The table of what was left out is there to name files; nothing else does.
    assert list((out / "runs").rglob("quarantine.csv"))
    assert not found([NAME], [out], said.texts, but=("quarantine.csv",))


def test_synthetic_images(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator, its images, their page and selection know rows; the manifest alone says which file a row is."""
    data, out = tmp_path / "set", tmp_path / "out"
    pictures(data, count=80)
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.*"))
    patients = [f"{PATIENT}-{k}" for k in range(len(names))]
    splits = [("train", "validation", "validation", "validation", "test")[k // 2 % 5] for k in range(len(names))]
    columns = {"file": names, "dx": [name[0] for name in names], "who": patients, "fold": splits}
    pl.DataFrame(columns).write_csv(data / "labels.csv")
    study = tmp_path / "s.toml"
    more = 'label = "dx"\ngroup = "who"\nsplit = "fold"\nchannels = 1'
    study.write_text(
        STUDY.format(source="table", path=data / "labels.csv", more=more).replace("size = 16", "size = 20")
    )
    cache, generator, made = ("--cache", out / "cache"), out / "generator", out / "synthetic"
    small = [f"{key}={value}" for key, value in SMALL.items()]
    sets = [word for setting in small for word in ("--set", setting)]
    plain_features(monkeypatch)
    for words in (
        ("generator", "fit", study, "-m", "dcgan", "-o", generator, *cache, *sets),
        ("generator", "sample", generator, "--class", "a", "-n", "2", "-o", out / "drawn"),
        ("generator", "inspect", generator),
        ("synthesize", study, generator, "--to", "20", "-o", made, *cache),
        ("quality", made, "--set", "data.size=20", *cache),
        ("curate", made, "--set", "data.size=20", *cache),
        ("audit", made, "--set", "data.size=20", *cache, "--runs", out / "runs"),
        ("study", study, *cache, "--runs", out / "runs"),
    ):
        code, printed = said.run(monkeypatch, *words)
        assert code == 0, printed
    assert (made / "quality.html").is_file()
    assert (out / "synthetic-curated" / "manifest.parquet").is_file()
    secrets = [PATIENT, *TEXTS]
    assert not found(secrets, [out], said.texts)
    assert not found([NAME], [out], said.texts, but=("manifest.parquet",))
