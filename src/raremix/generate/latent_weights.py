"""Models in Stable Diffusion's format: found, checked, read and written."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from raremix.core import files
from raremix.core.errors import ConfigError
from raremix.generate.diffusion_library import library
from raremix.generate.diffusion_noise import Noise
from raremix.generate.latent_parts import Autoencoder, Parts
from raremix.generate.latent_small import transformers

COMPONENTS = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}

WEIGHTS = ("unet", "vae", "text_encoder")
"""The parts that have weights."""

PLAIN = tuple(
    f"{stem}.safetensors{end}" for stem in ("diffusion_pytorch_model", "model") for end in ("", ".index.json")
)
VARIANT = re.compile(r"(?:diffusion_pytorch_model|model)(?:-\d+-of-\d+)?\.(\w+?)(?:-\d+-of-\d+)?\.safetensors")
"""What diffusers and transformers call weights, whole or in shards, and what they call those of a variant."""

FILES = [
    "model_index.json",
    *(f"{part}/{file}" for part in WEIGHTS for file in ("config.json", *PLAIN)),
    *(f"{part}/{stem}-?????-of-?????.safetensors" for part in WEIGHTS for stem in ("diffusion_pytorch_model", "model")),
    *(f"tokenizer/{file}" for file in ("*.json", "*.txt")),
    "scheduler/*.json",
]
"""What is fetched of a model: what is read of it, and nothing that could run code. Many hold gigabytes beside it: the
same weights in one file or in other precisions, and a safety checker."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LEAST_KEPT = 2.0**-24
"""Some schedules end in nothing but noise; the last step divides by what is left of the image."""


def find_weights(place: str, *, download: bool) -> Path:
    """Return the folder of a model in Stable Diffusion's format.

    Args:
        place: a folder, or a hub id that is looked for in the hub's cache on this machine.
        download: fetch what is not in the cache; nothing else in raremix does.

    Raises:
        ConfigError: if there is no such folder or model, or it is of another format.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        if not HUB_ID.fullmatch(place) or folder.exists():
            raise ConfigError(
                f"generator.weights = {place!r}: expected a folder in Stable Diffusion's format, or a hub id such as "
                "owner/model"
            )
        folder = _from_hub(place, download=download)
    index = folder / "model_index.json"
    kinds = _read(index)
    if not isinstance(kinds, dict):
        raise ConfigError(
            f"{folder} is no folder in Stable Diffusion's format: model_index.json is missing or no JSON. Expected "
            f"what diffusers' save_pretrained writes: {', '.join(COMPONENTS)}, scheduler"
        )
    for name, kind in COMPONENTS.items():
        found = kinds.get(name)
        said = found[1] if isinstance(found, list) and len(found) == 2 else None
        if said is None or not said.startswith(kind):
            raise ConfigError(
                f"{folder}: its {name} is {said or 'missing'}, expected {kind}: models of the families Stable "
                "Diffusion 1 and 2 can be fine-tuned"
            )
    if kinds.get("text_encoder_2", [None, None])[1] is not None:
        raise ConfigError(f"{folder} has two text encoders (SDXL): give a model of Stable Diffusion 1 or 2")
    return folder


def read_parts(folder: Path) -> Parts:
    """Read the parts of a model in Stable Diffusion's format, as 32-bit floats; only safetensors are read.

    Raises:
        ConfigError: if a part cannot be read, or the parts do not go together as they do in text-to-image models.
    """
    _refuse_other_precision(folder)
    diffusers, found = library(), transformers()
    common: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    try:
        with silent():
            unet = diffusers.UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", torch_dtype=torch.float32, low_cpu_mem_usage=False, **common
            )
            vae = diffusers.AutoencoderKL.from_pretrained(
                folder, subfolder="vae", torch_dtype=torch.float32, low_cpu_mem_usage=False, **common
            )
            text = found.CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32, **common)
            tokenizer = found.CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
            schedule = diffusers.DDPMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"{folder} cannot be read ({reason}): expected configurations and safetensors of unet, vae, text_encoder, "
            "tokenizer and scheduler; weights in other formats (.bin, .ckpt) can run code and are not read"
        ) from None
    kept = schedule.alphas_cumprod.double().numpy().clip(min=LEAST_KEPT)
    prediction = schedule.config.prediction_type
    if prediction not in {"epsilon", "v_prediction"}:
        raise ConfigError(f"{folder}: its network predicts {prediction!r}, expected epsilon or v_prediction")
    for what, has, needs in (
        ("in_channels", unet.config.in_channels, vae.config.latent_channels),
        ("out_channels", unet.config.out_channels, vae.config.latent_channels),
        ("cross_attention_dim", unet.config.cross_attention_dim, text.config.hidden_size),
    ):
        if {*has} != {needs} if isinstance(has, list | tuple) else has != needs:  # a width may be said block by block
            raise ConfigError(
                f"{folder}: {what} of its unet is {has}, and the other parts have {needs}; models that draw from text "
                "alone can be fine-tuned, and not those for inpainting, depth, upscaling or editing"
            )
    autoencoder = Autoencoder(vae, spread=1 / vae.config.scaling_factor)
    noise = Noise(kept=_falling(kept), prediction=prediction)
    return Parts(unet=unet, text=text, tokenizer=tokenizer, autoencoder=autoencoder, noise=noise)


def _refuse_other_precision(folder: Path) -> None:
    """Refuse a part of which there are only weights of a variant, such as fp16, which go by other names.

    Raises:
        ConfigError: saying how to write the others.
    """
    for name in WEIGHTS:
        found = sorted(path.name for path in (folder / name).glob("*.safetensors*"))
        variants = {match[1] for match in map(VARIANT.fullmatch, found) if match}
        if variants and not any(path in PLAIN for path in found):
            kind = min(variants)
            raise ConfigError(
                f"{folder}/{name} holds weights of the variant {kind} alone ({found[0]}), and those without a variant "
                f'are read: diffusers.DiffusionPipeline.from_pretrained("{folder}", variant="{kind}", '
                'torch_dtype=torch.float32).save_pretrained("FOLDER") writes them'
            )


@contextmanager
def silent() -> Iterator[None]:
    """Keep the bars of diffusers and transformers, which last a moment, from the terminal."""
    logs = [library().utils.logging, transformers().utils.logging]
    shown = [log.is_progress_bar_enabled() for log in logs]
    for log in logs:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, was in zip(logs, shown, strict=True):
            if was:
                log.enable_progress_bar()


def weights_hash(folder: Path) -> str:
    """Return a hash of what is read of a model's folder."""
    found = sorted(
        path
        for name in (*COMPONENTS, "scheduler")
        for path in (folder / name).glob("*")
        if path.suffix in {".json", ".txt", ".safetensors"}
    )
    return files.hash_value([[str(path.relative_to(folder)), files.hash_file(path)] for path in found])


def write_pipeline(parts: Parts, folder: Path) -> Path:
    """Write parts as a folder in Stable Diffusion's format, which diffusers' own pipelines load.

    Args:
        parts: what is written.
        folder: must not exist yet.
    """
    diffusers = library()
    plain: Any = parts.autoencoder.vae
    plain.register_to_config(scaling_factor=1 / float(parts.autoencoder.spread))
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=parts.noise.moments,
        trained_betas=parts.noise.betas.tolist(),
        prediction_type=parts.noise.prediction,
        clip_sample=False,
        timestep_spacing="trailing",
        # Not used with this spacing; pipelines warn without it.
        steps_offset=1,
    )
    with files.atomic_folder(folder) as draft, silent():
        for name, part in (("unet", parts.unet), ("vae", plain), ("text_encoder", parts.text)):
            part.save_pretrained(draft / name, safe_serialization=True)
        parts.tokenizer.save_pretrained(draft / "tokenizer")
        scheduler.save_pretrained(draft / "scheduler")
        index = {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": diffusers.__version__,
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        files.write_json(draft / "model_index.json", index)
    return folder


def _from_hub(place: str, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - comes with the extra
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        return Path(snapshot_download(place, local_files_only=not download, allow_patterns=FILES))
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = (
            "there is no way to it from here; give a folder, generator.weights=PATH"
            if download
            else "it is not in this machine's cache, and nothing is downloaded unless asked: --set "
            "generator.download=true, or give a folder, generator.weights=PATH"
        )
        raise ConfigError(f"the model {place!r} cannot be had ({reason}): {advice}") from None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _falling(kept: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Return the schedule with moments that are alike at its end told apart by the least amount."""
    return np.minimum.accumulate(kept) * (1 - np.arange(len(kept)) * 1e-12)
