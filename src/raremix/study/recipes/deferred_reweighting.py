"""Deferred re-weighting: the arm's loss first, and late in training class weights."""

from dataclasses import dataclass

from raremix.config import Table
from raremix.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredReweighting:
    """Train by the arm's loss, and from a moment on by (binary) cross-entropy with class weights [1].

    Short for loss = { name = "deferred", first = ..., then = { name = "auto", class_weights = ... } }.

    [1] Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, section 3.3,
    https://arxiv.org/abs/1906.07413.

    Args:
        start: the moment, as a share of the training in [0, 1], see `raremix.losses.Deferred`.
        class_weights: "effective", "inverse" or "sqrt".

    Raises:
        ConfigError: if start is out of range.

    Example:
        >>> DeferredReweighting().rewrite({"loss": {}}, where="arm.a")["loss"]["start"]
        0.5
    """

    start: float = 0.5
    class_weights: str = "effective"

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1:
            raise ConfigError(f"deferred_reweighting: start is a share of the training, 0 to 1, got {self.start}")

    def rewrite(self, tables: Table, *, where: str) -> Table:
        """Return the tables with the loss in a deferred one."""
        first = tables["loss"] or {"name": "auto"}
        if first.get("name") == "deferred":
            raise ConfigError(f"{where}.loss is deferred already: leave the recipe out")
        then = {"name": "auto", "class_weights": self.class_weights}
        return {**tables, "loss": {"name": "deferred", "first": first, "then": then, "start": self.start}}
