"""From files to ranked suspects: every kind of representation, and what the cache keeps."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch

from raremix.core import files
from raremix.core.errors import ManifestError, ReadError, StoppedError, UnknownNameError
from raremix.data.manifest import Card, Manifest
from raremix.data.suspects import Suspects
from raremix.models import ClassifierCard, ClassifierSpec, save_classifier
from raremix.study.audit import vectors as vectors_module
from raremix.study.audit.representation import representation_of
from raremix.study.audit.suspects import find_suspects
from raremix.study.audit.vectors import vectors_of
from raremix.train import TrainSpec

COUNT, SIDE = 40, 24
TRAINING = TrainSpec(
    steps=4, batch_size=16, learning_rate=2e-3, average=None, validations=0, checkpoints=2, precision="32", workers=0
)


def images(root: Path) -> np.ndarray:
    """Write smooth pictures of which 31 is a copy of 5 in other light, and 12 is a board of squares."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(60, 180, (COUNT, 4, 4, 3))
    pixels = np.kron(coarse, np.ones((1, SIDE // 4, SIDE // 4, 1))).astype(np.uint8)
    pixels[31] = (pixels[5] * 0.8 + 20).astype(np.uint8)
    pixels[12] = 255 * (np.indices((SIDE, SIDE)).sum(axis=0) % 2)[..., None]
    for row, image in enumerate(pixels):
        files.write_image(root / f"{row:02d}.png", image)
    return pixels


def manifest_of(root: Path, *, rows: range = range(COUNT)) -> Manifest:
    frame = pl.DataFrame(
        {
            "id": [100 + row for row in rows],
            "path": [f"{row:02d}.png" for row in rows],
            "target:a": [float(row % 2) for row in rows],
            "target:b": [float(1 - row % 2) for row in rows],
        }
    )
    return Manifest(frame=frame, card=Card(name="toy", task="binary", classes=("a", "b")), root=root)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("images")
    images(root)
    return manifest_of(root)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", pretrained=False)
    return files.write_tensors(tmp_path_factory.mktemp("weights") / "test_resnet_toy.safetensors", net.state_dict())


def by_kind(found: list[Suspects]) -> dict[str, Suspects]:
    return {entry.kind: entry for entry in found}


def test_weights_from_a_file_find_the_copy_and_the_stranger(data: Manifest, weights: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    progress = lambda what, done, total: seen.append((what, done, total))  # noqa: E731
    found = by_kind(find_suspects(data, cache=tmp_path, weights=weights, size=32, progress=progress))
    assert found["near-duplicate"].ids[0].tolist() == [105, 131]
    assert found["off-topic"].ids[0] == 112
    assert sorted(found["label error"].ids.tolist()) == data.ids.tolist()
    assert ("encode images", COUNT, COUNT) in seen


def test_an_encoder_is_trained_once_and_the_same_for_the_same_seed(data: Manifest, tmp_path: Path) -> None:
    steps: list[str] = []
    first, second = (
        find_suspects(data, cache=tmp_path / "a", training=TRAINING, progress=lambda what, *_: steps.append(what))
        for _ in range(2)
    )
    assert steps.count("training") == 4
    assert steps.count("encode images") == 1
    elsewhere = find_suspects(data, cache=tmp_path / "b", training=TRAINING)
    for one, again, other in zip(first, second, elsewhere, strict=True):
        np.testing.assert_array_equal(one.ids, again.ids)
        np.testing.assert_array_equal(one.scores, other.scores)
    assert by_kind(first)["near-duplicate"].ids[0].tolist() == [105, 131]


def test_training_that_was_stopped_goes_on_to_the_same_encoder(data: Manifest, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "training" and done == 3:
            raise StoppedError("enough")

    with pytest.raises(StoppedError):
        representation_of("self", data, cache=tmp_path / "a", training=TRAINING, progress=stop)
    steps: list[int] = []
    count = lambda what, done, total: steps.append(done) if what == "training" else None  # noqa: E731
    resumed = representation_of("self", data, cache=tmp_path / "a", training=TRAINING, progress=count)
    whole = representation_of("self", data, cache=tmp_path / "b", training=TRAINING)
    assert steps == [3, 4]
    batch = torch.rand(2, 3, 64, 64)
    assert torch.equal(resumed.encode(batch), whole.encode(batch))
    assert resumed.key == whole.key


def test_a_trained_classifier_represents_images_by_what_its_last_layer_sees(data: Manifest, tmp_path: Path) -> None:
    model = ClassifierSpec(name="test_resnet").build(num_classes=2, channels=3, size=32, seed=0)
    card = ClassifierCard(
        task="binary",
        classes=("a", "b"),
        size=32,
        channels=3,
        bits=8,
        resize="stretch",
        thresholds=(0.5, 0.5),
        temperature=1.0,
        modality="other",
        manifest_hash="",
        training={},
    )
    folder = save_classifier(
        tmp_path / "classifier",
        architecture="test_resnet",
        weights=dict(model.net.state_dict()),
        mean=model.mean,
        std=model.std,
        options={},
        card=card,
    )
    representation = representation_of(folder, data, cache=tmp_path)
    assert representation.form.size == 32
    found = vectors_of(data, representation, cache=tmp_path)
    assert found.features.shape == (COUNT, model.net.num_features)
    found = by_kind(find_suspects(data, cache=tmp_path, weights=str(folder)))
    assert found["near-duplicate"].ids[0].tolist() == [105, 131]


def test_only_what_is_new_is_encoded(data: Manifest, weights: Path, tmp_path: Path) -> None:
    representation = representation_of(weights, data, cache=tmp_path, size=32)
    part = manifest_of(data.root, rows=range(10, 30))
    small = vectors_of(part, representation, cache=tmp_path)
    totals: list[int] = []
    count = lambda what, done, total: totals.append(total) if what == "encode images" else None  # noqa: E731
    whole = vectors_of(data, representation, cache=tmp_path, progress=count)
    assert totals == [COUNT - 20]
    np.testing.assert_array_equal(whole.features[10:30], small.features)
    np.testing.assert_array_equal(whole.thumbnails[10:30], small.thumbnails)
    fresh = vectors_of(data, representation, cache=tmp_path / "fresh")
    np.testing.assert_allclose(whole.features, fresh.features, atol=2e-3)


def test_an_interrupted_pass_keeps_its_whole_shards(
    data: Manifest, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "SHARD", 8)
    monkeypatch.setattr("raremix.data.decoding.BLOCK_BYTES", 8 * 3 * 32 * 32)
    representation = representation_of(weights, data, cache=tmp_path, size=32)

    def stop(what: str, done: int, total: int) -> None:
        if what == "encode images" and done >= 16:
            raise StoppedError("enough")

    with pytest.raises(StoppedError):
        vectors_of(data, representation, cache=tmp_path, progress=stop)
    totals: list[int] = []
    count = lambda what, done, total: totals.append(total) if what == "encode images" else None  # noqa: E731
    vectors_of(data, representation, cache=tmp_path, progress=count)
    assert set(totals) == {COUNT - 16}


def test_a_damaged_shard_is_made_again(data: Manifest, weights: Path, tmp_path: Path) -> None:
    representation = representation_of(weights, data, cache=tmp_path, size=32)
    before = vectors_of(data, representation, cache=tmp_path)
    shard = next((tmp_path / "vectors" / representation.key).glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    after = vectors_of(data, representation, cache=tmp_path)
    np.testing.assert_array_equal(before.features, after.features)


def test_the_same_file_twice_is_encoded_once_and_ranks_first(weights: Path, tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "07.png").write_bytes((tmp_path / "22.png").read_bytes())
    data = manifest_of(tmp_path)
    totals: list[int] = []
    count = lambda what, done, total: totals.append(total) if what == "encode images" else None  # noqa: E731
    found = by_kind(find_suspects(data, cache=tmp_path / "cache", weights=weights, size=32, progress=count))
    assert totals == [COUNT - 1]
    assert found["near-duplicate"].ids[0].tolist() == [107, 122]


def test_a_file_that_cannot_be_read_is_named(weights: Path, tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "03.png").write_bytes(b"no picture")
    with pytest.raises(ReadError, match=r"row 103 \(03.png\)"):
        find_suspects(manifest_of(tmp_path), cache=tmp_path / "cache", weights=weights, size=32)


def test_what_is_neither_a_path_nor_a_network_is_refused(data: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'resnet18'"):
        find_suspects(data, cache=tmp_path, weights="resnett18")
    with pytest.raises(ReadError):
        find_suspects(data, cache=tmp_path, weights=tmp_path / "missing.safetensors")
    with pytest.raises(ManifestError, match="no classifier folder"):
        find_suspects(data, cache=tmp_path, weights=tmp_path)


def test_no_rows_are_refused(data: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="at least one row"):
        find_suspects(data.select(data.ids[:0]), cache=tmp_path)


def test_other_sizes_and_weights_have_vectors_of_their_own(data: Manifest, weights: Path, tmp_path: Path) -> None:
    keys = {representation_of(weights, data, cache=tmp_path, size=size).key for size in (32, 48)}
    keys.add(representation_of("self", data, cache=tmp_path, training=TRAINING).key)
    keys.add(representation_of("self", data, cache=tmp_path, training=TRAINING, seed=1).key)
    assert len(keys) == 4
