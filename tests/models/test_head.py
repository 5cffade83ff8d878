"""What a classifier starts with: a last layer whose first logits are moderate, whatever network it belongs to."""

import math

import pytest
import timm
import torch
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.core.features import head_of
from raremix.core.random import torch_seed
from raremix.models import ClassifierSpec, HeadSpec, tame_head
from raremix.models.head import start_head

LOUD = ["mobilenetv2_100", "mobilenetv3_small_050", "tf_efficientnet_lite0", "mnasnet_small"]
CALM = ["resnet10t", "convnext_atto", "vit_tiny_patch16_224"]


def first_loss(net: nn.Module, classes: int, *, size: int = 64) -> float:
    """Cross-entropy of a network that has seen nothing, in training mode, as the first step of a fit has it."""
    images = torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float(nn.functional.cross_entropy(net.train()(images), torch.arange(16) % classes))


@pytest.mark.parametrize("classes", [2, 7, 14])
@pytest.mark.parametrize("name", LOUD)
def test_the_first_loss_is_that_of_knowing_nothing(name: str, classes: int) -> None:
    net = ClassifierSpec(name=name).build(num_classes=classes, channels=3, size=64, seed=0).net
    assert abs(first_loss(net, classes) - math.log(classes)) < 0.7


@pytest.mark.parametrize("name", LOUD)
def test_timm_alone_starts_loud(name: str) -> None:
    """If this fails, timm has mended it: `tame_head` may go."""
    torch.manual_seed(0)
    weight = head_of(timm.create_model(name, num_classes=2)).weight
    assert isinstance(weight, Tensor)
    assert float(weight.detach().std()) * weight.shape[1] ** 0.5 > 10


def test_rescued_from_a_loud_start() -> None:
    torch.manual_seed(0)
    assert first_loss(timm.create_model("tf_efficientnet_lite0", num_classes=2), 2) > 2


def test_inception_is_as_loud() -> None:
    net = ClassifierSpec(name="inception_v3").build(num_classes=2, channels=1, size=75, seed=0).net
    assert float(net.fc.weight.detach().abs().max()) <= 2048**-0.5


@pytest.mark.parametrize("name", CALM)
def test_other_networks_keep_their_initial_weights(name: str) -> None:
    options = {"img_size": 64} if "vit" in name else {}
    spec = ClassifierSpec(name=name, stem="standard", options=options)
    ours = spec.build(num_classes=2, channels=3, size=64, seed=5).net.state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(5, "init"))
        theirs = timm.create_model(name, num_classes=2, **options).state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_of_the_loud_ones_only_the_last_layer_changes() -> None:
    ours = ClassifierSpec(name="mobilenetv2_100").build(num_classes=2, channels=3, size=32, seed=5).net.state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(5, "init"))
        theirs = timm.create_model("mobilenetv2_100", num_classes=2).state_dict()
    assert {key for key, value in theirs.items() if not torch.equal(ours[key], value)} == {"classifier.weight"}


def test_same_seed_same_last_layer() -> None:
    first, again, other = (
        ClassifierSpec(name="mobilenetv2_100")
        .build(num_classes=2, channels=3, size=32, seed=seed)
        .net.classifier.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_layer_at_the_limit_is_left_alone() -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    nn.init.constant_(net[0].weight, 0.5)  # mean square x features = 1
    tame_head(net)
    assert bool((net[0].weight == 0.5).all())


def test_networks_without_a_single_last_layer_are_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    before = net[0].weight.detach().clone()
    tame_head(net)
    assert torch.equal(net[0].weight, before)


def test_a_last_layer_without_a_bias() -> None:
    net = nn.Sequential(nn.Linear(64, 2, bias=False))
    nn.init.normal_(net[0].weight)
    tame_head(net)
    assert float(net[0].weight.detach().abs().max()) <= 1 / 8


def test_zeros_where_they_are_asked_for() -> None:
    spec = ClassifierSpec(name="mobilenetv2_100", head=HeadSpec(zeros=True))
    net = spec.build(num_classes=3, channels=3, size=32, seed=0).net
    assert not any(bool(parameter.any()) for parameter in head_of(net).parameters())
    assert first_loss(net, 3) == pytest.approx(math.log(3))
    with pytest.raises(ConfigError, match='only name = "linear" can begin with zeros'):
        HeadSpec(name="cosine", zeros=True).check()
    with pytest.raises(ConfigError, match="zeros are for a linear last layer, and this one is a Conv2d"):
        start_head(_with_a_convolution(), zeros=True)


def _with_a_convolution() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 2, 1))
    net.get_classifier = lambda: net[0]  # pyright: ignore[reportAttributeAccessIssue]
    return net
