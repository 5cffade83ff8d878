"""Mixing in the layout of the caller's batches."""

from typing import NamedTuple

import pytest
import torch
from tests.adapt.toys import Inside, LeftFromNext, Twice, coded
from torch import Tensor

from raremix.adapt.sample import mix, mix_sample
from raremix.core.errors import ConfigError, DataError
from raremix.core.random import rng
from raremix.mix import CutMix, MixUp


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
