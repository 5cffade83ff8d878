"""ResNets for small images: a 3 x 3 stem instead of 7 x 7 with stride 2 and pooling.

At 28 px the ImageNet stem leaves 7 x 7 positions before the first block. The CIFAR form of He et al. 2016 (section 4.2,
https://arxiv.org/abs/1512.03385) keeps them: a 3 x 3 convolution of stride 1 and no pooling. The networks are
registered with timm as `<name>_stem1` (stride 1, for up to 32 px) and `<name>_stem2` (stride 2, for up to 64 px), so
that a saved classifier is an ordinary timm folder once raremix is imported.
"""

from collections.abc import Callable
from typing import Any

import timm
from timm.models import register_model
from torch import nn

SMALL_STEM_BASES = ("resnet10t", "resnet14t", "resnet18", "resnet26", "resnet34", "resnet50")
"""Networks of timm that have a small-image form here."""

__all__ = ["SMALL_STEM_BASES", "small_stem_name"]


def small_stem_name(base: str, *, size: int) -> str | None:
    """Return the name of a network's form for an image side in pixels, or None where it has none or needs none.

    Example:
        >>> small_stem_name("resnet18", size=28), small_stem_name("resnet18", size=224)
        ('resnet18_stem1', None)
    """
    if base not in SMALL_STEM_BASES or size > 64:
        return None
    return f"{base}_stem{1 if size <= 32 else 2}"


def _with_small_stem(base: str, stride: int, arguments: dict[str, Any]) -> nn.Module:
    arguments = {
        key: value for key, value in arguments.items() if not key.startswith("pretrained") and key != "cache_dir"
    }
    net: Any = timm.create_model(base, pretrained=False, **arguments)
    old = net.conv1
    if isinstance(old, nn.Sequential):
        first: Any = old[0]
        first.stride = (stride, stride)
    else:
        net.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net


def _entry(base: str, stride: int) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        net = _with_small_stem(base, stride, arguments)
        config = dict(arguments.get("pretrained_cfg") or {})
        if pretrained:
            timm.models.load_pretrained(
                net,
                pretrained_cfg=config,
                num_classes=arguments.get("num_classes", 1000),
                in_chans=arguments.get("in_chans", 3),
            )
        return net

    build.__name__ = f"{base}_stem{stride}"
    build.__doc__ = f"Build {base} with a 3 x 3 stem of stride {stride} and no pooling."
    return build


for _base in SMALL_STEM_BASES:
    for _stride in (1, 2):
        register_model(_entry(_base, _stride))
