"""The schedule, the solvers and the changes, against what a hand or a formula says."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.generate.diffusion_augment import LABELS, SPREAD, Changed, apply_changed, draw_changed
from raremix.generate.diffusion_library import BY_RATIO, SOLVERS, groups_of
from raremix.generate.diffusion_noise import Noise, cosine_noise, spread_times
from raremix.generate.diffusion_sampling import check_drawing, clipped, denoise, guided

TWO = np.array([0.64, 0.36])


def test_noise_is_added_and_taken_away_by_hand() -> None:
    images, eps = torch.full((2, 1, 1, 1), 0.5), torch.full((2, 1, 1, 1), -1.0)
    times = torch.tensor([0, 1])
    for prediction, said in (("v_prediction", [-0.8 - 0.3, -0.6 - 0.4]), ("epsilon", [-1.0, -1.0])):
        noise = Noise(kept=TWO, prediction=prediction)  # type: ignore[arg-type]
        noisy, wanted = noise.add(images, eps, times)
        assert noisy.flatten().tolist() == pytest.approx([0.4 - 0.6, 0.3 - 0.8])
        assert wanted.flatten().tolist() == pytest.approx(said)
        assert torch.allclose(noise.clean(noisy, wanted, times), images)
        assert torch.allclose(noise.words(noisy, images, times), wanted)


def test_betas_are_those_whose_product_is_the_schedule() -> None:
    noise = cosine_noise(64)
    assert np.allclose(np.cumprod(1 - noise.betas), noise.kept)
    ratio = np.sqrt(1 / noise.kept - 1)
    assert (ratio[0], ratio[-1]) == (pytest.approx(0.005), pytest.approx(80))
    assert np.sqrt(1 / cosine_noise(256).kept - 1) == pytest.approx(4 * ratio)
    assert np.allclose(cosine_noise(28).kept, noise.kept), "small images get no less"
    for kept in ([0.3, 0.5], [0.5, 0.5], [1.0, 0.5], [0.5, 0.0]):
        with pytest.raises(ConfigError, match="keep less"):
            Noise(kept=np.array(kept))


def test_min_snr_by_hand() -> None:
    times = torch.tensor([0, 1])
    ratios = 0.64 / 0.36, 0.36 / 0.64
    by_v = Noise(kept=TWO).weights(times, most=1.0)
    assert by_v.tolist() == pytest.approx([1 / (ratios[0] + 1), ratios[1] / (ratios[1] + 1)])
    by_noise = Noise(kept=TWO, prediction="epsilon").weights(times, most=1.0)
    assert by_noise.tolist() == pytest.approx([1 / ratios[0], 1.0])
    assert Noise(kept=TWO).weights(times, most=0.0).tolist() == [1.0, 1.0]


def test_moments_are_spread_and_each_is_uniform() -> None:
    draws = np.random.default_rng(0)
    many = np.stack([spread_times(8, 1000, rng=draws) for _ in range(400)])
    assert (np.sort(many // 125, axis=1) == np.arange(8)).all(), "one in every eighth"
    first = np.bincount(many[:, 0] // 250, minlength=4)
    assert first.min() > 70, "of 100 expected"
    assert (many.min(), many.max()) >= (0, 990)


# Solvers: where the best denoiser is known, so is what comes out


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_image_in_the_world_is_what_comes_out(solver: Any, prediction: Any) -> None:
    noise, image = cosine_noise(32, prediction=prediction), torch.linspace(-0.9, 0.9, 16).view(1, 1, 4, 4)

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return noise.words(noisy, image.expand_as(noisy), times)

    latents = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = denoise(predict, latents, noise=noise, solver=solver, steps=8)
    assert torch.allclose(drawn, image.expand_as(drawn), atol=0.02)


@pytest.mark.parametrize("solver", ["dpm++", "unipc", "heun"])
def test_few_steps_solve_a_gaussian(solver: Any) -> None:
    # For x ~ N(0, s^2) the best denoiser is linear, and the equation carries a number n of the noise to s n.
    noise, spread = cosine_noise(32), 0.3

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        alpha, sigma = noise.scales(times)
        return noise.words(noisy, alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * noisy, times)

    latents = torch.linspace(-2, 2, 16).view(1, 1, 4, 4)
    drawn = denoise(predict, latents, noise=noise, solver=solver, steps=20)
    assert (drawn - spread * latents).abs().max() < 0.02
    slow = denoise(predict, latents, noise=noise, solver="ddim", steps=20)
    assert (drawn - spread * latents).abs().max() < (slow - spread * latents).abs().max()


@pytest.mark.parametrize(("strength", "asked"), [(1.0, 10), (0.5, 5), (0.39, 3), (0.05, 1)])
def test_strength_is_the_share_of_the_steps(strength: float, asked: int) -> None:
    noise, seen = cosine_noise(32), []

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.append(int(times[0]))
        return noise.words(noisy, torch.zeros_like(noisy), times)

    start = torch.full((1, 1, 4, 4), 0.5)
    denoise(predict, torch.zeros(1, 1, 4, 4), noise=noise, solver="dpm++", steps=10, start=start, strength=strength)
    assert len(seen) == asked
    assert seen[0] == 100 * asked - 1


def test_heun_asks_twice_a_step_and_begins_where_the_others_do() -> None:
    noise, seen = cosine_noise(32), []

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.append(int(times[0]))
        return noise.words(noisy, torch.zeros_like(noisy), times)

    start = torch.full((1, 1, 4, 4), 0.5)
    denoise(predict, torch.zeros(1, 1, 4, 4), noise=noise, solver="heun", steps=10, start=start, strength=0.5)
    assert seen[0] == 499
    assert len(seen) == 2 * 5 - 1, "but once in the last"


def gaussian(std: float, noise: Noise) -> Any:
    """Return the exact denoiser of numbers that are spread by `std` around 0."""

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        alpha, sigma = noise.scales(times)
        return noise.words(noisy, alpha * std**2 / (alpha**2 * std**2 + sigma**2) * noisy, times)

    return predict


@pytest.mark.parametrize("solver", BY_RATIO)
@pytest.mark.parametrize("std", [0.02, 0.04, 0.3])
def test_fine_texture_is_drawn_by_steps_that_are_even_by_ratio(solver: Any, std: float) -> None:
    noise, latents = cosine_noise(32), torch.linspace(-2, 2, 9).view(-1, 1, 1, 1)
    drawn = denoise(gaussian(std, noise), latents, noise=noise, solver=solver, steps=20, by_ratio=True)
    assert torch.allclose(drawn / std, latents, atol=0.1), "as spread as the data"
    if std < 0.1:
        even = denoise(gaussian(std, noise), latents, noise=noise, solver=solver, steps=20)
        assert (even.abs() < 0.6 * drawn.abs() + 1e-6).all(), "what steps even in time lose"


@pytest.mark.parametrize("solver", BY_RATIO)
def test_by_ratio_an_image_begins_at_its_strength_s_moment(solver: Any) -> None:
    noise = cosine_noise(32)
    for strength, asked in ((0.25, 9), (0.5, 11), (1.0, 20)):
        seen: list[int] = []

        def predict(noisy: torch.Tensor, times: torch.Tensor, seen: list[int] = seen) -> torch.Tensor:
            seen.append(int(times[0]))
            return noise.words(noisy, torch.zeros_like(noisy), times)

        start = torch.full((1, 1, 4, 4), 0.5)
        latents = torch.zeros(1, 1, 4, 4)
        denoise(predict, latents, noise=noise, solver=solver, steps=20, start=start, strength=strength, by_ratio=True)
        assert abs(seen[0] - (1000 * strength - 1)) <= 1
        assert seen == sorted(seen, reverse=True)
        assert len(seen) == (2 * asked - 1 if solver == "heun" else asked)


def test_ddpm_s_noise_on_the_way_is_each_image_s_own() -> None:
    noise, latents = cosine_noise(32), torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    predict = gaussian(0.3, noise)
    whole = denoise(predict, latents, noise=noise, solver="ddpm", steps=20)
    parts = [denoise(predict, some, noise=noise, solver="ddpm", steps=20) for some in latents.split(2)]
    assert torch.equal(whole, torch.cat(parts)), "in whatever batch it is drawn"
    alike = torch.corrcoef(whole.flatten(1)) - torch.eye(6)
    assert float(alike.abs().max()) < 0.8, "images that begin differently end differently"


@pytest.mark.parametrize("solver", SOLVERS)
def test_little_noise_changes_little(solver: Any) -> None:
    noise = cosine_noise(32)

    def nothing(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        # As if all there is besides the image were noise: the best guess of one who knows the image.
        return noise.words(noisy, start, times)

    start = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.5
    latents = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    drawn = denoise(nothing, latents, noise=noise, solver=solver, steps=20, start=start, strength=0.3)
    assert (drawn - start).abs().max() < 0.03


def test_guidance_by_hand() -> None:
    asked: list[int] = []

    def predict(noisy: torch.Tensor, times: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        asked.append(len(noisy))
        return condition.view(-1, 1, 1, 1).expand_as(noisy).float()

    noisy, times = torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.int64)
    condition, nothing = torch.tensor([3, 5]), torch.tensor([1, 1])
    for scale, expected in ((0.0, [1, 1]), (1.0, [3, 5]), (2.0, [5, 9])):
        found = guided(predict, condition, nothing, guidance_scale=scale)(noisy, times)
        assert found.flatten().tolist() == expected
    assert asked == [4, 2, 4], "asked once where nothing is pushed"


def test_images_stay_within_their_range() -> None:
    noise, times = cosine_noise(32), torch.tensor([300])
    noisy = torch.tensor([[[[0.4]]]])
    said = noise.words(noisy, torch.tensor([[[[7.0]]]]), times)
    found = clipped(lambda x, t: said, noise)(noisy, times)
    assert noise.clean(noisy, found, times).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"solver": "euler"}, "expected one of dpm"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"strength": 1.1}, "at most 1"),
    ],
)
def test_drawing_out_of_range(wrong: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"solver": "dpm++", "num_inference_steps": 5, "guidance_scale": 1.0, "strength": 1.0}
    check_drawing(**good)
    with pytest.raises(ConfigError, match=words):
        check_drawing(**{**good, **wrong})


def test_groups_divide_the_width() -> None:
    for width in range(8, 257, 8):
        assert width % groups_of(width) == 0


# Conditional augmentation


def labels(**values: float) -> Changed:
    names = ["flipped", "down", "cos", "sin", "size", "right", "lower", "brightness", "contrast"]
    spread = [1.0, 1.0, 1.0, 1.0, *SPREAD]
    return Changed(labels=torch.tensor([[values.get(name, 0.0) / s for name, s in zip(names, spread, strict=True)]]))


def test_changes_of_an_image_by_hand() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4) / 8 - 1
    assert torch.equal(apply_changed(images, labels()), images)
    assert torch.allclose(apply_changed(images, labels(flipped=1.0)), images.flip(3), atol=1e-6)
    assert torch.allclose(apply_changed(images, labels(down=1.0)), images.flip(2), atol=1e-6)
    assert torch.allclose(apply_changed(images, labels(cos=-2.0)), images.flip(2, 3), atol=1e-5)
    moved = apply_changed(images, labels(right=0.25))
    assert torch.allclose(moved[..., 1:], images[..., :-1], atol=1e-6), "a pixel of four to the right"
    lower = apply_changed(images, labels(lower=0.25))
    assert torch.allclose(lower[..., 1:, :], images[..., :-1, :], atol=1e-6)
    assert torch.allclose(apply_changed(images, labels(brightness=0.1, contrast=1.0)), images * 2 + 0.1)


def test_a_larger_image_shows_less() -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[..., 2:6, 2:6] = 1
    larger = apply_changed(images, labels(size=1.0))
    assert larger.mean() > 0.8, "the square fills it"


def test_the_share_that_is_changed() -> None:
    drawn = draw_changed(4000, share=0.2, rng=np.random.default_rng(0)).labels
    assert drawn.shape == (4000, LABELS)
    changed = (drawn != 0).float().mean(dim=0)
    # A flip of the two ways that there are is half of the time none.
    assert changed[:2].tolist() == pytest.approx([0.1, 0.1], abs=0.02)
    assert changed[2:].tolist() == pytest.approx([0.2] * 7, abs=0.025)
    assert torch.allclose((drawn[:, 2] + 1) ** 2 + drawn[:, 3] ** 2, torch.ones(4000), atol=1e-5)
    heard = drawn[:, 4:]
    assert [float(part[part != 0].std()) for part in heard.T] == pytest.approx([1.0] * 5, abs=0.1), "as loud as a flip"
    still = draw_changed(5, share=0.0, rng=np.random.default_rng(0)).labels
    assert not still.any()
    assert math.isclose(float(still.sum()), 0.0)
