"""StarGAN: translate an image to another class, in a style drawn from noise or seen in another image."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import Trainable
from raremix.core.random import rng, torch_seed
from raremix.core.ranks import ALONE, Ranks
from raremix.core.types import Batch
from raremix.generate.adversarial import discriminator_loss, exact, generator_loss, gradient_penalty
from raremix.generate.form import Form, classes_of
from raremix.generate.method import Budget, train_only
from raremix.generate.stargan_drawing import StarTranslator
from raremix.generate.stargan_networks import (
    ClassDiscriminator,
    StyleEncoder,
    StyleMapping,
    Translator,
    start_weights,
)


@dataclass(frozen=True, kw_only=True)
class StarGAN:
    """StarGAN v2 [1], the translator behind VariMix [2].

    With s~ = F(z, y~) ("latent") or E(x_ref, y~) ("reference") and the target class y~:
    L_D = BCE(D_y(x), 1) + BCE(D_y~(G(x, s~)), 0) + r1/2 |grad_x D_y(x)|^2,
    L_G = BCE(D_y~(G(x, s~)), 1) + style |E(G(x, s~), y~) - s~| - diversity(t) |G(x, s~) - G(x, s~')|
          + cycle |G(G(x, s~), E(x, y)) - x|.
    Every step moves D by either pass, then G, F and E by the latent pass, then G by the reference pass.

    [1] Choi et al., "StarGAN v2", CVPR 2020, https://arxiv.org/abs/1912.01865.
    [2] Xiong et al., "VariMix", Comput. Methods Programs Biomed. 271:109016, 2025,
    https://github.com/yXiangXiong/VariMix. It has one head for all classes in F and E, so that the class enters
    through D alone and nothing ensures that a translation changes it; `class_heads = False` is that. Ours, by option:
    a classifier's cross-entropy on translations, and the reconstruction of the image in its own style.

    Args:
        class_heads: one head of the style networks per class, as in [1].
        width: channels at full size; None: 2^14 / side, at most `widest`.
        widest: the most channels.
        latent, hidden, style: lengths of the noise, of the mapping's layers, and of a style.
        r1: weight of the gradient penalty.
        style_weight, cycle: weights of the losses above.
        diversity: weight of the diversity loss at the start.
        diversity_decay: by how much that weight falls per step, down to 0.
        identity: weight of |G(x, E(x, y)) - x|.
        classifier: weight of an auxiliary classifier's cross-entropy on translations; it is given when fitting.
        learning_rate, mapping_rate: of Adam, for all networks but the mapping, and for the mapping.
        weight_decay: of Adam.

    Raises:
        ConfigError: if one of them is out of range.

    Example:
        >>> networks = StarGAN(width=8, widest=16).networks(Form(size=32, channels=1, classes=2), seed=0)
        >>> sorted(networks)
        ['discriminator', 'encoder', 'generator', 'mapping']
    """

    class_heads: bool = True
    width: int | None = None
    widest: int = 512
    latent: int = 16
    hidden: int = 512
    style: int = 64
    r1: float = 1.0
    style_weight: float = 1.0
    cycle: float = 1.0
    diversity: float = 2.0
    diversity_decay: float = 2e-5
    identity: float = 0.0
    classifier: float = 0.0
    learning_rate: float = 1e-4
    mapping_rate: float = 1e-6
    weight_decay: float = 1e-4

    is_translator = True
    kept = ("generator", "mapping", "encoder")

    def __post_init__(self) -> None:
        weights = ("r1", "style_weight", "cycle", "diversity", "diversity_decay", "identity", "classifier")
        least: dict[str, int] = dict.fromkeys(("widest", "latent", "hidden", "style"), 1)
        least |= dict.fromkeys(weights, 0)
        if self.width is not None:
            least["width"] = 1
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"stargan: {name} must be at least {low}, got {getattr(self, name)}")
        if self.learning_rate <= 0 or self.mapping_rate <= 0:
            raise ConfigError("stargan: learning_rate and mapping_rate must be more than 0")

    @property
    def budget(self) -> Budget:
        """As published: 50,000 steps of 8 images (20,000 for the smallest of their data sets).

        Images are not cropped: the authors cut from the files, which are larger. A crop of images that are small
        already blurs every one that is learnt from, and what is drawn after them.
        """
        return Budget(steps=50_000, batch_size=8, average=0.999)

    def networks(self, form: Form, *, seed: int) -> dict[str, nn.Module]:
        """Build generator, mapping, encoder and discriminator."""
        width = min(self.width or 2**14 // form.side, self.widest)
        heads = form.classes if self.class_heads else 1
        common: dict[str, Any] = {"side": form.side, "channels": form.channels, "width": width, "widest": self.widest}
        build = {
            "generator": partial(Translator, **common, style=self.style),
            "mapping": partial(StyleMapping, latent=self.latent, hidden=self.hidden, style=self.style, heads=heads),
            "encoder": partial(StyleEncoder, **common, style=self.style, heads=heads),
            "discriminator": partial(ClassDiscriminator, **common, classes=form.classes),
        }
        networks: dict[str, nn.Module] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init"))
            for name, make in build.items():
                networks[name] = make()
                start_weights(networks[name])
        return networks

    def training(
        self, networks: dict[str, nn.Module], form: Form, *, seed: int, extras: Mapping[str, Any] | None = None
    ) -> Trainable:
        """Build what the loop trains: four phases, of which two share the discriminator's optimiser, two the others'.

        Raises:
            ConfigError: if the auxiliary classifier has a weight and is not given.
        """
        judge = (extras or {}).get("classifier")
        if self.classifier > 0 and judge is None:
            raise ConfigError("stargan: classifier > 0 needs a trained classifier: raremix generator fit --classifier")
        rates = {"generator": self.learning_rate, "encoder": self.learning_rate, "mapping": self.mapping_rate}
        groups = [{"params": list(networks[name].parameters()), "lr": rate} for name, rate in rates.items()]
        settings: dict[str, Any] = {"betas": (0.0, 0.99), "weight_decay": self.weight_decay}
        drawing = Adam(groups, **settings)
        judging = Adam(networks["discriminator"].parameters(), lr=self.learning_rate, **settings)
        return StarGANTraining(
            modules=networks,
            optimizers={
                "discriminator_latent": judging,
                "discriminator_reference": judging,
                "generator_latent": drawing,
                "generator_reference": drawing,
            },
            settings=self,
            form=form,
            seed=seed,
            judge=judge,
            ranks=(extras or {}).get("ranks", ALONE),
        )

    @property
    def drawer_class(self) -> type[Any]:
        """The class of what draws."""
        return StarTranslator

    def drawer(
        self, networks: Mapping[str, nn.Module], form: Form, *, extras: Mapping[str, Tensor] | None = None
    ) -> StarTranslator:
        """Build the translator; `extras` holds the styles of training images by class, as "styles"."""
        return StarTranslator(
            generator=networks["generator"].eval(),
            mapping=networks["mapping"].eval(),
            encoder=networks["encoder"].eval(),
            form=form,
            latent=self.latent,
            heads=form.classes if self.class_heads else 1,
            styles=(extras or {}).get("styles"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StarGANTraining:
    """StarGAN as something to train. References are the batch's pool: pairs of one class, row after row.

    Attributes:
        modules, optimizers: see `StarGAN`.
        settings: the hyper-parameters.
        form: what is drawn.
        seed: the run's seed.
        judge: a frozen classifier, images in [0, 1] -> logits, or None.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    settings: StarGAN
    form: Form
    seed: int
    judge: nn.Module | None = None
    averaged: tuple[str, ...] = ("generator", "mapping", "encoder")
    ranks: Ranks = ALONE

    @property
    def memory(self) -> dict[str, Tensor]:
        """Nothing beside the networks."""
        return {}

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the losses of a phase: discriminator or generator, latent or reference."""
        player, _, source = phase.partition("_")
        asked = self._ask(batch, source, step=step)
        if player == "discriminator":
            train_only(self.modules, "discriminator")
            return self._discriminator(asked)
        train_only(self.modules, *(("generator", "mapping", "encoder") if source == "latent" else ("generator",)))
        return self._generator(asked, step=step)

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Nothing is kept beside the weights."""

    def _ask(self, batch: Batch, source: str, *, step: int) -> "_Asked":
        pool = batch.pool
        if pool is None or len(pool.images) != 2 * len(batch.images):
            raise DataError("stargan needs two reference images of one class per image, as the batch's pool")
        images, references = self.form.enter(batch.images), self.form.enter(pool.images)
        wanted = classes_of(pool.targets)[::2]
        every = (2, self.ranks.whole(len(images)), self.settings.latent)
        noise = rng(self.seed, "latent", step, 0).standard_normal(every)[:, self.ranks.rows(len(images))]
        inputs = torch.from_numpy(noise.astype(np.float32)).to(images.device)
        if source == "reference":
            inputs = torch.stack([references[::2], references[1::2]])
        return _Asked(images=images, own=classes_of(batch.targets), wanted=wanted, source=source, inputs=inputs)

    def _discriminator(self, asked: "_Asked") -> Mapping[str, Tensor]:
        judge, r1 = self.modules["discriminator"], self.settings.r1
        images = asked.images.detach().requires_grad_(r1 > 0)
        real = (exact(judge) if r1 > 0 else judge)(images, asked.own)
        penalty = gradient_penalty(real, images) if r1 > 0 else real.new_zeros(())
        with torch.no_grad():
            drawn = self.modules["generator"](asked.images, self._style(asked, 0))
        loss = discriminator_loss(real, judge(drawn, asked.wanted))
        return {"loss": loss + r1 * penalty, "adversarial": loss, "r1": penalty}

    def _generator(self, asked: "_Asked", *, step: int) -> Mapping[str, Tensor]:
        own, settings, draw, encode = asked.own, self.settings, self.modules["generator"], self.modules["encoder"]
        style = self._style(asked, 0)
        drawn = draw(asked.images, style)
        found = {
            "adversarial": generator_loss(self.modules["discriminator"](drawn, asked.wanted)),
            "style": (encode(drawn, asked.wanted) - style).abs().mean(),
        }
        with torch.no_grad():
            other = draw(asked.images, self._style(asked, 1))
        found["diversity"] = (drawn - other).abs().mean()
        home = encode(asked.images, own)
        found["cycle"] = (draw(drawn, home) - asked.images).abs().mean()
        weights = {
            "adversarial": 1.0,
            "style": settings.style_weight,
            "cycle": settings.cycle,
            "diversity": -max(0.0, settings.diversity - step * settings.diversity_decay),
        }
        if settings.identity > 0:
            found["identity"], weights["identity"] = (
                (draw(asked.images, home) - asked.images).abs().mean(),
                settings.identity,
            )
        if settings.classifier > 0 and self.judge is not None:
            logits = self.judge.to(drawn.device)(self.form.leave(drawn))
            found["classifier"] = functional.cross_entropy(logits, asked.wanted)
            weights["classifier"] = settings.classifier
        loss = torch.stack([weight * found[name] for name, weight in weights.items()]).sum()
        return {"loss": loss, **found}

    def _style(self, asked: "_Asked", number: int) -> Float[Tensor, "B s"]:
        if asked.source == "latent":
            return self.modules["mapping"](asked.inputs[number], asked.wanted)
        # The reference pass moves the generator alone.
        with torch.no_grad():
            return self.modules["encoder"](asked.inputs[number], asked.wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A step's question: images, their classes, the wanted ones, and two sources of style (noise or references)."""

    images: Float[Tensor, "B C H W"]
    own: Int[Tensor, " B"]
    wanted: Int[Tensor, " B"]
    source: str
    inputs: Float[Tensor, "..."]
