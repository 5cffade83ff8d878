"""The small encoder: shapes, the same weights for the same seed, and no memory of the batch in evaluation."""

import pytest
import torch

from raremix.models.small_encoder import SmallEncoder, small_encoder


@pytest.mark.parametrize(("channels", "size", "width"), [(1, 28, 8), (3, 64, 16), (3, 33, 4)])
def test_any_size_becomes_one_vector(channels: int, size: int, width: int) -> None:
    encoder = small_encoder(channels=channels, width=width, seed=0)
    assert encoder(torch.rand(2, channels, size, size)).shape == (2, 8 * width)
    assert encoder.length == 8 * width


def test_the_seed_decides_the_weights_and_nothing_global_moves() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (small_encoder(channels=3, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])


def test_an_image_is_encoded_alike_alone_and_in_a_batch() -> None:
    encoder = SmallEncoder(channels=3, width=4).eval()
    images = torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(encoder(images)[2:3], encoder(images[2:3]), rtol=1e-4, atol=1e-5)


def test_all_weights_take_part() -> None:
    encoder = small_encoder(channels=3, width=4, seed=0)
    encoder(torch.rand(4, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in encoder.parameters())


def test_the_description_by_hand() -> None:
    encoder = small_encoder(channels=3, width=4, seed=0).eval()
    images = torch.rand(3, 3, 32, 32)
    described = encoder.describe(images)
    assert described.shape == (3, 2 * (8 + 16 + 32))
    last = encoder(images)
    torch.testing.assert_close(described[:, 48:80], last / last.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(described.square().sum(dim=1), torch.full((3,), 6.0), rtol=1e-4, atol=1e-4)
