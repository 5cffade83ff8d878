"""The [model] head table: what turns a network's features into logits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.core.features import features_seen, head_of
from raremix.models.cosine import CosineHead
from raremix.models.prototype import PrototypeHead

PROTOTYPES = ("text", "one_hot", "learnable")
"""Heads whose logits are distances to prototypes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """The last layer of a classifier.

    Attributes:
        name: "linear": the network's own. "cosine": scaled cosines, for margin losses. Prototypes, whose distances are
            the logits: "text" of label vectors, "one_hot" of vectors that say nothing, "learnable" without vectors.
        vectors: file of label vectors for "text": .npy (with `names`), or .safetensors with one tensor per label.
        names: labels of the rows of an .npy file.
        encoder: folder or hub id of a text encoder for "text", where there is no file.
        words: what the encoder reads for a class, where its name is a code.
        zeros: for "linear": begin with zeros, so that the first steps make every class's weights the mean of its
            features; as https://arxiv.org/abs/1912.11370 fine-tunes.
        scale: first value; 30 for cosines and 8 for prototypes by default.
        margin: first value, for prototypes.
        width, hidden: of the perceptrons, for prototypes.
    """

    name: Literal["linear", "cosine", "text", "one_hot", "learnable"] = "linear"
    vectors: Path | None = None
    names: tuple[str, ...] = ()
    encoder: str = "dmis-lab/biobert-v1.1"
    words: dict[str, str] = field(default_factory=dict)
    zeros: bool = False
    scale: float | None = None
    margin: float = 1.0
    width: int = 128
    hidden: tuple[int, ...] = (512, 256)

    def check(self) -> None:
        """Refuse keys that say nothing for this kind of head.

        Raises:
            ConfigError: naming the key.
        """
        if self.name != "text" and (self.vectors is not None or self.names or self.words):
            raise ConfigError(f'[model] head: only name = "text" reads label vectors, got name = "{self.name}"')
        if self.name == "linear" and self.scale is not None:
            raise ConfigError('[model] head: a linear layer has no scale; leave it out, or set name = "cosine"')
        if self.zeros and self.name != "linear":
            raise ConfigError(f'[model] head: only name = "linear" can begin with zeros, got name = "{self.name}"')
        if self.scale is not None and not self.scale > 0:
            raise ConfigError(f"[model] head: scale must be more than 0, got {self.scale}")

    def build(self, features: int, num_classes: int, *, label_vectors: Float[Tensor, "K T"] | None = None) -> nn.Module:
        """Build the layer.

        Args:
            features: length of what goes in.
            num_classes: number of logits.
            label_vectors: one per class, for "text".

        Raises:
            ConfigError: if they are needed and missing.
        """
        self.check()
        if self.name == "cosine":
            return CosineHead(features, num_classes, scale=30.0 if self.scale is None else self.scale)
        if self.name == "text" and label_vectors is None:
            raise ConfigError('[model] head: name = "text" needs label vectors; a study reads or encodes them')
        if self.name == "one_hot":
            label_vectors = torch.eye(num_classes)
        return PrototypeHead(
            features,
            num_classes,
            label_vectors=None if self.name == "learnable" else label_vectors,
            centred=self.name == "text",
            hidden=self.hidden,
            width=self.width,
            scale=8.0 if self.scale is None else self.scale,
            margin=self.margin,
        )


def head_from_settings(settings: dict[str, Any], features: int, num_classes: int) -> nn.Module:
    """Build the layer of a saved classifier, whose weights are loaded afterwards."""
    if settings["name"] == "cosine":
        return CosineHead(features, num_classes, scale=settings["scale"])
    length = settings["label_width"]
    vectors = None if length is None else torch.eye(num_classes, max(length, num_classes))[:, :length] + 1.0
    return PrototypeHead(
        features,
        num_classes,
        label_vectors=vectors,
        centred=False,
        hidden=tuple(settings["hidden"]),
        width=settings["width"],
    )


def head_features(net: nn.Module, *, channels: int, size: int) -> int:
    """Return how many features go into a network's last layer."""
    was_training = net.training
    with torch.no_grad(), features_seen(net.eval()) as seen:
        net(torch.zeros(1, channels, size, size))
    net.train(was_training)
    if seen[0].ndim != 2:
        raise ConfigError(
            f"this network's last layer takes {tuple(seen[0].shape[1:])}, not a vector: choose another one"
        )
    return seen[0].shape[1]


def replace_head(net: nn.Module, head: nn.Module) -> None:
    """Put another last layer into a network, in the place of its own."""
    old = head_of(net)
    name = next(name for name, module in net.named_modules() if module is old)
    owner, _, last = name.rpartition(".")
    setattr(net.get_submodule(owner), last, head)


def start_head(net: nn.Module, *, zeros: bool) -> None:
    """Give a network's own last layer the values that it begins with.

    Args:
        net: just built.
        zeros: whether these are zeros; if not, see `tame_head`.

    Raises:
        ConfigError: if zeros are asked for, and there is no single linear last layer.
    """
    if not zeros:
        tame_head(net)
        return
    head = head_of(net)
    if not isinstance(head, nn.Linear):
        raise ConfigError(f"[model] head: zeros are for a linear last layer, and this one is a {type(head).__name__}")
    for parameter in head.parameters():
        nn.init.zeros_(parameter)


def tame_head(net: nn.Module) -> None:
    """Draw a linear last layer anew where its initial weights would make large logits.

    timm starts EfficientNet, MobileNet and MnasNet with uniform weights up to 1 / sqrt(classes), which suits the 1,000
    classes of ImageNet and makes logits of about 15 for two classes (MobileNetV2 on skin lesions: a first loss of 5.6
    for two classes and 13 for seven, instead of .7 and 1.9); Inception-V3 is alike. A short fine-tuning is then spent
    on unlearning them. Such a layer gets the initial weights of `torch.nn.Linear` (uniform up to 1 / sqrt(features))
    and no bias; a layer that starts smaller is left as it is.

    Example:
        >>> net = nn.Sequential(nn.Linear(100, 2))
        >>> nn.init.normal_(net[0].weight).std() > 0.9
        tensor(True)
        >>> tame_head(net)
        >>> net[0].weight.abs().max() <= 0.1
        tensor(True)
    """
    try:
        head = head_of(net)
    except ConfigError:  # several last layers, which other parts refuse where they need one
        return
    if not isinstance(head, nn.Linear) or float(head.weight.detach().square().mean()) * head.in_features <= 1.0:
        return
    head.reset_parameters()
    if head.bias is not None:
        nn.init.zeros_(head.bias)
