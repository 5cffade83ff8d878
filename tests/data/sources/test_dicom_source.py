"""raremix.data.sources.Dicom: labels by number or name, patients by keyed hash, and nobody's name anywhere."""

import base64
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from tests.data.dicoms import dicom

from raremix.core.errors import ConfigError, CorruptError, ManifestError, ReadError, UnknownNameError
from raremix.data.cache import build_cache
from raremix.data.readers import Reading
from raremix.data.sources import Dicom
from raremix.data.sources.dicom_headers import group_key

SECRETS = {
    "PatientName": "Canary^Person",
    "PatientID": "MRN-4711-CANARY",
    "PatientBirthDate": "19610203",
    "StudyDate": "20190407",
    "AccessionNumber": "ACC-CANARY-99",
    "PatientAddress": "Canary Street 7",
    "ReferringPhysicianName": "Canary^Doctor",
    "InstitutionName": "Canary Hospital",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.4711",
    "OtherPatientIDs": "OTHER-CANARY",
    "PatientComments": "canary remark",
    "StudyID": "ST-CANARY",
}


def write(folder: Path, name: str, *, patient: str | None, uid: str, value: int = 5, **elements: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 255, (16, 16), dtype=np.uint8)
    known = {} if patient is None else {"PatientID": patient}
    path.write_bytes(dicom(pixels, SOPInstanceUID=uid, **known, **elements))
    return path


@pytest.fixture
def xrays(tmp_path: Path) -> Path:
    """Six files of four patients, named in three ways by labels.csv."""
    folder = tmp_path / "xrays"
    for i, patient in enumerate(["p1", "p1", "p2", "p3", "p4", " p4 "]):
        write(folder, f"s{i % 2}/im{i}.dcm", patient=patient, uid=f"1.2.3.{i}", value=i, PatientAge=f"0{3 + i}5Y")
    rows = ["1.2.3.0,sick", "im1,well", "im2.dcm,sick", "s1/im3.dcm,well", "1.2.3.4,sick", "1.2.3.5,well"]
    (tmp_path / "labels.csv").write_text("image,dx\n" + "\n".join(rows) + "\n")
    return folder


def test_labels_by_number_name_and_path(xrays: Path, tmp_path: Path) -> None:
    source = Dicom(path=xrays, table="labels.csv", label="dx", classes=["well", "sick"], header=["age", "modality"])
    manifest = source.load(cache=tmp_path / "cache")
    assert manifest.frame["path"].to_list() == [f"s{i % 2}/im{i}.dcm" for i in (0, 2, 4, 1, 3, 5)]
    np.testing.assert_array_equal(manifest.targets()[:, 1], [1, 1, 1, 0, 0, 0])
    groups = dict(zip(manifest.frame["path"], manifest.frame["group"], strict=True))
    assert groups["s0/im0.dcm"] == groups["s1/im1.dcm"]
    assert groups["s0/im4.dcm"] == groups["s1/im5.dcm"]  # spaces around a number do not make another patient
    assert len(set(groups.values())) == 4
    assert manifest.frame["age_band"].to_list() == ["18-39", "40-59", "60-79", "40-59", "60-79", "80+"]
    again = Dicom(path=xrays, table="labels.csv", label="dx", classes=["well", "sick"]).load(cache=tmp_path / "cache")
    assert again.frame["group"].to_list() == manifest.frame["group"].to_list()


def test_groups_are_hashes_with_a_secret_key(xrays: Path, tmp_path: Path) -> None:
    source = Dicom(path=xrays, table="labels.csv", label="dx")
    groups = source.load(cache=tmp_path / "cache").frame["group"].to_list()
    key = (tmp_path / "cache.key").read_bytes()
    assert len(key) == 32
    assert (tmp_path / "cache.key").stat().st_mode & 0o777 == 0o600
    expected = blake2b(b"p1", key=key, digest_size=12).hexdigest()
    assert expected in groups
    assert blake2b(b"p1", digest_size=12).hexdigest() not in groups
    # Another key, other groups: what one team publishes says nothing about another's patients.
    others = source.load(cache=tmp_path / "elsewhere").frame["group"].to_list()
    assert not set(groups) & set(others)
    (tmp_path / "cache.key").chmod(0o644)
    with pytest.raises(CorruptError, match="others may read: run chmod 600"):
        group_key(tmp_path / "cache")


def test_class_folders_and_lists(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "set", f"{'sick' if i % 2 else 'well'}/file{i}", patient=f"p{i}", uid=f"1.{i}", value=i)
    (tmp_path / "set" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "set" / "sick" / "notes.txt").write_text("no image")
    manifest = Dicom(path=tmp_path / "set").load(cache=tmp_path / "cache")
    assert manifest.card.classes == ("sick", "well")
    assert manifest.class_counts().tolist() == [2, 2]
    (tmp_path / "list.txt").write_text("# chosen\nset/sick/file1\nset/well/file2\n")
    (tmp_path / "labels.csv").write_text("image,dx\nfile1,a\nfile2,b\n")
    listed = Dicom(path=tmp_path / "list.txt", table="labels.csv", label="dx").load(cache=tmp_path / "cache")
    assert listed.frame["path"].to_list() == ["set/sick/file1", "set/well/file2"]


def test_refusals(xrays: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    labels = tmp_path / "labels.csv"
    labels.write_text("image,dx\n1.2.3.0,sick\nnobody,well\n")
    with pytest.raises(ManifestError, match=r"labels.csv, column 'image': no file for the image in line 3"):
        Dicom(path=xrays, table="labels.csv", label="dx").load(cache=cache)
    labels.write_text("image,dx\n1.2.3.0,sick\nim0,well\n")
    with pytest.raises(ManifestError, match=r"two rows for one file: s0/im0.dcm"):
        Dicom(path=xrays, table="labels.csv", label="dx").load(cache=cache)
    write(xrays, "s1/im0.dcm", patient="p9", uid="1.2.3.9")
    with pytest.raises(ManifestError, match="several files for the image in line 3"):
        Dicom(path=xrays, table="labels.csv", label="dx").load(cache=cache)
    with pytest.raises(ConfigError, match="give the table too"):
        Dicom(path=xrays, label="dx")
    with pytest.raises(ConfigError, match="there is no table"):
        Dicom(path=xrays, group="mother")
    with pytest.raises(UnknownNameError, match="name"):
        Dicom(path=xrays, header=["name"])
    with pytest.raises(ManifestError, match="lie in no class folder"):
        write(xrays, "loose.dcm", patient="p", uid="1.9")
        Dicom(path=xrays).load(cache=cache)


def test_files_without_a_patient_are_refused(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "set", f"{'ab'[i % 2]}/{i}.dcm", patient="" if i else "p", uid=f"1.{i}", value=i)
    with pytest.raises(ManifestError, match=r"3 of 4 files have no PatientID.*group = \"column\""):
        Dicom(path=tmp_path / "set").load(cache=tmp_path / "cache")
    manifest = Dicom(path=tmp_path / "set", group="image").load(cache=tmp_path / "cache")
    assert manifest.frame["group"].n_unique() == 4


def test_nobody_is_named_anywhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Import, decode, write, read again, and fail on purpose: no output holds a byte of who it was about."""
    secrets = {key: value for key, value in SECRETS.items() if key != "PatientID"}
    for i in range(4):
        write(
            tmp_path / "set",
            f"{'ab'[i % 2]}/{i}.dcm",
            patient=f"{SECRETS['PatientID']}{i}",
            uid=f"1.2.9999.{i}",
            value=i,
            **secrets,
        )
    out = tmp_path / "out"
    manifest = Dicom(path=tmp_path / "set").load(cache=out / "cache")
    manifest.write(out / "manifest.parquet")
    manifest.write(out / "csv" / "manifest.csv")
    build_cache(manifest, size=8, channels=1, root=out / "cache")
    whole = (tmp_path / "set" / "a" / "0.dcm").read_bytes()
    place = whole.index(b"MRN-4711")
    (tmp_path / "set" / "a" / "0.dcm").write_bytes(whole[: place - 2] + b"\xff\xff" + whole[place:])
    said = [repr(manifest)]
    try:
        Dicom(path=tmp_path / "set").load(cache=out / "cache")
    except (ReadError, ManifestError) as error:
        said += [str(error), repr(error.__cause__)]
    written = b"\0".join(path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file())
    names = b"\0".join(str(path).encode() for path in out.rglob("*"))
    everything = b"\0".join([written, names, *(text.encode() for text in said), *map(str.encode, capfd.readouterr())])
    for secret in [*SECRETS.values(), "1.2.9999.0"]:
        for form in (secret.encode(), secret.encode("utf-16-le"), base64.b64encode(secret.encode())[:-4]):
            assert form not in everything, secret


def test_readings_have_caches_of_their_own(tmp_path: Path) -> None:
    for i, folder in enumerate("ab"):
        path = tmp_path / "set" / folder / "x.dcm"
        path.parent.mkdir(parents=True)
        frames = np.stack([np.full((8, 8), 10 * i + 1, dtype=np.uint8), np.full((8, 8), 10 * i + 2, dtype=np.uint8)])
        path.write_bytes(dicom(frames, PatientID=f"p{i}"))
    manifest = Dicom(path=tmp_path / "set").load(cache=tmp_path / "cache")
    with pytest.raises(ReadError, match="holds 2 frames"):
        build_cache(manifest, size=8, channels=1, root=tmp_path / "cache")
    for frames, expected in (("first", [1, 11]), ("max", [2, 12]), (1, [2, 12])):
        cache = build_cache(manifest, size=8, channels=1, root=tmp_path / "cache", reading=Reading(frames=frames))
        np.testing.assert_array_equal(cache.take(manifest.ids)[:, 0, 0, 0], expected)
