"""Label vectors: files with and without names, a text encoder made on the spot, and what is not there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from raremix.core.errors import ConfigError, ReadError
from raremix.models import HeadSpec, label_vectors
from raremix.models.label_embedding import encoded, read_label_vectors

NIH = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip


def test_rows_follow_the_classes_and_not_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, 5, dtype=np.float32))
    found = read_label_vectors(tmp_path / "v.npy", ["c", "a"], names=["a", "b", "c"])
    assert found.argmax(axis=1).tolist() == [2, 0]
    save_file({"b": np.ones(2, np.float32), "a": np.zeros(2, np.float32)}, tmp_path / "v.safetensors")
    assert read_label_vectors(tmp_path / "v.safetensors", ["a", "b"]).tolist() == [[0, 0], [1, 1]]


def test_the_published_vectors(shared_data: Path) -> None:
    """14 x 1024, pairwise cosines .52 to .94; hardly any is left once they are centred."""
    path = shared_data / "nih_cxr14_64" / "biobert_label_vectors.npy"
    vectors = read_label_vectors(path, NIH, names=NIH)
    assert vectors.shape == (14, 1024)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(14, 1)]
    assert (round(float(cosines.min()), 2), round(float(cosines.max()), 2)) == (0.52, 0.94)
    head = HeadSpec(name="text").build(8, 14, label_vectors=torch.from_numpy(vectors))
    kept = head.label_vectors @ head.label_vectors.T  # type: ignore[union-attr, operator]
    assert abs(float(kept[~torch.eye(14).bool()].mean())) < 0.1


@pytest.mark.parametrize(
    ("names", "classes", "error", "words"),
    [
        ((), ("a",), ConfigError, "has 2 rows, and .* lists 0 different names"),
        (("a", "b", "c"), ("a",), ConfigError, "has 2 rows"),
        (("a", "a"), ("a",), ConfigError, "lists 1 different names"),
        (("a", "b"), ("a", "c"), ConfigError, "no vector for c; it has a, b"),
    ],
)
def test_names_that_do_not_match_are_refused(
    names: tuple[str, ...], classes: tuple[str, ...], error: type[Exception], words: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "v.npy", np.eye(2, dtype=np.float32))
    with pytest.raises(error, match=words):
        read_label_vectors(tmp_path / "v.npy", classes, names=names)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    def npy(value: np.ndarray) -> Path:
        np.save(tmp_path / "v.npy", value, allow_pickle=True)
        return tmp_path / "v.npy"

    def written(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    cases: list[tuple[Callable[[], Path], str]] = [
        (lambda: tmp_path / "none.npy", "no such file"),
        (lambda: tmp_path / "none.safetensors", "no such file"),
        (lambda: npy(np.array([{"a": 1}], dtype=object)), "is no plain .npy"),
        (lambda: npy(np.zeros(3)), "expected floats of shape"),
        (lambda: npy(np.zeros((1, 2), dtype=int)), "expected floats of shape"),
        (lambda: npy(np.full((1, 2), np.nan)), "not finite"),
        (lambda: written("v.npy", b"\x93NUMPY"), "is no plain .npy"),
        (lambda: written("v.safetensors", b"12"), "is not a whole safetensors"),
        (lambda: written("v.pt", b""), "other formats can run code"),
    ]
    for make, words in cases:
        with pytest.raises(ReadError, match=words):
            read_label_vectors(make(), ["a"], names=["a"])
    save_file({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}, tmp_path / "u.safetensors")
    with pytest.raises(ConfigError, match="different lengths"):
        read_label_vectors(tmp_path / "u.safetensors", ["a", "b"])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few thousand weights with a vocabulary of ten words."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pleural", "effusion", "mass", "nodule", "melanoma"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_an_encoder_reads_the_words(encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    found = encoded(["pleural effusion", "mass"], encoder=str(encoder), cache=tmp_path)
    assert found.shape == (2, 16)
    tokens = AutoTokenizer.from_pretrained(encoder)("pleural effusion", return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 4), "two words between two special tokens"
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(encoder).eval()(**tokens).last_hidden_state[0, 1:3].mean(dim=0)
    np.testing.assert_allclose(found[0], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_what_was_encoded_is_kept(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = HeadSpec(name="text", encoder=str(encoder), words={"mel": "melanoma"})
    first = label_vectors(head, ["mel", "mass"], cache=tmp_path)
    (entry,) = (tmp_path / "label_vectors").iterdir()
    monkeypatch.setattr("raremix.models.label_embedding._encode", lambda *_: pytest.fail("encoded twice"))
    np.testing.assert_array_equal(label_vectors(head, ["mel", "mass"], cache=tmp_path), first)
    monkeypatch.undo()
    entry.write_bytes(b"damaged")
    np.testing.assert_allclose(label_vectors(head, ["mel", "mass"], cache=tmp_path), first)
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**config, "label": "changed"}))
    label_vectors(head, ["mel", "mass"], cache=tmp_path)
    assert len(list((tmp_path / "label_vectors").iterdir())) == 2, "another encoder, another entry"


def test_an_encoder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path), "raremix/no-such-encoder"):
        with pytest.raises(ConfigError, match=r"cannot be had .* give its folder"):
            encoded(["mass"], encoder=name, cache=tmp_path / "cache")


def test_only_text_reads_labels(tmp_path: Path) -> None:
    assert label_vectors(HeadSpec(name="one_hot"), ["a"], cache=tmp_path) is None
    with pytest.raises(ConfigError, match="words names b; the classes are a"):
        label_vectors(HeadSpec(name="text", words={"b": "x"}), ["a"], cache=tmp_path)
