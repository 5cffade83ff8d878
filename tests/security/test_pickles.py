"""S3: nothing that is read can run code: canaries wherever a file is read, and no banned call in the code."""

import ast
import io
import json
import os
import pickle  # noqa: TID251 - the canaries are made of it
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.security.damage import arrays, cards

import raremix
from raremix.core import files
from raremix.core.errors import RaremixError
from raremix.core.fitted import FITTED_ON, read_fitted
from raremix.data.manifest import Manifest
from raremix.data.readers import Reading, read_image
from raremix.data.sources import MedMNIST
from raremix.models import ClassifierCard, load_classifier, save_classifier
from raremix.models.classifier import ClassifierSpec, _read_weights
from raremix.models.label_embedding import read_label_vectors
from raremix.train.checkpoint import load

ROOT = Path(str(raremix.__file__)).parent


class Canary:
    """What makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the canary would be; the test fails if it is there in the end."""
    return tmp_path / "raremix-canary"


def payloads(target: Path) -> dict[str, bytes]:
    """The canary as a pickle, an object array, an archive of torch, and an archive that begins like safetensors."""
    plain = pickle.dumps(Canary(target))
    array, archive = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([Canary(target)], dtype=object), allow_pickle=True)
    torch.save({"weight": Canary(target)}, archive)  # noqa: TID251
    text = json.dumps({"__metadata__": {"x": "y"}}).encode()
    polyglot = len(text).to_bytes(8, "little") + text + archive.getvalue()
    return {"pickle": plain, "npy": array.getvalue(), "torch": archive.getvalue(), "polyglot": polyglot}


def test_the_canary_sings(target: Path) -> None:
    """The control: loaded as their own programs load them, they make the folder."""
    np.load(io.BytesIO(payloads(target)["npy"]), allow_pickle=True)
    assert target.is_dir()
    target.rmdir()
    pickle.loads(payloads(target)["pickle"])  # noqa: S301
    assert target.is_dir()
    target.rmdir()
    torch.load(io.BytesIO(payloads(target)["torch"]), weights_only=False)  # noqa: TID251
    assert target.is_dir()


@pytest.mark.parametrize("kind", ["pickle", "npy", "torch", "polyglot"])
def test_pickles_are_not_loaded_from_any_place(kind: str, target: Path, tmp_path: Path) -> None:
    data = payloads(target)[kind]
    refused = 0

    def refuse(use: object, path: Path, content: bytes = data) -> None:
        nonlocal refused
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with pytest.raises(RaremixError):
            use(path)  # type: ignore[operator]
        refused += 1

    for name in ("a.png", "a.jpg", "a.dcm", "a.nii", "a.nii.gz", "a.pkl", "a.pt"):
        refuse(lambda path: read_image(path, reading=Reading(frames="first")), tmp_path / name)
    refuse(read_image, tmp_path / "b.dcm", b"\0" * 128 + b"DICM" + data)
    for name in ("w.safetensors", "w.pt", "w.pth", "w.bin"):
        refuse(_read_weights, tmp_path / name)
    for name in ("v.safetensors", "v.npy", "v.pt"):
        refuse(lambda path: read_label_vectors(path, ["a"], names=["a"]), tmp_path / name)
    cache = tmp_path / "cache"
    refuse(lambda path: MedMNIST(path=path).load(cache=cache), tmp_path / "x.npz")
    for member in ("train_images", "val_labels"):
        refuse(lambda path: MedMNIST(path=path).load(cache=cache), tmp_path / "y.npz", arrays(**{member: data}))
    for name in ("m.parquet", "m.csv"):
        (tmp_path / "table").mkdir(exist_ok=True)
        (tmp_path / "table" / "card.json").write_bytes(cards()["json"])
        refuse(Manifest.read, tmp_path / "table" / name)
    refuse(lambda path: Manifest.read(path.parent / "m.csv"), tmp_path / "table" / "card.json")
    refuse(lambda path: read_fitted(path.parent), tmp_path / "seen" / FITTED_ON)
    refuse(lambda path: load(path.parent), tmp_path / "step-1" / "model.safetensors")
    assert refused == 23
    assert not target.exists()


def test_a_sealed_checkpoint_of_pickles_is_not_loaded(target: Path, tmp_path: Path) -> None:
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(payloads(target)["torch"])
    files.write_json(folder / "state.json", {"step": 1})
    files.seal(folder, ["model.safetensors", "state.json"])
    with pytest.raises(Exception, match=r"[Hh]eader"):
        load(folder)
    assert not target.exists()


def small_classifier(folder: Path) -> Path:
    net = ClassifierSpec(name="resnet10t", stem="standard").build(num_classes=2, channels=1, size=16, seed=0)
    return save_classifier(
        folder,
        architecture="resnet10t",
        weights=dict(net.net.state_dict()),
        mean=(0.5,),
        std=(0.25,),
        options={},
        card=ClassifierCard(
            task="binary",
            classes=("a", "b"),
            size=16,
            channels=1,
            bits=8,
            resize="stretch",
            thresholds=(0.5, 0.5),
            temperature=1.0,
            modality="other",
            manifest_hash="x",
            training={},
        ),
    )


def test_a_classifier_folder_names_no_other_file_or_hub(target: Path, tmp_path: Path) -> None:
    """A folder from elsewhere, sealed anew by whoever changed it."""
    folder = small_classifier(tmp_path / "classifier")
    load_classifier(folder)
    whole = files.read_json(folder / "config.json")
    evil = tmp_path / "evil.pth"
    evil.write_bytes(payloads(target)["torch"])
    for change in (
        {"model_args": {**whole["model_args"], "checkpoint_path": str(evil)}},
        {"model_args": {**whole["model_args"], "pretrained_cfg_overlay": {"file": str(evil)}}},
        {"model_args": {**whole["model_args"], "pretrained": True}},
        {"architecture": "hf-hub:somebody/something"},
        {"architecture": f"local-dir:{tmp_path}"},
        {"architecture": ["resnet10t"]},
        {"model_args": [1, 2]},
        {"pretrained_cfg": {"mean": "x", "std": [0.5]}},
        {"raremix_head": {"name": "nothing"}},
    ):
        files.write_json(folder / "config.json", {**whole, **change})
        files.seal(folder, ["model.safetensors", "config.json", "raremix.json"])
        with pytest.raises(RaremixError, match=r"classifier"):
            load_classifier(folder)
    files.write_json(folder / "config.json", whole)
    (folder / "model.safetensors").write_bytes(payloads(target)["torch"])
    files.seal(folder, ["model.safetensors", "config.json", "raremix.json"])
    with pytest.raises(RaremixError, match=r"a zip archive, as torch\.save writes it and no safetensors file"):
        load_classifier(folder)
    assert not target.exists()


def test_a_study_file_cannot_ask_for_a_pickle(target: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.pth"
    evil.write_bytes(payloads(target)["torch"])
    for options in ({"checkpoint_path": str(evil)}, {"pretrained_cfg": {"file": str(evil)}}, {"cache_dir": "/"}):
        with pytest.raises(RaremixError, match=f"options: {next(iter(options))} may not be set"):
            ClassifierSpec(name="resnet10t", options=options).check(size=32)
    for name in ("hf-hub:somebody/something", f"local-dir:{tmp_path}", str(evil)):
        with pytest.raises(RaremixError, match="unknown network"):
            ClassifierSpec(name=name).check(size=32)
    assert not target.exists()


BANNED_MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
BANNED_CALLS = {"torch.load", "torch.save", "yaml.load", "eval", "exec", "torch.hub.load", "pd.read_pickle"}


def test_no_code_loads_pickles() -> None:
    seen = 0
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not BANNED_MODULES & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Call):
                seen += 1
                call = ast.unparse(node.func)
                assert call not in BANNED_CALLS, path
                # One place unpacks archives, and checks where each file goes.
                assert not call.removesuffix(".str.extract").endswith((".extractall", ".extract", "unpack_archive")), (
                    path
                )
                words = {word.arg: word.value for word in node.keywords}
                if "allow_pickle" in words:
                    assert ast.unparse(words["allow_pickle"]) == "False", path
                if call in {"np.load", "numpy.load"}:
                    assert "allow_pickle" in words, path
                for closed in ("weights_only", "trust_remote_code", "shell"):
                    assert closed not in words or ast.unparse(words[closed]) == "False", (path, closed)
    assert seen > 5000


def test_archives_are_unpacked_in_one_place() -> None:
    opening = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if "import zipfile" in path.read_text()}
    assert "core/archive.py" in opening
    for name in opening - {"core/archive.py"}:
        text = (ROOT / name).read_text()
        assert "write_with" not in text, name
        assert "tarfile" not in text, name


def test_zip_names_of_arrays_lead_nowhere(tmp_path: Path) -> None:
    """An .npz is read by member name; what else it holds is not unpacked."""
    path = tmp_path / "x.npz"
    path.write_bytes(arrays())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.npy", b"x")
    manifest = MedMNIST(path=path).load(cache=tmp_path / "in" / "cache")
    assert len(manifest) == 12
    assert not list(tmp_path.rglob("evil*"))
