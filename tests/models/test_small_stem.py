import pytest
import timm
import torch
from torch import nn

from raremix.models.small_stem import SMALL_STEM_BASES, small_stem_name


@pytest.mark.parametrize(
    ("base", "size", "expected"),
    [
        ("resnet18", 28, "resnet18_stem1"),
        ("resnet18", 32, "resnet18_stem1"),
        ("resnet18", 33, "resnet18_stem2"),
        ("resnet50", 64, "resnet50_stem2"),
        ("resnet18", 65, None),
        ("vit_small_patch16_224", 28, None),
    ],
)
def test_which_stem(base: str, size: int, expected: str | None) -> None:
    assert small_stem_name(base, size=size) == expected


@pytest.mark.parametrize("base", SMALL_STEM_BASES)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_form_is_registered_and_keeps_positions(base: str, stride: int) -> None:
    if base == "resnet50" and stride == 2:
        pytest.skip("the largest one once is enough")
    net = timm.create_model(f"{base}_stem{stride}", num_classes=3, in_chans=2)
    assert isinstance(net.maxpool, nn.Identity)
    side = 32 * stride
    with torch.no_grad():
        stem = net.act1(net.bn1(net.conv1(torch.zeros(1, 2, side, side))))
    assert stem.shape[-2:] == (32, 32)
    assert net.eval()(torch.zeros(1, 2, side, side)).shape == (1, 3)


def test_the_published_form() -> None:
    """He et al. 2016, section 4.2: a 3 x 3 convolution of stride 1, no pooling; the rest is the network itself."""
    small, plain = timm.create_model("resnet18_stem1"), timm.create_model("resnet18")
    assert (small.conv1.kernel_size, small.conv1.stride, small.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    assert small.conv1.bias is None
    ours = {name: tuple(value.shape) for name, value in small.state_dict().items() if name != "conv1.weight"}
    theirs = {name: tuple(value.shape) for name, value in plain.state_dict().items() if name != "conv1.weight"}
    assert ours == theirs
    assert sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in plain.parameters()) - 64 * 3 * (49 - 9)
