"""Insertion and deletion on a network that adds up pixels, where every curve is known."""

import pytest
import torch
from torch import Tensor, nn

from raremix.core.errors import ConfigError, DataError
from raremix.explain.insertion import blur, insertion_deletion


class Mean(nn.Module):
    """Logits whose sigmoid, or softmax of two, is the mean of the image's marked pixels."""

    def __init__(self, marked: Tensor) -> None:
        super().__init__()
        self.marked = nn.Parameter(marked / marked.sum())

    def forward(self, images: Tensor) -> Tensor:
        share = (images * self.marked).sum(dim=(1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([share.logit(), torch.zeros_like(share)], dim=1)


ONE = torch.eye(2)[:1]
LESION = torch.zeros(1, 1, 8, 8)
LESION[..., 2:4, 4:8] = 1  # 8 of 64 pixels


def curves(maps: Tensor, *, images: Tensor = LESION, marked: Tensor = LESION, steps: int = 8) -> tuple[Tensor, Tensor]:
    found = insertion_deletion(Mean(marked), images, ONE, maps, steps=steps)
    return found.insertion[0], found.deletion[0]


def test_the_true_map_is_the_best_there_is() -> None:
    inserted, deleted = curves(LESION)
    # The first of eight steps takes the whole lesion: all is there, or all is the mean, 8/64.
    torch.testing.assert_close(inserted[1:], torch.ones(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(deleted[0], torch.tensor(1.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(deleted[1:], torch.full((8,), 0.125), atol=1e-4, rtol=0)
    found = insertion_deletion(Mean(LESION), LESION, ONE, LESION, steps=8)
    torch.testing.assert_close(
        found.deleted, torch.tensor([(0.5 * 1 + 6.5 * 0.125 + 0.5 * 0.125 + 0.0625) / 8]), atol=1e-4, rtol=0
    )


def test_the_wrong_map_is_the_worst_there_is() -> None:
    large = LESION.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    inserted, deleted = curves(1 - large, images=large, marked=large)
    best_inserted, best_deleted = curves(large, images=large, marked=large)
    torch.testing.assert_close(deleted[:8], torch.ones(8), atol=1e-4, rtol=0)
    assert (inserted[:8] < 0.95).all()  # blurred until the last step
    assert torch.trapezoid(inserted) < torch.trapezoid(best_inserted)
    assert torch.trapezoid(deleted) > torch.trapezoid(best_deleted)


def test_a_flat_map_deletes_at_random() -> None:
    # A share t of the pixels is the mean of .125: 1 - .875 t, up to what a random order does to 8 pixels.
    images = LESION.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    _, deleted = curves(torch.zeros_like(images), images=images, marked=images)
    torch.testing.assert_close(deleted, 1 - 0.875 * torch.linspace(0, 1, 9), atol=0.05, rtol=0)
    again = curves(torch.full_like(images, 0.3), images=images, marked=images)
    torch.testing.assert_close(again[1], deleted)


def test_ends_are_the_whole_image_and_none_of_it() -> None:
    images, maps = torch.rand(1, 3, 9, 5), torch.rand(1, 1, 9, 5)
    inserted, deleted = curves(maps, images=images, marked=torch.rand(1, 3, 9, 5), steps=5)
    torch.testing.assert_close(inserted[-1], deleted[0])
    model = Mean(torch.rand(1, 3, 9, 5))
    found = insertion_deletion(model, images, ONE, maps, steps=3)
    torch.testing.assert_close(found.insertion[0, 0], model(blur(images)).softmax(dim=1)[0, 0].detach())
    flat = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(found.deletion[0, -1], model(flat).softmax(dim=1)[0, 0].detach())


def test_several_labels_are_watched_by_their_own_probabilities() -> None:
    targets = torch.tensor([[1.0, 1.0], [0.0, float("nan")]])
    images = LESION.repeat(2, 1, 1, 1)
    found = insertion_deletion(Mean(LESION), images, targets, images, steps=2, probabilities=torch.sigmoid)
    torch.testing.assert_close(found.insertion[0, -1], torch.tensor(0.75), atol=1e-4, rtol=0)  # (1 + .5) / 2
    assert found.insertion[1].isnan().all()


def test_blur_keeps_the_mean_of_what_is_mirrored_and_flat_images() -> None:
    images = torch.rand(2, 3, 64, 48)
    soft = blur(images)
    assert soft.shape == images.shape
    assert soft.std() < 0.6 * images.std()
    torch.testing.assert_close(blur(torch.full((1, 2, 1, 7), 0.25)), torch.full((1, 2, 1, 7), 0.25))
    impulse = torch.zeros(1, 1, 65, 65)
    impulse[..., 32, 32] = 1
    torch.testing.assert_close(blur(impulse).sum(), torch.tensor(1.0))
    torch.testing.assert_close(blur(impulse), blur(impulse).mT)


def test_the_network_and_the_map_are_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2))
    maps = torch.rand(1, 1, 8, 8)
    kept, state = maps.clone(), torch.get_rng_state()
    insertion_deletion(model, LESION, ONE, maps, steps=2)
    assert model.training
    assert torch.equal(maps, kept)
    assert torch.equal(torch.get_rng_state(), state)


def test_says_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        insertion_deletion(Mean(LESION), LESION, ONE, LESION, steps=0)
    with pytest.raises(DataError, match="resize them"):
        insertion_deletion(Mean(LESION), LESION, ONE, torch.rand(1, 1, 4, 4))
