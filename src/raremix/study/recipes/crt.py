"""cRT: features first, then the last layer alone, on class-balanced samples."""

from dataclasses import dataclass

from raremix.config import Table
from raremix.core.errors import ConfigError
from raremix.core.types import Task

LEAST = 100
"""Steps that a new last layer needs, where the budget has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CRT:
    """Decouple: train the whole network as the arm says, then train a new last layer on balanced samples [1].

    In the second stage everything but the last layer is frozen, batch statistics included; the last layer starts anew,
    a linear one from zeros since the loss is convex in it, sees every class equally often, unmixed, and is trained by
    (binary) cross-entropy. Both stages have a learning rate that warms up and falls. The stages share the arm's steps,
    so that no arm trains longer.

    [1] Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
    https://arxiv.org/abs/1910.09217. Departure: there the second stage comes on top of the first one's 90 epochs, and
    takes 10; here it is a share of the budget, and a new layer needs some steps however short that is.

    Args:
        share: share of the steps that the second stage takes, above 0 and below 1; None: a quarter, but 100 steps where
            that is less, and at most half.
        rate: by what the arm's learning rate is multiplied in the second stage, above 0.
        sampler: of the second stage; "auto" is "balanced", and "label_balanced" where an image may have several labels.

    Raises:
        ConfigError: if the share or the rate is out of range.

    Example:
        >>> CRT().second({"mix": {"name": "cutmix"}, "loss": {"name": "focal"}}, task="binary")["sampler"]
        {'name': 'balanced'}
        >>> CRT().stages(4000), CRT().stages(300), CRT().stages(70), CRT(share=0.25).stages(70)
        ((3000, 1000), (200, 100), (35, 35), (52, 18))
    """

    share: float | None = None
    rate: float = 3.0
    sampler: str = "auto"

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share < 1:
            raise ConfigError(f"crt: share is that of the second stage, above 0 and below 1, got {self.share}")
        if not self.rate > 0:
            raise ConfigError(f"crt: rate must be more than 0, got {self.rate}")

    def stages(self, steps: int) -> tuple[int, int]:
        """Return how a budget of 2 steps or more is shared out between the stages, at least one step for each."""
        wanted = max(0.25 * steps, min(LEAST, 0.5 * steps)) if self.share is None else self.share * steps
        second = min(max(1, round(wanted)), steps - 1)
        return steps - second, second

    def second(self, tables: Table, *, task: Task) -> Table:
        """Return the tables of the second stage: no mixing, balanced samples, the task's plain loss."""
        chosen = ("label_balanced" if task == "multilabel" else "balanced") if self.sampler == "auto" else self.sampler
        return {**tables, "mix": {"name": "none"}, "sampler": {"name": chosen}, "loss": {"name": "auto"}}
