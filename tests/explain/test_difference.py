"""DifferenceMap: the oracles of difference maps, and of mixing by them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from raremix.core.errors import ConfigError, DataError
from raremix.core.types import Batch, MixPlan
from raremix.explain import DifferenceMap
from raremix.explain.difference import difference_map

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(4, 3, 8, 8, generator=GENERATOR).double()
OTHERS = torch.rand(4, 3, 8, 8, generator=GENERATOR).double()


def test_by_hand() -> None:
    images = torch.zeros(1, 2, 1, 3)
    others = torch.tensor([[[0.2, -0.6, 0.2]], [[0.4, 0.2, 1.0]]])[None]
    # |d| from .2 to 1: channels scale to (0, .5, 0) and (.25, 0, 1).
    torch.testing.assert_close(difference_map(images, others).flatten(), torch.tensor([0.125, 0.25, 0.5]))


def test_scaling_the_difference_changes_nothing() -> None:
    scaled = IMAGES + 0.01 * (OTHERS - IMAGES)
    torch.testing.assert_close(difference_map(IMAGES, scaled), difference_map(IMAGES, OTHERS))


def test_a_flat_difference_has_a_map_of_zeros() -> None:
    assert difference_map(IMAGES, IMAGES).count_nonzero() == 0
    assert difference_map(IMAGES.round(), IMAGES.round() + 0.25).count_nonzero() == 0


def masks(threshold: float) -> Tensor:
    return (difference_map(IMAGES, OTHERS) >= threshold).double()


def test_the_kept_area_does_not_grow_with_the_threshold() -> None:
    areas = [masks(t).mean(dim=(1, 2, 3)) for t in np.linspace(0, 1, 33)]
    assert all((later <= earlier).all() for earlier, later in pairwise(areas))
    assert areas[0].tolist() == [1] * 4
    # The mean area over all thresholds is the mean of the map.
    mean = torch.stack([masks(t).mean() for t in np.linspace(0.0005, 0.9995, 1000)]).mean()
    torch.testing.assert_close(mean, difference_map(IMAGES, OTHERS).mean(), atol=1e-3, rtol=0)


def test_both_directions_of_a_mix_add_up_to_both_images() -> None:
    batch = Batch(images=IMAGES, targets=torch.eye(4).double())
    rows, partner = torch.arange(4), torch.tensor([2, 3, 1, 0])
    mask = masks(0.4)
    weight = mask.mean(dim=(1, 2, 3))
    one = MixPlan(own=rows, partner=partner, mask=mask, weight=weight).apply(batch)
    other = MixPlan(own=rows, partner=partner, mask=1 - mask, weight=1 - weight).apply(batch)
    torch.testing.assert_close(one.images + other.images, IMAGES + IMAGES[partner])
    torch.testing.assert_close(one.targets + other.targets, batch.targets + batch.targets[partner])
    whole = MixPlan(own=rows, partner=partner, mask=masks(0.0), weight=torch.ones(4)).apply(batch)
    assert torch.equal(whole.images, IMAGES)
    none = MixPlan(own=rows, partner=partner, mask=masks(1.5), weight=torch.zeros(4)).apply(batch)
    assert torch.equal(none.images, IMAGES[partner])


def test_robust_scale_ignores_a_few_broken_pixels() -> None:
    broken = OTHERS.clone()
    images = torch.nn.functional.interpolate(IMAGES, size=(40, 40))
    others = torch.nn.functional.interpolate(broken, size=(40, 40))
    expected = difference_map(images, others, robust=True)
    others[:, 0, 3, 5] = 90.0
    found = difference_map(images, others, robust=True)
    differs = (found - expected).abs() > 1e-6
    assert differs.sum(dim=(1, 2, 3)).tolist() == [1] * 4
    assert difference_map(images, others).mean() < 0.01
    assert found.max() <= 1


def test_robust_keeps_maps_of_few_pixels() -> None:
    torch.testing.assert_close(
        difference_map(IMAGES[..., :2, :2], OTHERS[..., :2, :2], robust=True),
        difference_map(IMAGES[..., :2, :2], OTHERS[..., :2, :2]),
    )


class Translator:
    """Adds a style, which is drawn, and a smooth error of its own."""

    error = torch.linspace(0, 0.5, 8)

    def __call__(self, images: Tensor, targets: Tensor, *, rng: np.random.Generator) -> Tensor:
        style = torch.zeros_like(images)
        style[..., 2:4, 2:4] = float(rng.uniform(0.1, 0.2)) * targets[:, :1, None, None]
        return images + self.error + style

    def reconstruct(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        return images + self.error


def test_what_the_translator_cannot_draw_does_not_count_against_its_reconstruction() -> None:
    targets = torch.ones(4, 1)
    found = DifferenceMap(translator=Translator(), to_reconstruction=True)(IMAGES, targets)
    expected = torch.zeros(8, 8, dtype=torch.float64)
    expected[2:4, 2:4] = 1
    torch.testing.assert_close(found, expected.expand(4, 1, 8, 8), atol=1e-6, rtol=0)
    plain = DifferenceMap(translator=Translator())(IMAGES, targets)
    assert plain[..., -1].min() > 0.5


def test_the_same_seed_draws_the_same_styles() -> None:
    targets = torch.ones(4, 1)
    one = DifferenceMap(translator=Translator())
    assert torch.equal(one(IMAGES, targets), one(IMAGES, targets))
    assert not torch.equal(DifferenceMap(translator=Translator(), seed=1)(IMAGES, targets), one(IMAGES, targets))


class Counted(Translator):
    """Counts what is drawn, and redraws by the head of the class that it is told."""

    def __init__(self) -> None:
        self.drawn = self.redrawn = 0

    def __call__(self, images: Tensor, targets: Tensor, *, rng: np.random.Generator) -> Tensor:
        self.drawn += len(images)
        return images + self.error * (1 + float(rng.uniform()) * targets[:, :1, None, None])

    def reconstruct(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        assert targets is not None
        self.redrawn += len(images)
        return images + self.error * targets[:, 1:2, None, None]


@pytest.mark.parametrize("with_own", [True, False])
def test_every_image_is_drawn_once_per_class_and_redrawn_once(with_own: bool) -> None:
    translator, own = Counted(), torch.eye(3)[[0, 1, 1, 2]]
    draw = DifferenceMap(translator=translator, to_reconstruction=True)
    found = draw.towards_every(IMAGES, own, with_own=with_own)
    assert (translator.drawn, translator.redrawn) == (12 if with_own else 8, 4)
    assert found.shape == (4, 3, 8, 8)
    assert found[own.argmax(dim=1) != 0, 0].amax(dim=(1, 2)).min() > 0
    expected = difference_map(IMAGES[:1], IMAGES[:1] + Translator.error)
    torch.testing.assert_close(found[:1, 1], expected[:, 0].float(), msg="from the redrawing by its own class")
    assert with_own or not found[range(4), own.argmax(dim=1)].any()


def test_a_map_depends_on_the_image_and_its_number_alone() -> None:
    def translator(images: Tensor, targets: Tensor, *, rng: np.random.Generator) -> Tensor:
        return images + torch.from_numpy(rng.standard_normal(tuple(images.shape)))

    draw, own = DifferenceMap(translator=translator), torch.eye(2)[[1, 1, 1, 1]]
    numbers = np.array([7, 3, 9, 4])
    whole = draw.towards_every(IMAGES, own, numbers=numbers)
    alone = draw.towards_every(IMAGES[2:3], own[2:3], numbers=numbers[2:3])
    torch.testing.assert_close(alone[0], whole[2])
    assert torch.equal(draw.towards_every(IMAGES, own), draw.towards_every(IMAGES, own, numbers=np.arange(4)))
    assert not torch.allclose(draw.towards_every(IMAGES, own), whole), "another number, another style"
    assert not torch.allclose(whole[:, 0], whole[:, 1]), "styles of its own for each class"


def test_says_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="reconstruct"):
        DifferenceMap(translator=lambda images, targets, rng: images, to_reconstruction=True)
    with pytest.raises(DataError, match="translations"):
        DifferenceMap(translator=lambda images, targets, rng: images[..., :4])(IMAGES, torch.ones(4, 1))
