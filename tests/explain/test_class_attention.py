"""ClassAttention against the attention computed by hand from the block's weights."""

import pytest
import timm
import torch
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.explain import ClassAttention

NONE = torch.zeros(2, 2)


def small_vit(**options: object) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 2}
    return timm.create_model("vit_tiny_patch16_224", **{**sizes, **options})


def expected(network: nn.Module, images: Tensor) -> Tensor:
    """Softmax of query times key for the class token, mean over heads, by the block's own weights."""
    block = network.blocks[-1]
    tokens: list[Tensor] = []
    handle = block.norm1.register_forward_hook(lambda _m, _i, output: tokens.append(output))
    with torch.no_grad():
        network.eval()(images)
        handle.remove()
        (x,) = tokens
        query, key, _ = block.attn.qkv(x).unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        weights = (query[:, :, :1] @ key.transpose(2, 3) / 8**0.5).softmax(dim=-1).mean(dim=1)[:, 0]
    patches = weights[:, network.num_prefix_tokens :]
    return (patches / patches.amax(dim=1, keepdim=True)).reshape(len(images), 1, 4, -1)


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 3}, {"img_size": (32, 48)}])
def test_is_the_last_blocks_attention(options: dict) -> None:
    network = small_vit(**options)
    images = torch.rand(2, 3, *((32, 48) if "img_size" in options else (32, 32)))
    torch.testing.assert_close(ClassAttention(model=network)(images, NONE), expected(network, images))


def test_the_network_is_left_as_it_was() -> None:
    network = small_vit().train()
    attention = network.blocks[-1].attn
    attention.fused_attn = True
    network.head.eval()
    images = torch.rand(2, 3, 32, 32)
    ClassAttention(model=network)(images, NONE)
    with pytest.raises(Exception, match=r"."):
        ClassAttention(model=network)(torch.rand(2, 5, 32, 32), NONE)
    assert attention.fused_attn
    assert not attention.attn_drop._forward_pre_hooks
    assert network.training
    assert not network.head.training
    assert all(p.grad is None for p in network.parameters())


def test_works_inside_what_wraps_a_network() -> None:
    network, images = small_vit(), torch.rand(2, 3, 32, 32)
    wrapped = nn.Sequential(nn.Identity(), network)
    assert torch.equal(ClassAttention(model=wrapped)(images, NONE), ClassAttention(model=network)(images, NONE))


def test_refuses_networks_without_a_class_token() -> None:
    for network in (small_vit(class_token=False, global_pool="avg"), timm.create_model("resnet18"), nn.Flatten()):
        with pytest.raises(ConfigError, match="class token"):
            ClassAttention(model=network)
