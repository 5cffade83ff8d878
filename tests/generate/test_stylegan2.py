"""StyleGAN2's training: its penalties in closed form, when they are taken, and what steers the augmentation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generate.toys import METHODS, SPEC, run
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.core.types import Batch
from raremix.generate import Form, ImageGenerator, StyleDrawer, StyleGAN2
from raremix.generate.stylegan2 import noise_length
from raremix.generate.stylegan2_training import StyleGAN2Training, path_lengths
from raremix.train import TrainSpec
from raremix.train.spec import make_fabric

FORM = Form(size=32, channels=1, classes=2)
SMALL = StyleGAN2(latent=3, style=4, channel_max=4)
BATCH = Batch(
    images=torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)),
    targets=torch.eye(2)[[0, 1, 1, 0]],
    ids=None,
)


def task(settings: StyleGAN2 = SMALL, *, steps: int = 100, form: Form = FORM) -> StyleGAN2Training:
    made = settings.training(settings.networks(form, seed=0), form, seed=0, extras={"steps": steps})
    assert isinstance(made, StyleGAN2Training)
    return made


def go(training: StyleGAN2Training, step: int) -> dict[str, dict[str, float]]:
    """Take one step as the loop does, and return the losses by phase."""
    found: dict[str, dict[str, float]] = {}
    for phase, optimizer in training.optimizers.items():
        optimizer.zero_grad(set_to_none=True)
        losses = training.loss(phase, BATCH, step=step)
        losses["loss"].backward()
        optimizer.step()
        found[phase] = {name: float(value.detach()) for name, value in losses.items()}
    training.after_step(step, training.modules)
    return found


class Linear(nn.Module):
    """logit = w . x, and twice that where classes have one of their own."""

    def __init__(self, *, logits: int = 1, sign: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1024,), 0.25))
        self.logits, self.sign = logits, sign

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        one = (images.flatten(1) @ self.weight)[:, None]
        return self.sign * torch.cat([one, 2 * one], dim=1)[:, : self.logits]


class Constant(nn.Module):
    """The same logit for all images."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        return self.value.expand(len(images), 1) + 0 * images.flatten(1).sum(dim=1, keepdim=True)


# Penalties


def test_r1_of_a_linear_discriminator() -> None:
    training = task()
    training.modules["discriminator"] = Linear()
    found = training.loss("r1", BATCH, step=0)
    penalty = 0.5 * 1024 * 0.25**2
    assert float(found["penalty"].detach()) == pytest.approx(penalty)
    gamma = 0.0002 * 32**2 / 4
    assert float(found["loss"].detach()) == pytest.approx(gamma * 16 * penalty), "sixteen steps at once"
    training = task(replace(SMALL, r1=3.0, r1_every=2))
    training.modules["discriminator"] = Linear()
    assert float(training.loss("r1", BATCH, step=2)["loss"].detach()) == pytest.approx(3 * 2 * penalty)


def test_both_logits_are_penalised_by_how_much_they_count() -> None:
    training = task(replace(SMALL, transition=(0.0, 1.0)))
    training.modules["discriminator"] = Linear(logits=2)
    # Halfway, a class counts half: w + 2 w / 2.
    found = training.loss("r1", replace(BATCH), step=48)
    assert float(found["penalty"].detach()) == pytest.approx(0.5 * 1024 * (0.25 * (1 + 2 * 0.48)) ** 2)


def test_path_lengths_of_a_linear_generator() -> None:
    stream = torch.Generator().manual_seed(1)
    ways = [torch.randn(4, 64, generator=stream) for _ in range(3)]
    styles = torch.randn(2, 3, 4, generator=stream).requires_grad_()
    drawn = torch.stack([styles[:, i] @ way for i, way in enumerate(ways)]).sum(dim=0).view(2, 1, 8, 8)
    noise = torch.randn(2, 1, 8, 8, generator=stream)
    each = torch.stack([noise.view(2, 64) @ way.T / 8 for way in ways], dim=1)
    expected = each.square().sum(dim=2).mean(dim=1).sqrt()
    assert torch.allclose(path_lengths(drawn, styles, noise), expected, rtol=1e-5)


def test_the_penalty_is_the_distance_to_the_running_mean() -> None:
    training = task(replace(SMALL, path=2.0, path_every=3))
    found = training.loss("path", BATCH, step=3)
    mean = float(found["length"])
    again = training.loss("path", BATCH, step=3)
    assert float(again["length"]) == mean, "what a step finds out counts from the next one on"
    training.found["signs"] = torch.tensor([0.0, 4.0])
    training.after_step(3, training.modules)
    assert float(training.memory["length"]) == mean
    # With two images the lengths can be told from mean and penalty: a = .01 (l1 + l2) / 2.
    styles, noise = training._styles(BATCH.targets[:2].argmax(dim=1), 3, 2)
    drawn = training.modules["synthesis"](styles, noise)
    lengths = path_lengths(drawn, styles, training._noise(drawn.shape, 3, 3, drawn.device)).detach()
    assert mean == pytest.approx(0.01 * float(lengths.mean()), rel=1e-5)
    assert float(found["penalty"].detach()) == pytest.approx(float((lengths - mean).square().mean()), rel=1e-5)
    assert float(found["loss"].detach()) == pytest.approx(2 * 3 * float(found["penalty"].detach()), rel=1e-5)


def test_penalties_rest_at_most_steps() -> None:
    training = task(replace(SMALL, path=1.0, r1_every=4, path_every=3))
    assert list(training.optimizers) == ["discriminator", "r1", "generator", "path"]
    shown = {phase: [] for phase in ("r1", "path")}
    for step in range(9):
        found = go(training, step)
        for phase, losses in shown.items():
            losses.append(found[phase]["loss"] > 0)
            assert found[phase]["penalty"] > 0, "the last one is logged meanwhile"
    assert shown["r1"] == [step % 4 == 0 for step in range(9)]
    assert shown["path"] == [step % 3 == 0 for step in range(9)]


def test_penalties_are_the_same_in_bf16() -> None:
    settings = replace(SMALL, path=1.0)
    plain, rough = task(settings), task(settings)
    fabric = make_fabric(TrainSpec(precision="bf16", accelerator="cpu"))
    for name, module in rough.modules.items():
        rough.modules[name] = fabric.setup_module(module)
    for phase, is_same in (("r1", True), ("path", True), ("discriminator", False), ("generator", False)):
        ours, theirs = (float(one.loss(phase, BATCH, step=0)["loss"].detach()) for one in (plain, rough))
        assert (ours == theirs) == is_same, phase
        assert theirs == pytest.approx(ours, rel=0.05)


def test_a_resting_penalty_moves_nothing() -> None:
    training = task(replace(SMALL, r1_every=4))
    go(training, 0)
    optimizer = training.optimizers["r1"]
    before = [p.detach().clone() for p in training.modules["discriminator"].parameters()]
    taken = [int(state["step"]) for state in optimizer.state.values()]
    assert max(taken) == 2, "one of either kind"
    optimizer.zero_grad(set_to_none=True)
    training.loss("r1", BATCH, step=1)["loss"].backward()
    optimizer.step()
    assert all(map(torch.equal, before, training.modules["discriminator"].parameters()))
    assert [int(state["step"]) for state in optimizer.state.values()] == taken


def test_adam_is_slowed_by_the_steps_it_takes_for_penalties() -> None:
    settings = replace(SMALL, path=1.0)
    optimizers = task(settings).optimizers
    assert optimizers["discriminator"] is optimizers["r1"]
    assert optimizers["generator"] is optimizers["path"]
    judging, drawing = (optimizers[name].param_groups[0] for name in ("r1", "path"))
    assert judging["lr"] == pytest.approx(0.0025 * 16 / 17)
    assert judging["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert drawing["lr"] == pytest.approx(0.0025 * 4 / 5)
    plain = task(replace(SMALL, r1=0.0)).optimizers
    assert list(plain) == ["discriminator", "generator"], "no path lengths at 32 pixels"
    assert plain["generator"].param_groups[0]["lr"] == 0.0025
    assert plain["discriminator"].param_groups[0]["betas"] == (0.0, 0.99)


def test_small_images_have_neither_path_lengths_nor_mixed_styles() -> None:
    assert task().style_mixing == 0
    large = task(form=Form(size=64, channels=1, classes=2))
    assert (large.path, large.style_mixing) == (2.0, 0.9)
    assert (task(replace(SMALL, style_mixing=0.5)).style_mixing) == 0.5


@pytest.mark.gpu
def test_on_a_gpu_in_bf16_and_resumed(tmp_path: Path) -> None:
    spec = replace(SPEC, accelerator="cuda", precision="bf16", channels_last=True)
    assert run(METHODS["stylegan2"], tmp_path, stop_at=3, spec=spec) is None
    fitted = run(METHODS["stylegan2"], tmp_path, spec=spec)
    assert fitted is not None
    assert all(bool(weight.isfinite().all()) for state in fitted.weights.values() for weight in state.values())


# Styles


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mixed_styles_change_once_on_the_way(share: float) -> None:
    training = task(replace(SMALL, style_mixing=share))
    styles, noise = training._styles(torch.tensor([0, 1] * 20), 0, 0)
    assert (styles.shape, noise.shape) == ((40, 7, 4), (40, noise_length(FORM)))
    changes = (styles[:, 1:] != styles[:, :-1]).any(dim=2).sum(dim=1)
    assert set(changes.tolist()) == {int(share)}


# Augmentation


@pytest.mark.parametrize(("logit", "expected"), [(1.0, 0.5 + 16 / 100), (-1.0, 0.5 - 16 / 100)])
def test_the_probability_follows_the_signs_of_real_images(logit: float, expected: float) -> None:
    training = task(replace(SMALL, probability=0.5, span=100, r1=0.0))
    training.modules["discriminator"] = Constant(logit)
    seen = []
    for step in range(4):
        for phase in training.optimizers:
            training.loss(phase, BATCH, step=step)
        training.after_step(step, training.modules)
        seen.append(float(training.memory["probability"]))
    assert seen == pytest.approx([0.5, 0.5, 0.5, expected]), "four steps of four images"
    assert training.memory["signs"].tolist() == [0, 0]


def test_without_augmentation_both_see_the_images() -> None:
    training = task(replace(SMALL, augment=(), probability=0.5))
    images = FORM.enter(BATCH.images)
    assert training._seen(images, 0, 0) is images
    assert not torch.equal(task(replace(SMALL, probability=0.5))._seen(images, 0, 0), images)


def test_real_and_drawn_images_are_changed_alike_and_apart() -> None:
    training = task(replace(SMALL, probability=0.8))
    images = FORM.enter(BATCH.images)
    assert not torch.equal(training._seen(images, 0, 0), training._seen(images, 0, 1))
    assert torch.equal(training._seen(images, 3, 0), training._seen(images, 3, 0))


# Transition


def test_classes_come_in_along_a_straight_line() -> None:
    training = task(replace(SMALL, transition=(0.25, 0.75)), steps=8)
    assert [training.share_of(step) for step in range(9)] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert task().share_of(0) == 1


def test_before_the_transition_the_class_does_not_matter() -> None:
    training = task(replace(SMALL, transition=(0.25, 0.75)), steps=8)
    other = replace(BATCH, targets=BATCH.targets.flip(1))
    for step, is_same in ((0, True), (4, False)):
        for phase in ("discriminator", "generator", "r1"):
            mine, theirs = (float(training.loss(phase, b, step=step)["loss"].detach()) for b in (BATCH, other))
            assert (mine == theirs) == (is_same or (phase == "r1" and step % 16 > 0)), (phase, step)
    # And the average that draws counts classes as the training does.
    averaged = training.modules | {"mapping": SMALL.networks(FORM, seed=0)["mapping"]}
    training.found["signs"] = torch.tensor([0.0, 4.0])
    training.after_step(4, averaged)
    assert float(averaged["mapping"].share) == 0.5


def test_losses_of_both_logits_are_added() -> None:
    training = task(replace(SMALL, transition=(0.0, 1.0)), steps=2)
    training.modules["discriminator"] = Linear(logits=2)
    values: list[Tensor] = []
    hook = training.modules["discriminator"].register_forward_hook(lambda module, given, out: values.append(out))
    loss = float(training.loss("generator", BATCH, step=1)["loss"].detach())
    hook.remove()
    each = nn.functional.softplus(-values[0].detach())
    assert loss == pytest.approx(float((each[:, 0] + 0.5 * each[:, 1]).mean()), rel=1e-5)


# Drawing


def test_any_size_and_channels() -> None:
    for size, channels, side in ((28, 2, 32), (64, 3, 64), (65, 4, 128)):
        form = Form(size=size, channels=channels, classes=2)
        assert form.side == side
        drawer = SMALL.drawer(SMALL.networks(form, seed=0), form)
        assert isinstance(drawer, ImageGenerator)
        drawn = drawer.generate(torch.eye(2), torch.randn(2, drawer.latent))
        assert drawn.shape == (2, channels, size, size)
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


def test_truncation_draws_towards_the_mean_of_the_class() -> None:
    networks = SMALL.networks(FORM, seed=0)
    drawer = SMALL.drawer(networks, FORM)
    latents = torch.randn(2, drawer.latent, generator=torch.Generator().manual_seed(0))
    # The noise maps count once they have learnt to; here styles alone do.
    wanted = torch.eye(2)[[1, 1]]
    whole, none = (replace(drawer, truncation=value).generate(wanted, latents) for value in (1.0, 0.0))
    assert not torch.allclose(whole[0], whole[1])
    assert torch.allclose(none[0], none[1]), "all alike"
    other = replace(drawer, truncation=0.0).generate(torch.eye(2)[[0, 0]], latents)
    assert not torch.allclose(none, other), "of its class"
    for conv in networks["synthesis"].convs:
        conv.strength.data.fill_(1.0)
    assert not torch.allclose(*replace(drawer, truncation=0.0).generate(wanted, latents).split(1)), (
        "pixels still differ"
    )
    with pytest.raises(ConfigError, match="truncation"):
        StyleDrawer(mapping=networks["mapping"], synthesis=networks["synthesis"], form=FORM, length=3, truncation=-1.0)


# Settings


def test_the_average_forgets_by_images() -> None:
    budget = replace(SMALL, half_life=1000).budget
    assert budget.decay(1000) == 0.5
    assert budget.decay(250) ** 4 == pytest.approx(0.5)
    assert budget.decay(budget.batch_size) == budget.average


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 0},
        {"channel_base": 0},
        {"r1": -1.0},
        {"span": -1},
        {"style_mixing": 1.5},
        {"probability": -0.1},
        {"learning_rate": 0.0},
        {"overfit": 2.0},
        {"transition": (0.5, 0.5)},
        {"transition": (0.5, 1.5)},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        StyleGAN2(**wrong)
