"""In a v2.Compose: labels wherever they are, images in their types, masks and boxes that ride along."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from tests.adapt.toys import LeftFromNext, Twice, coded
from torchvision import tv_tensors
from torchvision.transforms import v2

from raremix.adapt.torchvision import Mix
from raremix.core.errors import ConfigError, DataError, TargetError
from raremix.mix import CutMix, MixUp, VariMix

QUARTER = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.75, 0.25], [0.25, 0.0, 0.75]])


def boxes(*rows: list[float], form: str = "XYXY") -> tv_tensors.BoundingBoxes:
    data = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(data, format=form, canvas_size=(8, 8))  # type: ignore[call-overload]


def test_it_stands_in_a_compose() -> None:
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), Mix(LeftFromNext(num_classes=3)), v2.Identity()])
    images, labels = transform(tv_tensors.Image((255 * coded(3)).to(torch.uint8)), torch.arange(3))
    assert isinstance(images, tv_tensors.Image)
    assert images.dtype == torch.float32
    assert torch.equal(labels, QUARTER)
    torch.testing.assert_close(images.as_subclass(torch.Tensor).mean(dim=(2, 3)), QUARTER)


@pytest.mark.parametrize("mixer", [MixUp(num_classes=3), CutMix(num_classes=3)])
def test_bytes_are_treated_alike_by_all_methods(mixer: MixUp | CutMix) -> None:
    images, _ = Mix(mixer)(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.arange(3))
    assert images.dtype == torch.uint8


@pytest.mark.parametrize(
    ("sample", "where", "getter"),
    [
        ((coded(3), torch.arange(3)), lambda out: out[1], "default"),
        ((coded(3), torch.eye(3)), lambda out: out[1], "default"),
        ((coded(3), {"labels": torch.arange(3), "id": 3}), lambda out: out[1]["labels"], "default"),
        ({"image": tv_tensors.Image(coded(3)), "Label": torch.arange(3)}, lambda out: out["Label"], "default"),
        ((torch.arange(3), coded(3)), lambda out: out[0], lambda sample: sample[0]),
        (
            {"image": coded(3), "y": torch.arange(3), "note": ["a", "b", "c"]},
            lambda out: out["y"],
            lambda sample: sample["y"],
        ),
    ],
)
def test_labels_are_found_or_named(sample: Any, where: Any, getter: Any) -> None:
    mixed = Mix(LeftFromNext(num_classes=3), labels_getter=getter)(sample)
    assert type(mixed) is type(sample)
    assert torch.equal(where(mixed), QUARTER)
    if isinstance(sample, dict) and "note" in sample:
        assert mixed["note"] == ["a", "b", "c"]


def test_masks_ride_along() -> None:
    numbers = torch.arange(3)[:, None, None].expand(3, 8, 8)
    sample = {
        "image": tv_tensors.Image(coded(3)),
        "labels": torch.arange(3),
        "semantic": tv_tensors.Mask(numbers),
        "planes": tv_tensors.Mask(coded(3)),
        "lesion": tv_tensors.Mask(coded(3) > 0),
    }
    mixed = Mix(CutMix(num_classes=3))(sample)
    assert all(isinstance(mixed[name], tv_tensors.Mask) for name in ("semantic", "planes", "lesion"))
    image = mixed["image"].as_subclass(torch.Tensor)
    assert torch.equal(mixed["semantic"].as_subclass(torch.Tensor), image.argmax(dim=1))
    assert torch.equal(mixed["planes"].as_subclass(torch.Tensor), image)
    assert torch.equal(mixed["lesion"].as_subclass(torch.Tensor), image > 0)


def test_boxes_ride_along_with_their_visible_share() -> None:
    """The left quarter, two of eight columns, comes from the next image."""
    targets = (
        {"boxes": boxes([0, 0, 4, 8], [0, 0, 2, 2]), "labels": torch.tensor([5, 6]), "image_id": torch.tensor([10])},
        {"boxes": boxes([1, 0, 5, 4]), "labels": torch.tensor([7]), "image_id": torch.tensor([11])},
        {"boxes": boxes(), "labels": torch.zeros(0, dtype=torch.long), "image_id": torch.tensor([12])},
    )
    _, mixed = Mix(LeftFromNext(), labels_getter=None)(coded(3), targets)
    assert isinstance(mixed, tuple)
    assert [row["labels"].tolist() for row in mixed] == [[5, 7], [7], [5, 6]]
    assert [row["visible"].tolist() for row in mixed] == [
        pytest.approx([0.5, 0.25]),
        pytest.approx([0.75]),
        pytest.approx([0.5, 1.0]),
    ]
    assert [row["image_id"].tolist() for row in mixed] == [[10], [11], [12]]
    assert mixed[2]["boxes"].tolist() == [[0, 0, 4, 8], [0, 0, 2, 2]]
    assert isinstance(mixed[0]["boxes"], tv_tensors.BoundingBoxes)
    assert mixed[0]["boxes"].canvas_size == (8, 8)


def test_boxes_keep_their_format() -> None:
    targets = [{"boxes": boxes([4, 4, 4, 2], form="CXCYWH")}, {"boxes": boxes(form="CXCYWH")}]
    _, mixed = Mix(LeftFromNext(), labels_getter=None)(coded(2), targets)
    assert mixed[0]["boxes"].format == tv_tensors.BoundingBoxFormat.CXCYWH
    assert mixed[0]["boxes"].tolist() == [[4, 4, 4, 2]]
    assert mixed[0]["visible"].tolist() == [1.0]
    assert mixed[1]["boxes"].shape == (0, 4)


def test_all_images_of_a_sample_are_mixed_alike() -> None:
    sample = {"one": tv_tensors.Image(coded(3)), "two": tv_tensors.Image(coded(3)), "labels": torch.arange(3)}
    mixed = Mix(CutMix(num_classes=3))(sample)
    assert torch.equal(mixed["one"], mixed["two"])


def test_the_rest_follows_where_there_are_more_rows() -> None:
    images, labels, ids = Mix(Twice())(coded(2), torch.eye(2), torch.tensor([7, 8]))
    assert len(images) == len(labels) == 4
    assert ids.tolist() == [7, 7, 8, 8]


def test_dictionaries_without_boxes_are_metadata() -> None:
    sample = {"image": coded(4), "labels": torch.arange(4), "meta": [{"id": i} for i in range(4)]}
    assert Mix(CutMix(num_classes=4))(sample)["meta"] == sample["meta"]
    mixed = Mix(VariMix(num_classes=4))({**sample, "row": np.arange(4)})
    assert len(mixed["image"]) == 8
    assert [entry["id"] for entry in mixed["meta"]] == mixed["row"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_mappings_keep_their_kind() -> None:
    sample = OrderedDict(image=coded(3), labels=torch.arange(3))
    mixed = Mix(LeftFromNext(num_classes=3))(sample)
    assert type(mixed) is OrderedDict
    assert torch.equal(mixed["labels"], QUARTER)


def test_without_labels_the_number_of_classes_does_not_matter() -> None:
    assert Mix(LeftFromNext(num_classes=3), labels_getter=None)(coded(3)).shape == (3, 3, 8, 8)


def test_the_same_seed_gives_the_same_mixes() -> None:
    first, again = (Mix(CutMix(num_classes=4)) for _ in range(2))
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    outs = [transform(images, labels)[0] for transform in (first, first, again, again)]
    assert torch.equal(outs[0], outs[2])
    assert torch.equal(outs[1], outs[3])
    assert not torch.equal(outs[0], outs[1])


def test_what_cannot_be_mixed_is_refused() -> None:
    mixer = MixUp(num_classes=3)
    images, labels = coded(3), torch.arange(3)
    with pytest.raises(ConfigError, match="labels_getter"):
        Mix(mixer, labels_getter="labels")
    with pytest.raises(DataError, match="labels must be a tensor"):
        Mix(mixer)(images, [1, 2, 3])
    with pytest.raises(DataError, match="one of the sample's tensors"):
        Mix(mixer, labels_getter=lambda sample: sample[1] + 0)(images, labels)
    with pytest.raises(DataError, match=r"batch of images"):
        Mix(mixer)(images[0], labels)
    with pytest.raises(DataError, match="dictionary for each image"):
        Mix(mixer)(images, labels, boxes([0, 0, 1, 1]))
    with pytest.raises(DataError, match="resize both"):
        Mix(mixer, labels_getter=None)(torch.rand(1, 1, 9, 9), [{"boxes": boxes([0, 0, 1, 1])}])
    with pytest.raises(DataError, match="masks of single objects"):
        objects = {"boxes": boxes([0, 0, 1, 1]), "masks": tv_tensors.Mask(torch.ones(1, 8, 8))}
        Mix(mixer, labels_getter=None)(coded(1), [objects])
    with pytest.raises(DataError, match="one entry of BoundingBoxes"):
        Mix(mixer, labels_getter=None)(coded(1), [{"mask": tv_tensors.Mask(torch.ones(1, 8, 8))}])
    with pytest.raises(TargetError):
        Mix(MixUp())(images, labels)
