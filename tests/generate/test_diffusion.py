"""The pixel diffusion model: its loss by hand, what it is told, and what it promises as a drawer."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.core.precision import Precision
from raremix.core.protocols import ImageReconstructor, Trainable
from raremix.core.types import Batch
from raremix.explain import DifferenceMap
from raremix.generate import ClassTranslator, Diffusion, Form, ImageGenerator, PixelDrawer, diffusion_drawing
from raremix.generate.diffusion_augment import LABELS
from raremix.generate.diffusion_library import even_by_ratio
from raremix.generate.diffusion_noise import cosine_noise
from raremix.generate.sampling import BLOCK, block_of, sample

FORM = Form(size=32, channels=1, classes=2)
SMALL = Diffusion(width=8, layers=1, dropout=0.0, num_inference_steps=2)


def drawer(form: Form = FORM, **changes: Any) -> PixelDrawer:
    method = replace(SMALL, **changes)
    return method.drawer(method.networks(form, seed=0), form)


def test_pixels_are_drawn_by_steps_that_are_even_by_ratio() -> None:
    seen: list[int] = []
    made = drawer(num_inference_steps=5)
    made.network.register_forward_pre_hook(lambda module, given: seen.append(int(given[1][0])))
    made.generate(torch.eye(2)[:1], torch.zeros(1, made.latent))
    assert seen == even_by_ratio(made.noise, 5)
    assert seen[-2] < 100, "even in time it would be 399"


def batch(rows: int = 4) -> Batch:
    images = torch.rand(rows, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    return Batch(images=images, targets=torch.eye(2)[torch.arange(rows) % 2])


class Silent(nn.Module):
    """Says 0 of every image, and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.told: list[tuple[Tensor, ...]] = []

    def forward(self, noisy: Tensor, times: Tensor, classes: Tensor, changed: Tensor | None = None) -> Tensor:
        self.told.append((noisy, times, classes, torch.empty(0) if changed is None else changed))
        return noisy * 0 * self.weight


def heard(settings: Diffusion = SMALL, *, step: int = 0, rows: int = 4) -> tuple[Mapping[str, Tensor], Silent]:
    network = Silent()
    training = settings.training({"denoiser": network}, FORM, seed=0)
    return training.loss("denoiser", batch(rows), step=step), network


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 2), (40, 3), (64, 4)])
def test_any_size_and_channels(size: int, channels: int) -> None:
    form = Form(size=size, channels=channels, classes=2)
    found = drawer(form)
    assert found.latent == channels * form.side**2
    drawn = found.generate(torch.eye(2), torch.randn(2, found.latent))
    assert drawn.shape == (2, channels, size, size)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


def test_256_pixels_can_be_built_and_attend_where_it_is_cheap() -> None:
    network: Any = SMALL.networks(Form(size=256, channels=3, classes=2), seed=0)["denoiser"].network  # type: ignore[union-attr]
    assert list(network.config.block_out_channels) == [8, 16, 32, 32, 32, 32]
    assert list(network.config.down_block_types) == ["DownBlock2D"] * 4 + ["AttnDownBlock2D"] * 2


def test_the_loss_of_one_who_says_nothing() -> None:
    settings = replace(SMALL, augment=0.0, min_snr=0.0)
    found, network = heard(settings)
    noisy, times, _, _ = network.told[0]
    alpha, sigma = cosine_noise(32).scales(times)
    eps = (noisy - alpha * FORM.enter(batch().images)) / sigma
    wanted = alpha * eps - sigma * FORM.enter(batch().images)
    assert float(found["loss"].detach()) == pytest.approx(float(wanted.square().mean()), rel=1e-4)
    assert float(found["error"].detach()) == pytest.approx(float(found["loss"].detach()))
    assert abs(float(eps.mean())) < 0.1
    assert float(eps.std()) == pytest.approx(1, abs=0.05)


def test_moments_are_weighted() -> None:
    settings = replace(SMALL, augment=0.0)
    plain, network = heard(replace(settings, min_snr=0.0), rows=1)
    weighted, _ = heard(settings, rows=1)
    noise = cosine_noise(32)
    weight = float(noise.weights(network.told[0][1], most=settings.min_snr))
    assert float(weighted["loss"].detach()) == pytest.approx(weight * float(plain["loss"].detach()), rel=1e-5)


def test_classes_are_hidden_now_and_then() -> None:
    told = torch.cat([heard(replace(SMALL, hide=0.25), step=s, rows=8)[1].told[0][2] for s in range(60)])
    assert float((told == 2).float().mean()) == pytest.approx(0.25, abs=0.07)
    shown = told.view(60, 8)
    expected = (torch.arange(8) % 2).expand_as(shown)
    assert torch.equal(shown[shown != 2], expected[shown != 2])
    assert not (heard(replace(SMALL, hide=0.0), rows=8)[1].told[0][2] == 2).any()


def test_it_is_told_how_images_were_changed() -> None:
    _, network = heard(replace(SMALL, augment=0.9), rows=8)
    assert network.told[0][3].shape == (8, LABELS)
    assert bool(network.told[0][3].any())
    _, plain = heard(replace(SMALL, augment=0.0))
    assert plain.told[0][3].numel() == 0


def test_told_of_no_change_is_told_nothing() -> None:
    network = SMALL.networks(FORM, seed=0)["denoiser"].eval()
    noisy, times, classes = torch.randn(2, 1, 32, 32), torch.tensor([10, 900]), torch.tensor([0, 2])
    silent = network(noisy, times, classes, None)
    assert torch.equal(network(noisy, times, classes, torch.zeros(2, LABELS)), silent)
    assert not torch.equal(network(noisy, times, classes, torch.ones(2, LABELS)), silent)
    assert not torch.equal(network(noisy, times, torch.tensor([1, 2]))[0], silent[0])


def test_draws_depend_on_the_step_alone() -> None:
    (first, a), (again, b) = heard(step=3), heard(step=3)
    assert float(first["loss"].detach()) == float(again["loss"].detach())
    assert all(torch.equal(x, y) for x, y in zip(a.told[0], b.told[0], strict=True))
    _, other = heard(step=4)
    assert not torch.equal(a.told[0][0], other.told[0][0])


def test_memory_is_saved_and_nothing_else_changes() -> None:
    thrifty = replace(SMALL, gradient_checkpointing=True, attention_slicing=True)
    gradients, passes = [], []
    for settings in (SMALL, thrifty):
        networks = settings.networks(FORM, seed=0)
        done: list[nn.Module] = []
        for module in networks["denoiser"].modules():
            if type(module).__name__ == "ResnetBlock2D":
                module.register_forward_pre_hook(lambda module, _, done=done: done.append(module))
        settings.training(networks, FORM, seed=0).loss("denoiser", batch(), step=0)["loss"].backward()
        gradients.append([p.grad for p in networks["denoiser"].parameters()])
        passes.append(len(done) / len(set(done)))
    assert passes[0] == 1
    assert passes[1] > 1.5, "what was not kept is computed again on the way back"
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))
    processors = {
        type(module.processor).__name__
        for module in thrifty.networks(FORM, seed=0)["denoiser"].modules()
        if hasattr(module, "processor")
    }
    assert processors == {"SlicedAttnProcessor"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 12},
        {"layers": 0},
        {"dropout": 1.0},
        {"hide": -0.1},
        {"augment": 1.5},
        {"learning_rate": 0.0},
        {"num_inference_steps": 0},
        {"guidance_scale": 2.0, "hide": 0.0},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Diffusion(**wrong)


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"pip install 'raremix\[diffusion\]'"):
        SMALL.networks(FORM, seed=0)


# What a drawer promises


def test_it_draws_and_translates() -> None:
    found = drawer()
    assert isinstance(found, ImageGenerator)
    assert isinstance(found, ImageReconstructor)
    assert isinstance(found, ClassTranslator)
    assert isinstance(SMALL.training(SMALL.networks(FORM, seed=0), FORM, seed=0), Trainable)


def test_the_noise_and_the_class_decide() -> None:
    found = drawer()
    latents = torch.randn(2, found.latent)
    drawn = found.generate(torch.eye(2), latents)
    assert torch.allclose(drawn, found.generate(torch.eye(2), latents), atol=1e-6)
    assert not torch.allclose(drawn[0], found.generate(torch.eye(2)[[1, 1]], latents)[0], atol=1e-4)


@pytest.mark.parametrize("is_capable", [True, False])
def test_it_draws_in_16_bits_where_the_device_computes_in_them(
    is_capable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusion_drawing, "computes_in_bf16", lambda device: is_capable)
    found = drawer()
    latents = torch.randn(2, found.latent, generator=torch.Generator().manual_seed(0))
    drawn = {name: replace(found, precision=name).generate(torch.eye(2), latents) for name in get_args(Precision)}
    assert torch.equal(drawn["auto"], drawn["bf16" if is_capable else "32"])
    assert not torch.equal(drawn["bf16"], drawn["32"])
    assert torch.allclose(drawn["bf16"], drawn["32"], atol=0.05)
    with pytest.raises(ConfigError, match="precision = '16': expected one of auto, bf16, 32"):
        found.check_drawing(precision="16")


def test_a_sample_depends_on_seed_class_and_number_alone() -> None:
    found = drawer()

    def drawn(numbers: list[int]) -> dict[int, bytes]:
        images = {}
        for some, block in sample(found, label=1, classes=2, numbers=np.array(numbers), seed=0):
            images |= {int(n): image.tobytes() for n, image in zip(some, block, strict=True)}
        return images

    many = drawn(list(range(BLOCK + 2)))
    assert drawn([3, BLOCK + 1]) == {n: many[n] for n in (3, BLOCK + 1)}
    assert len(set(many.values())) == BLOCK + 2


def test_on_a_gpu_a_block_fills_it() -> None:
    assert block_of(drawer(), torch.device("cpu")) == BLOCK
    assert block_of(drawer(), torch.device("cuda")) == 512
    assert block_of(object(), torch.device("cuda")) == BLOCK


def test_translations_begin_at_the_image() -> None:
    images, wanted = batch(2).images, torch.eye(2)[[1, 0]]
    weak, strong = (replace(drawer(num_inference_steps=10), strength=s) for s in (0.1, 1.0))

    def changed(found: PixelDrawer) -> float:
        return float((found(images, wanted, rng=np.random.default_rng(0)) - images).abs().mean())

    assert changed(weak) < 0.1 < changed(strong)
    again = weak.reconstruct(images, torch.eye(2))
    assert again.shape == images.shape
    assert not torch.equal(weak.reconstruct(images), again), "told nothing, it draws as no class"


def test_its_difference_maps_are_of_the_class_alone() -> None:
    found = replace(drawer(num_inference_steps=4), strength=0.5)
    images, targets = batch(2).images, torch.eye(2)[[1, 0]]
    maps = DifferenceMap(translator=found, to_reconstruction=True)(images, targets)
    assert maps.shape == (2, 1, 32, 32)
    assert float(maps.max()) == pytest.approx(1.0)


def test_a_redrawing_does_not_depend_on_the_rows_beside_it() -> None:
    found, images = drawer(), batch(4).images
    whole = found.reconstruct(images, torch.eye(2)[[0, 1, 1, 0]])
    assert torch.allclose(found.reconstruct(images[2:3], torch.eye(2)[[1]])[0], whole[2], atol=1e-2)


def test_what_is_drawn_in_inference_mode_can_be_trained_further() -> None:
    found = drawer()
    with torch.inference_mode():
        found.generate(torch.eye(2), torch.randn(2, found.latent))
    found.network(torch.rand(2, 1, 32, 32), torch.tensor([3, 4]), torch.tensor([0, 1])).sum().backward()
