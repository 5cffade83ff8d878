"""DCGAN's networks, its augmentation and its losses, by hand where a hand can."""

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.generate import DCGAN, Form, ImageGenerator
from raremix.generate.adversarial import discriminator_loss, generator_loss, gradient_penalty
from raremix.generate.dcgan import ClassNorm, ProjectionDiscriminator
from raremix.generate.diff_augment import Changes, change, draw_changes
from raremix.generate.sampling import BLOCK, latent, sample


@pytest.mark.parametrize(("size", "channels", "side"), [(17, 1, 32), (28, 2, 32), (64, 3, 64), (65, 4, 128)])
def test_any_size_and_channels(size: int, channels: int, side: int) -> None:
    form = Form(size=size, channels=channels, classes=2)
    assert form.side == side
    method = DCGAN(width=2, latent=3)
    drawer = method.drawer(method.networks(form, seed=0), form)
    assert isinstance(drawer, ImageGenerator)
    drawn = drawer.generate(torch.eye(2), torch.randn(2, 3))
    assert drawn.shape == (2, channels, size, size)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


@pytest.mark.parametrize(("size", "channels", "classes"), [(16, 1, 2), (513, 1, 2), (32, 5, 2), (32, 1, 1)])
def test_forms_that_cannot_be_drawn(size: int, channels: int, classes: int) -> None:
    with pytest.raises(ConfigError):
        Form(size=size, channels=channels, classes=classes)


def test_published_size() -> None:
    network = DCGAN().networks(Form(size=64, channels=3, classes=2), seed=0)["generator"]
    weights = [tuple(p.shape) for p in network.parameters() if p.ndim == 4]
    assert weights == [(100, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4), (64, 3, 4, 4)]


def test_the_class_scales_and_shifts() -> None:
    norm = ClassNorm(1, 2)
    norm.scale.weight.data = torch.tensor([[1.0], [2.0]])
    norm.shift.weight.data = torch.tensor([[0.0], [3.0]])
    x = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    assert norm(x, torch.tensor([0, 1])).flatten().tolist() == pytest.approx([-1.0, 5.0], abs=1e-4)


def test_classes_begin_as_softly_as_what_they_share() -> None:
    torch.manual_seed(0)
    judge = ProjectionDiscriminator(side=32, channels=1, classes=40, width=8, is_spectral=False)
    assert float(judge.project.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert float(judge.logit.weight.detach().std()) == pytest.approx(0.02, rel=0.3)


def test_the_projection_is_a_dot_product() -> None:
    judge = ProjectionDiscriminator(side=32, channels=1, classes=2, width=2, is_spectral=False)
    images = torch.rand(2, 1, 32, 32)
    features = judge.trunk(images).sum(dim=(2, 3)) / 4
    expected = judge.logit(features)[:, 0] + (judge.project.weight * features).sum(dim=1)
    assert torch.allclose(judge(images, torch.tensor([0, 1])), expected)


def test_losses_by_hand() -> None:
    real, fake = torch.tensor([0.5, 3.0]), torch.tensor([-2.0, 0.0])
    assert float(discriminator_loss(real, fake, game="hinge")) == pytest.approx(0.25 + 0.5)
    assert float(generator_loss(fake, game="hinge")) == 1.0
    zero = torch.zeros(2)
    assert float(discriminator_loss(zero, zero)) == pytest.approx(2 * np.log(2))
    assert float(generator_loss(zero)) == pytest.approx(np.log(2))
    images = torch.ones(2, 1, 2, 2, requires_grad=True)
    logits = (images * torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)).sum(dim=(1, 2, 3))
    assert float(gradient_penalty(logits, images).detach()) == pytest.approx(0.5 * (4 * 1 + 4 * 4) / 2)


def test_changes_by_hand() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4) / 8 - 1
    # No change of colour, a shift of zero, and a hole of 2 x 2 about row 1, column 1.
    middle = Changes(draws=torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3]]))
    expected = images.clone()
    expected[..., 0:2, 0:2] = 0
    assert torch.allclose(change(images, middle), expected, atol=1e-6)
    brighter = Changes(draws=torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0]]))
    found = change(images, brighter)
    assert torch.allclose(found[..., 2:, 2:], images[..., 2:, 2:] + 0.4, atol=1e-6)


def test_a_shift_moves_and_brings_in_nothing() -> None:
    images = torch.ones(1, 3, 16, 16)
    # 16 / 8 = 2 pixels at most; the draw .99 is two down and two right. The hole lies in the lower right corner.
    found = change(images, Changes(draws=torch.tensor([[0.5, 0.5, 0.5, 0.99, 0.99, 0.99, 0.99]])))
    assert found[0, :, :2].abs().max() == 0
    assert found[0, :, :, :2].abs().max() == 0
    assert torch.allclose(found[0, :, 2:12, 2:12], torch.ones(3, 10, 10))


def test_gradients_go_through_changes() -> None:
    images = torch.rand(4, 3, 32, 32, requires_grad=True)
    change(images, draw_changes(4, rng=np.random.default_rng(0))).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


def test_a_sample_depends_on_seed_class_and_number_alone() -> None:
    form = Form(size=32, channels=1, classes=3)
    method = DCGAN(width=2, latent=3)
    drawer = method.drawer(method.networks(form, seed=0), form)
    assert isinstance(drawer, ImageGenerator)

    def drawn(label: int, numbers: list[int], *, seed: int = 0) -> dict[int, bytes]:
        found = {}
        for some, images in sample(drawer, label=label, classes=3, numbers=np.array(numbers), seed=seed):
            found |= {int(n): image.tobytes() for n, image in zip(some, images, strict=True)}
        return found

    many = drawn(1, list(range(BLOCK + 4)))
    assert list(many) == list(range(BLOCK + 4))
    assert drawn(1, [3]) == {3: many[3]}
    assert drawn(1, [BLOCK + 1, BLOCK + 2]) == {n: many[n] for n in (BLOCK + 1, BLOCK + 2)}
    assert len({*many.values(), *drawn(2, [3]).values(), *drawn(1, [3], seed=1).values()}) == BLOCK + 6
    assert torch.equal(latent(0, 1, 3, 5), latent(0, 1, 3, 5))
