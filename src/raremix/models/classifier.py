"""Any timm network as a classifier of images in [0, 1]."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import timm
import torch
from jaxtyping import Float
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from raremix.core.errors import ConfigError, ReadError, UnknownNameError
from raremix.core.memory import is_out_of_memory
from raremix.core.random import torch_seed
from raremix.core.tensors import require_safetensors
from raremix.models.head import HeadSpec, head_features, replace_head, start_head
from raremix.models.small_stem import SMALL_STEM_BASES, small_stem_name

CLOSED_OPTIONS = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments of timm's constructor by which it loads files of any format, from anywhere."""


class Classifier(nn.Module):
    """A network with its normalisation: images in [0, 1] go in, logits come out.

    Args:
        net: maps normalised images to logits.
        mean: mean of each channel, in [0, 1].
        std: standard deviation of each channel, in (0, 1].
    """

    def __init__(self, net: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.net = net
        self.scale: Tensor
        self.shift: Tensor
        # Not saved: they are in the folder's config.json, where timm looks for them.
        self.register_buffer("scale", 1 / torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(1, -1, 1, 1) * self.scale, persistent=False)
        self.mean, self.std = mean, std

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Return logits."""
        return self.net(torch.addcmul(self.shift, images, self.scale))


FITTING = "name the network that these weights belong to, and the tensors as timm does"
"""What to do about weights that do not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSpec:
    """The [model] table: which network, from which weights.

    Attributes:
        name: a network of timm, by name.
        pretrained: load timm's weights; this is the one option that downloads.
        weights: a local safetensors file with timm's tensor names; head and first convolution are fitted to the task.
        stem: "small" replaces a ResNet's first layers up to 64 px; "auto" does so where no weights are loaded.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth.
        mean, std: normalisation by channel; by default that of the weights, or .5 and .25 from scratch.
        options: further keyword arguments of timm's constructor. A network that is made for one size of images, as
            vision transformers are, gets theirs as `img_size` unless it stands here.
        head: another last layer than the network's own.
        frozen: train the last layer alone, on the features of the loaded weights: the cheapest classifier there is.
    """

    name: str = "resnet18"
    pretrained: bool = False
    weights: Path | None = None
    stem: Literal["auto", "small", "standard"] = "auto"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    head: HeadSpec = field(default_factory=HeadSpec)
    frozen: bool = False

    @property
    def loads_weights(self) -> bool:
        """Whether the network starts from trained weights."""
        return self.pretrained or self.weights is not None

    def architecture(self, *, size: int) -> str:
        """Return timm's name of the network for an image side in pixels.

        Raises:
            ConfigError: if a small stem is asked for where there is none.
        """
        small = small_stem_name(self.name, size=size)
        if self.stem == "standard" or (self.stem == "auto" and (self.loads_weights or small is None)):
            return self.name
        if small is None:
            raise ConfigError(
                f"[model] stem = 'small' exists for {', '.join(SMALL_STEM_BASES)} up to 64 px, "
                f"not for {self.name} at {size} px: use stem = 'standard'"
            )
        if self.loads_weights:
            raise ConfigError("[model] stem = 'small' does not fit pretrained weights: use stem = 'standard'")
        return small

    def arguments(self, *, size: int) -> dict[str, Any]:
        """Return the keyword arguments of timm's constructor, the size of the images among them where it must be known.

        Args:
            size: side of the images in pixels.
        """
        known = timm.models.get_pretrained_cfg(self.architecture(size=size))
        fixed = {"img_size": size} if known is not None and known.fixed_input_size else {}
        return {**fixed, **self.options}

    def check(self, *, size: int) -> str:
        """Return timm's name of the network, or say what is wrong with the table, without building anything.

        Raises:
            UnknownNameError: if timm knows no such network.
            ConfigError: if a small stem is asked for where there is none, or a network without weights is frozen.
        """
        self.head.check()
        if self.frozen and not self.loads_weights:
            raise ConfigError(
                "[model] frozen = true trains a last layer on features of weights, and none are loaded: set weights = "
                '"FILE.safetensors" or pretrained = true, or leave frozen out'
            )
        wrong = [key for key in self.options if key in CLOSED_OPTIONS]
        if wrong:
            raise ConfigError(
                f"[model] options: {', '.join(wrong)} may not be set: some load pickles, which can run code. Set "
                "name, pretrained, or weights = a .safetensors file instead"
            )
        name = self.architecture(size=size)
        if not timm.is_model(name.split(".")[0]):
            raise UnknownNameError("network", name, _likely_names(name))
        return name

    @torch.no_grad()
    def try_on(self, *, channels: int, size: int) -> None:
        """Build the network without weights and show it an image, to see that it takes such images and these options.

        Args:
            channels: 1 to 4.
            size: side of the images in pixels.

        Raises:
            ConfigError: if it does not.
        """
        stem = "standard" if self.loads_weights else self.stem
        bare = replace(self, weights=None, pretrained=False, frozen=False, head=HeadSpec(), stem=stem)
        name = self.architecture(size=size)
        try:
            model = bare.build(num_classes=2, channels=channels, size=size, seed=0).eval()
            said = model.net(torch.zeros(1, channels, size, size))
        except (RuntimeError, AssertionError, ValueError, IndexError, KeyError) as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"[model] {name} does not take images of {size} px with these options: {reason[0]}; set data.size to "
                "what it was made for, or take another network"
            ) from None
        if not isinstance(said, Tensor) or said.shape != (1, 2):
            raise ConfigError(f"[model] {name} with these options returns no logits: leave the options out")

    def build(
        self,
        *,
        num_classes: int,
        channels: int,
        size: int,
        seed: int,
        label_vectors: Float[np.ndarray, "K T"] | None = None,
    ) -> Classifier:
        """Build the classifier, from the same initial weights for the same seed.

        Args:
            num_classes: number of logits.
            channels: 1 to 4.
            size: side of the images in pixels.
            seed: the run's seed.
            label_vectors: one per class, for a head of text prototypes.

        Raises:
            UnknownNameError: if timm knows no such network.
            ReadError: if the weights file cannot be used.
            ConfigError: if an option does not fit.
        """
        name = self.check(size=size)
        default = timm.models.get_pretrained_cfg(name)
        overlay: dict[str, Any] | None = None
        if self.weights is not None:
            overlay = {"state_dict": _read_weights(self.weights), "file": None, "url": None, "hf_hub_id": None}
        arguments = self.arguments(size=size)
        if self.drop_path_rate:
            arguments["drop_path_rate"] = self.drop_path_rate

        def create(**loading: Any) -> Any:
            return timm.create_model(
                name, num_classes=num_classes, in_chans=channels, drop_rate=self.drop_rate, **loading, **arguments
            )

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init"))
            try:
                net = create(pretrained=self.loads_weights, pretrained_cfg_overlay=overlay)
            except TypeError as error:
                raise ConfigError(f"[model] {name} does not take these options: {error}") from None
            except AssertionError as error:
                raise ConfigError(
                    f"[model] {name} does not take images of {size} px, or its options: {error}"
                ) from None
            except RuntimeError as error:
                if self.weights is None:
                    raise
                reason = f"does not fit {name}: {str(error).splitlines()[0]}"
                raise ReadError(self.weights.name, f"{reason}; {FITTING}") from None
            _refuse_cut_patches(net, name, size=size)
            if self.weights is not None:
                torch.manual_seed(torch_seed(seed, "init"))
                _refuse_unloaded(net, create(pretrained=False), self.weights)
            if self.head.name == "linear":
                start_head(net, zeros=self.head.zeros)
            else:
                vectors = None if label_vectors is None else torch.from_numpy(label_vectors)
                features = head_features(net, channels=channels, size=size)
                replace_head(net, self.head.build(features, num_classes, label_vectors=vectors))
        mean, std = self.mean, self.std
        if mean is None or std is None:
            known = default if self.loads_weights and default is not None else None
            mean = mean or _fit(tuple(known.mean) if known else (0.5,), channels)
            std = std or _fit(tuple(known.std) if known else (0.25,), channels)
        if len(mean) != channels or len(std) != channels:
            raise ConfigError(
                f"[model] mean and std need {channels} values, one per channel; got {len(mean)} and {len(std)}"
            )
        return Classifier(net, mean=mean, std=std)


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those that decay and those that do not (biases, normalisation)."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim > 1].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def _fit(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    return (sum(values) / len(values),) * channels


def _refuse_unloaded(net: nn.Module, blank: nn.Module, path: Path) -> None:
    """Refuse weights of which timm left parts out without a word: layers still as in `blank`, of the same seed.

    Raises:
        ReadError: naming some of them.
    """
    named = getattr(net, "pretrained_cfg", {}).get("classifier") or ()
    last = (named,) if isinstance(named, str) else tuple(named)
    drawn = {
        name: weight
        for name, weight in blank.named_parameters()
        if weight.ndim > 1 and float(weight.detach().std()) > 0 and not name.startswith(last)
    }
    left = [name for name, weight in net.named_parameters() if name in drawn and torch.equal(weight, drawn[name])]
    if left:
        some = ", ".join(left[:3]) + (" ..." if len(left) > 3 else "")
        raise ReadError(path.name, f"lacks {len(left)} of {len(drawn)} layers of the network ({some}); {FITTING}")


def _refuse_cut_patches(net: nn.Module, name: str, *, size: int) -> None:
    """Refuse images that a vision transformer's patches do not divide: what is left over at the edges is not seen.

    Raises:
        ConfigError: naming sizes that fit.
    """
    embed = getattr(net, "patch_embed", None)
    if not isinstance(embed, PatchEmbed) or (embed.dynamic_img_pad and not embed.strict_img_size):
        return  # it overlaps its patches, or pads
    patch = int(embed.patch_size[0])
    if size % patch:
        raise ConfigError(
            f"[model] {name} cuts images into patches of {patch} pixels, and {size} px is no multiple of it: set "
            f"options.patch_size, or data.size = {max(1, size // patch) * patch}"
        )


def _likely_names(name: str) -> list[str]:
    stem = name[:4].lower()
    near = [known for known in timm.list_models() if known.startswith(stem)]
    return near or ["resnet18", "resnet50", "convnext_tiny", "mobilenetv2_100", "vit_small_patch16_224"]


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ReadError(
            path.name,
            "weights must be a .safetensors file, since other formats can run code when loaded; convert it once with "
            "`safetensors.torch.save_file` in the program that made it",
        )
    try:
        require_safetensors(path)
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ReadError(path.name, f"is not a whole safetensors file ({error}): fetch it again") from None
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
