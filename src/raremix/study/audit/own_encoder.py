"""An encoder of one data set's images, trained on them without labels, and kept in the cache."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
from torch import Tensor, nn

from raremix.core import files
from raremix.core.errors import ConfigError
from raremix.core.types import Progress
from raremix.data.augment import Classical
from raremix.data.cache import ImageCache, build_cache
from raremix.data.manifest import Manifest
from raremix.data.samplers import Natural
from raremix.models.small_encoder import SmallEncoder, small_encoder
from raremix.train import Feed, TrainSpec, fit
from raremix.train.optimizer import make_optimizer
from raremix.train.simclr import SimCLR, projection
from raremix.train.spec import make_fabric

CODE_VERSION = 1
"""Raised when the same images and settings would give another encoder."""

OWN_SIZE = 64
OWN_TRAINING = TrainSpec(
    steps=300, batch_size=128, learning_rate=2e-3, weight_decay=0.01, average=None, validations=0, precision="32"
)
"""Two minutes of one slow core."""

VIEWS = {"crop": 0.5, "brightness": 0.2, "contrast": 0.4, "saturation": 0.3}
"""Stronger than the augmentation of a classifier: what two views share is all that there is to learn."""


def own_encoder(
    manifest: Manifest,
    *,
    cache: Path,
    size: int = OWN_SIZE,
    training: TrainSpec = OWN_TRAINING,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[SmallEncoder, str]:
    """Train a small encoder on the images themselves, or read the one that was trained on them before.

    Training goes on where it was stopped. Labels and splits do not matter.

    Args:
        manifest: the images; all must be readable.
        cache: the cache folder.
        size: side of the images in pixels.
        training: budget and optimiser.
        seed: of weights, order and views.
        progress: called while images are decoded, and after every step.

    Returns:
        The encoder, and a hash of everything that it depends on.

    Raises:
        ReadError: naming the images that cannot be read.
        ConfigError: if there is only one image.
    """
    if len(manifest) < 2:
        raise ConfigError("an encoder of its own needs at least two images to compare: name weights instead")
    images = build_cache(manifest, size=size, channels=3, root=cache, progress=progress)
    settings = {k: v for k, v in asdict(training).items() if k not in {"workers", "checkpoints", "tensorboard"}}
    inputs = {"images": images.folder.name, "training": settings, "views": VIEWS, "seed": seed}
    key = files.hash_value({**inputs, "modality": manifest.card.modality, "code": CODE_VERSION})
    folder = cache / "encoders" / key
    encoder = small_encoder(channels=3, seed=seed)
    if not (folder / "result").exists():
        weights = _train(
            encoder, manifest, images, training=training, seed=seed, folder=folder, key=key, progress=progress
        )
        with files.atomic_folder(folder / "result") as draft:
            files.write_tensors(draft / "encoder.safetensors", weights)
            files.seal(draft, ["encoder.safetensors"])
        files.remove_folder(folder / "checkpoints")
    files.verify(folder / "result", advice=f"delete the folder {folder}; the encoder is trained again when needed")
    encoder.load_state_dict(safetensors.torch.load_file(folder / "result" / "encoder.safetensors"))
    return encoder.eval().requires_grad_(False), key


def _train(
    encoder: SmallEncoder,
    manifest: Manifest,
    images: ImageCache,
    *,
    training: TrainSpec,
    seed: int,
    folder: Path,
    key: str,
    progress: Progress | None,
) -> dict[str, Tensor]:
    ids = manifest.ids
    nothing = np.zeros((len(ids), 1))
    feed = Feed(
        images=images,
        ids=ids,
        targets=nothing,
        sampler=Natural(targets=nothing, seed=seed),
        batch_size=min(training.batch_size, len(ids)),
        seed=seed,
    )
    modules = nn.ModuleDict({"encoder": encoder, "projection": projection(encoder.length, seed=seed)})
    task = SimCLR(
        modules=dict(modules.items()),
        optimizers={"views": make_optimizer(modules, training)},
        augmentation=Classical(**VIEWS, modality=manifest.card.modality),
        seed=seed,
    )
    fitted = fit(
        task, feed, spec=training, fabric=make_fabric(training), folder=folder, identity=key, progress=progress
    )
    return fitted.weights["encoder"]
