"""Mixing inside networks: what a module puts out is mixed, however it is laid out, and nothing stays behind."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.features import find_module, forward_mixed, mixed_inside
from raremix.core.features import output_of as features_up_to
from raremix.core.random import rng
from raremix.core.types import Batch, MixPlan
from raremix.mix import CutMix, MixUp

NETWORKS: dict[str, dict[str, object]] = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2},
    "swin_tiny_patch4_window7_224": {
        "img_size": 32,
        "window_size": 2,
        "depths": (1, 1),
        "embed_dim": 16,
        "num_heads": (2, 2),
    },
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)},
    "mobilenetv3_small_050": {},
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=3, **NETWORKS[name]).eval()


def batch_of(rows: int, *, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.rand(rows, 3, 32, 32, generator=generator), targets=torch.rand(rows, 3, generator=generator)
    )


def output_of(model: nn.Module, module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    model(images)
    handle.remove()
    return kept[0]


def go_on_from(model: nn.Module, module: nn.Module, output: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Run the network with the module's output replaced."""
    handle = module.register_forward_hook(lambda *_: output)
    logits = model(images)
    handle.remove()
    return logits


def mixed_by_hand(output: torch.Tensor, partner: torch.Tensor, plan: MixPlan, *, is_last: bool) -> torch.Tensor:
    """Mix maps, channels last or first, or tokens after any number of class tokens, by a mask of 4 x 4."""
    assert isinstance(plan.mask, torch.Tensor)
    mask = plan.mask
    if output.ndim == 3:
        side = int((output.shape[1]) ** 0.5)
        grid = nn.functional.interpolate(mask, size=(side, side), mode="area").reshape(len(mask), -1, 1)
        first = mask.mean(dim=(1, 2, 3)).reshape(-1, 1, 1).expand(-1, output.shape[1] - side**2, 1)
        share = torch.cat([first, grid], dim=1)
    elif is_last:
        share = nn.functional.interpolate(mask, size=output.shape[1:3], mode="area").permute(0, 2, 3, 1)
    else:
        share = nn.functional.interpolate(mask, size=output.shape[2:], mode="area")
    return share * output + (1 - share) * partner


@torch.no_grad()
def test_a_convolution_inside_a_network_of_channels_last() -> None:
    """Swin works on (B, H, W, C), but the convolution in its stem does not."""
    model, batch = network("swin_tiny_patch4_window7_224"), batch_of(2)
    at = "patch_embed.proj"
    assert features_up_to(model, at, batch.images).shape == (2, 16, 8, 8)
    plan = MixPlan(
        own=torch.arange(2), partner=torch.tensor([1, 0]), mask=torch.rand(2, 1, 4, 4), weight=torch.ones(2), at=at
    )
    output = output_of(model, find_module(model, at), batch.images)
    mixed = mixed_by_hand(output, output[plan.partner], plan, is_last=False)
    logits, _ = forward_mixed(model, batch, plan)
    torch.testing.assert_close(logits, go_on_from(model, find_module(model, at), mixed, batch.images))


@pytest.mark.parametrize("at", ["stem", "stage1", "stage2"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_mixed_pass_is_that_of_features_mixed_by_hand(name: str, at: str) -> None:
    model, batch = network(name), batch_of(4)
    module = find_module(model, at)
    plan = MixPlan(
        own=torch.arange(4),
        partner=torch.tensor([2, 3, 1, 3]),
        mask=torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1)),
        weight=torch.tensor([0.3, 0.5, 1.0, 0.0]),
        at=at,
    )
    logits, targets = forward_mixed(model, batch, plan)
    output = output_of(model, module, batch.images)
    mixed = mixed_by_hand(output, output[plan.partner], plan, is_last=name.startswith("swin"))
    torch.testing.assert_close(logits, go_on_from(model, module, mixed, batch.images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits, model(batch.images), atol=1e-3)
    torch.testing.assert_close(targets, plan.apply(batch).targets)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_partners_may_come_from_a_pool(name: str) -> None:
    """The pool goes through the network beside the batch; own rows come from the one, partners from the other."""
    model, batch, pool = network(name), batch_of(3), batch_of(5, seed=1)
    module = find_module(model, "stage1")
    plan = MixPlan(
        own=torch.tensor([2, 0]),
        partner=torch.tensor([4, 1]),
        mask=torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1)),
        weight=torch.tensor([0.3, 0.5]),
        at="stage1",
    )
    logits, targets = forward_mixed(model, batch, plan, pool)
    own, partner = (output_of(model, module, b.images)[rows] for b, rows in ((batch, plan.own), (pool, plan.partner)))
    mixed = mixed_by_hand(own, partner, plan, is_last=name.startswith("swin"))
    expected = go_on_from(model, module, mixed, batch.images[:2])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(targets, plan.apply(batch, pool).targets)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_nothing_stays_behind(name: str) -> None:
    model, batch = network(name), batch_of(4)
    plan = replace(MixUp(alpha=1.0).plan(batch, batch, rng=rng(0, "mix")), at="stage1")
    before = model(batch.images)
    forward_mixed(model, batch, plan)
    assert torch.equal(model(batch.images), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_hook_goes_even_after_an_exception() -> None:
    model, batch = nn.Sequential(nn.Identity(), nn.Linear(7, 2)), batch_of(2)
    plan = replace(MixUp().plan(batch, batch, rng=rng(0, "mix")), at="0")
    with pytest.raises(RuntimeError):
        forward_mixed(model, batch, plan)  # images of 32 columns do not fit the linear layer
    with pytest.raises(ValueError, match="stop"), mixed_inside(model, plan, rows=2):
        raise ValueError("stop")
    assert not any(module._forward_hooks for module in model.modules())


def test_without_a_module_images_are_mixed() -> None:
    model, batch = nn.Flatten(), batch_of(4)
    plan = CutMix().plan(batch, batch, rng=rng(0, "mix"))
    images, targets = forward_mixed(model, batch, plan)
    expected = plan.apply(batch)
    assert torch.equal(images, expected.images.flatten(1))
    assert torch.equal(targets, expected.targets)


def test_gradients_go_to_both_images() -> None:
    model = network("resnet18")
    images = batch_of(2).images.requires_grad_()
    batch = Batch(images=images, targets=torch.eye(2))
    half = torch.full((1,), 0.5)
    plan = MixPlan(
        own=torch.tensor([0]), partner=torch.tensor([1]), mask=half.reshape(1, 1, 1, 1), weight=half, at="stage1"
    )
    logits, _ = forward_mixed(model, batch, plan)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert bool((gradient.abs().sum(dim=(1, 2, 3)) > 0).all())


def test_names_that_no_module_has() -> None:
    model = network("resnet18")
    with pytest.raises(UnknownNameError, match="did you mean 'layer1'"):
        find_module(model, "layr1")
    with pytest.raises(UnknownNameError, match="unknown module"):
        find_module(model, "")
    with pytest.raises(ConfigError, match="has 4 stages"):
        find_module(model, "stage5")
    with pytest.raises(ConfigError, match="stage0"):
        find_module(model, "stage0")
    with pytest.raises(ConfigError, match='no part called "stem"'):
        find_module(nn.Sequential(nn.Linear(2, 2)), "stem")


def test_networks_inside_others_are_found() -> None:
    inner = network("resnet18")
    wrapped = nn.ModuleDict({"network": inner, "head": nn.Linear(3, 2)})
    assert find_module(wrapped, "stage2") is inner.get_submodule("layer2")
    assert find_module(wrapped, "stem") is inner.get_submodule("maxpool")
