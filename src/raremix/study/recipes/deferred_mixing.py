"""Deferred mixing: mixed images until late in training, and then images as they are."""

from dataclasses import dataclass

from raremix.config import Table
from raremix.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredMixing:
    """Mix until a moment, and then train on images as they are.

    Short for mix = { name = "scheduled", mixer = ..., stop = ... }. He et al. 2019 [1] found that mixing away from the
    images' own distribution helps early and harms late.

    [1] "Data Augmentation Revisited: Rethinking the Distribution Gap between Clean and Augmented Data",
    https://arxiv.org/abs/1909.09148.

    Args:
        stop: the moment, as a share of the training, above 0 and at most 1.

    Raises:
        ConfigError: if stop is out of range.

    Example:
        >>> DeferredMixing().rewrite({"mix": {"name": "cutmix"}}, where="arm.a")["mix"]["stop"]
        0.8
    """

    stop: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.stop <= 1:
            raise ConfigError(f"deferred_mixing: stop is a share of the training, above 0, at most 1, got {self.stop}")

    def rewrite(self, tables: Table, *, where: str) -> Table:
        """Return the tables with the mixer in a schedule."""
        if tables["mix"].get("name") == "none":
            raise ConfigError(f'{where}.recipe = "deferred_mixing", and {where} mixes nothing: set its mix')
        return {**tables, "mix": {"name": "scheduled", "mixer": tables["mix"], "stop": self.stop}}
