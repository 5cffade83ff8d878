"""What all mixing methods share: pairing x mask x label rule; a method's own file says where pixels come from."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raremix.core.errors import ConfigError, DataError, UnknownNameError
from raremix.core.pixels import all_rows, take_rows
from raremix.core.protocols import ImportanceMap, Mixer
from raremix.core.types import Batch, Boxes, MixPlan, Others, Policy
from raremix.mix import label as rules
from raremix.mix.class_maps import away_from_own
from raremix.mix.pairing import PAIRINGS, PairingName, Pairs, row_frequencies


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the pixels of every row come from.

    Attributes:
        mask: share each pixel keeps of its own image.
        own_images, partner_images: the own and the partners' pixels, row by row, where the method warps them.
        weight, partner_weight: the method's own label weights; None: the label rule decides.
        others: what further images give.
    """

    mask: Float[Tensor, "R 1 h w"] | Boxes
    own_images: Float[Tensor, "R C H W"] | None = None
    partner_images: Float[Tensor, "R C H W"] | None = None
    weight: Float[Tensor, " R"] | None = None
    partner_weight: Float[Tensor, " R"] | None = None
    others: Others | None = None


@dataclass(frozen=True, kw_only=True)
class Method(Mixer):
    """A mixing method as three decisions, of which its own file makes the second.

    Args:
        probability: probability that a row is mixed at all, in [0, 1].
        pairing: who is mixed with whom; see `raremix.mix.pairing`.
        label: what the label becomes; see `raremix.mix.label`. "own": as the method says.
        multilabel: how the labels of both combine: "interpolate", "union" or "threshold".
        importance: says which pixels matter, for guided methods, for `label = "mass"` and for `pairing =
            "most_dissimilar"`. Maps that come with the batch go first; of maps per class, the mean over all classes
            that the image does not show is taken, unless the method says otherwise.
        class_counts: training images per class, for `pairing = "tail_with_head"` and `label = "remix"`; a study fills
            it in.
        num_classes: number of classes; needed only where targets are class numbers.

    Raises:
        ConfigError: if probability is out of range.
        UnknownNameError: if there is no pairing, label rule or policy of that name.
    """

    probability: float = 1.0
    pairing: PairingName = "any"
    label: rules.LabelName | Literal["own"] = "area"
    multilabel: Policy = "interpolate"
    importance: ImportanceMap | None = None
    class_counts: tuple[float, ...] | None = None
    num_classes: int | None = None

    is_guided = False
    """Whether `place` looks at importance maps: a method that does says True."""

    def __post_init__(self) -> None:
        check_probability(self.probability)
        check_name(self.pairing, PAIRINGS, kind="pairing")
        check_name(self.label, (*get_args(rules.LabelName), "own"), kind="label")
        check_name(self.multilabel, get_args(Policy), kind="multilabel")

    @abstractmethod
    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Say where the pixels of every row come from; row i of the plan keeps pixels of row i of the batch.

        Args:
            batch: own images, with importance maps if the method is guided.
            pool: partners, likewise.
            pairs: a partner for every row.
            rng: the stream to draw from.
        """

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Draw partners from the pool, a mask for each row of the batch, and weigh the labels."""
        rows = batch.images.shape[0]
        is_shared = pool is batch
        if self.is_guided or self.label == "mass":
            batch = self.with_importance(batch)
            pool = batch if is_shared else self.with_importance(pool)
        pairs = self.pair(batch, pool, rng=rng)
        is_mixed = pairs.is_paired
        if self.probability < 1:
            chosen = rng.random(rows) < self.probability
            is_mixed = chosen if is_mixed is None else chosen & is_mixed
        placed = self.place(batch, pool, pairs, rng=rng)
        if is_mixed is not None and not is_mixed.all():
            placed = _keep_whole(placed, torch.from_numpy(~is_mixed), images=batch.images)
        weight = self._weigh(placed, batch, pool, pairs) if placed.weight is None else placed.weight
        return MixPlan(
            own=all_rows(rows),
            partner=torch.from_numpy(pairs.partner),
            mask=placed.mask,
            weight=weight,
            own_images=placed.own_images,
            partner_images=placed.partner_images,
            partner_weight=placed.partner_weight,
            others=placed.others,
            policy=self.multilabel,
        )

    def pair(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> Pairs:
        """Draw a partner for every row; `most_dissimilar` compares importance where there is any."""
        if self.pairing == "most_dissimilar" and self.importance is not None:
            # Whatever `place` looks at: that of TransMix, for example, has no map of single images.
            is_shared = pool is batch
            batch = Method.with_importance(self, batch)
            pool = batch if is_shared else Method.with_importance(self, pool)
        return PAIRINGS[self.pairing](batch, pool, rng=rng, class_counts=self._counts())

    def with_importance(self, batch: Batch) -> Batch:
        """Return the batch with one importance map per image: those that came with it, else those of `importance`.

        Raises:
            ConfigError: if there are neither.
            DataError: if the maps are not one per image, nor, where they came with the batch, one per class.
        """
        if batch.importance is not None:
            maps = away_from_own(batch)
            return batch if maps is batch.importance else replace(batch, importance=maps)
        if self.importance is None:
            raise ConfigError(
                f"{type(self).__name__} needs to know which pixels matter: pass importance=, for example "
                "raremix.explain.FineGrained(), or a batch with importance maps"
            )
        return replace(batch, importance=one_per_image(self.importance(batch.images, batch.targets)))

    def _counts(self) -> Float[np.ndarray, " K"] | None:
        return None if self.class_counts is None else np.asarray(self.class_counts, dtype=np.float64)

    def _weigh(self, placed: Placement, batch: Batch, pool: Batch, pairs: Pairs) -> Float[Tensor, " R"]:
        if self.label == "keep":
            return torch.ones(len(pairs.partner))
        if self.label == "mass":
            if placed.own_images is not None or placed.partner_images is not None:
                refuse_mass(self)
            assert batch.importance is not None
            assert pool.importance is not None
            partner = take_rows(pool.importance, torch.from_numpy(pairs.partner))
            return rules.mass(placed.mask, batch.importance, partner)
        weight = rules.area(placed.mask)
        if self.label == "remix":
            own, others = row_frequencies(batch, pool, class_counts=self._counts())
            return rules.remix(weight, own, others[pairs.partner])
        return weight


def refuse_mass(method: Method) -> None:
    """Refuse labels by mass for a method that moves pixels.

    Raises:
        ConfigError: if the label goes by mass.
    """
    if method.label == "mass":
        raise ConfigError(
            f'{type(method).__name__} moves pixels, and label = "mass" would count importance where it was: take '
            'label = "area"'
        )


def one_per_image(maps: Float[Tensor, "B m h w"]) -> Float[Tensor, "B m h w"]:
    """Return what an importance map drew, if that is one map per image.

    Raises:
        DataError: if it is not.
    """
    if maps.ndim != 4 or maps.shape[1] != 1:
        raise DataError(f"importance must return one map per image, of shape (B, 1, h, w); got {tuple(maps.shape)}")
    return maps


def check_name(name: str, known: Iterable[str], *, kind: str) -> None:
    """Refuse a name that is none of those known.

    Raises:
        UnknownNameError: with the nearest known name.
    """
    known = list(known)
    if name not in known:
        raise UnknownNameError(kind, str(name), known)


def check_probability(probability: float) -> None:
    """Refuse a probability that is out of range.

    Raises:
        ConfigError: naming the value.
    """
    if not 0 <= probability <= 1:
        raise ConfigError(f"probability must lie in [0, 1], got {probability}")


def _keep_whole(placed: Placement, is_whole: Bool[Tensor, " R"], *, images: Float[Tensor, "B C H W"]) -> Placement:
    """Return a placement in which some rows keep all of themselves."""
    mask = placed.mask
    if isinstance(mask, Boxes):
        mask = replace(mask, edges=torch.where(is_whole, 0, mask.edges).to(mask.edges.dtype))
    else:
        mask = torch.where(_column(is_whole, mask), 1.0, mask)
    others = placed.others
    if others is not None:
        others = replace(
            others,
            masks=torch.where(_column(is_whole, others.masks), 0.0, others.masks),
            weights=torch.where(is_whole[:, None].to(others.weights.device), 0.0, others.weights),
        )
    own = placed.own_images
    if own is not None:
        own = torch.where(_column(is_whole, own), images, own)
    weight, partner = (
        None if value is None else value.masked_fill(is_whole.to(value.device), filled)
        for value, filled in ((placed.weight, 1.0), (placed.partner_weight, 0.0))
    )
    return replace(placed, mask=mask, own_images=own, others=others, weight=weight, partner_weight=partner)


def _column(rows: Bool[Tensor, " R"], like: Tensor) -> Tensor:
    return rows.to(like.device).reshape(-1, 1, 1, 1)
