"""StarGAN v2 against what its authors' and VariMix's published code do, and what a translator promises."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import ImageReconstructor, ImageTranslator, Trainable
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.explain import DifferenceMap
from raremix.generate import Form, StarGAN, StarTranslator
from raremix.generate.stargan import StarGANTraining
from raremix.generate.stargan_networks import AdaptiveNorm, ResidualBlock
from raremix.mix import VariMix

FORM = Form(size=32, channels=1, classes=3)
SMALL = StarGAN(width=4, widest=8, hidden=16, latent=4, style=6)


def batch(form: Form = FORM, *, rows: int = 4) -> Batch:
    draws = np.random.default_rng(3)

    def images(count: int) -> Tensor:
        return torch.from_numpy(draws.random((count, form.channels, form.size, form.size), dtype=np.float32))

    own, wanted = torch.arange(rows) % 3, (torch.arange(rows) + 1) % 3
    pool = Batch(images=images(2 * rows), targets=torch.eye(3)[wanted.repeat_interleave(2)])
    return Batch(images=images(rows), targets=torch.eye(3)[own], pool=pool)


def task(settings: StarGAN = SMALL, **extras: Any) -> StarGANTraining:
    found = settings.training(settings.networks(FORM, seed=0), FORM, seed=0, extras=extras)
    assert isinstance(found, StarGANTraining)
    return found


def translator(settings: StarGAN = SMALL, form: Form = FORM, **extras: Tensor) -> StarTranslator:
    return settings.drawer(settings.networks(form, seed=0), form, extras=extras)


# The oracles of the method page


def test_parameters_at_256_pixels() -> None:
    networks = StarGAN(class_heads=False).networks(Form(size=256, channels=3, classes=3), seed=0)
    counted = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert counted == {
        "generator": 33_892_995,
        "mapping": 1_617_472,
        "encoder": 20_884_096,
        "discriminator": 20_852_803,
    }


def test_heads_are_what_per_class_heads_add() -> None:
    one, three = (StarGAN(width=4, widest=8, class_heads=heads).networks(FORM, seed=0) for heads in (False, True))
    added = {
        n: sum(p.numel() for p in three[n].parameters()) - sum(p.numel() for p in one[n].parameters()) for n in one
    }
    head = 3 * (512 * 512 + 512) + 512 * 64 + 64
    assert added == {"generator": 0, "mapping": 2 * head, "encoder": 2 * (8 * 64 + 64), "discriminator": 0}


@pytest.mark.parametrize(("size", "width"), [(256, 64), (64, 256), (32, 512), (512, 32)])
def test_width_is_two_to_the_fourteenth_over_the_side(size: int, width: int) -> None:
    # Only the first layer is looked at; on "meta" the others cost nothing.
    with torch.device("meta"):
        networks = StarGAN().networks(Form(size=size, channels=3, classes=2), seed=0)
    first: Any = networks["generator"]
    assert first.enter.out_channels == width
    halvings = [block for block in first.down if block.downsample]
    assert len(halvings) == math.log2(size) - 4
    assert len(first.down) - len(halvings) == 2


def test_a_residual_block_by_hand() -> None:
    block = ResidualBlock(1, 1, downsample=True)
    for conv in (block.first, block.second):
        nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, 1, 1] = 1.0
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    x = torch.tensor([[[[4.0, 0.0], [0.0, -4.0]]]])
    # Shortcut: mean 0. Inside: leaky (4, 0, 0, -.8), mean .8, leaky again .8.
    assert block(x).flatten().tolist() == pytest.approx([0.8 / math.sqrt(2)])


def test_adaptive_norm_by_hand() -> None:
    norm = AdaptiveNorm(1, 1)
    nn.init.zeros_(norm.affine.weight)
    norm.affine.bias.data = torch.tensor([1.0, 0.5])
    found = norm(torch.tensor([[[[1.0, 3.0]]]]), torch.zeros(1, 1))
    assert found.flatten().tolist() == pytest.approx([-2 + 0.5, 2 + 0.5], abs=1e-4)


def test_losses_are_those_of_the_page() -> None:
    settings = StarGAN(width=4, widest=8, hidden=16, latent=4, style=6, identity=0.5, diversity_decay=0.25)
    training, given = task(settings), batch()
    assert given.pool is not None
    g, f, e, d = (training.modules[n] for n in ("generator", "mapping", "encoder", "discriminator"))
    x, y, wanted = given.images * 2 - 1, torch.arange(4) % 3, (torch.arange(4) + 1) % 3
    noise = torch.from_numpy(rng(0, "latent", 2, 0).standard_normal((2, 4, 4)).astype(np.float32))
    bce = functional.binary_cross_entropy_with_logits
    for source in ("latent", "reference"):
        if source == "latent":
            s, s2 = f(noise[0], wanted), f(noise[1], wanted)
        else:
            s, s2 = (e(given.pool.images[k::2] * 2 - 1, wanted) for k in (0, 1))
        x.requires_grad_(True)
        real = d(x, y)
        (slope,) = torch.autograd.grad(real.sum(), x)
        x = x.detach()
        fake = g(x, s)
        expected = bce(real, torch.ones(4)) + bce(d(fake, wanted), torch.zeros(4))
        expected = expected + 0.5 * (slope**2).sum() / 4
        assert float(training.loss(f"discriminator_{source}", given, step=2)["loss"].detach()) == pytest.approx(
            float(expected.detach()), rel=1e-5
        )
        expected = (
            bce(d(fake, wanted), torch.ones(4))
            + (e(fake, wanted) - s).abs().mean()
            - 1.5 * (fake - g(x, s2)).abs().mean()  # 2 - 2 * .25
            + (g(fake, e(x, y)) - x).abs().mean()
            + 0.5 * (g(x, e(x, y)) - x).abs().mean()
        )
        assert float(training.loss(f"generator_{source}", given, step=2)["loss"].detach()) == pytest.approx(
            float(expected.detach()), rel=1e-5
        )


def test_each_phase_moves_its_own_networks() -> None:
    training, given = task(), batch()
    moved = {
        "discriminator_latent": {"discriminator"},
        "discriminator_reference": {"discriminator"},
        "generator_latent": {"generator", "mapping", "encoder"},
        "generator_reference": {"generator"},
    }
    assert list(training.optimizers) == list(moved)
    for phase, optimizer in training.optimizers.items():
        before = {name: [p.clone() for p in m.parameters()] for name, m in training.modules.items()}
        optimizer.zero_grad()
        training.loss(phase, given, step=0)["loss"].backward()
        optimizer.step()
        changed = {
            name
            for name, network in training.modules.items()
            if any(not torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True))
        }
        assert changed == moved[phase], phase


def test_rates_are_the_published_ones() -> None:
    optimizers = task().optimizers
    assert [group["lr"] for group in optimizers["generator_latent"].param_groups] == [1e-4, 1e-4, 1e-6]
    assert all(o.defaults["betas"] == (0.0, 0.99) and o.defaults["weight_decay"] == 1e-4 for o in optimizers.values())


def test_an_auxiliary_classifier_pulls_translations_to_their_class() -> None:
    judge = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 3))
    settings = StarGAN(width=4, widest=8, hidden=16, latent=4, style=6, classifier=1.0)
    with pytest.raises(ConfigError, match="needs a trained classifier"):
        task(settings)
    found = task(settings, classifier=judge).loss("generator_latent", batch(), step=0)
    plain = task().loss("generator_latent", batch(), step=0)
    extra = float((found["loss"] - plain["loss"]).detach())
    assert extra == pytest.approx(float(found["classifier"].detach()), rel=1e-4)
    assert extra > 0


def test_references_must_come_in_pairs() -> None:
    given = batch()
    with pytest.raises(DataError, match="two reference images"):
        task().loss("generator_latent", Batch(images=given.images, targets=given.targets), step=0)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"cycle": -1.0}, {"learning_rate": 0.0}, {"latent": 0}])
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        StarGAN(**wrong)


# What a translator promises


def test_it_is_a_translator_a_reconstructor_and_a_trainable() -> None:
    assert isinstance(translator(), ImageTranslator)
    assert isinstance(translator(), ImageReconstructor)
    assert isinstance(task(), Trainable)


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 1), (40, 4), (17, 2)])
def test_images_keep_their_size_and_range(size: int, channels: int) -> None:
    form = Form(size=size, channels=channels, classes=3)
    drawn = translator(form=form)(torch.rand(2, channels, size, size), torch.eye(3)[:2], rng=rng(0, "mask"))
    assert drawn.shape == (2, channels, size, size)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


def test_padding_goes_in_and_comes_out_whole() -> None:
    form, images = Form(size=28, channels=1, classes=2), torch.rand(1, 1, 28, 28)
    assert form.enter(images).shape == (1, 1, 32, 32)
    assert torch.allclose(form.leave(form.enter(images)), images, atol=1e-6)
    with pytest.raises(DataError, match=r"\(1, 28, 28\), got \(1, 32, 32\)"):
        form.enter(torch.rand(1, 1, 32, 32))


def test_the_class_changes_the_style_and_one_head_does_not() -> None:
    images = torch.rand(1, 1, 32, 32).expand(3, -1, -1, -1)
    with_heads = translator()(images, torch.eye(3), rng=np.random.default_rng(0))
    assert not torch.equal(with_heads[0], with_heads[1])
    shared = translator(StarGAN(width=4, widest=8, class_heads=False))
    found = [shared(images[:1], torch.eye(3)[k : k + 1], rng=np.random.default_rng(0)) for k in range(3)]
    assert torch.equal(found[0], found[1])


def test_reference_styles_are_those_of_the_class() -> None:
    bank = torch.full((3, 2, 6), torch.nan)
    bank[0, 0], bank[1, :], bank[2, 0] = 1.0, torch.tensor([2.0, 4.0])[:, None], 5.0
    classes = torch.tensor([0, 2, 1] * 20)
    drawn = translator(styles=bank).draw_styles(classes, rng=np.random.default_rng(0))
    assert drawn[classes == 0].unique().tolist() == [1.0]
    assert drawn[classes == 2].unique().tolist() == [5.0]
    assert drawn[classes == 1].unique().tolist() == [2.0, 4.0]
    mean = StarTranslator(**{**vars(translator(styles=bank)), "style": "mean"})
    assert mean.draw_styles(classes[:3], rng=np.random.default_rng(0))[:, 0].tolist() == [1.0, 5.0, 3.0]
    with pytest.raises(ConfigError, match="needs the styles"):
        StarTranslator(**{**vars(translator()), "style": "reference"})


def test_without_a_class_the_nearest_reconstruction_is_taken() -> None:
    found, images = translator(), torch.rand(3, 1, 32, 32)
    each = torch.stack([found.reconstruct(images, torch.eye(3)[k].expand(3, -1)) for k in range(3)])
    errors = (each - images).abs().mean(dim=(2, 3, 4))
    best = each[errors.argmin(dim=0), torch.arange(3)]
    assert torch.allclose(found.reconstruct(images), best, atol=1e-6)


@pytest.mark.parametrize("to_reconstruction", [False, True])
def test_varimix_mixes_by_its_difference_maps(to_reconstruction: bool) -> None:
    importance = DifferenceMap(translator=translator(), to_reconstruction=to_reconstruction)
    images, targets = torch.rand(4, 1, 32, 32), torch.eye(3)[[0, 1, 2, 0]]
    mixed, labels = VariMix(importance=importance)(images, targets, rng=np.random.default_rng(0))
    assert mixed.shape == (8, 1, 32, 32)
    assert torch.allclose(mixed.sum(dim=0), 2 * images.sum(dim=0), atol=1e-4)  # u + v = x_i + x_j
    assert torch.allclose(labels.sum(dim=0), 2 * targets.sum(dim=0), atol=1e-5)
