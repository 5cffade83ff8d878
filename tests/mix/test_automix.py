"""AutoMix: the mask network's form, promises kept with a small one, and what is refused without."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tests.contract.mixer_promises import PROMISES, random_batch
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.features import output_of
from raremix.core.protocols import Mixer
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import LEARNED_MIXERS, AutoMix, MixBlock


def brightness(images: Tensor) -> Tensor:
    """Stand for a network's features, for any number of channels: brightness and its square, on few cells."""
    grey = images.float().mean(dim=1, keepdim=True)
    cells = functional.adaptive_avg_pool2d(grey, (min(4, grey.shape[2]), min(3, grey.shape[3])))
    return torch.cat([cells, cells**2], dim=1)


def drawn_block(channels: int = 2) -> MixBlock:
    """Return a block whose every weight is drawn, so that its masks differ from place to place."""
    block = MixBlock(channels, hidden=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return block.requires_grad_(False)


BLOCK = drawn_block()


@pytest.mark.parametrize("name", LEARNED_MIXERS)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_learned_mixer_keeps_its_promise(name: str, promise: Callable[[Mixer], None]) -> None:
    promise(LEARNED_MIXERS[name](network=BLOCK, features=brightness))  # type: ignore[call-arg]


def test_masks_differ_from_place_to_place() -> None:
    batch = random_batch(6)
    mask = AutoMix(network=BLOCK, features=brightness).plan(batch, batch, rng=rng(0, "mix")).mask
    assert isinstance(mask, Tensor)
    assert mask.shape == (6, 1, 9, 12)
    assert float(mask.std(dim=(2, 3)).max()) > 5e-3


def test_exchanged_images_get_the_opposite_mask() -> None:
    one, other, weight = torch.rand(5, 2, 4, 3), torch.rand(5, 2, 4, 3), torch.rand(5)
    mask = BLOCK(one, other, weight)
    torch.testing.assert_close(mask + BLOCK(other, one, 1 - weight), torch.ones_like(mask))
    torch.testing.assert_close(BLOCK(one, one, torch.full((5,), 0.5)), torch.full_like(mask, 0.5))


def test_untrained_masks_are_mixups() -> None:
    weight = torch.tensor([0.0, 0.2, 0.5, 1.0])
    mask = MixBlock(2)(torch.rand(4, 2, 4, 3), torch.rand(4, 2, 4, 3), weight)
    torch.testing.assert_close(mask, weight[:, None, None, None].expand_as(mask), rtol=0, atol=1.1e-3)


def test_a_position_looks_at_what_the_other_image_has() -> None:
    """By hand: keys that single out one position of the other image, whose value is what the mask rises by."""
    block = MixBlock(1, hidden=1)
    with torch.no_grad():
        for layer in (block.query, block.key, block.value, block.own):
            layer.weight.zero_()
            layer.bias.zero_()
        block.query.bias.fill_(1.0)
        block.key.weight[0, 0] = 100.0
        block.value.weight[0, 0] = 1.0
    own, partner = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.0, 2.0]]]])
    mask = block(own, partner, torch.tensor([0.5]))
    torch.testing.assert_close(mask, torch.sigmoid(torch.tensor([[[[2.0, 2.0]]]])))


def test_gradients_reach_the_network_only_while_it_learns() -> None:
    block, batch = drawn_block().requires_grad_(), random_batch(4)
    for is_learning in (False, True):
        mixer = AutoMix(network=block, features=brightness, is_learning=is_learning)
        mixed = mixer.plan(batch, batch, rng=rng(0, "mix")).apply(batch)
        assert mixed.images.requires_grad == is_learning
    with torch.no_grad():
        assert not mixer.plan(batch, batch, rng=rng(0, "mix")).apply(batch).images.requires_grad


def test_labels_go_by_the_counted_area_or_by_the_share_that_was_drawn() -> None:
    batch = random_batch(8)
    plans = {
        label: AutoMix(network=BLOCK, features=brightness, label=label).plan(batch, batch, rng=rng(0, "mix"))
        for label in ("area", "own")
    }
    assert isinstance(plans["area"].mask, Tensor)
    torch.testing.assert_close(plans["area"].weight, plans["area"].mask.mean(dim=(1, 2, 3)))
    stream = rng(0, "mix")
    stream.permutation(8)
    torch.testing.assert_close(plans["own"].weight, torch.from_numpy(stream.beta(2.0, 2.0, 8)).float())


def test_a_real_networks_features() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3, stride=2), nn.Flatten(), nn.Linear(2 * 49, 2))
    mixer = AutoMix(network=BLOCK, features=partial(output_of, net, "0"))
    batch = Batch(images=torch.rand(3, 3, 16, 16), targets=torch.eye(3))
    assert mixer.plan(batch, batch, rng=rng(0, "mix")).apply(batch).images.shape == batch.images.shape


def test_a_network_is_needed() -> None:
    batch = random_batch(2)
    with pytest.raises(ConfigError, match="AutoMixing"):
        AutoMix().plan(batch, batch, rng=rng(0, "mix"))
    with pytest.raises(ConfigError, match="alpha"):
        AutoMix(alpha=0.0)
