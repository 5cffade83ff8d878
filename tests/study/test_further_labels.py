"""Further labels of a classifier of prototypes: by a name, by a few images, by both, from the command line."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from raremix.cli import app
from raremix.core import files
from raremix.core.errors import ConfigError, UsageError
from raremix.models import ClassifierCard, ClassifierSpec, HeadSpec, save_classifier
from raremix.study import predict_images

CLASSES = ("mass", "nodule")
VECTORS = {name: torch.randn(6, generator=torch.Generator().manual_seed(k)) for k, name in enumerate("abcd")}


def classifier(folder: Path, *, head: str = "text") -> Path:
    """A small classifier that was trained on two labels."""
    spec = ClassifierSpec(name="resnet10t", stem="standard", head=HeadSpec(name=head, hidden=(8,), width=4))  # type: ignore[arg-type]
    own = np.stack([VECTORS["a"].numpy(), VECTORS["b"].numpy()]) if head == "text" else None
    model = spec.build(num_classes=2, channels=1, size=32, seed=0, label_vectors=own).eval()
    card = ClassifierCard(
        task="multilabel", classes=CLASSES, size=32, channels=1, bits=8, resize="stretch", thresholds=(0.5, 0.5),
        temperature=1.0, modality="other", manifest_hash="0" * 64, training={},
    )  # fmt: skip
    settings = None if head == "linear" else model.net.get_classifier().settings  # type: ignore[operator, union-attr]
    return save_classifier(
        folder, architecture="resnet10t", weights=model.net.state_dict(), mean=model.mean, std=model.std, options={},
        card=card, head=settings,
    )  # fmt: skip


def pictures(folder: Path, n: int, seed: int) -> list[Path]:
    folder.mkdir(parents=True)
    levels = np.random.default_rng(seed).integers(256, size=(n, 32, 32), dtype=np.uint8)
    for k, image in enumerate(levels):
        Image.fromarray(image).save(folder / f"{k}.png")
    return sorted(folder.iterdir())


def test_further_labels_stand_beside_those_that_were_trained(tmp_path: Path) -> None:
    place, paths = classifier(tmp_path / "classifier"), pictures(tmp_path / "new", 3, seed=0)
    vectors = files.write_tensors(
        tmp_path / "further.safetensors", {"mass": VECTORS["a"], "hernia": VECTORS["c"], "fibrosis": VECTORS["d"]}
    )
    plain = predict_images(place, paths)
    by_name = predict_images(place, paths, vectors=vectors)
    assert by_name.columns == [*plain.columns, "further:fibrosis", "further:hernia"]
    assert by_name.select(plain.columns).equals(plain)
    few = {"hernia": paths[:1]}
    by_both = predict_images(place, paths, vectors=vectors, examples=few)
    assert by_both["further:fibrosis"].to_list() == pytest.approx(by_name["further:fibrosis"].to_list())
    alone = predict_images(place, paths, examples=few)
    assert alone.columns == [*plain.columns, "further:hernia"]
    scores = alone["further:hernia"].to_list()
    assert scores[0] == max(scores), "nothing is nearer to an image than itself"
    assert by_both["further:hernia"][0] > by_name["further:hernia"][0], "the example draws the prototype to itself"


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "new", 2, seed=0)
    place = classifier(tmp_path / "classifier")
    with pytest.raises(UsageError, match="mass: the classifier was trained on this label"):
        predict_images(place, paths, examples={"mass": paths})
    own = files.write_tensors(tmp_path / "own.safetensors", {"mass": VECTORS["a"]})
    with pytest.raises(UsageError, match="no label that the classifier was not trained on"):
        predict_images(place, paths, vectors=own)
    with pytest.raises(UsageError, match="no vector for hernia"):
        predict_images(place, paths, vectors=own, examples={"hernia": paths})
    short = files.write_tensors(tmp_path / "short.safetensors", {"hernia": torch.ones(5)})
    with pytest.raises(ConfigError, match="encode the new labels by the same encoder"):
        predict_images(place, paths, vectors=short)
    with pytest.raises(ConfigError, match="need a classifier of prototypes"):
        predict_images(classifier(tmp_path / "linear", head="linear"), paths, examples={"hernia": paths})


def test_the_verb_reads_a_folder_of_examples(tmp_path: Path) -> None:
    place = classifier(tmp_path / "classifier", head="learnable")
    pictures(tmp_path / "new", 3, seed=0)
    pictures(tmp_path / "few" / "hernia", 2, seed=1)
    scores, new = tmp_path / "scores.csv", str(tmp_path / "new")
    asked = ["predict", str(place), new, "--examples", str(tmp_path / "few"), "-o", str(scores)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert pl.read_csv(scores)["further:hernia"].is_between(0, 1).all()
    done = CliRunner().invoke(app, ["predict", str(place), new, "--examples", new])
    assert isinstance(done.exception, UsageError)
    assert "one folder of images per further label" in str(done.exception)
