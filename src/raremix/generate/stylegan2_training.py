"""StyleGAN2 as something to train: four phases, of which two rest at most steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from raremix.core.random import rng, torch_seed
from raremix.core.ranks import ALONE, Ranks
from raremix.core.types import Batch
from raremix.generate.ada import draw_adaptation, next_probability
from raremix.generate.ada_apply import adapt
from raremix.generate.adversarial import exact, gradient_penalty
from raremix.generate.form import Form, classes_of
from raremix.generate.method import train_only
from raremix.generate.stylegan2_networks import noise_sides

ADAPT_EVERY = 4
"""Steps from one look at the overfitting to the next, as published."""

PATH_DECAY = 0.99
"""Decay of the running mean of path lengths, as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleGAN2Training:
    """StyleGAN2 as something to train; see `StyleGAN2` for the losses.

    Attributes:
        modules, optimizers: see `StyleGAN2`.
        form: what is drawn.
        seed: the run's seed.
        latent: length of the noise.
        r1: weight of the gradient penalty; None: by size and batch.
        r1_every, path_every: steps from one penalty to the next.
        path: weight of the path lengths' penalty.
        style_mixing: share of the images that have two styles.
        kinds: of change that the discriminator sees.
        overfit, span, most: how their probability is steered.
        transition: steps at which classes begin to count, and count fully; None: from the start.
        state: what a resumed run needs: the probability p, the signs of the real images' logits since it was last
            changed (sum, count), the running mean of path lengths, and the last penalties, for the log.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    form: Form
    seed: int
    latent: int
    r1: float | None
    r1_every: int
    path: float
    path_every: int
    style_mixing: float
    kinds: frozenset[str]
    overfit: float
    span: int
    most: float
    transition: tuple[float, float] | None
    state: dict[str, Tensor]
    averaged: tuple[str, ...] = ("mapping", "synthesis")
    ranks: Ranks = ALONE
    # What a step found out, and what counts from the next one on.
    found: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def at_start(probability: float) -> dict[str, Tensor]:
        """Return the state of a run that has not begun."""
        return {
            "probability": torch.tensor(probability, dtype=torch.float64),
            "signs": torch.zeros(2),
            "length": torch.zeros(()),
            "r1": torch.zeros(()),
            "path": torch.zeros(()),
        }

    @property
    def memory(self) -> dict[str, Tensor]:
        """What is kept beside the networks, see `state`."""
        return self.state

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the losses of a phase; a penalty that rests at this step has a loss of 0."""
        share = self.share_of(step)
        if self.transition is not None:
            _count_classes(self.modules["mapping"], share)
        if (phase == "r1" and step % self.r1_every) or (phase == "path" and step % self.path_every):
            # Without a gradient its optimiser leaves the weights, and its own moments, as they are.
            rest = torch.zeros((), device=batch.images.device, requires_grad=True)
            return {"loss": rest, "penalty": self.state[phase]}
        if phase in {"discriminator", "r1"}:
            train_only(self.modules, "discriminator")
            judged = self._discriminator if phase == "discriminator" else self._r1
            return judged(batch, step=step, share=share)
        train_only(self.modules, "mapping", "synthesis")
        if phase == "generator":
            return self._generator(batch, step=step, share=share)
        return self._path(batch, step=step)

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Keep what the step found out, and steer the probability of augmentation."""
        # Over all ranks, so that each of them goes on with the same state.
        signs = self.ranks.sum(self.found.pop("signs"))
        self.state["signs"] = self.state["signs"].to(signs.device) + signs
        self.state.update({name: self.ranks.mean(value) for name, value in self.found.items()})
        self.found.clear()
        if self.transition is not None:
            # An average that lags behind would draw classes less plainly than it has learnt them.
            _count_classes(averaged["mapping"], self.share_of(step))
        if (step + 1) % ADAPT_EVERY == 0 and self.kinds:
            total, count = self.state["signs"].tolist()
            p = next_probability(
                float(self.state["probability"]),
                overfit=total / count,
                target=self.overfit,
                images=int(count),
                span=self.span,
                most=self.most,
            )
            self.state["probability"] = torch.tensor(p, dtype=torch.float64)
            self.state["signs"] = torch.zeros_like(signs)

    def share_of(self, step: int) -> float:
        """Return how much classes count at a step: 0 before the transition, 1 after it, a straight line between."""
        if self.transition is None:
            return 1.0
        begin, end = self.transition
        return min(1.0, max(0.0, (step - begin) / (end - begin)))

    def _discriminator(self, batch: Batch, *, step: int, share: float) -> Mapping[str, Tensor]:
        classes = classes_of(batch.targets)
        with torch.no_grad():
            drawn = self.modules["synthesis"](*self._styles(classes, step, 0))
        judge = self.modules["discriminator"]
        real = judge(self._seen(self.form.enter(batch.images), step, 0), classes)
        fake = judge(self._seen(drawn, step, 1), classes)
        told = _told(real.detach(), share)
        self.found["signs"] = torch.stack([told.sign().sum(), told.new_tensor(float(len(told)))])
        loss = _told(functional.softplus(-real) + functional.softplus(fake), share).mean()
        return {"loss": loss, "overfit": told.sign().mean(), "probability": self.state["probability"]}

    def _r1(self, batch: Batch, *, step: int, share: float) -> Mapping[str, Tensor]:
        # What the discriminator was shown just now: the same draws.
        images = self._seen(self.form.enter(batch.images), step, 0).detach().requires_grad_(True)
        logits = exact(self.modules["discriminator"])(images, classes_of(batch.targets))
        penalty = gradient_penalty(_told(logits, share), images)
        gamma = self.r1
        gamma = 2e-4 * self.form.side**2 / self.ranks.whole(len(images)) if gamma is None else gamma
        self.found["r1"] = penalty.detach()
        return {"loss": gamma * self.r1_every * penalty, "penalty": penalty}

    def _generator(self, batch: Batch, *, step: int, share: float) -> Mapping[str, Tensor]:
        classes = classes_of(batch.targets)
        drawn = self.modules["synthesis"](*self._styles(classes, step, 1))
        logits = self.modules["discriminator"](self._seen(drawn, step, 2), classes)
        return {"loss": _told(functional.softplus(-logits), share).mean()}

    def _path(self, batch: Batch, *, step: int) -> Mapping[str, Tensor]:
        # Half a batch does: it is a penalty on an average.
        classes = classes_of(batch.targets)[: max(1, len(batch.images) // 2)]
        styles, noise = self._styles(classes, step, 2)
        drawn = exact(self.modules["synthesis"])(styles, noise)
        lengths = path_lengths(drawn, styles, self._noise(drawn.shape, step, 3, drawn.device))
        now = self.ranks.mean(lengths.mean())
        mean = torch.lerp(now, self.state["length"].to(lengths.device), PATH_DECAY)
        penalty = (lengths - mean).square().mean()
        self.found["length"], self.found["path"] = mean, penalty.detach()
        return {"loss": self.path * self.path_every * penalty, "penalty": penalty, "length": mean}

    def _styles(self, classes: Int[Tensor, " B"], step: int, number: int) -> tuple[Tensor, Tensor]:
        """Draw the styles of every convolution, and the noise maps; some images change their style on the way."""
        sides, count = noise_sides(self.form.side.bit_length() - 2), len(classes)
        stream, every, mine = rng(self.seed, "latent", step, number), self.ranks.whole(count), self.ranks.rows(count)
        latents = torch.from_numpy(stream.standard_normal((every, self.latent))[mine].astype(np.float32))
        mapping = exact(self.modules["mapping"])
        styles = mapping(latents.to(classes.device), classes)[:, None].expand(-1, len(sides), -1)
        if self.style_mixing > 0:
            others = torch.from_numpy(stream.standard_normal((every, self.latent))[mine].astype(np.float32))
            begin = stream.integers(1, len(sides), every)
            begin = np.where(stream.random(every) < self.style_mixing, begin, len(sides))[mine]
            is_other = torch.from_numpy(np.arange(len(sides)) >= begin[:, None])[..., None].to(classes.device)
            styles = torch.where(is_other, mapping(others.to(classes.device), classes)[:, None], styles)
        pixels = sum(side**2 for side in sides)
        return styles, self._noise((count, pixels), step, 4 + number, classes.device)

    def _noise(self, shape: tuple[int, ...] | torch.Size, step: int, number: int, device: torch.device) -> Tensor:
        # Too many numbers to come from the CPU in time.
        return self.ranks.normal(tuple(shape), seed=torch_seed(self.seed, "latent", step, number), device=device)

    def _seen(self, images: Tensor, step: int, number: int) -> Tensor:
        p = float(self.state["probability"])
        if p <= 0 or not self.kinds:
            return images
        drawn = draw_adaptation(
            self.ranks.whole(len(images)),
            side=self.form.side,
            channels=self.form.channels,
            kinds=self.kinds,
            probability=p,
            rng=rng(self.seed, "augment", step, number, 0),
        )
        return adapt(images, drawn.own(self.ranks))


def path_lengths(
    drawn: Float[Tensor, "B C H W"], styles: Float[Tensor, "B n s"], noise: Float[Tensor, "B C H W"]
) -> Float[Tensor, " B"]:
    """Return how far images move with their styles, |J^T y| / sqrt(HW) in a random direction y of the image.

    The norm is over a style's numbers, its mean square over the convolutions (Karras et al., CVPR 2020,
    https://arxiv.org/abs/1912.04958, section 3.2).

    Args:
        drawn: images that were computed from the styles.
        styles: one per convolution.
        noise: standard normal.

    Example:
        >>> styles = torch.ones(1, 1, 2, requires_grad=True)
        >>> drawn = (styles * torch.tensor([3.0, 4.0])).sum(dim=2).view(1, 1, 1, 1)
        >>> path_lengths(drawn, styles, torch.ones(1, 1, 1, 1)).item()
        5.0
    """
    asked = (drawn * noise).sum() / (drawn.shape[-1] * drawn.shape[-2]) ** 0.5
    (gradient,) = torch.autograd.grad(asked, styles, create_graph=True)
    # A root has no slope at 0.
    return gradient.square().sum(dim=2).mean(dim=1).clamp_min(1e-16).sqrt()


def _count_classes(mapping: nn.Module, share: float) -> None:
    held = mapping.share
    assert isinstance(held, Tensor)
    held.fill_(share)


def _told(logits: Float[Tensor, "B n"], share: float) -> Float[Tensor, " B"]:
    """Weigh the logit without a class, if there is one, and that of the class by how much classes count."""
    return logits[:, 0] + share * logits[:, 1] if logits.shape[1] == 2 else logits[:, 0]
