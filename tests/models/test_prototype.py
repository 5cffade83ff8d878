"""A head of prototypes: distances by hand, what is learnt and what is not, other labels, any backbone, its folder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.features import head_of
from raremix.core.protocols import Prototypes
from raremix.models import ClassifierCard, ClassifierSpec, HeadSpec, PrototypeHead, load_classifier, save_classifier
from raremix.models.cosine import CosineHead


def test_logits_are_scaled_distances() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(6, 3, label_vectors=torch.randn(3, 4), scale=2.0, margin=0.5)
    features = torch.randn(5, 6)
    images = torch.nn.functional.normalize(head.of_images(features), dim=1)
    squared = ((images[:, None] - head.points()) ** 2).sum(dim=2)
    torch.testing.assert_close(head(features), 2 * (0.5 - squared))
    torch.testing.assert_close(head.points().norm(dim=1), torch.ones(3))
    assert isinstance(head, Prototypes)


def test_label_vectors_are_centred_frozen_and_saved() -> None:
    """(2, 1), (0, 1) around (1, 1): directions (1, 0) and (-1, 0)."""
    head = PrototypeHead(6, 2, label_vectors=torch.tensor([[2.0, 1.0], [0.0, 1.0]]))
    assert head.label_vectors is not None
    assert head.label_vectors.tolist() == [[1, 0], [-1, 0]]
    assert "label_vectors" in head.state_dict()
    assert all("label_vectors" not in name for name, _ in head.named_parameters())
    free = PrototypeHead(6, 2)
    assert free.label_vectors is None
    assert free.free.requires_grad


def test_vectors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 label vectors for 2 classes"):
        PrototypeHead(6, 2, label_vectors=torch.eye(3))
    with pytest.raises(ConfigError, match=r"class 0, 1 .* no direction"):
        PrototypeHead(6, 2, label_vectors=torch.ones(2, 3))


def test_other_labels_score_by_their_names() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(3, 4)
    head = PrototypeHead(6, 3, label_vectors=vectors)
    features = torch.randn(5, 6)
    other = head.with_labels(torch.cat([vectors[[2, 0]], torch.randn(1, 4)]))
    torch.testing.assert_close(other(features)[:, :2], head(features)[:, [2, 0]])
    assert other(features).shape == (5, 3)
    with pytest.raises(ConfigError, match="same encoder"):
        head.with_labels(torch.randn(1, 5))
    with pytest.raises(ConfigError, match="learnt freely"):
        PrototypeHead(6, 3).with_labels(vectors)


def test_each_example_counts_as_much_as_the_vector() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(6, 3, label_vectors=torch.randn(3, 4), hidden=(8,), width=5)
    vectors, rows = torch.randn(2, 4), torch.randn(3, 6)
    f = torch.nn.functional.normalize(head.of_images(rows), dim=1)
    by_name = head.with_labels(vectors).points()
    both = head.with_labels(vectors, examples=[rows, rows[:0]]).points()
    torch.testing.assert_close(both[0], torch.nn.functional.normalize(by_name[0] + f.sum(dim=0), dim=0))
    torch.testing.assert_close(both[1], by_name[1])
    alone = head.with_labels(None, examples=[rows[:1]])
    torch.testing.assert_close(alone.points()[0], f[0])
    assert alone(rows[:1]).detach().item() == pytest.approx((head.scale * head.margin).item(), rel=1e-5), (
        "at no distance"
    )
    free = PrototypeHead(6, 3, hidden=(8,), width=5)
    assert free.with_labels(None, examples=[rows, rows])(rows).shape == (3, 2)
    with pytest.raises(ConfigError, match=r"label 1 \(counted from 0\) has neither"):
        head.with_labels(None, examples=[rows, rows[:0]])
    with pytest.raises(ConfigError, match="examples of 1 labels, and 2 label vectors"):
        head.with_labels(vectors, examples=[rows])


@pytest.mark.parametrize(
    ("name", "size"), [("resnet10t", 32), ("mobilenetv2_100", 32), ("vit_tiny_patch16_224", 224), ("convnext_atto", 32)]
)
def test_on_any_backbone(name: str, size: int) -> None:
    spec = ClassifierSpec(name=name, stem="standard", head=HeadSpec(name="text", width=16, hidden=(8,)))
    build = {"num_classes": 4, "channels": 1, "size": size, "label_vectors": np.eye(4, 6, dtype=np.float32)}
    model = spec.build(**build, seed=1).eval()  # type: ignore[arg-type]
    again = spec.build(**build, seed=1).eval()  # type: ignore[arg-type]
    images = torch.rand(2, 1, size, size)
    assert model(images).shape == (2, 4)
    assert isinstance(head_of(model), PrototypeHead)
    assert torch.equal(model(images), again(images)), "the same seed gives the same head"


def test_cosines_know_no_lengths() -> None:
    head = CosineHead(4, 3, scale=30.0).requires_grad_(False)
    features = torch.randn(5, 4)
    torch.testing.assert_close(head(7 * features), head(features))
    assert float(head(features).abs().max()) <= 30.001


@pytest.mark.parametrize("name", ["cosine", "text", "one_hot", "learnable"])
def test_a_folder_brings_the_head_back(name: str, tmp_path: Path) -> None:
    spec = ClassifierSpec(name="resnet10t", stem="standard", head=HeadSpec(name=name, hidden=(8,), width=4))  # type: ignore[arg-type]
    vectors = np.random.default_rng(0).random((3, 5), dtype=np.float32) if name == "text" else None
    model = spec.build(num_classes=3, channels=3, size=32, seed=0, label_vectors=vectors).eval()
    card = ClassifierCard(
        task="multilabel",
        classes=("a", "b", "c"),
        size=32,
        channels=3,
        bits=8,
        resize="pad",
        thresholds=(0.5,) * 3,
        temperature=1.0,
        modality="other",
        manifest_hash="0",
        training={},
    )
    save_classifier(
        tmp_path / "model",
        architecture="resnet10t",
        weights=dict(model.net.state_dict()),
        mean=model.mean,
        std=model.std,
        options={},
        card=card,
        head=head_of(model.net).settings,  # type: ignore[arg-type]
    )
    loaded, _ = load_classifier(tmp_path / "model")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))
    assert "load_classifier" in (tmp_path / "model" / "README.md").read_text()


def test_heads_that_say_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="only name"):
        ClassifierSpec(head=HeadSpec(name="cosine", names=("a",))).check(size=32)
    with pytest.raises(ConfigError, match="linear layer has no scale"):
        HeadSpec(scale=3.0).check()
    with pytest.raises(ConfigError, match="needs label vectors"):
        HeadSpec(name="text").build(4, 2)
