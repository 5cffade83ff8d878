"""Mixing in the layout of the caller's batches."""

from collections import OrderedDict, UserDict, defaultdict
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tests.adapt.toys import Inside, LeftFromNext, Twice, coded
from torch import Tensor

from raremix.adapt.sample import mix, mix_sample
from raremix.core.errors import ConfigError, DataError
from raremix.core.random import rng
from raremix.mix import CutMix, MixUp, VariMix


class Named(NamedTuple):
    """A batch as some data sets yield it."""

    picture: Tensor
    name: list[str]
    label: Tensor


@pytest.mark.parametrize("mixer", [MixUp(alpha=1.0, num_classes=4), CutMix(num_classes=4)])
def test_bytes_come_back_as_bytes_and_as_floats_would(mixer: MixUp | CutMix) -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    mixed = mix(mixer, images, torch.arange(4), rng=rng(0, "mix"))
    floats = mix(mixer, images.float() / 255, torch.arange(4), rng=rng(0, "mix"))
    assert mixed.images.dtype == torch.uint8
    torch.testing.assert_close(mixed.images.float() / 255, floats.images, rtol=0, atol=0.5 / 255 + 1e-6)
    assert torch.equal(mixed.targets, floats.targets)
    assert torch.equal(images, before)


def test_wider_integers_are_refused() -> None:
    with pytest.raises(DataError, match="8-bit"):
        mix(MixUp(), torch.zeros(2, 1, 4, 4, dtype=torch.int32), torch.eye(2), rng=rng(0, "mix"))


def test_mixing_inside_the_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="forward_mixed"):
        mix(Inside(), torch.rand(2, 1, 4, 4), torch.eye(2), rng=rng(0, "mix"))


def test_tuples_lists_and_mappings_keep_their_kind() -> None:
    images, targets, names = coded(3), torch.eye(3), ["a", "b", "c"]
    expected = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.75, 0.25], [0.25, 0.0, 0.75]])
    given = [
        ((images, targets), {}),
        ([images, targets, names], {}),
        (Named(images, names, targets), {"targets": 2}),
        ({"x": images, "y": targets, "name": names}, {"images": "x", "targets": "y"}),
    ]
    for sample, places in given:
        mixed = mix_sample(LeftFromNext(), sample, **places, rng=rng(0, "mix"))
        assert type(mixed) is type(sample)
        assert torch.equal(mixed[places.get("targets", 1)], expected)
        torch.testing.assert_close(mixed[places.get("images", 0)].mean(dim=(2, 3)), expected)
        if len(sample) == 3:
            assert mixed["name" if isinstance(sample, dict) else {list: 2, Named: 1}[type(sample)]] == names


@pytest.mark.parametrize("shape", ["B H W", "B M H W"])
def test_masks_are_mixed_as_the_images_are(shape: str) -> None:
    numbers = torch.arange(3)[:, None, None].expand(3, 8, 8)
    masks = numbers if shape == "B H W" else numbers[:, None]
    sample = {"image": coded(3), "label": torch.arange(3), "mask": masks}
    mixed = mix_sample(
        LeftFromNext(num_classes=3), sample, images="image", targets="label", masks="mask", rng=rng(0, "mix")
    )
    assert mixed["mask"].shape == masks.shape
    plane = mixed["mask"] if shape == "B H W" else mixed["mask"][:, 0]
    assert torch.equal(plane, mixed["image"].argmax(dim=1))


def test_the_rest_follows_the_own_images_where_there_are_more_rows() -> None:
    sample = (coded(2), torch.eye(2), torch.tensor([7, 8]), ["a", "b"], "folder")
    images, targets, ids, names, folder = mix_sample(Twice(), sample, rng=rng(0, "mix"))
    assert images.shape[0] == targets.shape[0] == 4
    assert ids.tolist() == [7, 7, 8, 8]
    assert names == ["a", "a", "b", "b"]
    assert folder == "folder"


def test_a_wrong_place_says_what_there_is() -> None:
    with pytest.raises(DataError, match=r"\['x', 'y'\]"):
        mix_sample(MixUp(), {"x": coded(2), "y": torch.eye(2)}, images="image", targets="y", rng=rng(0, "mix"))
    with pytest.raises(DataError, match="no 'image' in the batch"):
        mix_sample(MixUp(), (coded(2), torch.eye(2)), images="image", targets=1, rng=rng(0, "mix"))


@pytest.mark.parametrize("places", [{"images": 0, "targets": -1}, {"images": -3, "targets": 2}])
def test_positions_count_from_the_end_too(places: dict[str, int]) -> None:
    """A position that was not found used to leave the labels as they were while the images were mixed."""
    images, between, targets = mix_sample(
        LeftFromNext(), (coded(3), "between", torch.eye(3)), **places, rng=rng(0, "mix")
    )
    assert between == "between"
    torch.testing.assert_close(images.mean(dim=(2, 3)), targets)
    assert targets[0].tolist() == [0.75, 0.25, 0.0]


@pytest.mark.parametrize("place", [2, -3, "y"])
def test_positions_that_are_not_there_are_refused(place: int | str) -> None:
    with pytest.raises(DataError, match="positions 0 to 1"):
        mix_sample(MixUp(), (coded(2), torch.eye(2)), targets=place, rng=rng(0, "mix"))


def test_keys_that_are_not_there_are_refused_and_not_made() -> None:
    sample = defaultdict(lambda: torch.eye(2), x=coded(2))
    with pytest.raises(DataError, match=r"\['x'\]"):
        mix_sample(MixUp(), sample, images="x", targets="y", rng=rng(0, "mix"))
    assert list(sample) == ["x"]


def test_two_parts_in_one_place_are_refused() -> None:
    with pytest.raises(ConfigError, match="one place"):
        mix_sample(MixUp(), (coded(2), torch.eye(2)), images=0, targets=-2, rng=rng(0, "mix"))


def test_a_batch_is_a_container() -> None:
    with pytest.raises(DataError, match="got Tensor"):
        mix_sample(MixUp(), coded(2), rng=rng(0, "mix"))


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, MappingProxyType])
def test_mappings_keep_their_kind(kind: type) -> None:
    given = {"x": coded(2), "y": torch.eye(2), "name": ["a", "b"]}
    sample = kind(given)
    mixed = mix_sample(LeftFromNext(), sample, images="x", targets="y", rng=rng(0, "mix"))
    assert type(mixed) is kind
    assert list(mixed) == ["x", "y", "name"]
    assert sample["x"] is given["x"]
    assert not torch.equal(mixed["y"], given["y"])


def test_a_defaultdict_keeps_its_default() -> None:
    sample = defaultdict(list, x=coded(2), y=torch.eye(2))
    mixed = mix_sample(LeftFromNext(), sample, images="x", targets="y", rng=rng(0, "mix"))
    assert mixed["new"] == []
    assert "new" not in sample


def test_arrays_and_what_is_nested_follow_the_own_images() -> None:
    """VariMix makes eight rows of four images."""
    sample = {
        "x": torch.rand(4, 3, 8, 8),
        "y": torch.arange(4),
        "row": np.arange(4),
        "meta": {"age": torch.arange(4), "site": ["a", "b", "c", "d"]},
        "pair": (np.arange(4), torch.arange(4)),
        "version": np.array(3),
    }
    mixed = mix_sample(VariMix(num_classes=4), sample, images="x", targets="y", rng=rng(0, "mix"))
    twice = [0, 1, 2, 3, 0, 1, 2, 3]
    assert len(mixed["x"]) == 8
    assert mixed["row"].tolist() == mixed["meta"]["age"].tolist() == twice
    assert mixed["meta"]["site"] == list("abcdabcd")
    assert [value.tolist() for value in mixed["pair"]] == [twice, twice]
    assert mixed["version"] == 3
