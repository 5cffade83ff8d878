"""Any timm network as a classifier: stems, channels, local weights, the folder that timm loads."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError, ManifestError, ReadError, UnknownNameError
from raremix.core.features import head_of
from raremix.core.random import torch_seed
from raremix.models import Classifier, ClassifierCard, ClassifierSpec, HeadSpec, load_classifier, save_classifier


def card(size: int, channels: int) -> ClassifierCard:
    return ClassifierCard(
        task="multiclass",
        classes=("a", "b", "c"),
        size=size,
        channels=channels,
        bits=8,
        resize="pad",
        thresholds=(0.5, 0.5, 0.5),
        temperature=1.5,
        modality="other",
        manifest_hash="0" * 32,
        training={},
    )


def saved(spec: ClassifierSpec, folder: Path, *, size: int, channels: int) -> tuple[Classifier, Path]:
    model = spec.build(num_classes=3, channels=channels, size=size, seed=1).eval()
    path = save_classifier(
        folder,
        architecture=spec.architecture(size=size),
        weights=dict(model.net.state_dict()),
        mean=model.mean,
        std=model.std,
        options=spec.arguments(size=size),
        card=card(size, channels),
    )
    return model, path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_one_to_four_channels(channels: int) -> None:
    model = ClassifierSpec(name="resnet10t").build(num_classes=3, channels=channels, size=28, seed=0)
    assert model(torch.rand(2, channels, 28, 28)).shape == (2, 3)


def test_same_seed_same_weights_and_no_global_state() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (
        ClassifierSpec(name="resnet10t").build(num_classes=3, channels=1, size=28, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.net.layer1[0].conv1.weight, other.net.layer1[0].conv1.weight)


def test_normalisation_is_inside() -> None:
    spec = ClassifierSpec(name="resnet10t", mean=(0.2,), std=(0.5,))
    model = spec.build(num_classes=3, channels=1, size=28, seed=0).eval()
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(model(images), model.net((images - 0.2) / 0.5))


@pytest.mark.parametrize(
    ("size", "name", "side"), [(28, "resnet18_stem1", 28), (64, "resnet18_stem2", 32), (96, "resnet18", 24)]
)
def test_the_stem_fits_the_size(size: int, name: str, side: int) -> None:
    spec = ClassifierSpec(name="resnet18")
    assert spec.architecture(size=size) == name
    net = spec.build(num_classes=3, channels=3, size=size, seed=0).net
    features = net.maxpool(net.act1(net.bn1(net.conv1(torch.rand(1, 3, size, size)))))
    assert features.shape[-1] == side


def test_weights_keep_the_imagenet_stem() -> None:
    assert ClassifierSpec(name="resnet18", pretrained=True).architecture(size=28) == "resnet18"
    with pytest.raises(ConfigError, match="stem"):
        ClassifierSpec(name="resnet18", pretrained=True, stem="small").architecture(size=28)
    with pytest.raises(ConfigError, match="resnet18"):
        ClassifierSpec(name="convnext_atto", stem="small").architecture(size=28)


def test_local_weights_are_fitted_to_channels_and_classes(tmp_path: Path) -> None:
    source = timm.create_model("resnet10t", num_classes=10)
    path = files.write_tensors(tmp_path / "weights.safetensors", source.state_dict())
    spec = ClassifierSpec(name="resnet10t", weights=path)
    model = spec.build(num_classes=3, channels=1, size=64, seed=0)
    torch.testing.assert_close(model.net.layer2[0].conv1.weight, source.layer2[0].conv1.weight)
    torch.testing.assert_close(model.net.conv1[0].weight, source.conv1[0].weight.sum(dim=1, keepdim=True))
    assert model.net.fc.weight.shape == (3, 512)


def test_weights_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    other = timm.create_model("mobilenetv3_small_050", num_classes=2)
    path = files.write_tensors(tmp_path / "other.safetensors", other.state_dict())
    for weights, words in (
        (path, "does not fit resnet10t"),
        (tmp_path / "missing.safetensors", "no such file"),
        (tmp_path / "model.pth", "safetensors"),
    ):
        with pytest.raises(ReadError, match=words):
            ClassifierSpec(name="resnet10t", weights=weights).build(num_classes=3, channels=3, size=64, seed=0)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ReadError, match="whole safetensors"):
        ClassifierSpec(name="resnet10t", weights=path).build(num_classes=3, channels=3, size=64, seed=0)


@pytest.mark.parametrize("left_out", ["module.", "layer3."])
def test_weights_that_timm_would_leave_out_are_named(tmp_path: Path, left_out: str) -> None:
    """With another number of classes timm loads whatever fits, and says nothing of what does not."""
    source = timm.create_model("resnet10t", num_classes=10).state_dict()
    if left_out == "module.":
        wrong = {left_out + name: value for name, value in source.items()}
        words = r"lacks 1\d of 1\d layers of the network \(conv1"
    else:
        wrong = {name: value for name, value in source.items() if not name.startswith(left_out)}
        words = r"lacks 3 of 1\d layers of the network \(layer3.0.conv1.weight, "
    spec = ClassifierSpec(name="resnet10t", weights=files.write_tensors(tmp_path / "w.safetensors", wrong))
    with pytest.raises(ReadError, match=words):
        spec.build(num_classes=3, channels=1, size=64, seed=0)


def test_what_weights_are_looked_through_for_leaves_the_initial_values_alone(tmp_path: Path) -> None:
    source = timm.create_model("resnet10t", num_classes=10)
    path = files.write_tensors(tmp_path / "weights.safetensors", source.state_dict())
    spec = ClassifierSpec(name="resnet10t", weights=path, head=HeadSpec(name="cosine"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(0, "init"))
        timm.create_model("resnet10t", num_classes=3)
        expected = HeadSpec(name="cosine").build(512, 3)
    built = spec.build(num_classes=3, channels=3, size=64, seed=0)
    torch.testing.assert_close(head_of(built.net).state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_vision_transformer_takes_the_size_of_the_images(tmp_path: Path) -> None:
    spec = ClassifierSpec(name="vit_tiny_patch16_224", options={"patch_size": 8, "depth": 1})
    model, folder = saved(spec, tmp_path / "vit", size=48, channels=1)
    images = torch.rand(2, 1, 48, 48)
    again, _ = load_classifier(folder)
    assert torch.equal(again.eval()(images), model(images))
    assert spec.arguments(size=48) == {"img_size": 48, "patch_size": 8, "depth": 1}
    assert ClassifierSpec(name="vit_tiny_patch16_224", options={"img_size": 64}).arguments(size=48) == {"img_size": 64}
    assert ClassifierSpec().arguments(size=48) == {}
    with pytest.raises(ConfigError, match=r"patches of 8 pixels, and 44 px .* data\.size = 40"):
        spec.build(num_classes=3, channels=1, size=44, seed=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pvt_v2_b0", {}),
        ("vit_tiny_patch16_224", {"patch_size": 8, "depth": 1, "dynamic_img_pad": True, "dynamic_img_size": True}),
    ],
)
def test_patches_that_overlap_or_are_padded_take_any_size(name: str, options: dict[str, Any]) -> None:
    model = ClassifierSpec(name=name, options=options).build(num_classes=3, channels=1, size=44, seed=0).eval()
    assert model(torch.rand(1, 1, 44, 44)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vit_tiny_patch16_224", {"depth": 1, "dynamic_img_size": True}, r"patches of 16 .* 44 px .* data\.size = 32"),
        ("vit_tiny_patch16_224", {"depth": 1, "dynamic_img_pad": True}, r"patches of 16 .* 44 px .* data\.size = 32"),
        ("xcit_nano_12_p16_224", {}, "xcit_nano_12_p16_224 does not take images of 44 px, or its options: .*divide"),
    ],
)
def test_patches_that_do_not_divide_the_image_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ClassifierSpec(name=name, options=options).build(num_classes=3, channels=1, size=44, seed=0)


@pytest.mark.parametrize(
    ("name", "options", "size", "words"),
    [
        ("inception_v3", {}, 64, "inception_v3 does not take images of 64 px with these options: .*; set data.size"),
        ("crossvit_tiny_240", {}, 50, "crossvit_tiny_240 does not take images of 50 px"),
        ("vgg16_bn", {"window": 1}, 32, "does not take these options: .*window"),
        ("resnet10t", {"features_only": True}, 32, "resnet10t.* with these options returns no logits"),
    ],
)
def test_a_network_is_tried_on_an_image(name: str, options: dict[str, Any], size: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ClassifierSpec(name=name, options=options).try_on(channels=1, size=size)


def test_a_network_that_loads_weights_is_tried_without_them() -> None:
    ClassifierSpec(name="resnet10t", weights=Path("gone.safetensors"), frozen=True).try_on(channels=1, size=32)


def test_an_unknown_network_gets_a_guess() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'resnet18'"):
        ClassifierSpec(name="resnet81").build(num_classes=3, channels=3, size=224, seed=0)


def test_an_option_that_the_network_does_not_take() -> None:
    with pytest.raises(ConfigError, match="does not take"):
        ClassifierSpec(name="resnet10t", options={"heads": 3}).build(num_classes=3, channels=3, size=224, seed=0)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (64, 3), (96, 2)])
def test_the_folder_gives_the_same_logits(tmp_path: Path, size: int, channels: int) -> None:
    model, path = saved(ClassifierSpec(name="resnet10t"), tmp_path / "c", size=size, channels=channels)
    images = torch.rand(2, channels, size, size)
    again, facts = load_classifier(path)
    assert facts == card(size, channels)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)
        theirs = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        torch.testing.assert_close(theirs((images - 0.5) / 0.25), model(images))


def test_plain_timm_loads_the_folder_without_raremix(tmp_path: Path) -> None:
    model, path = saved(ClassifierSpec(name="resnet10t", stem="standard"), tmp_path / "c", size=32, channels=1)
    code = (
        "import sys, timm, torch\n"
        f"model = timm.create_model('local-dir:{path}', pretrained=True).eval()\n"
        "assert not any(name.startswith('raremix') for name in sys.modules)\n"
        "with torch.inference_mode(): print(model(torch.zeros(1, 1, 32, 32)).flatten().tolist())\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    with torch.inference_mode():
        ours = model.net(torch.zeros(1, 1, 32, 32)).flatten()
    torch.testing.assert_close(torch.tensor(json.loads(said.strip().splitlines()[-1])), ours)


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    _, path = saved(ClassifierSpec(name="resnet10t"), tmp_path / "c", size=28, channels=1)
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptError, match=r"model\.safetensors"):
        load_classifier(path)
    with pytest.raises(ManifestError, match="classifier folder"):
        load_classifier(tmp_path)
