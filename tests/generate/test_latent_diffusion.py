"""Latent diffusion: what is trained and kept, that diffusers' own pipelines draw the same, and what is refused."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.generate.toys import FORM, METHODS, SPEC, run, same, write_tiny_pipeline
from torch import Tensor, nn

from raremix.core import files
from raremix.core.errors import ConfigError, DataError
from raremix.core.types import Batch
from raremix.generate import ClassTranslator, Form, ImageGenerator, LatentDiffusion, LatentDrawer, export
from raremix.generate.latent_diffusion import parts_of
from raremix.generate.latent_parts import with_channels
from raremix.generate.latent_small import word_tokenizer
from raremix.generate.latent_training import LatentTraining
from raremix.generate.latent_weights import FILES, find_weights, read_parts, weights_hash
from raremix.train.checkpoint import unwrap

pytestmark = pytest.mark.usefixtures("no_fsync")

SMALL: Any = METHODS["latent_diffusion"]
WORDS = {"modality": "medical", "data": "toy"}
CLASSES = ("common", "rare")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Stable Diffusion's format, as diffusers wrote it."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")


def tuned(base: Path, **changes: Any) -> LatentDiffusion:
    few: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 3.0, **changes}
    return LatentDiffusion(weights=str(base), rank=2, **few).told(WORDS, CLASSES)


def batch(rows: int = 4, *, pool: Batch | None = None) -> Batch:
    images = torch.rand(rows, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    return Batch(images=images, targets=torch.eye(2)[torch.arange(rows) % 2], pool=pool)


def state(parts: Any) -> dict[str, dict[str, Tensor]]:
    return {
        name: {key: value.clone() for key, value in getattr(parts, name).state_dict().items()}
        for name in ("unet", "text", "autoencoder")
    }


def drawn_by(pipeline: Any, drawer: LatentDrawer, latents: Tensor, prompts: list[str]) -> Tensor:
    """Draw with a pipeline of diffusers what a drawer draws: DDIM, the same steps, guidance and noise."""
    from diffusers import DDIMScheduler

    noise = drawer.parts.noise
    pipeline.scheduler = DDIMScheduler(
        num_train_timesteps=noise.moments,
        trained_betas=noise.betas,
        prediction_type=noise.prediction,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompts,
        latents=latents.view(len(prompts), *drawer.shape),
        num_inference_steps=drawer.num_inference_steps,
        guidance_scale=drawer.guidance_scale,
        height=drawer.form.side,
        width=drawer.form.side,
        output_type="pt",
    ).images


def pipeline_at(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)


# From scratch


def test_what_it_is_made_of() -> None:
    networks = SMALL.networks(FORM, seed=0)
    parts = parts_of(networks)
    assert networks["autoencoder"] is parts.autoencoder
    assert parts.autoencoder.channels == (1, 4)
    assert SMALL.drawer(networks, FORM).latent == 4 * 8 * 8
    names = {name.split("/")[0] for name in networks["network"].state_dict()}
    assert names == {"unet", "text"}
    large = SMALL.networks(Form(size=128, channels=2, classes=2), seed=0)["autoencoder"]
    assert large.factor == 8


def test_the_autoencoder_comes_first() -> None:
    training = SMALL.training(SMALL.networks(FORM, seed=0), FORM, seed=0, extras={"steps": 6})
    assert list(training.optimizers) == ["autoencoder", "network"]
    for step, turn in ((0, "autoencoder"), (1, "autoencoder"), (2, "network"), (5, "network")):
        for phase in training.optimizers:
            loss = training.loss(phase, batch(), step=step)["loss"]
            assert (float(loss.detach()) > 0) == (phase == turn)
            assert loss.requires_grad
    share = replace(SMALL, autoencoder_steps=None)
    first = share.training(share.networks(FORM, seed=0), FORM, seed=0, extras={"steps": 100}).first
    assert first == 30
    with pytest.raises(ConfigError, match="leaves none of 2 steps"):
        SMALL.training(SMALL.networks(FORM, seed=0), FORM, seed=0, extras={"steps": 2})


def test_the_autoencoders_loss_by_hand_and_its_scale() -> None:
    settings = replace(SMALL, kl=0.5)
    networks = settings.networks(FORM, seed=0)
    training = settings.training(networks, FORM, seed=0)
    found = training.loss("autoencoder", batch(), step=0)
    assert float(found["loss"].detach()) == pytest.approx(
        float((found["error"] + 0.5 * found["distance"]).detach()), rel=1e-5
    )
    autoencoder, images = networks["autoencoder"], batch().images * 2 - 1
    for _ in range(100):
        autoencoder(images, torch.zeros(4, 4, 8, 8))
    latents, _, _ = autoencoder(images, torch.zeros(4, 4, 8, 8), decode=False)
    assert float(latents.detach().std()) == pytest.approx(1.0, abs=0.05)
    again = autoencoder.decode(latents, channels=1)
    _, direct, _ = autoencoder.eval()(images, torch.zeros(4, 4, 8, 8))
    assert torch.allclose(again, direct, atol=1e-4)


def test_the_autoencoder_ends_as_its_average_and_the_networks_average_begins_anew() -> None:
    def module(value: float) -> nn.Module:
        found = nn.Linear(1, 1, bias=False)
        nn.init.constant_(found.weight, value)
        return found

    modules = {"autoencoder": module(5.0), "network": module(1.0)}
    training = LatentTraining(
        modules=modules,
        optimizers={},
        frozen=None,
        form=FORM,
        noise=SMALL.networks(FORM, seed=0)["network"].whole.made_of[0].noise,
        seed=0,
        hide=0.0,
        min_snr=5.0,
        first=100,
        average=0.999,
    )
    averages = {"autoencoder": module(3.0), "network": module(0.0)}
    training.after_step(50, averages)
    assert modules["autoencoder"].weight.item() == 5.0  # type: ignore[union-attr]
    training.after_step(99, averages)
    assert modules["autoencoder"].weight.item() == 3.0  # type: ignore[union-attr]
    # After step 100 the loop has moved an average of 0 by 1 - 101 / 110 towards 1; anew it would move by 1 - 1 / 10.
    with torch.no_grad():
        averages["network"].weight.fill_(1 - 101 / 110)  # type: ignore[operator, union-attr]
    training.after_step(100, averages)
    assert averages["network"].weight.item() == pytest.approx(0.9)  # type: ignore[union-attr]


def test_diffusers_draws_the_same_from_what_is_exported(tmp_path: Path) -> None:
    method = replace(SMALL, solver="ddim", num_inference_steps=3, guidance_scale=2.0).told(WORDS, CLASSES)
    networks = method.networks(FORM, seed=1)
    networks["autoencoder"].spread.fill_(0.7)
    drawer = replace(method.drawer(networks, FORM), precision="32")
    folder = export(drawer, method, tmp_path / "diffusers")
    assert folder is not None
    latents = torch.randn(2, drawer.latent, generator=torch.Generator().manual_seed(3))
    ours = drawer.generate(torch.eye(2), latents)
    theirs = drawn_by(pipeline_at(folder), drawer, latents, list(method.prompts))
    assert torch.allclose(ours, theirs, atol=1e-3)
    assert not torch.allclose(ours[0], drawer.generate(torch.eye(2)[[1, 1]], latents)[0], atol=1e-4)


def test_words_are_tokens_and_their_order_does_not_matter() -> None:
    one, other = (word_tokenizer(prompts) for prompts in (["an image of nevus", "df"], ["df nevus", "of an image"]))
    text = "an image of nevus, DF and Melanoma"
    assert one(text).input_ids == other(text).input_ids
    assert one.tokenize("image of nevus") == ["image", "of", "nevus"]
    assert len(one.tokenize("melanoma")) == 8


# Tuned


@pytest.mark.parametrize(("tune", "moved"), [("lora", "lora_"), ("full", "unet/")])
def test_only_what_is_tuned_moves_and_is_kept(base: Path, tmp_path: Path, tune: Any, moved: str) -> None:
    method = tuned(base, tune=tune, learning_rate=0.01)
    fitted = run(method, tmp_path, spec=replace(SPEC, steps=2))
    assert fitted is not None
    assert all(moved in name for name in fitted.weights["network"])
    networks = method.networks(FORM, seed=0)
    untouched = read_parts(base)
    network: Any = networks["network"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(fitted.weights["network"])
    assert not same({"x": before}, {"x": network.state_dict()})
    parts = parts_of(networks)
    assert same({"x": parts.text.state_dict()}, {"x": untouched.text.state_dict()})
    assert same({"x": parts.autoencoder.state_dict()}, {"x": untouched.autoencoder.state_dict()})


def test_training_leaves_the_frozen_parts_alone(base: Path, tmp_path: Path) -> None:
    method = tuned(base, learning_rate=0.01)
    networks = method.networks(FORM, seed=0)
    before = state(parts_of(networks))
    training = method.training(networks, FORM, seed=0)
    for step in range(2):
        training.optimizers["network"].zero_grad()
        training.loss("network", batch(), step=step)["loss"].backward()
        training.optimizers["network"].step()
    after = state(parts_of(networks))
    changed = {f"{part}.{key}" for part in before for key in before[part] if not torch.equal(before[part][key], after[part][key])}  # fmt: skip # noqa: E501
    assert changed
    assert all(name.startswith("unet.") and "lora_" in name for name in changed)


def test_resumed_to_the_same_bits(base: Path, tmp_path: Path) -> None:
    method = tuned(base)
    spec = replace(SPEC, steps=4, checkpoints=4)
    whole = run(method, tmp_path / "whole", spec=spec)
    assert run(method, tmp_path / "cut", stop_at=2, spec=spec) is None
    rest = run(method, tmp_path / "cut", spec=spec)
    assert whole is not None
    assert rest is not None
    assert same(rest.weights, whole.weights)
    size = sum(path.stat().st_size for path in (tmp_path / "cut" / "checkpoints").rglob("*.safetensors"))
    assert size < 0.5 * (base / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size


def test_untrained_additions_change_nothing_and_diffusers_agrees(base: Path, tmp_path: Path) -> None:
    rgb = Form(size=32, channels=3, classes=2)
    method = tuned(base, solver="ddim")
    networks = method.networks(rgb, seed=0)
    drawer = replace(method.drawer(networks, rgb), precision="32")
    latents = torch.randn(2, drawer.latent, generator=torch.Generator().manual_seed(3))
    plain = drawn_by(pipeline_at(base), drawer, latents, list(method.prompts))
    assert torch.allclose(drawer.generate(torch.eye(2), latents), plain, atol=1e-3)
    with torch.no_grad():
        for parameter in networks["network"].parameters():
            parameter.add_(0.2)
    ours = drawer.generate(torch.eye(2), latents)
    assert not torch.allclose(ours, plain, atol=1e-2)
    folder = export(drawer, method, tmp_path / "lora")
    pipeline = pipeline_at(base)
    pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
    assert torch.allclose(drawn_by(pipeline, drawer, latents, list(method.prompts)), ours, atol=1e-3)
    assert export(drawer, replace(method, tune="full"), tmp_path / "full") is None


def test_weights_for_much_larger_images_are_refused(base: Path, tmp_path: Path) -> None:
    """Stable Diffusion draws 512 pixels; at 64 its latents have 8 x 8 places, and what it draws is noise."""
    large = Path(shutil.copytree(base, tmp_path / "large"))
    path = large / "unet" / "config.json"
    settings = json.loads(path.read_text())
    for side, is_refused in ((16, False), (17, True)):
        path.write_text(json.dumps({**settings, "sample_size": side}))
        if is_refused:
            with pytest.raises(ConfigError, match=r"draws 68 pixels; far below, at 32, .* set --size 68 .*than 34"):
                tuned(large).networks(FORM, seed=0)
        else:
            tuned(large).networks(FORM, seed=0)


def test_grey_images_go_through_three_channels(base: Path) -> None:
    method = tuned(base)
    drawer = method.drawer(method.networks(FORM, seed=0), FORM)
    assert isinstance(drawer, ImageGenerator)
    assert isinstance(drawer, ClassTranslator)
    images = batch(2).images
    assert drawer.generate(torch.eye(2), torch.randn(2, drawer.latent)).shape == (2, 1, 32, 32)
    assert drawer(images, torch.eye(2), rng=np.random.default_rng(0)).shape == images.shape
    assert drawer.reconstruct(images).shape == drawer.reconstruct(images, torch.eye(2)).shape == images.shape
    rgb = torch.rand(2, 3, 4, 4)
    assert with_channels(rgb, 3) is rgb
    assert torch.equal(with_channels(rgb[:, :1], 3), rgb[:, :1].expand(-1, 3, -1, -1))
    with pytest.raises(ConfigError, match="reads 3 channels, the images have 2"):
        with_channels(rgb[:, :2], 3)
    with pytest.raises(ConfigError, match="reads 3 channels, the images have 4"):
        method.networks(Form(size=32, channels=4, classes=2), seed=0)


def test_strength_and_steps_of_image_to_image(base: Path) -> None:
    method = tuned(base, num_inference_steps=10, guidance_scale=1.0)
    networks = method.networks(FORM, seed=0)
    images, asked = batch(2).images, []
    networks["network"].register_forward_hook(lambda module, given, found: asked.append(int(given[1][0])))
    for strength, steps in ((0.3, 3), (1.0, 10)):
        asked.clear()
        replace(method.drawer(networks, FORM), strength=strength)(images, torch.eye(2), rng=np.random.default_rng(0))
        assert len(asked) == steps
        assert asked[0] == round(1000 * strength) - 1


def test_what_must_not_be_forgotten_is_learnt_beside(base: Path) -> None:
    plain, kept = tuned(base), tuned(base, prior="common", prior_weight=2.0)

    def loss(method: LatentDiffusion, given: Batch) -> Mapping[str, Tensor]:
        return method.training(method.networks(FORM, seed=0), FORM, seed=0).loss("network", given, step=0)

    pool = batch(2)
    alone, both = loss(plain, batch()), loss(kept, batch(pool=pool))
    assert float(both["error"].detach()) == pytest.approx(float(alone["error"].detach()))
    double = loss(replace(kept, prior_weight=4.0), batch(pool=pool))
    extra = float((double["loss"] - both["loss"]).detach())
    assert float((both["loss"] - alone["loss"]).detach()) == pytest.approx(extra, rel=1e-3)
    assert extra > 0
    with pytest.raises(DataError, match="pool of images of the prior class"):
        loss(kept, batch())


def test_prompts_are_hidden_now_and_then(base: Path) -> None:
    method, told = tuned(base, hide=0.5), []
    networks = method.networks(FORM, seed=0)
    networks["network"].register_forward_hook(lambda module, given, found: told.append(given[2]))
    training = method.training(networks, FORM, seed=0)
    with torch.no_grad():
        for step in range(12):
            training.loss("network", batch(), step=step)
    shown = torch.stack(told)
    assert 12 < int((shown == 2).sum()) < 36, "of 48"
    expected = (torch.arange(4) % 2).expand_as(shown)
    assert torch.equal(shown[shown != 2], expected[shown != 2])


def test_memory_is_saved_and_gradients_stay(base: Path) -> None:
    gradients = []
    for thrifty in (False, True):
        method = tuned(base, gradient_checkpointing=thrifty, attention_slicing=thrifty)
        networks = method.networks(FORM, seed=0)
        # Fabric calls it in training mode, where activations are computed a second time.
        networks["network"].train()
        method.training(networks, FORM, seed=0).loss("network", batch(), step=0)["loss"].backward()
        gradients.append([p.grad for p in networks["network"].parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))
    assert any(bool(g.abs().max() > 0) for g in gradients[0])


# What is refused


def test_settings_that_do_not_fit(base: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"prompt": "a {class!z}"}, r"leave !z out; a field is its name, \{class\}"),
        ({"prompt": "a {class:d}"}, r"leave :d out; a field is its name, \{class\}"),
        ({"prompt": "a {class:{modality}}"}, r"leave :\{modality\} out; a field is its name, \{class\}"),
        ({"prompt": "an image of {klass}"}, r"the field \{klass\} is not known; there are \{class\}, \{modality\}"),
        ({"prompt": "an image of {class"}, "generator.prompt"),
        ({"width": 12}, "width must be a multiple of 8"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"hide": 1.0}, "hide must be in"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"strength": 1.2}, "at most 1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"autoencoder_steps": 0}, "autoencoder_steps"),
    ]
    for settings, words in wrong:
        with pytest.raises(ConfigError, match=words):
            LatentDiffusion(**settings)
    for settings, words in (
        ({"prompt": "a medical image"}, "do not tell the classes apart"),
        ({"prompts": ("one",)}, "got 1, expected one for each of common, rare"),
        ({"prior": "normal"}, "expected one of common, rare"),
        ({"prompt": "very " * 40 + "{class}"}, "tokens, the text encoder reads 32: make it shorter"),
    ):
        with pytest.raises(ConfigError, match=words):
            LatentDiffusion(weights=str(base), **settings).told(WORDS, CLASSES).networks(FORM, seed=0)


def test_a_hub_id_is_not_fetched_unless_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"nothing is downloaded unless asked: --set generator.download=true"):
        LatentDiffusion(weights="nobody/no-such-model").told(WORDS, CLASSES)
    import huggingface_hub

    def unreachable(*given: Any, **options: Any) -> None:
        assert options["local_files_only"] is False
        assert all(not pattern.endswith((".bin", ".ckpt", ".py")) for pattern in options["allow_patterns"])
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ConfigError, match=r"no route to host.*give a folder"):
        LatentDiffusion(weights="nobody/no-such-model", download=True).told(WORDS, CLASSES)


def test_folders_that_are_no_pipeline(base: Path, tmp_path: Path) -> None:
    for place, words in (
        ("no/such/folder/at/all", "expected a folder"),
        (str(tmp_path), "model_index.json is missing"),
    ):
        with pytest.raises(ConfigError, match=words):
            find_weights(place, download=False)
    for change, words in (
        ({"unet": ["diffusers", "SD3Transformer2DModel"]}, "its unet is SD3Transformer2DModel, expected UNet2D"),
        ({"vae": None}, "its vae is missing"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "two text encoders"),
    ):
        folder = tmp_path / words.split()[1]
        shutil.copytree(base, folder, dirs_exist_ok=True)
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, **change}))
        with pytest.raises(ConfigError, match=words):
            find_weights(str(folder), download=False)


def test_weights_that_could_run_code_are_not_read(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(base, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(ConfigError, match=r"cannot be read .*can run code and are not read"):
        read_parts(folder)


def test_other_weights_than_were_tuned_are_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(base, folder)
    method = tuned(folder)
    assert method.weights_hash == weights_hash(folder) == weights_hash(base)
    method.networks(FORM, seed=0)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    files.write_tensors(path, {name: value + 1 for name, value in tensors.items()})
    with pytest.raises(ConfigError, match="other weights than this was fitted with"):
        method.networks(FORM, seed=0)


def test_wrappers_lead_to_the_parts(base: Path) -> None:
    method = tuned(base)
    networks = method.networks(FORM, seed=0)
    assert parts_of({"network": unwrap(networks["network"])}).unet is parts_of(networks).unet


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"in_channels": 9},
            "in_channels of its unet is 9, and the other parts have 4; models that draw from text alone",
        ),
        ({"out_channels": 8}, "out_channels of its unet is 8, and the other parts have 4"),
        ({"cross_attention_dim": 16}, "cross_attention_dim of its unet is 16, and the other parts have 32"),
    ],
)
def test_models_that_do_something_else_are_refused(
    base: Path, tmp_path: Path, settings: dict[str, int], words: str
) -> None:
    from diffusers import UNet2DConditionModel

    folder = shutil.copytree(base, tmp_path / "other")
    config = {**UNet2DConditionModel.load_config(folder / "unet"), **settings}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    with pytest.raises(ConfigError, match=words):
        read_parts(folder)


def test_a_width_that_is_said_block_by_block_is_the_same(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "other")
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cross_attention_dim": [32, 32]}))
    assert read_parts(folder).unet.config.cross_attention_dim == [32, 32]


def test_weights_of_another_precision_alone_are_refused_with_what_helps(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "half")
    for path in folder.glob("*/*.safetensors"):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
    with pytest.raises(ConfigError, match=r'half/unet holds weights of the variant fp16 alone .*variant="fp16"'):
        read_parts(folder)
    shutil.copytree(base, folder, dirs_exist_ok=True)
    assert read_parts(folder), "beside the others they do not matter"


def test_what_is_fetched_is_what_is_read(base: Path) -> None:
    from huggingface_hub.utils import filter_repo_objects

    read = [path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()]
    shards = [
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "tokenizer/merges.txt",
    ]
    rest = [
        "v1-5-pruned-emaonly.safetensors",
        "v1-5-pruned.ckpt",
        "safety_checker/model.safetensors",
        "safety_checker/config.json",
        "feature_extractor/preprocessor_config.json",
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/model.py",
    ]
    assert set(filter_repo_objects([*read, *shards, *rest], allow_patterns=FILES)) == {*read, *shards}
