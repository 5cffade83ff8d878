"""StyleGAN2: draw images of a class from noise, with augmentation that adapts to how few images there are."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from raremix.core.errors import ConfigError
from raremix.core.protocols import Trainable
from raremix.core.random import torch_seed
from raremix.core.ranks import ALONE
from raremix.generate.ada import Change, kinds_of
from raremix.generate.form import Form, classes_of
from raremix.generate.method import Budget
from raremix.generate.stylegan2_networks import PairDiscriminator, StyleMapping, Synthesis, noise_sides, widths_of
from raremix.generate.stylegan2_training import StyleGAN2Training

PLAIN_SIDE = 32
"""Up to this side, mixed styles and path lengths are left out, as https://arxiv.org/abs/2006.06676 has them."""

FEW_DEPTH, MANY_DEPTH, MANY = 2, 8, 10_000
"""Layers of the mapping for few images and for many, and how many are many."""

MEAN_OF = 1024
"""Styles of a class whose mean truncation draws towards."""


@dataclass(frozen=True, kw_only=True)
class StyleGAN2:
    """A class-conditional StyleGAN2 [1] with adaptive discriminator augmentation [2], for few images.

    L_D = softplus(-D(T x)) + softplus(D(T G(z))) + gamma/2 |grad D(T x)|^2, L_G = softplus(-D(T G(z)))
    + path (|J_w^T n| - a)^2, every network told the class. T happens with probability p, which follows how well D knows
    the real images: p rises while E[sign D(x)] > `overfit`. The two penalties are taken every few steps, as steps of
    their own.

    [1] Karras et al., CVPR 2020, https://arxiv.org/abs/1912.04958. [2] Karras et al., NeurIPS 2020,
    https://arxiv.org/abs/2006.06676. By option, training begins without classes [3], where a class has a hundred images
    or fewer. [3] Shahbazi et al., ICLR 2022, https://arxiv.org/abs/2201.06578. Departures: R1 is taken at the augmented
    image, which is what D sees, because the gradient of a gradient does not go through resampling in torch; classes
    enter D as one vector each.

    Args:
        latent, style: lengths of the noise and of a style.
        depth: layers of the mapping; None: 2, and 8 from 10,000 training images on, as published for small sets [2]
            and for large ones [1].
        channel_base: channels at a side are channel_base / side; None: 2^14, at 512 pixels 2^15.
        channel_max: the most channels.
        learning_rate: of Adam (0, .99), for all networks; the mapping's is a hundredth of it.
        r1: gamma; None: .0002 side^2 / batch size.
        r1_every: steps from one gradient penalty to the next.
        path: weight of the path lengths' penalty; None: 2, and 0 up to 32 pixels.
        path_every: steps from one such penalty to the next.
        style_mixing: share of the images that have two styles; None: .9, and 0 up to 32 pixels.
        augment: kinds of change, or groups of them, see `raremix.generate.ada`; () for none.
        probability: p at the start.
        most: largest p. Above .8 changes begin to show in what is drawn [2].
        overfit: E[sign D(x)] that p is steered by.
        span: real images in which p can go from 0 to 1; 0: p stays where it starts.
        half_life: images after which the weight average has forgotten half.
        transition: shares of the steps at which classes begin to count, and count fully; None: from the start.

    Raises:
        ConfigError: if one of them is out of range.

    Example:
        >>> networks = StyleGAN2(channel_max=8).networks(Form(size=32, channels=1, classes=2), seed=0)
        >>> sorted(networks)
        ['discriminator', 'mapping', 'synthesis']
    """

    latent: int = 512
    style: int = 512
    depth: int | None = None
    channel_base: int | None = None
    channel_max: int = 512
    learning_rate: float = 2.5e-3
    r1: float | None = None
    r1_every: int = 16
    path: float | None = None
    path_every: int = 4
    style_mixing: float | None = None
    augment: tuple[Change, ...] = ("blit", "geometry", "color")
    probability: float = 0.0
    most: float = 0.8
    overfit: float = 0.6
    span: int = 500_000
    half_life: int = 10_000
    transition: tuple[float, float] | None = None

    is_translator = False
    kept = ("mapping", "synthesis")

    def __post_init__(self) -> None:
        counts = ("latent", "style", "depth", "channel_base", "channel_max", "r1_every", "path_every", "half_life")
        for name in counts:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"stylegan2: {name} must be at least 1, got {value}")
        for name in ("r1", "path", "span"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"stylegan2: {name} must be at least 0, got {getattr(self, name)}")
        for name in ("style_mixing", "probability", "most"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise ConfigError(f"stylegan2: {name} must be in [0, 1], got {getattr(self, name)}")
        if self.learning_rate <= 0 or not -1 <= self.overfit <= 1:
            raise ConfigError("stylegan2: learning_rate must be more than 0, and overfit in [-1, 1]")
        if self.transition is not None and not 0 <= self.transition[0] < self.transition[1] <= 1:
            raise ConfigError(
                f"stylegan2: transition must be two shares of the steps, the first one smaller, got {self.transition}"
            )

    @property
    def budget(self) -> Budget:
        """50,000 steps of 32 images; bf16 where the device computes in it, penalties always in 32 bits."""
        return Budget(
            steps=50_000,
            batch_size=32,
            average=0.5 ** (32 / self.half_life),
            half_life=self.half_life,
            precision="auto",
            thrift="generator.channel_max=..., smaller than now",
        )

    def networks(self, form: Form, *, seed: int) -> dict[str, nn.Module]:
        """Build mapping, synthesis and discriminator."""
        base = self.channel_base or (2**15 if form.side > 256 else 2**14)
        widths = widths_of(form.side, base=base, widest=self.channel_max)
        is_gradual = self.transition is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init"))
            return {
                "mapping": StyleMapping(
                    latent=self.latent,
                    style=self.style,
                    depth=self.depth or FEW_DEPTH,
                    classes=form.classes,
                    share=0.0 if is_gradual else 1.0,
                ),
                "synthesis": Synthesis(widths=widths, channels=form.channels, style=self.style),
                "discriminator": PairDiscriminator(
                    widths=widths[::-1], channels=form.channels, classes=form.classes, is_doubled=is_gradual
                ),
            }

    def training(
        self, networks: dict[str, nn.Module], form: Form, *, seed: int, extras: Mapping[str, Any] | None = None
    ) -> Trainable:
        """Build what the loop trains: the discriminator and its penalty, then the generator and its penalty.

        Adam moves k + 1 times in k steps where a penalty is taken every k steps, and so learns k / (k + 1) as fast and
        forgets by the same power (https://arxiv.org/abs/1912.04958, appendix B).

        Args:
            networks: from `networks`.
            form: what is drawn.
            seed: the run's seed.
            extras: "steps" is the length of the run, of which a transition takes its shares; "ranks" who shares it.
        """
        steps, transition = (extras or {}).get("steps", self.budget.steps), self.transition
        path, mixing = self.path_in_force(form), self.style_mixing
        judging = self._adam(networks["discriminator"], every=self.r1_every if self.r1 != 0 else 0)
        drawing = self._adam(networks["mapping"], networks["synthesis"], every=self.path_every if path > 0 else 0)
        optimizers: dict[str, Optimizer] = {"discriminator": judging}
        optimizers |= {"r1": judging} if self.r1 != 0 else {}
        optimizers["generator"] = drawing
        optimizers |= {"path": drawing} if path > 0 else {}
        return StyleGAN2Training(
            modules=networks,
            optimizers=optimizers,
            form=form,
            seed=seed,
            latent=self.latent,
            r1=self.r1,
            r1_every=self.r1_every,
            path=path,
            path_every=self.path_every,
            style_mixing=(0.0 if form.side <= PLAIN_SIDE else 0.9) if mixing is None else mixing,
            kinds=kinds_of(self.augment, channels=form.channels),
            overfit=self.overfit,
            span=self.span,
            most=self.most,
            transition=None if transition is None else (transition[0] * steps, transition[1] * steps),
            state=StyleGAN2Training.at_start(self.probability),
            ranks=(extras or {}).get("ranks", ALONE),
        )

    @property
    def drawer_class(self) -> type[Any]:
        """The class of what draws."""
        return StyleDrawer

    def drawer(
        self, networks: Mapping[str, nn.Module], form: Form, *, extras: Mapping[str, Tensor] | None = None
    ) -> "StyleDrawer":
        """Build what draws."""
        return StyleDrawer(
            mapping=networks["mapping"].eval(), synthesis=networks["synthesis"].eval(), form=form, length=self.latent
        )

    def sized(self, images: int) -> "StyleGAN2":
        """Return the same with the depth that suits so many images, where none was asked for."""
        return self if self.depth else replace(self, depth=MANY_DEPTH if images >= MANY else FEW_DEPTH)

    def path_in_force(self, form: Form) -> float:
        """Return the weight of the path lengths' penalty at a size."""
        return (0.0 if form.side <= PLAIN_SIDE else 2.0) if self.path is None else self.path

    def _adam(self, *networks: nn.Module, every: int) -> Adam:
        slower = every / (every + 1) if every else 1.0
        parameters = [parameter for network in networks for parameter in network.parameters()]
        return Adam(parameters, lr=self.learning_rate * slower, betas=(0.0, 0.99**slower), fused=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleDrawer:
    """A trained StyleGAN2, as an `ImageGenerator`.

    Attributes:
        mapping, synthesis: the trained networks.
        form: what is drawn.
        length: of the noise that becomes a style.
        truncation: how far styles go from their class's mean; 1: as learnt; less: likelier images, and less variety.
    """

    mapping: nn.Module = field(repr=False)
    synthesis: nn.Module = field(repr=False)
    form: Form
    length: int
    truncation: float = 1.0

    def __post_init__(self) -> None:
        self.check_drawing(truncation=self.truncation)

    @staticmethod
    def check_drawing(*, truncation: float = 1.0) -> None:
        """Refuse settings of drawing that are out of range.

        Raises:
            ConfigError: naming the setting.
        """
        if not 0 <= truncation <= 2:
            raise ConfigError(f"truncation must be in [0, 2], got {truncation}")

    @property
    def latent(self) -> int:
        """Length of the noise: a style's, and a number per pixel of every noise map."""
        return self.length + noise_length(self.form)

    @property
    def block(self) -> int:
        """How many images fill a GPU."""
        return max(16, 2**20 // self.form.side**2)

    @torch.no_grad()
    def generate(self, targets: Float[Tensor, "B K"], latents: Float[Tensor, "B z"]) -> Float[Tensor, "B C H W"]:
        """Return images in [0, 1] of the targets' classes."""
        device = latents.device
        self.mapping.to(device)
        self.synthesis.to(device)
        classes = classes_of(targets).to(device)
        noise, maps = latents[:, : self.length], latents[:, self.length :]
        style = self.mapping(noise, classes)
        if self.truncation != 1:
            style = torch.lerp(self._means.to(device)[classes], style, self.truncation)
        return self.form.leave(self.synthesis(styles_of(style, self.form), maps))

    @cached_property
    def _means(self) -> Float[Tensor, "K s"]:
        device = next(self.mapping.parameters()).device
        stream = torch.Generator().manual_seed(torch_seed(0, "latent"))
        noise = torch.randn(MEAN_OF, self.length, generator=stream).to(device)
        every = [torch.full((MEAN_OF,), k, device=device) for k in range(self.form.classes)]
        return torch.stack([self.mapping(noise, classes).mean(dim=0) for classes in every])


def noise_length(form: Form) -> int:
    """Return how many numbers the noise maps of an image hold."""
    return sum(side**2 for side in noise_sides(form.side.bit_length() - 2))


def styles_of(style: Float[Tensor, "B s"], form: Form) -> Float[Tensor, "B n s"]:
    """Give every convolution the same style."""
    return style[:, None].expand(-1, 2 * form.side.bit_length() - 5, -1)
