"""Textual inversion: learn a word for a class, in a model that stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from raremix.core.errors import ConfigError
from raremix.core.protocols import Trainable
from raremix.core.ranks import ALONE
from raremix.generate.diffusion_library import Solver, save_memory
from raremix.generate.diffusion_sampling import check_drawing
from raremix.generate.form import Form
from raremix.generate.latent_diffusion import (
    check_prompts,
    check_template,
    known_parts,
    parts_of,
    prompts_of,
    usual_drawing,
)
from raremix.generate.latent_drawing import LatentDrawer
from raremix.generate.latent_parts import Parts, TextDenoiser
from raremix.generate.latent_training import LatentTraining
from raremix.generate.latent_weights import find_weights, weights_hash
from raremix.generate.method import Budget
from raremix.generate.partly import Partly
from raremix.generate.tokens import check_spelling, check_tokens, spelled, token_of, with_tokens

FIELDS = ("token", "modality", "data")
"""What a template may ask for: a class's token, the card's modality, the data set's name."""


@dataclass(frozen=True, kw_only=True)
class TextualInversion:
    """One token per class, of several vectors, learnt with everything else frozen [1].

    Loss: that of the latent diffusion model, moved by the new rows of the text encoder's embedding alone.

    [1] Gal et al., ICLR 2023, https://arxiv.org/abs/2208.01618. Several vectors per token, as medical images need
    them (https://arxiv.org/abs/2303.13430). Ours: the vectors begin as those of the class's own words.

    Args:
        weights: folder in Stable Diffusion's format, a hub id, or a folder of a fitted latent_diffusion.
        download: fetch the hub id; otherwise nothing is ever downloaded.
        vectors: per token.
        learn: classes that get a token; left out: all. The others are drawn by the words that the model knows.
        initial: word or words that the vectors begin as; left out: each class's own.
        prompt: template of a class's prompt, with the fields {token}, {modality} and {data}.
        table: class -> token, such as "<df>"; found when fitting, where it is not given.
        prompts: class by class; found when fitting.
        min_snr: the most that a moment counts; 0: all count alike.
        learning_rate: of Adam.
        gradient_checkpointing, attention_slicing: less memory for more time.
        solver: of drawing, where nobody says otherwise.
        num_inference_steps, guidance_scale: None: those of the model that it is learnt in; 50 and 7.5 of weights in
            Stable Diffusion's format, 25 and 2 of a latent_diffusion from scratch.
        strength: how much noise an image gets that is translated.
        weights_hash: of the weights; found when fitting, checked when drawing.

    Raises:
        ConfigError: if one of them is out of range, or the template has an unknown field or no token.

    Example:
        >>> TextualInversion(vectors=4).budget.steps
        5000
    """

    weights: str = ""
    download: bool = False
    vectors: int = 8
    learn: tuple[str, ...] = ()
    initial: str = ""
    prompt: str = "a {modality} image of {token}"
    table: dict[str, str] | None = None
    prompts: tuple[str, ...] = ()
    min_snr: float = 5.0
    learning_rate: float = 5e-3
    gradient_checkpointing: bool = False
    attention_slicing: bool = False
    solver: Solver = "dpm++"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    strength: float = 0.8
    weights_hash: str = ""

    is_translator = False
    begins_with = ("latent_diffusion",)
    kept = ("network",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "learn", tuple(self.learn))
        object.__setattr__(self, "prompts", tuple(self.prompts))
        if self.vectors < 1:
            raise ConfigError(f"textual_inversion: vectors must be at least 1, got {self.vectors}")
        if self.learning_rate <= 0 or self.min_snr < 0:
            raise ConfigError("textual_inversion: learning_rate must be more than 0, min_snr at least 0")
        check_template(self.prompt, FIELDS)
        if "{token}" not in self.prompt:
            raise ConfigError(f"generator.prompt = {self.prompt!r}: nothing is learnt without {{token}}")
        check_drawing(**self.drawn)

    @property
    def drawn(self) -> dict[str, Any]:
        """The settings of drawing."""
        usual = usual_drawing(is_tuned=True)
        own = {name: getattr(self, name) for name in usual if getattr(self, name) is not None}
        return {"solver": self.solver, "strength": self.strength, **usual, **own}

    @property
    def budget(self) -> Budget:
        """5,000 steps of 4 images."""
        return Budget(
            steps=5_000,
            batch_size=4,
            average=0.99,
            precision="auto",
            warmup=0.01,
            thrift="generator.gradient_checkpointing=true",
        )

    def told(self, words: Mapping[str, str], classes: Sequence[str]) -> "TextualInversion":
        """Return the method with what the data say filled in: tokens, prompts, and which the weights are.

        Args:
            words: what the template's fields say, but for {token}.
            classes: names.

        Raises:
            ConfigError: if a class to learn is none, tokens are alike or misspelled, or the weights cannot be had.
        """
        self.check_classes(classes)
        learnt = self.learn or tuple(classes)
        table = self._tokens(classes)
        folder, known = base_of(self.weights, download=self.download)
        usual = _drawn_by(folder)
        plain = self.prompt.replace("{token}", "{class}")
        by_words = prompts_of(plain, words, classes)
        by_token = prompts_of(plain, words, [table.get(name, name) for name in classes])
        prompts = self.prompts or tuple(
            by_token[k] if name in table else known.get(name, by_words[k]) for k, name in enumerate(classes)
        )
        check_prompts(prompts, classes)
        check_tokens(table, dict(zip(classes, prompts, strict=True)))
        return replace(
            self,
            learn=learnt,
            table=table,
            prompts=prompts,
            weights=str(folder.resolve()),
            download=False,
            weights_hash=_hash(folder),
            **{name: value for name, value in usual.items() if getattr(self, name) is None},
        )

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse a class to learn that is none, and tokens that are alike, of no class to learn, or misspelled.

        Raises:
            ConfigError: naming the setting.
        """
        for name in self.learn:
            if name not in classes:
                raise ConfigError(f"generator.learn: {name!r} is no class; there are {', '.join(classes)}")
        table, learnt = self._tokens(classes), self.learn or tuple(classes)
        if set(table) != set(learnt) or len(set(table.values())) < len(table):
            raise ConfigError(
                f"generator.table = {table}: expected one token for each of {', '.join(learnt)}, no two alike"
            )
        check_spelling(table)

    def networks(self, form: Form, *, seed: int) -> dict[str, nn.Module]:
        """Build the network, of which the new rows alone are trained.

        Raises:
            ConfigError: if the weights cannot be had or are other ones, or the table of tokens does not fit.
        """
        if not self.table or len(self.prompts) != form.classes:
            raise ConfigError("textual_inversion needs a token or a prompt for every class: fit it on data first")
        parts = self._parts(form)
        save_memory(
            parts.unet,
            gradient_checkpointing=self.gradient_checkpointing,
            attention_slicing=self.attention_slicing,
        )
        parts = with_tokens(parts, self.table, vectors=self.vectors, initial=self.initial)
        prompts = [spelled(prompt, self.table, vectors=self.vectors) for prompt in self.prompts]
        whole = TextDenoiser(parts, parts.tokens([*prompts, ""]))
        return {"network": Partly(whole, lambda name: name.endswith(".rows"))}

    def training(
        self, networks: dict[str, nn.Module], form: Form, *, seed: int, extras: Mapping[str, Any] | None = None
    ) -> Trainable:
        """Build what the loop trains."""
        parts = parts_of(networks)
        optimizers: dict[str, Optimizer] = {
            # Rows that decay would become words of no class.
            "network": AdamW(networks["network"].parameters(), lr=self.learning_rate, weight_decay=0.0, fused=True)
        }
        return LatentTraining(
            modules=networks,
            optimizers=optimizers,
            frozen=parts.autoencoder.requires_grad_(False).eval(),
            form=form,
            noise=parts.noise,
            seed=seed,
            # A prompt that says nothing has no row to learn from it.
            hide=0.0,
            min_snr=self.min_snr,
            ranks=(extras or {}).get("ranks", ALONE),
        )

    @property
    def drawer_class(self) -> type[Any]:
        """The class of what draws."""
        return LatentDrawer

    def drawer(
        self, networks: Mapping[str, nn.Module], form: Form, *, extras: Mapping[str, Tensor] | None = None
    ) -> LatentDrawer:
        """Build what draws.

        Raises:
            ConfigError: if a class has no token, or the tokenizer does not know it.
        """
        parts = parts_of(networks)
        table = self.table or {}
        check_tokens(table, dict.fromkeys(table, " ".join(self.prompts)), tokenizer=parts.tokenizer)
        return LatentDrawer(
            network=networks["network"].eval(),
            parts=parts,
            noise=parts.noise,
            autoencoder=parts.autoencoder.eval(),
            form=form,
            prompts=self.prompts,
            **self.drawn,
        )

    def _tokens(self, classes: Sequence[str]) -> dict[str, str]:
        return {name: token_of(name) for name in self.learn or classes} | (self.table or {})

    def _parts(self, form: Form) -> Parts:
        folder, _ = base_of(self.weights, download=self.download)
        if not _is_fitted(folder):
            return known_parts(self.weights, form, download=self.download, expected=self.weights_hash)
        from raremix.generate.folder import load_generator  # noqa: PLC0415 - whose registry knows this method

        if self.weights_hash and _hash(folder) != self.weights_hash:
            raise ConfigError(f"{folder} is another generator than this was fitted with: restore it, or fit again")
        drawer, card = load_generator(folder)
        assert isinstance(drawer, LatentDrawer)
        if card.form.channels != form.channels:
            raise ConfigError(
                f"{folder} draws {card.form.channels} channels, the images have {form.channels}: set data.channels="
                f"{card.form.channels}"
            )
        return replace(drawer.parts, autoencoder=drawer.autoencoder)


def base_of(weights: str, *, download: bool) -> tuple[Path, dict[str, str]]:
    """Return the folder of a model, and the prompts of the classes that it knows.

    Raises:
        ConfigError: if there is no such model.
    """
    if not weights:
        raise ConfigError(
            "textual_inversion needs a model: --set generator.weights=FOLDER, of a fitted latent_diffusion or in "
            "Stable Diffusion's format"
        )
    folder = Path(weights).expanduser()
    if not _is_fitted(folder):
        return find_weights(weights, download=download), {}
    from raremix.generate.folder import read_card  # noqa: PLC0415 - whose registry knows this method

    card = read_card(folder)
    if card.method != "latent_diffusion":
        raise ConfigError(f"{folder} is a {card.method}: textual_inversion needs a latent_diffusion")
    seen = zip(card.classes, card.settings["prompts"], card.images, strict=True)
    return folder, {name: prompt for name, prompt, count in seen if count}


def _drawn_by(folder: Path) -> dict[str, Any]:
    """Return how a fitted model draws where nobody says otherwise; nothing of weights from elsewhere."""
    if not _is_fitted(folder):
        return {}
    from raremix.generate.folder import read_card  # noqa: PLC0415 - whose registry knows this method

    settings = read_card(folder).settings
    usual = usual_drawing(is_tuned=bool(settings.get("weights")))
    return {name: value if settings.get(name) is None else settings[name] for name, value in usual.items()}


def _is_fitted(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "fitted_on.parquet").is_file()


def _hash(folder: Path) -> str:
    if not _is_fitted(folder):
        return weights_hash(folder)
    from raremix.generate.folder import generator_hash  # noqa: PLC0415 - whose registry knows this method

    return generator_hash(folder)
