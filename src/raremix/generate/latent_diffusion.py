"""Latent diffusion: a Stable Diffusion model tuned to one's classes, or a small one of that form from scratch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from raremix.core.errors import ConfigError
from raremix.core.protocols import Trainable
from raremix.core.random import torch_seed
from raremix.core.ranks import ALONE
from raremix.generate.diffusion_library import Solver, save_memory
from raremix.generate.diffusion_sampling import check_drawing
from raremix.generate.form import Form
from raremix.generate.latent_drawing import LatentDrawer
from raremix.generate.latent_parts import Parts, TextDenoiser
from raremix.generate.latent_small import Small, small_parts
from raremix.generate.latent_training import LatentTraining
from raremix.generate.latent_weights import find_weights, read_parts, weights_hash
from raremix.generate.method import Budget
from raremix.generate.partly import Partly

FEWEST = 20
"""A class of fewer images is refused from scratch; a tuned model has seen other images."""

ATTENDING = ["to_q", "to_k", "to_v", "to_out.0"]
"""The layers of attention that get low-rank additions."""

FIELDS = ("class", "modality", "data")
"""What a template may ask for: a class's name, the card's modality, the data set's name."""

SHARE = 0.3
"""Share of the steps that a new autoencoder gets."""


@dataclass(frozen=True, kw_only=True)
class LatentDiffusion:
    """A text-conditional diffusion model of latents [1]: tuned, or small and from scratch; same class, same files.

    Loss: w_t |v(z_t, t, prompt) - target|^2 with z = E(x) / spread, and the target that the model was made for.
    From scratch, the autoencoder E, D is trained first: |D(z) - x| + kl KL(E(x), N(0, 1)).

    [1] Rombach et al., CVPR 2022, https://arxiv.org/abs/2112.10752. Low-rank additions: https://arxiv.org/abs/2106.09685.
    Prior preservation: https://arxiv.org/abs/2208.12242, here with real images of a class instead of drawn ones.
    From scratch there is no perceptual and no adversarial loss: both need weights, or more images than there are.

    Args:
        weights: folder in Stable Diffusion's format, or a hub id; left out: from scratch.
        download: fetch the hub id; otherwise nothing is ever downloaded.
        tune: "lora" trains low-rank additions to attention, "full" the whole U-Net.
        rank: of the additions.
        prompt: template of a class's prompt, with the fields {class}, {modality} and {data}.
        prompts: one per class, instead of the template.
        prior: class that is not to be forgotten.
        prior_weight: weight of the loss on its images.
        width, layers, dropout: of the U-Net from scratch.
        text_width: of the text encoder from scratch, a multiple of 32.
        latent_channels, autoencoder_width: of the autoencoder from scratch.
        autoencoder_steps: how long it is trained; None: 30 % of the steps.
        kl: weight of its latents' distance from standard normal ones.
        min_snr: the most that a moment counts; 0: all count alike.
        hide: share of the images whose prompt is hidden.
        learning_rate: of AdamW; None: 2e-4 from scratch, 1e-4 for "lora", 1e-5 for "full".
        weight_decay: of AdamW.
        gradient_checkpointing, attention_slicing: less memory for more time.
        solver: of drawing, where nobody says otherwise.
        num_inference_steps: None: 25 from scratch, 50 for a tuned model.
        guidance_scale: None: 2 from scratch, 7.5 for a tuned model.
        strength: how much noise an image gets that is translated.
        weights_hash: of the weights; found when fitting, checked when drawing.

    Raises:
        ConfigError: if one of them is out of range, or the template has an unknown field.

    Example:
        >>> LatentDiffusion(prompt="a {modality} image of {class}").told({"modality": "skin"}, ["nevus"]).prompts
        ('a skin image of nevus',)
    """

    weights: str = ""
    download: bool = False
    tune: Literal["lora", "full"] = "lora"
    rank: int = 8
    prompt: str = "a {modality} image of {class}"
    prompts: tuple[str, ...] = ()
    prior: str = ""
    prior_weight: float = 1.0
    width: int = 64
    layers: int = 1
    dropout: float = 0.1
    text_width: int = 128
    latent_channels: int = 4
    autoencoder_width: int = 64
    autoencoder_steps: int | None = None
    kl: float = 1e-6
    min_snr: float = 5.0
    hide: float = 0.1
    learning_rate: float | None = None
    weight_decay: float = 0.01
    gradient_checkpointing: bool = False
    attention_slicing: bool = False
    solver: Solver = "dpm++"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float = 0.8
    weights_hash: str = ""

    is_translator = False
    begins_with = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))
        least = {"rank": 1, "layers": 1, "latent_channels": 1, "prior_weight": 0, "kl": 0, "min_snr": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"latent_diffusion: {name} must be at least {low}, got {getattr(self, name)}")
        for name, step in {"width": 8, "text_width": 32, "autoencoder_width": 8}.items():
            if getattr(self, name) < step or getattr(self, name) % step:
                raise ConfigError(f"latent_diffusion: {name} must be a multiple of {step}, got {getattr(self, name)}")
        for name in ("dropout", "hide"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"latent_diffusion: {name} must be in [0, 1), got {getattr(self, name)}")
        if (self.learning_rate is not None and self.learning_rate <= 0) or self.weight_decay < 0:
            raise ConfigError("latent_diffusion: learning_rate must be more than 0, weight_decay at least 0")
        if self.autoencoder_steps is not None and self.autoencoder_steps < 1:
            raise ConfigError(f"latent_diffusion: autoencoder_steps must be at least 1, got {self.autoencoder_steps}")
        check_template(self.prompt)
        check_drawing(**self.drawn)

    @property
    def kept(self) -> tuple[str, ...]:
        """The network, and the autoencoder where it is a new one."""
        return ("network",) if self.weights else ("network", "autoencoder")

    @property
    def drawn(self) -> dict[str, Any]:
        """The settings of drawing that are in force."""
        usual = usual_drawing(is_tuned=bool(self.weights))
        own = {name: getattr(self, name) for name in usual if getattr(self, name) is not None}
        return {"solver": self.solver, "strength": self.strength, **usual, **own}

    @property
    def rate(self) -> float:
        """The learning rate that is in force."""
        usual = (1e-4 if self.tune == "lora" else 1e-5) if self.weights else 2e-4
        return usual if self.learning_rate is None else self.learning_rate

    @property
    def budget(self) -> Budget:
        """50,000 steps of 64 images from scratch; 3,000 steps of 4 images for a tuned model."""
        common: dict[str, Any] = {
            "precision": "auto",
            "clip": 1.0,
            "warmup": 0.01,
            "thrift": "generator.gradient_checkpointing=true",
        }
        if self.weights:
            return Budget(steps=3_000, batch_size=4, average=0.99, **common)
        return Budget(steps=50_000, batch_size=64, average=0.999, fewest=FEWEST, **common)

    def told(self, words: Mapping[str, str], classes: Sequence[str]) -> "LatentDiffusion":
        """Return the method with what the data say filled in: prompts, and where and which the weights are.

        Args:
            words: what the template's fields say, but for {class}.
            classes: names.

        Raises:
            ConfigError: if prompts are too few or alike, the prior is no class, or the weights cannot be had.
        """
        self.check_classes(classes)
        prompts = self.prompts or prompts_of(self.prompt, words, classes)
        check_prompts(prompts, classes)
        if not self.weights:
            return replace(self, prompts=prompts)
        folder = find_weights(self.weights, download=self.download)
        return replace(
            self, prompts=prompts, weights=str(folder.resolve()), download=False, weights_hash=weights_hash(folder)
        )

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse a class that is not to be forgotten, and is none.

        Raises:
            ConfigError: naming it.
        """
        if self.prior and self.prior not in classes:
            raise ConfigError(f"generator.prior = {self.prior!r}: expected one of {', '.join(classes)}")

    def networks(self, form: Form, *, seed: int) -> dict[str, nn.Module]:
        """Build the network, and the autoencoder where it is a new one.

        Raises:
            ConfigError: if the weights cannot be had, are other ones than were tuned, or read other channels.
        """
        prompts = self.prompts or tuple(f"class {k}" for k in range(form.classes))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init"))
            parts = self._parts(form, prompts)
            save_memory(
                parts.unet,
                gradient_checkpointing=self.gradient_checkpointing,
                attention_slicing=self.attention_slicing,
            )
            whole = TextDenoiser(parts, parts.tokens([*prompts, ""]))
            if not self.weights:
                return {"network": Partly(whole, lambda name: True), "autoencoder": parts.autoencoder}
            if self.tune == "full":
                return {"network": Partly(whole, lambda name: name.startswith("unet."))}
            add_low_rank(parts.unet, rank=self.rank)
            return {"network": Partly(whole, lambda name: "lora_" in name)}

    def training(
        self, networks: dict[str, nn.Module], form: Form, *, seed: int, extras: Mapping[str, Any] | None = None
    ) -> Trainable:
        """Build what the loop trains; of `extras` it takes the number of steps, the average's decay, and the ranks.

        Raises:
            ConfigError: if no step is left for the network.
        """
        steps = int((extras or {}).get("steps", self.budget.steps))
        first = 0
        if not self.weights:
            first = max(1, round(SHARE * steps)) if self.autoencoder_steps is None else self.autoencoder_steps
            if first >= steps:
                raise ConfigError(
                    f"generator.autoencoder_steps = {first} leaves none of {steps} steps for the network: more --steps"
                )
        parts = parts_of(networks)
        optimizers: dict[str, Optimizer] = {
            name: AdamW(networks[name].parameters(), lr=self.rate, weight_decay=self.weight_decay, fused=True)
            for name in reversed(self.kept)
        }
        return LatentTraining(
            modules=networks,
            optimizers=optimizers,
            frozen=parts.autoencoder.requires_grad_(False).eval() if self.weights else None,
            form=form,
            noise=parts.noise,
            seed=seed,
            hide=self.hide,
            min_snr=self.min_snr,
            kl=self.kl,
            prior=self.prior_weight if self.prior else 0.0,
            first=first,
            average=(extras or {}).get("average", self.budget.average),
            averaged=self.kept,
            ranks=(extras or {}).get("ranks", ALONE),
        )

    @property
    def drawer_class(self) -> type[Any]:
        """The class of what draws."""
        return LatentDrawer

    def drawer(
        self, networks: Mapping[str, nn.Module], form: Form, *, extras: Mapping[str, Tensor] | None = None
    ) -> LatentDrawer:
        """Build what draws."""
        parts, given = parts_of(networks), networks.get("autoencoder")
        return LatentDrawer(
            network=networks["network"].eval(),
            parts=parts,
            noise=parts.noise,
            autoencoder=(parts.autoencoder if given is None else given).eval(),  # pyright: ignore[reportArgumentType]
            form=form,
            prompts=self.prompts,
            **self.drawn,
        )

    def _parts(self, form: Form, prompts: Sequence[str]) -> Parts:
        if self.weights:
            return known_parts(self.weights, form, download=self.download, expected=self.weights_hash)
        size = Small(
            width=self.width,
            layers=self.layers,
            dropout=self.dropout,
            text_width=self.text_width,
            latent_channels=self.latent_channels,
            autoencoder_width=self.autoencoder_width,
        )
        return small_parts(size, side=form.side, channels=form.channels, prompts=prompts)


def usual_drawing(*, is_tuned: bool) -> dict[str, Any]:
    """Return steps and guidance of drawing: of weights from elsewhere, or of a small model from scratch."""
    steps, scale = (50, 7.5) if is_tuned else (25, 2.0)
    return {"num_inference_steps": steps, "guidance_scale": scale}


def known_parts(weights: str, form: Form, *, download: bool, expected: str) -> Parts:
    """Read a model's parts, after checking that they are the expected ones and read such images.

    Args:
        weights: folder or hub id.
        form: what is to be drawn.
        download: fetch what is missing.
        expected: hash of the weights; empty: any.

    Raises:
        ConfigError: if they are not.
    """
    folder = find_weights(weights, download=download)
    if expected and weights_hash(folder) != expected:
        raise ConfigError(f"{folder} holds other weights than this was fitted with: restore them, or fit again")
    parts = read_parts(folder)
    reads = parts.autoencoder.channels[0]
    if form.channels not in {reads, 1}:
        raise ConfigError(
            f"{folder} reads {reads} channels, the images have {form.channels}: set data.channels to {reads} or 1, or "
            "train from scratch (no generator.weights)"
        )
    made_for = int(parts.unet.config.sample_size or 0) * parts.autoencoder.factor
    if 2 * form.side < made_for:
        raise ConfigError(
            f"{folder} draws {made_for} pixels; far below, at {form.side}, it draws nothing that can be used: set "
            f"--size {made_for} (data.size; no less than {made_for // 2}), or train from scratch (no generator.weights)"
        )
    return parts


def parts_of(networks: Mapping[str, nn.Module]) -> Parts:
    """Return the parts that a network was built from; wrappers of devices and averages lead to them too."""
    network: Any = networks["network"]
    return network.whole.made_of[0]


def add_low_rank(unet: Any, *, rank: int) -> None:
    """Add low-rank matrices to a U-Net's attention, in place; at first they change nothing.

    Raises:
        ConfigError: if peft is not installed, naming the extra.
    """
    try:
        from peft import LoraConfig  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise ConfigError(
            "generator.tune = 'lora' needs peft: pip install 'raremix[diffusion]', or set generator.tune=full"
        ) from None
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTENDING))


def check_template(prompt: str, fields: Sequence[str] = FIELDS) -> None:
    """Refuse a template with a field that is not known, or that is more than a name.

    Raises:
        ConfigError: naming the field.
    """
    try:
        asked = [part for part in Formatter().parse(prompt) if part[1] is not None]
    except ValueError as error:
        raise ConfigError(f"generator.prompt = {prompt!r}: {error}") from None
    for _, name, form, conversion in asked:
        if form or conversion is not None:
            more = f"!{conversion}" * (conversion is not None) + f":{form}" * bool(form)
            raise ConfigError(f"generator.prompt = {prompt!r}: leave {more} out; a field is its name, {{{name}}}")
        if name not in fields:
            raise ConfigError(
                f"generator.prompt = {prompt!r}: the field {{{name}}} is not known; there are "
                f"{', '.join(f'{{{known}}}' for known in fields)}"
            )


def prompts_of(prompt: str, words: Mapping[str, str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return one prompt per class, in words: underscores are spaces."""
    plain = {name: words.get(name, "").replace("_", " ") for name in FIELDS}
    return tuple(" ".join(prompt.format(**{**plain, "class": name.replace("_", " ")}).split()) for name in classes)


def check_prompts(prompts: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse prompts that do not tell the classes apart.

    Raises:
        ConfigError: naming what is wrong.
    """
    if len(prompts) != len(classes):
        raise ConfigError(f"generator.prompts: got {len(prompts)}, expected one for each of {', '.join(classes)}")
    if len({prompt.lower() for prompt in prompts}) < len(prompts):
        raise ConfigError(f"the prompts do not tell the classes apart ({'; '.join(prompts)}): use {{class}}")
