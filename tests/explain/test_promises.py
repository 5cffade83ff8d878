"""What every registered importance map promises."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from raremix.core.protocols import ImportanceMap
from raremix.explain import IMPORTANCE_MAPS


def net(channels: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 6, 1), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


class AnySize(nn.Module):
    """Brings images to what the transformer takes, so that the promises can be asked at every size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 3}
        self.net = timm.create_model("vit_tiny_patch16_224", in_chans=channels, **sizes)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(nn.functional.interpolate(images, size=(16, 16)))


MAKERS: dict[str, Callable[[int], ImportanceMap]] = {
    "fine_grained": lambda C: IMPORTANCE_MAPS["fine_grained"](),
    "spectral_residual": lambda C: IMPORTANCE_MAPS["spectral_residual"](),
    "gradcam": lambda C: IMPORTANCE_MAPS["gradcam"](model=net(C), layer="2"),
    "class_attention": lambda C: IMPORTANCE_MAPS["class_attention"](model=AnySize(C)),
    "input_gradient": lambda C: IMPORTANCE_MAPS["input_gradient"](model=net(C)),
    "integrated_gradients": lambda C: IMPORTANCE_MAPS["integrated_gradients"](model=net(C), steps=4),
    "occlusion": lambda C: IMPORTANCE_MAPS["occlusion"](model=net(C), windows=4),
    "difference": lambda C: IMPORTANCE_MAPS["difference"](translator=lambda images, targets, rng: images.square()),
    "function": lambda C: IMPORTANCE_MAPS["function"](function=lambda images, targets: images.mean(dim=1)),
}


def batch(C: int, H: int, W: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    images = torch.rand(5, C, H, W, generator=torch.Generator().manual_seed(1)).to(dtype)
    return images, torch.eye(3)[[0, 1, 2, 1, 0]]


def test_every_map_is_under_promise() -> None:
    assert set(MAKERS) == set(IMPORTANCE_MAPS)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 3), (32, 24)])
@pytest.mark.parametrize("C", [1, 2, 3, 4])
@pytest.mark.parametrize("name", MAKERS)
def test_maps_lie_in_range_at_any_size(name: str, C: int, size: tuple[int, int]) -> None:
    importance = MAKERS[name](C)
    assert isinstance(importance, ImportanceMap)
    maps = importance(*batch(C, *size))
    assert maps.shape[:2] == (5, 1)
    assert maps.isfinite().all()
    assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", MAKERS)
def test_maps_are_computed_in_float32_or_better(name: str, dtype: torch.dtype) -> None:
    images, targets = batch(3, 16, 16, dtype)
    importance = MAKERS[name](3)
    maps = importance(images, targets)
    assert maps.dtype == torch.promote_types(dtype, torch.float32)
    if name != "function":  # which computes in whatever type its function does
        torch.testing.assert_close(maps.float(), importance(images.float(), targets), atol=2e-2, rtol=0)


@pytest.mark.parametrize("name", MAKERS)
def test_rows_do_not_know_each_other(name: str) -> None:
    importance = MAKERS[name](3)
    images, targets = batch(3, 16, 16)
    whole = importance(images, targets)
    rows = torch.tensor([3, 0])
    torch.testing.assert_close(importance(images[rows], targets[rows]), whole[rows], atol=1e-5, rtol=0)
    torch.testing.assert_close(importance(images[:1], targets[:1]), whole[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MAKERS)
def test_inputs_and_global_state_stay(name: str) -> None:
    importance = MAKERS[name](3)
    images, targets = batch(3, 16, 16)
    images.requires_grad_()
    kept, state, dtype = images.detach().clone(), torch.get_rng_state(), torch.get_default_dtype()
    maps = importance(images, targets)
    assert torch.equal(images.detach(), kept)
    assert images.grad is None
    assert not maps.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", MAKERS)
def test_autocast_does_not_make_maps_coarse(name: str) -> None:
    importance = MAKERS[name](3)
    images, targets = batch(3, 16, 16)
    expected = importance(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = importance(images, targets)
    asks_a_network = hasattr(importance, "model")  # which runs as it does everywhere in there
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected, atol=0.1 if asks_a_network else 1e-6, rtol=0)


@pytest.mark.parametrize("name", MAKERS)
def test_works_in_inference_mode(name: str) -> None:
    importance = MAKERS[name](3)
    images, targets = batch(3, 16, 16)
    expected = importance(images, targets)
    with torch.inference_mode():
        torch.testing.assert_close(importance(images.clone(), targets), expected)
