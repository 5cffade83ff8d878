"""Ways to turn images into vectors: pretrained weights, a trained classifier, or an encoder trained on the images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.config import build
from raremix.core import files
from raremix.core.errors import UnknownNameError
from raremix.core.features import features_seen
from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.data.readers import Reading
from raremix.data.readers.block import Form
from raremix.data.thumbnails import SIDE
from raremix.models import ClassifierSpec, load_classifier
from raremix.study.audit.inception import inception_encoder, is_inception
from raremix.study.audit.own_encoder import OWN_SIZE, OWN_TRAINING, own_encoder
from raremix.study.recommend.weights import read_weights
from raremix.train import TrainSpec

CODE_VERSION = 1
"""Raised when the same images would become other vectors."""

NETWORK_SIZE = 96
"""Side of the images for a network. 128 px ranked no better on real images, and takes 1.6 times as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """A way to turn images into vectors.

    Attributes:
        key: hash of all that a vector depends on beside the image.
        form: how images are decoded.
        encode: images in [0, 1] -> vectors.
        name: for people.
        is_published: whether it is that of published figures, which take images of the size that they have, and
            distances of vectors as they are, not scaled to length one.
    """

    key: str
    form: Form
    encode: Callable[[Float[Tensor, "B C H W"]], Float[Tensor, "B D"]]
    name: str
    is_published: bool = False


def representation_of(
    weights: str | Path,
    manifest: Manifest,
    *,
    cache: Path,
    size: int | None = None,
    training: TrainSpec = OWN_TRAINING,
    seed: int = 0,
    progress: Progress | None = None,
) -> Representation:
    """Find the representation that a word or a path names; see `raremix.study.audit.suspects.find_suspects`.

    Raises:
        ReadError: if a file of weights cannot be used.
        ConfigError: if they are Inception's, and torch-fidelity is not installed.
        ManifestError, CorruptError: if a folder is no classifier's, or damaged.
        UnknownNameError: if timm knows no such network.
    """
    path = Path(weights)
    if str(weights) == "self":
        side = size or OWN_SIZE
        encoder, digest = own_encoder(manifest, cache=cache, size=side, training=training, seed=seed, progress=progress)
        form = Form(size=side, channels=3, bits=8, resize="stretch", reading=Reading())
        return Representation(key=_key({"own": digest}, form), form=form, encode=encoder.describe, name="self")
    if path.is_dir():
        return _of_classifier(path)
    if is_inception(path):
        form = Form(size=size or NETWORK_SIZE, channels=3, bits=8, resize="stretch", reading=Reading())
        key = _key({"inception": files.hash_file(path)}, form)
        return Representation(key=key, form=form, encode=inception_encoder(path), name=path.stem, is_published=True)
    if path.suffix or path.exists():
        found = read_weights(path)
        spec = build(ClassifierSpec, found.table(channels=3), where="the weights")
        return _of_network(spec, given=files.hash_file(found.path), size=size or NETWORK_SIZE, name=path.stem)
    if not timm.is_model(str(weights).partition(".")[0]):
        known = ["self", *timm.list_models(str(weights)[:4].lower() + "*")]
        raise UnknownNameError("representation", str(weights), known)
    return _of_network(
        ClassifierSpec(name=str(weights), pretrained=True), given="timm", size=size or NETWORK_SIZE, name=str(weights)
    )


def _of_network(spec: ClassifierSpec, *, given: str, size: int, name: str) -> Representation:
    model = spec.build(num_classes=2, channels=3, size=size, seed=0)
    form = Form(size=size, channels=3, bits=8, resize="stretch", reading=Reading())
    key = {"name": spec.name, "weights": given, "mean": model.mean, "std": model.std, "options": spec.options}
    return _with_head_seen(model, key=key, form=form, name=name)


def _of_classifier(folder: Path) -> Representation:
    model, card = load_classifier(folder)
    reading = build(Reading, card.reading, where="the classifier's reading")
    resize = cast(Any, card.resize)
    form = Form(size=card.size, channels=card.channels, bits=card.bits, resize=resize, reading=reading)
    key = {"classifier": files.hash_file(folder / "model.safetensors")}
    return _with_head_seen(model, key=key, form=form, name=folder.name)


def _with_head_seen(model: nn.Module, *, key: dict[str, Any], form: Form, name: str) -> Representation:
    """Represent images by what the last layer of a classifier is given."""
    model.eval().requires_grad_(False)
    layout: Any = torch.channels_last
    model.to(memory_format=layout)

    def encode(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        with features_seen(model) as seen:
            model(images)
        return seen[-1]

    return Representation(key=_key(key, form), form=form, encode=encode, name=name)


def _key(parts: dict[str, Any], form: Form) -> str:
    shape = {"size": form.size, "channels": form.channels, "bits": form.bits, "resize": form.resize}
    return files.hash_value({**parts, **shape, "reading": form.reading.key(), "side": SIDE, "code": CODE_VERSION})
