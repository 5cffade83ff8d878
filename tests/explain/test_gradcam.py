"""GradCAM and its family on a network whose maps can be computed by hand."""

import gc
import weakref

import pytest
import timm
import torch
from torch import Tensor, nn

from raremix.core.errors import ConfigError, DataError, UnknownNameError
from raremix.explain import GradCAM
from raremix.explain.gradcam import KINDS, eigencam

ONE = torch.eye(2)[:1]


class TwoFeatures(nn.Module):
    """Features are the image's two channels; class 0: 3 mean(first) - mean(second); class 1: mean(first * second)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        first, second = features[:, 0], features[:, 1]
        logits = [(3 * first - second).mean(dim=(1, 2)), (first * second).mean(dim=(1, 2))]
        return torch.stack(logits, dim=1)


IMAGE = torch.tensor([[[0.2, 0.4], [0.0, 0.8]], [[0.5, 0.0], [1.0, 0.3]]])[None]


def maps(kind: str, targets: Tensor, images: Tensor = IMAGE) -> Tensor:
    return GradCAM(model=TwoFeatures(), layer="features", kind=kind)(images, targets)[0, 0]


@pytest.mark.parametrize("kind", ["gradcam", "hirescam"])
def test_a_linear_class_gives_what_each_place_adds(kind: str) -> None:
    # 3 first - second = .1, 1.2, -1, 2.1 (over 4); the gradient is the same everywhere, so both kinds agree.
    torch.testing.assert_close(maps(kind, ONE), torch.tensor([[0.1, 1.2], [0.0, 2.1]]) / 2.1)


def test_layercam_counts_positive_gradients_place_by_place() -> None:
    torch.testing.assert_close(maps("layercam", ONE), IMAGE[0, 0] / 0.8)
    # Class 1: the gradient by one feature is the other: 2 first second = .2, 0, 0, .48.
    torch.testing.assert_close(maps("layercam", torch.eye(2)[1:]), torch.tensor([[0.2, 0.0], [0.0, 0.48]]) / 0.48)


def test_gradcam_averages_gradients_over_places() -> None:
    # Mean of second = .45, of first = .35: .45 first + .35 second.
    expected = 0.45 * IMAGE[0, 0] + 0.35 * IMAGE[0, 1]
    torch.testing.assert_close(maps("gradcam", torch.eye(2)[1:]), expected / expected.max())


def test_gradcam_plus_plus_by_hand() -> None:
    # Class 0: G = 3/4 and -1/4, which counts for nothing; one weight scales the map of the first feature.
    torch.testing.assert_close(maps("gradcam++", ONE), IMAGE[0, 0] / 0.8)
    # Class 1: G of the first feature is the second over 4, and the other way round.
    weights = []
    for feature, other in ((0, 1), (1, 0)):
        gradient, total = IMAGE[0, other] / 4, IMAGE[0, feature].sum()
        weights.append((gradient / (2 + total * gradient)).sum())
    expected = weights[0] * IMAGE[0, 0] + weights[1] * IMAGE[0, 1]
    torch.testing.assert_close(maps("gradcam++", torch.eye(2)[1:]), expected / expected.max())


@pytest.mark.parametrize("shape", [(3, 4, 5), (30, 2, 3)])
def test_eigencam_is_the_first_principal_direction(shape: tuple[int, int, int]) -> None:
    features = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = eigencam(features, features)
    for image, projected in zip(features, found, strict=True):
        _, _, directions = torch.linalg.svd(image.flatten(1).T, full_matrices=False)
        torch.testing.assert_close(projected.flatten(), (image.flatten(1).T @ directions[0]).abs())


def test_targets_weigh_the_classes_they_ask_about() -> None:
    soft = maps("hirescam", torch.tensor([[0.25, 0.75]]))
    expected = (0.25 * (3 * IMAGE[0, 0] - IMAGE[0, 1]) + 0.75 * 2 * IMAGE[0, 0] * IMAGE[0, 1]).clamp(min=0)
    torch.testing.assert_close(soft, expected / expected.max())
    assert torch.equal(maps("hirescam", torch.tensor([[1.0, float("nan")]])), maps("hirescam", ONE))
    assert maps("hirescam", torch.zeros(1, 2)).count_nonzero() == 0


def test_what_speaks_against_a_class_is_no_evidence() -> None:
    images = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])[None]
    assert maps("gradcam", ONE, images).count_nonzero() == 0


def small_vit(**options: object) -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 2}
    return timm.create_model("vit_tiny_patch16_224", **{**sizes, **options})


def small_swin() -> nn.Module:
    sizes = {"img_size": (32, 64), "patch_size": 4, "embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2)}
    return timm.create_model("swin_tiny_patch4_window7_224", window_size=2, num_classes=2, **sizes)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_transformers_have_maps_of_their_patches(kind: str) -> None:
    targets = torch.eye(2)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert GradCAM(model=small_vit(), kind=kind)(images, targets).shape == (2, 1, 4, 4)
    assert GradCAM(model=small_vit(reg_tokens=4), kind=kind)(images, targets).shape == (2, 1, 4, 4)
    wide = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    assert GradCAM(model=small_swin(), kind=kind)(wide, targets).shape == (2, 1, 4, 8)
    assert GradCAM(model=small_vit(img_size=(32, 64)), kind=kind)(wide, targets).shape == (2, 1, 4, 8)


def test_patches_lie_where_they_are_in_the_image() -> None:
    """A pure patch embedding with mean pooling: the map is bright where the image is."""
    images = torch.zeros(1, 3, 32, 64)
    images[..., 8:16, 48:56] = 1
    for network in (small_vit(img_size=(32, 64), class_token=False, global_pool="avg"), small_swin()):
        found = GradCAM(model=network, layer="patch_embed", kind="eigencam")(images, torch.eye(2)[:1])[0, 0]
        differs = (found - found[-1, 0]).abs()  # a patch of background
        step = 32 // found.shape[0]
        inside = torch.zeros_like(found, dtype=torch.bool)
        inside[8 // step : 16 // step, 48 // step : 56 // step] = True
        assert differs[inside].min() > 1e-4 > differs[~inside].max()


def test_a_vit_is_asked_before_its_patches_stop_to_matter() -> None:
    network = small_vit()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert GradCAM(model=network, kind="layercam")(images, torch.eye(2)).flatten(1).amax(dim=1).tolist() == [1, 1]
    assert GradCAM(model=network, kind="layercam", layer="blocks.2")(images, torch.eye(2)).count_nonzero() == 0


def batch_norm_net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def everything(network: nn.Module) -> list[object]:
    parameters = [
        (p.requires_grad, p.grad if p.grad is None else p.grad.clone(), p.detach().clone())
        for p in network.parameters()
    ]
    modes = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    return [str(parameters), str([b.clone() for b in network.buffers()]), modes, torch.get_rng_state().tolist()]


@pytest.mark.parametrize("layer", ["0", "1", "2"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_network_is_left_as_it_was(kind: str, layer: str) -> None:
    network = batch_norm_net()
    network[1].eval()  # modules in different modes are put back each
    network[0].weight.requires_grad_(False)
    network[6].weight.grad = torch.ones(2, 4)
    before = everything(network)
    images = torch.rand(4, 3, 8, 8)
    before[-1] = torch.get_rng_state().tolist()
    GradCAM(model=network, layer=layer, kind=kind)(images, torch.eye(2)[[0, 1, 0, 1]])
    assert everything(network) == before
    assert torch.is_grad_enabled()


def test_the_network_is_left_as_it_was_when_it_fails() -> None:
    network = batch_norm_net()
    before = everything(network)
    with pytest.raises(DataError, match="targets have shape"):
        GradCAM(model=network, layer="0")(torch.rand(1, 3, 8, 8), torch.eye(3)[:1])
    with pytest.raises(RuntimeError):
        GradCAM(model=network, layer="0")(torch.rand(1, 5, 8, 8), ONE)
    assert everything(network)[:3] == before[:3]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_tensor_outlives_the_call(kind: str) -> None:
    network, seen = batch_norm_net(), []
    for module in network:
        module.register_forward_hook(lambda _m, _i, output: seen.append(weakref.ref(output)))
    gc.collect()
    gc.disable()  # freed by counting references, not some time later
    try:
        found = GradCAM(model=network, layer="1", kind=kind)(torch.rand(4, 3, 8, 8), torch.eye(2)[[0, 1, 0, 1]])
        assert len(seen) == len(network)
        assert all(reference() is None for reference in seen)
    finally:
        gc.enable()
    assert not found.requires_grad
    assert found.grad_fn is None


def test_what_goes_on_around_does_not_matter() -> None:
    cam, images = GradCAM(model=batch_norm_net(), layer="0"), torch.rand(4, 3, 8, 8)
    targets = torch.eye(2)[[0, 1, 0, 1]]
    expected = cam(images, targets)
    with torch.no_grad():
        assert torch.equal(cam(images, targets), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert torch.equal(cam(images.clone(), targets.clone()), expected)
        assert torch.is_inference_mode_enabled()
    asked = images.clone().requires_grad_()
    assert torch.equal(cam(asked, targets), expected)
    assert asked.grad is None


def test_a_training_step_in_the_same_autocast_keeps_its_gradients() -> None:
    network = batch_norm_net()
    images, targets = torch.rand(4, 3, 8, 8), torch.eye(2)[[0, 1, 0, 1]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for kind in KINDS:
            GradCAM(model=network, layer="1", kind=kind)(images, targets)
        network(images).float().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_says_which_layer_cannot_be_looked_at() -> None:
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(ConfigError, match="pass layer="):
        GradCAM(model=batch_norm_net())
    with pytest.raises(UnknownNameError):
        GradCAM(model=batch_norm_net(), layer="7")
    with pytest.raises(UnknownNameError, match="did you mean 'layercam'"):
        GradCAM(model=batch_norm_net(), layer="0", kind="layrcam")
    with pytest.raises(ConfigError, match="not a map"):
        GradCAM(model=batch_norm_net(), layer="5")(images, ONE)
    network = batch_norm_net()
    network[0].extra = nn.Identity()
    with pytest.raises(ConfigError, match="was not run"):
        GradCAM(model=network, layer="0.extra")(images, ONE)
