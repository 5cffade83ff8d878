import numpy as np
import pytest
import torch

from raremix.core.random import rng
from raremix.data.augment import AUGMENTATIONS, FREE_MODALITIES, UPRIGHT_MODALITIES, Classical, NoAugmentation

STILL = {"horizontal_flip": 0.0, "vertical_flip": 0.0, "rotation": 0.0, "crop": 1.0}
COLOURLESS = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def noise(count: int = 4, channels: int = 3, side: int = 10) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((count, channels, side, side), dtype=np.float32))


def changed(images: torch.Tensor, seed: int = 0, **settings: float) -> torch.Tensor:
    augmentation = Classical(**settings)  # type: ignore[arg-type]
    return augmentation.apply(images, augmentation.plan(len(images), rng=rng(seed, "augment", 0)))


def test_nothing_asked_nothing_done() -> None:
    images = noise()
    torch.testing.assert_close(changed(images, **STILL, **COLOURLESS), images)


def test_flips_by_hand() -> None:
    images = noise()
    across = changed(images, **{**STILL, "horizontal_flip": 1.0}, **COLOURLESS)
    torch.testing.assert_close(across, images.flip(3), atol=1e-5, rtol=0)
    down = changed(images, **{**STILL, "vertical_flip": 1.0}, **COLOURLESS)
    torch.testing.assert_close(down, images.flip(2), atol=1e-5, rtol=0)


def test_flips_come_as_often_as_asked() -> None:
    images = noise(600, 1, 4)
    flipped = changed(images, **{**STILL, "horizontal_flip": 0.3}, **COLOURLESS)
    share = (flipped - images).abs().amax(dim=(1, 2, 3)).gt(1e-3).float().mean()
    assert 0.25 < float(share) < 0.35


def test_rotation_by_hand() -> None:
    """A quarter turn, drawn as the largest angle, against torch.rot90."""
    plan = Classical(**{**STILL, "rotation": 90.0}, **COLOURLESS).plan(3000, rng=rng(0, "augment", 0))  # type: ignore[arg-type]
    angles = torch.atan2(plan.warp[:, 1, 0], plan.warp[:, 0, 0])
    assert float(angles.abs().max()) <= np.pi / 2 + 1e-6
    assert float(angles.max()) > 1.56
    assert float(angles.min()) < -1.56
    row = int(angles.argmax())
    image = noise(1)
    turned = Classical(**STILL, **COLOURLESS).apply(image, plan[row : row + 1])  # type: ignore[arg-type]
    torch.testing.assert_close(turned, image.rot90(1, dims=(2, 3)), atol=0.02, rtol=0)


def test_a_crop_stays_inside() -> None:
    plan = Classical(**{**STILL, "crop": 0.5}).plan(2000, rng=rng(0, "augment", 0))  # type: ignore[arg-type]
    scale = plan.warp[:, 0, 0]
    assert 0.5 <= float(scale.min()) < 0.51
    assert 0.99 < float(scale.max()) <= 1.0
    reach = scale + plan.warp[:, :, 2].abs().amax(dim=1)
    assert float(reach.max()) <= 1 + 1e-6
    assert float(plan.warp[:, 0, 2].mean().abs()) < 0.01


def test_colour_by_hand() -> None:
    grey = torch.full((1, 3, 4, 4), 0.5)
    augmentation = Classical(**STILL, brightness=0.2, contrast=0.0, saturation=0.0)
    plan = augmentation.plan(1, rng=rng(0, "augment", 0))
    torch.testing.assert_close(augmentation.apply(grey, plan), grey + plan.brightness)
    assert float(plan.brightness.abs()) <= 0.2

    image = noise(1) * 0.5 + 0.25
    augmentation = Classical(**STILL, brightness=0.0, contrast=0.3, saturation=0.0)
    plan = augmentation.plan(1, rng=rng(0, "augment", 0))
    mean = image.mean()
    torch.testing.assert_close(augmentation.apply(image, plan), mean + (image - mean) * plan.contrast)

    augmentation = Classical(**STILL, brightness=0.0, contrast=0.0, saturation=0.5)
    plan = augmentation.plan(1, rng=rng(0, "augment", 0))
    mean = image.mean(dim=1, keepdim=True)
    torch.testing.assert_close(augmentation.apply(image, plan), mean + (image - mean) * plan.saturation)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_any_channels_and_no_input_touched(name: str, channels: int) -> None:
    images = noise(channels=channels)
    kept = images.clone()
    augmentation = AUGMENTATIONS[name]()
    plan = augmentation.plan(4, rng=rng(0, "augment", 0))
    found = augmentation.apply(images, plan)
    assert torch.equal(images, kept)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    parts = [augmentation.apply(images[rows], plan[rows]) for rows in (slice(0, 1), slice(1, 4))]
    assert torch.equal(torch.cat(parts), found)


def test_a_grey_image_in_three_channels_stays_grey() -> None:
    images = noise(channels=1).repeat(1, 3, 1, 1)
    found = changed(images, saturation=0.5, brightness=0.2, contrast=0.2)
    torch.testing.assert_close(found[:, 0], found[:, 1])
    torch.testing.assert_close(found[:, 0], found[:, 2])


@pytest.mark.parametrize("modality", sorted(UPRIGHT_MODALITIES))
def test_a_body_is_not_mirrored(modality: str) -> None:
    """The heart is on the left."""
    asked = Classical(modality=modality).resolved()
    assert (asked.horizontal_flip, asked.vertical_flip, asked.rotation) == (0.0, 0.0, 10.0)
    plan = Classical(modality=modality).plan(500, rng=rng(0, "augment", 0))
    assert bool((torch.linalg.det(plan.warp[:, :, :2]) > 0).all())


@pytest.mark.parametrize("modality", sorted(FREE_MODALITIES))
def test_skin_has_no_up(modality: str) -> None:
    asked = Classical(modality=modality).resolved()
    assert (asked.horizontal_flip, asked.vertical_flip, asked.rotation) == (0.5, 0.5, 180.0)


def test_what_is_asked_for_wins_over_the_modality() -> None:
    asked = Classical(modality="chest_xray", horizontal_flip=0.5, rotation=0.0).resolved()
    assert (asked.horizontal_flip, asked.rotation) == (0.5, 0.0)
    assert Classical().resolved().horizontal_flip == 0.5


def test_settings_do_not_shift_the_draws() -> None:
    """Two arms that differ in one setting see the same draws otherwise."""
    one = Classical(rotation=0.0, horizontal_flip=0.0).plan(16, rng=rng(0, "augment", 3))
    other = Classical(rotation=30.0, horizontal_flip=1.0, crop=0.6).plan(16, rng=rng(0, "augment", 3))
    assert torch.equal(one.brightness, other.brightness)
    assert torch.equal(one.saturation, other.saturation)
    few = Classical().plan(4, rng=rng(0, "augment", 3))
    assert torch.equal(few.warp, Classical().plan(16, rng=rng(0, "augment", 3))[:4].warp)


def test_none_is_none() -> None:
    images = noise()
    assert NoAugmentation().apply(images, NoAugmentation().plan(4, rng=rng(0, "augment", 0))[1:3]) is images
