"""What all methods share: names that are checked, maps that serve pairing, labels by mass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError, DataError, UnknownNameError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import (
    MIXERS,
    AutoMix,
    CutMix,
    GuidedMixup,
    Method,
    PuzzleMix,
    ResizeMix,
    Scheduled,
    SmoothMix,
    TransMix,
    VariMix,
)
from raremix.mix.pairing import pair_most_dissimilar

METHODS = [name for name, made in MIXERS.items() if issubclass(made, Method)]


@dataclass(frozen=True, kw_only=True)
class Told:
    """Importance lies where the third channel says, which grey values are not told by."""

    maps: int = 1

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Tensor:
        return images[:, 2:].expand(-1, self.maps, -1, -1)


def half_left_half_right() -> Batch:
    """Grey images that are all alike; importance is left in two of them and right in two."""
    images = torch.zeros(4, 3, 8, 8)
    images[:2, 2, :, :4] = images[2:, 2, :, 4:] = 1.0
    images[:, 0] = 2 - images[:, 2]
    assert float(images.mean(dim=1).std()) < 1e-6
    return Batch(images=images, targets=torch.eye(4))


def build(mixer: Any, **settings: Any) -> None:
    """Check settings as the constructor does, past the tests' own check of types, which would come first."""
    for name, value in settings.items():
        object.__setattr__(mixer, name, value)
    mixer.__post_init__()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label": "mas"}, "unknown label 'mas': did you mean 'mass'"),
        ({"multilabel": "unon"}, "unknown multilabel 'unon': did you mean 'union'"),
        ({"pairing": "anny"}, "unknown pairing 'anny': did you mean 'any'"),
    ],
)
def test_names_that_there_are_not_are_refused_at_once(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownNameError, match=said):
        build(MIXERS[name](), **settings)


def test_so_are_those_of_single_methods() -> None:
    with pytest.raises(UnknownNameError, match="unknown shape 'hexagon'"):
        build(SmoothMix(), shape="hexagon")
    with pytest.raises(UnknownNameError, match="unknown decay 'cosine'"):
        build(Scheduled(mixer=CutMix()), decay="cosine")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_probabilities_out_of_range_are_refused(name: str, probability: float) -> None:
    with pytest.raises(ConfigError, match="probability"):
        MIXERS[name](probability=probability)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "make",
    [
        CutMix,
        GuidedMixup,
        VariMix,
        TransMix,
        lambda **more: TransMix(label="mass", **more),
        lambda **more: AutoMix(
            network=lambda own, others, weight: weight.reshape(-1, 1, 1, 1),
            features=lambda images: functional.avg_pool2d(images, 4),
            **more,
        ),
    ],
)
def test_most_dissimilar_compares_importance(make: Callable[..., Method]) -> None:
    batch = half_left_half_right()
    mixer = make(pairing="most_dissimilar", importance=Told())
    for seed in range(5):
        partner = mixer.plan(batch, batch, rng=rng(seed, "mix")).partner[:4]
        assert sorted(partner.tolist()) == [0, 1, 2, 3]
        assert set(partner[:2].tolist()) == {2, 3}
    by_images = [pair_most_dissimilar(batch, batch, rng=rng(seed, "mix")).partner[:2].tolist() for seed in range(5)]
    assert any(set(partner) != {2, 3} for partner in by_images)


def test_transmix_still_looks_at_the_mixed_image() -> None:
    batch, asked = half_left_half_right(), []

    def remembered(images: Tensor, targets: Tensor) -> Tensor:
        asked.append(images)
        return images[:, 2:]

    plan = TransMix(pairing="most_dissimilar", importance=remembered).plan(batch, batch, rng=rng(0, "mix"))
    assert len(asked) == 2
    assert torch.equal(asked[0], batch.images)
    assert torch.equal(asked[1], plan.apply(batch).images)


@pytest.mark.parametrize("mixer", [GuidedMixup, VariMix, TransMix])
def test_importance_is_one_map_per_image(mixer: Callable[..., Method]) -> None:
    """Three maps of three channels would be a mask per colour."""
    batch = half_left_half_right()
    with pytest.raises(DataError, match=r"one map per image, of shape \(B, 1, h, w\); got \(4, 3, 8, 8\)"):
        mixer(importance=Told(maps=3)).plan(batch, batch, rng=rng(0, "mix"))


def test_mass_is_not_counted_where_pixels_are_moved() -> None:
    for make in (ResizeMix, lambda label: PuzzleMix(transport=True, label=label)):
        with pytest.raises(ConfigError, match="moves pixels"):
            make(label="mass")  # type: ignore[operator]
    assert PuzzleMix(label="mass").label == "mass"
