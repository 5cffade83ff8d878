"""cRT: features first, then the last layer alone, on class-balanced samples."""

from dataclasses import dataclass

from raremix.config import Table
from raremix.core.errors import ConfigError
from raremix.core.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class CRT:
    """Decouple: train the whole network as the arm says, then train a new last layer on balanced samples [1].

    In the second stage everything but the last layer is frozen, batch statistics included; the last layer starts from
    its first values, sees every class equally often, unmixed, and is trained by (binary) cross-entropy. Both stages
    have a learning rate that warms up and falls. The stages share the arm's steps, so that no arm trains longer.

    [1] Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
    https://arxiv.org/abs/1910.09217. Departure: there the second stage comes on top of the first one's 90 epochs, and
    takes 10; here it is a share of the budget.

    Args:
        share: share of the steps that the second stage takes, above 0 and below 1.
        sampler: of the second stage; "auto" is "balanced", and "label_balanced" where an image may have several labels.

    Raises:
        ConfigError: if the share is out of range.

    Example:
        >>> CRT().second({"mix": {"name": "cutmix"}, "loss": {"name": "focal"}}, task="binary")["sampler"]
        {'name': 'balanced'}
    """

    share: float = 0.25
    sampler: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"crt: share is that of the second stage, above 0 and below 1, got {self.share}")

    def second(self, tables: Table, *, task: Task) -> Table:
        """Return the tables of the second stage: no mixing, balanced samples, the task's plain loss."""
        chosen = ("label_balanced" if task == "multilabel" else "balanced") if self.sampler == "auto" else self.sampler
        return {**tables, "mix": {"name": "none"}, "sampler": {"name": chosen}, "loss": {"name": "auto"}}
