"""Adaptive augmentation: every change against a hand's, and how often they happen."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raremix.generate.ada import BANDS, KINDS, Adaptation, draw_adaptation, kinds_of, next_probability
from raremix.generate.ada_apply import adapt

SIDE = 16


def drawn(*kinds: str, count: int = 16, channels: int = 3, probability: float = 1.0, seed: int = 0) -> Adaptation:
    return draw_adaptation(
        count,
        side=SIDE,
        channels=channels,
        kinds=frozenset(kinds),
        probability=probability,
        rng=np.random.default_rng(seed),
    )


def noise(count: int = 16, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_at_probability_0_nothing_happens() -> None:
    images = noise()
    assert torch.equal(adapt(images, drawn(*KINDS, probability=0.0)), images)


def test_a_flip() -> None:
    images = noise()
    plan = drawn("flip")
    is_flipped = plan.warp[:, 0, 0] == -1
    assert 0 < int(is_flipped.sum()) < 16, "a side is drawn, not always the other one"
    expected = torch.where(is_flipped.view(-1, 1, 1, 1), images.flip(-1), images)
    assert torch.equal(adapt(images, plan), expected)


def test_quarter_turns() -> None:
    images = noise()
    found = adapt(images, drawn("turn"))
    turns = [[torch.equal(found[i], images[i].rot90(k, (1, 2))) for k in range(4)] for i in range(16)]
    assert all(sum(row) == 1 for row in turns)
    assert np.any(turns, axis=0).all(), "all four"


def test_a_shift_by_whole_pixels_brings_in_the_mirror_image() -> None:
    images = noise()
    plan = drawn("shift")
    found = adapt(images, plan)
    steps = (-plan.warp[:, :, 2] * SIDE / 2).numpy()
    assert np.array_equal(steps, np.rint(steps))
    assert np.abs(steps).max() == 2, "an eighth of the side"
    for image, shifted, (right, down) in zip(images, found, steps.astype(int), strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)), mode="symmetric")
        assert np.array_equal(shifted.numpy(), padded[:, 2 - down : 18 - down, 2 - right : 18 - right])


def test_blits_in_one_are_blits_in_turn() -> None:
    images = noise()
    one_by_one = images
    for kind in ("flip", "turn", "shift"):
        one_by_one = adapt(one_by_one, drawn(kind))
    whole = adapt(images, drawn("flip", "turn", "shift"))
    # In turn, what comes in at an edge is mirrored too; both see the same pixels but for that.
    assert torch.equal(whole, one_by_one)


@pytest.mark.parametrize("kinds", [("scale",), ("rotate",), ("stretch",), ("move",), ("scale", "rotate", "stretch")])
def test_a_slope_stays_a_slope(kinds: tuple[str, ...]) -> None:
    line = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    images = (0.3 * line[None, :] + 0.5 * line[:, None]).expand(16, 1, -1, -1)
    plan = drawn(*kinds, channels=1)
    found = adapt(images, plan)
    across, down = torch.meshgrid(line, line, indexing="xy")
    places = torch.stack([across, down, torch.ones_like(across)])
    from_ = torch.einsum("bij,jhw->bihw", plan.warp, places)
    inside = (from_.abs() < 1 - 6 / SIDE).all(dim=1)
    # Cubic interpolation reaches two pixels beyond, which may be mirrored ones.
    inside[:, [0, 1, -2, -1]] = False
    inside[:, :, [0, 1, -2, -1]] = False
    expected = 0.3 * from_[:, 0] + 0.5 * from_[:, 1]
    assert int(inside.sum()) > 16 * 20
    # torch's cubic kernel (a = -.75) moves a slope by up to a seventh of a pixel between the pixels.
    assert float((found[:, 0] - expected)[inside].abs().max()) < 0.15 * math.hypot(0.3, 0.5) * 2 / SIDE


def test_little_of_the_fine_detail_is_lost() -> None:
    images = torch.randn(64, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    detail = [part[..., 1:] - part[..., :-1] for part in (images, adapt(images, drawn("move", count=64, channels=1)))]
    kept = float(detail[1].std() / detail[0].std())
    assert 0.85 < kept < 1.05


def test_sizes_and_angles_are_as_published() -> None:
    plan = drawn("scale", count=4000)
    logs = torch.log2(plan.warp[:, 0, 0])
    assert float(logs.std()) == pytest.approx(0.2, rel=0.05)
    assert float(logs.mean()) == pytest.approx(0, abs=0.02)
    stretched = drawn("stretch", count=100).warp
    assert torch.allclose(stretched[:, 0, 0] * stretched[:, 1, 1], torch.ones(100))
    moved = drawn("move", count=4000).warp
    assert float(moved[:, :, 2].std()) == pytest.approx(2 * 0.125, rel=0.05), "the side is 2 units long"


@pytest.mark.parametrize("kind", KINDS)
def test_each_happens_as_often_as_it_is_told(kind: str) -> None:
    # What is drawn may be that it stays: one turn in four, one shift in 25, every other flip.
    expected = 0.3 * {"flip": 1 / 2, "luma_flip": 1 / 2, "turn": 3 / 4, "shift": 24 / 25}.get(kind, 1)
    count = 3000
    plan = drawn(kind, count=count, probability=0.3)
    changed = plan.is_moved | plan.is_warped
    eye = torch.eye(2, 3)
    if kind in {"flip", "turn", "shift"}:
        changed = ((plan.warp - eye).abs() > 1e-6).flatten(1).any(dim=1).numpy()
    for tensor, still in ((plan.color, torch.eye(3, 4)), (plan.bands, torch.ones(4)), (plan.strength, torch.zeros(()))):
        if tensor is not None:
            changed = ((tensor - still).abs() > 1e-6).view(count, -1).any(dim=1).numpy()
    if plan.hole is not None:
        changed = ~plan.hole[:, 0].isnan().numpy()
    assert changed.mean() == pytest.approx(expected, abs=0.035)


def test_brightness_is_added() -> None:
    images = noise(4, 1)
    plan = drawn("brightness", count=4, channels=1)
    assert plan.color is not None
    added = adapt(images, plan) - images
    assert torch.allclose(added, plan.color[:, 0, 1].view(4, 1, 1, 1).expand_as(added), atol=1e-6)
    many = drawn("brightness", count=4000, channels=3).color
    assert many is not None
    assert torch.equal(many[:, 0, 3], many[:, 2, 3])
    assert float(many[:, 0, 3].std()) == pytest.approx(0.2, rel=0.05)


def test_colours_by_hand() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(16, -1, SIDE, SIDE)
    flipped = adapt(red, drawn("luma_flip"))[:, :, 0, 0]
    # Mirrored at the plane across (1, 1, 1): 1 - 2/3 of itself, -2/3 of the others.
    either = [torch.allclose(row, torch.tensor([1 / 3, -2 / 3, -2 / 3]), atol=1e-6) for row in flipped]
    assert [torch.equal(row, red[0, :, 0, 0]) for row in flipped] == [not mirrored for mirrored in either]
    assert any(either)
    turned = adapt(red, drawn("hue"))[:, :, 0, 0]
    assert torch.allclose(turned.sum(dim=1), torch.ones(16), atol=1e-5), "as bright as before"
    assert torch.allclose(turned.norm(dim=1), torch.ones(16), atol=1e-5), "as colourful as before"
    assert float(turned.std(dim=0).min()) > 0.1
    # A third of a turn brings red to green.
    fuller = adapt(red, drawn("saturation"))[:, :, 0, 0] - 1 / 3
    ratio = fuller / (red[:, :, 0, 0] - 1 / 3)
    assert torch.allclose(ratio, ratio[:, :1].expand(-1, 3), atol=1e-4)
    contrast = drawn("contrast", count=4000).color
    assert contrast is not None
    assert float(torch.log2(contrast[:, 0, 0]).std()) == pytest.approx(0.5, rel=0.05)


def test_brightness_is_seen_through_contrast() -> None:
    both, bright, sharp = (
        drawn(*names).color for names in (("brightness", "contrast"), ("brightness",), ("contrast",))
    )
    assert both is not None
    assert bright is not None
    assert sharp is not None
    assert torch.allclose(both[:, 0, 3], bright[:, 0, 3] * sharp[:, 0, 0])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_have_no_hue(channels: int) -> None:
    assert kinds_of(("color", "flip"), channels=channels) == {"brightness", "contrast", "luma_flip", "flip"}
    images = noise(16, channels)
    plan = drawn(*kinds_of(("color",), channels=channels), channels=channels)
    assert adapt(images, plan).shape == images.shape
    if channels == 1:
        flipped = adapt(images, drawn("luma_flip", channels=1))
        assert all(torch.allclose(a, b) or torch.allclose(a, -b) for a, b in zip(flipped, images, strict=True))


def test_groups_and_names() -> None:
    assert kinds_of(("blit", "hue"), channels=3) == {"flip", "turn", "shift", "hue"}
    assert kinds_of(("intensity",), channels=3) == {"brightness", "contrast"}
    assert kinds_of((), channels=3) == frozenset()


def test_bands_make_up_the_image() -> None:
    images = noise()
    plan = drawn("filter")
    assert plan.bands is not None
    still = Adaptation(
        **{name: getattr(plan, name) for name in plan.__slots__ if name != "bands"}, bands=torch.ones(16, len(BANDS))
    )
    assert torch.allclose(adapt(images, still), images, atol=1e-6)
    power = torch.tensor(BANDS) / 13
    several = drawn("filter", count=2000).bands
    assert several is not None
    assert float((several.square() @ power).log2().mean().abs()) < 0.2, "as strong as before, on the whole"
    assert not torch.allclose(adapt(images, plan), images, atol=0.01)


def test_noise_and_holes() -> None:
    images = torch.ones(400, 1, SIDE, SIDE)
    noisy = adapt(images, drawn("noise", count=400, channels=1)) - 1
    # |N(0, .1)| is .08 on the mean.
    assert float(noisy.std(dim=(1, 2, 3)).mean()) == pytest.approx(0.08, rel=0.15)
    plan = drawn("cutout", count=400, channels=1)
    cut = adapt(images, plan) == 0
    assert plan.hole is not None
    middle = int((plan.hole - 0.5).abs().sum(dim=1).argmin())
    assert int(cut[middle].sum()) in {49, 56, 64, 72, 81}, "half the side, about"
    assert int(cut.flatten(1).any(dim=1).sum()) == 400


def test_rows_that_nothing_happened_to_come_back_to_the_bit() -> None:
    images = noise(64)
    plan = drawn(*kinds_of(("blit", "geometry"), channels=3), count=64, probability=0.1)
    still = ~(plan.is_moved | plan.is_warped)
    assert 5 < int(still.sum()) < 60
    assert torch.equal(adapt(images, plan)[still], images[still])


def test_gradients_go_through() -> None:
    images = noise().requires_grad_()
    adapt(images, drawn(*KINDS)).square().sum().backward()
    assert images.grad is not None
    assert bool((images.grad.flatten(1).abs().sum(dim=1) > 0).all())


def test_the_gradient_of_a_blit_is_the_blit_undone() -> None:
    plan = drawn("flip")
    images, seen = noise().requires_grad_(), noise() * 2
    (adapt(images, plan) * seen).sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, adapt(seen, plan)), "a flip is its own inverse"


def test_the_same_draws_give_the_same_images() -> None:
    assert torch.equal(adapt(noise(), drawn(*KINDS, probability=0.5)), adapt(noise(), drawn(*KINDS, probability=0.5)))
    assert not torch.equal(adapt(noise(), drawn(*KINDS)), adapt(noise(), drawn(*KINDS, seed=1)))


@pytest.mark.gpu
def test_a_gpu_makes_the_same_changes() -> None:
    plan = drawn(*kinds_of(("blit", "geometry", "color", "filter", "cutout"), channels=3), probability=0.7)
    assert torch.allclose(adapt(noise().cuda(), plan).cpu(), adapt(noise(), plan), atol=1e-4)


@pytest.mark.parametrize(
    ("p", "overfit", "most", "expected"),
    [
        (0.5, 0.7, 1.0, 0.6),
        (0.5, 0.5, 1.0, 0.4),
        (0.5, 0.6, 1.0, 0.5),
        (0.95, 0.9, 1.0, 1.0),
        (0.05, -1.0, 1.0, 0.0),
        (0.75, 0.9, 0.8, 0.8),
    ],
)
def test_the_probability_follows_and_stays_within(p: float, overfit: float, most: float, expected: float) -> None:
    found = next_probability(p, overfit=overfit, target=0.6, images=100, span=1000, most=most)
    assert found == pytest.approx(expected)


def test_without_a_span_it_stays() -> None:
    assert next_probability(0.3, overfit=1.0, target=0.6, images=100, span=0) == 0.3


def hand_turned(angle: float) -> Callable[[Tensor], Tensor]:
    cos, sin = np.cos(angle), np.sin(angle)
    return lambda place: torch.stack([cos * place[0] - sin * place[1], sin * place[0] + cos * place[1]])


def test_rotations_keep_lengths() -> None:
    warp = drawn("rotate").warp
    place = torch.tensor([0.3, -0.4])
    for row in warp:
        angle = float(torch.atan2(row[1, 0], row[0, 0]))
        assert torch.allclose(row[:, :2] @ place, hand_turned(angle)(place), atol=1e-6)
