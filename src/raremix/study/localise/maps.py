"""Which importance maps can be scored for a classifier, and the two that know nothing, which any other has to beat."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError, RaremixError, UnknownNameError
from raremix.core.features import head_of
from raremix.core.protocols import ImageTranslator, ImportanceMap
from raremix.explain import IMPORTANCE_MAPS, ClassPath, hyperplane_maps
from raremix.explain.difference import DifferenceMap
from raremix.explain.gradcam import KINDS, GradCAM
from raremix.explain.scale import min_max

BASELINES = ("uniform", "centre")
"""Maps that look at nothing; always scored."""

WIDTH = 0.25
"""Standard deviation of the centre map, as a share of the side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The maps to score.

    Attributes:
        maps: by name, the baselines first.
        left_out: why others that were not asked for by name are missing, by name.
    """

    maps: dict[str, ImportanceMap]
    left_out: dict[str, str]


def candidates(
    model: nn.Module,
    *,
    classes: int,
    translators: Mapping[str, ImageTranslator] | None = None,
    towards: int | None = None,
    names: Sequence[str] | None = None,
    without: Collection[str] = (),
    layer: str | None = None,
) -> Candidates:
    """Build the maps that a classifier, and translators if there are some, can draw.

    The Grad-CAM family counts as one map per kind. Maps that need more than a classifier or a translator are none of
    them.

    Args:
        model: the classifier.
        classes: how many it knows.
        translators: for difference maps and hyperplane maps, by name. One translator's maps are called "difference" and
            "hyperplane"; of several, each one's bear its name: "difference (stars)".
        towards: the class that they translate to; None: the mean over all classes that an image does not show.
        layer: where the Grad-CAM family looks; None means the last stage.
        names: which; None means all that this classifier allows.
        without: those that "all" leaves out.

    Raises:
        UnknownNameError: for a name that is no such map.
        ConfigError: for a named map that this classifier cannot draw, or that needs a translator.
    """
    makers = _makers(model, translators or {}, classes, towards, layer)
    every = [name for name in makers if name.partition(" (")[0] not in without]
    asked = every if names is None else list(dict.fromkeys(names))
    maps: dict[str, ImportanceMap] = {"uniform": uniform, "centre": centre}
    left_out: dict[str, str] = {}
    for name in asked:
        if name in maps:
            continue
        if name not in makers:
            raise UnknownNameError("importance map to score", name, [*BASELINES, *makers])
        try:
            maps[name] = makers[name]()
        except RaremixError as error:
            if names is not None:
                raise
            left_out[name] = str(error)
    return Candidates(maps=maps, left_out=left_out)


def uniform(images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
    """Return a map of ones: everywhere alike."""
    return torch.ones_like(images[:, :1])


def centre(images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
    """Return a Gaussian at the middle of the image, a quarter of each side wide."""
    rows, columns = (
        torch.exp(-(((torch.arange(n, device=images.device) + 0.5) / n - 0.5) / WIDTH).square() / 2)
        for n in images.shape[-2:]
    )
    bump = rows[:, None] * columns
    return (bump / bump.max()).to(images.dtype).expand(len(images), 1, -1, -1)


PairMap = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(images, own classes, other classes) -> maps of what changes from the one to the other."""


@dataclass(frozen=True, kw_only=True)
class AwayFromOwn:
    """What changes towards one class, or the mean over every class that an image does not show.

    Attributes:
        change: the map from one class to another.
        towards: that class, or None for all. An image that shows it is sent to all others instead.
    """

    change: PairMap
    towards: int | None = None

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
        """Return what changes where the images are shown as something else."""
        is_own = targets.nan_to_num(0) > 0.5
        own, wanted = is_own.int().argmax(dim=1), ~is_own
        if self.towards is not None:
            is_other = ~is_own[:, self.towards]
            wanted[is_other] = torch.eye(targets.shape[1], dtype=torch.bool, device=targets.device)[self.towards]
        total = torch.zeros_like(images[:, :1])
        for k in range(targets.shape[1]):
            rows = wanted[:, k].nonzero()[:, 0]
            if len(rows):
                total[rows] += self.change(images[rows], own[rows], torch.full_like(rows, k))
        return total / wanted.sum(dim=1).clamp(min=1)[:, None, None, None]


def _makers(
    model: nn.Module,
    translators: Mapping[str, ImageTranslator],
    classes: int,
    towards: int | None,
    layer: str | None,
) -> Mapping[str, Callable[[], ImportanceMap]]:
    """Return how each map is built, by name."""
    makers: dict[str, Callable[[], ImportanceMap]] = {}
    for name, made in IMPORTANCE_MAPS.items():
        if made is GradCAM:
            makers |= {kind: partial(GradCAM, model=model, kind=kind, layer=layer) for kind in KINDS}
        elif made is DifferenceMap:
            for own, pair in (("difference", _difference), ("hyperplane", _hyperplane)):
                for whose, translator in (translators or {"": None}).items():
                    title = own if len(translators) < 2 else f"{own} ({whose})"
                    makers[title] = partial(_away, pair, model, translator, classes, towards)
        else:
            needs = {
                key for key, one in inspect.signature(made).parameters.items() if one.default is inspect.Parameter.empty
            }
            given: dict[str, Any] = {"model": model} if "model" in needs else {}
            if needs == set(given):
                makers[name] = partial(made, **given)
    return makers


def _difference(model: nn.Module, translator: ImageTranslator | None, classes: int) -> PairMap:
    if translator is None:
        raise ConfigError("difference maps need a translator: --translator FOLDER, of raremix generator fit")
    draw = DifferenceMap(translator=translator, to_reconstruction=True)

    def change(images: Tensor, own: Tensor, other: Tensor) -> Tensor:
        named = torch.eye(classes, device=images.device)
        return draw(images, named[other], own=named[own])

    return change


def _hyperplane(model: nn.Module, translator: ImageTranslator | None, classes: int) -> PairMap:
    if not isinstance(translator, ClassPath):
        raise ConfigError("hyperplane maps need a translator with a way between classes: --translator, of a stargan")
    if not isinstance(head_of(model), nn.Linear):
        raise ConfigError("hyperplane maps need a classifier with a linear last layer")
    path = translator

    def change(images: Tensor, own: Tensor, other: Tensor) -> Tensor:
        # Where the boundary was not reached there is no map: zeros, which count as flat.
        return min_max(hyperplane_maps(model, path, images, own=own, other=other).maps.nan_to_num(0))

    return change


def _away(
    made: Callable[[nn.Module, ImageTranslator | None, int], PairMap],
    model: nn.Module,
    translator: ImageTranslator | None,
    classes: int,
    towards: int | None,
) -> AwayFromOwn:
    return AwayFromOwn(change=made(model, translator, classes), towards=towards)
