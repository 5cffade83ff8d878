"""What a recipe can be: another way of writing an arm's tables, a second stage of training, or a change afterwards."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from raremix.config import Table
from raremix.core.types import Task
from raremix.evaluate.decide import ValidationRows


@runtime_checkable
class Rewriting(Protocol):
    """A recipe that stands for other tables of an arm; they take its place when the study file is read."""

    def rewrite(self, tables: Table, *, where: str) -> Table:
        """Return the arm's tables (mix, augment, sampler, loss) as the recipe has them.

        Raises:
            ConfigError: if the arm has nothing that the recipe could change.
        """
        ...


@runtime_checkable
class TwoStage(Protocol):
    """A recipe that trains the last layer once more, on a part of the arm's own steps."""

    def stages(self, steps: int) -> tuple[int, int]:
        """Return how the arm's steps, 2 or more, are shared out between the stages, at least one step for each."""
        ...

    @property
    def rate(self) -> float:
        """By what the arm's learning rate is multiplied in the second stage."""
        ...

    def second(self, tables: Table, *, task: Task) -> Table:
        """Return the tables (mix, augment, sampler, loss) of the second stage."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a change after training may look at: the classifier, and its validation images.

    Attributes:
        model: the classifier, trained.
        features: what its last layer is given for the validation images, (N, F).
        rows: the validation images, with logits as outputs.
        class_counts: training images per class.
        labelled_counts: training images in which each class is known.
        task: what the classes mean.
        metric: the metric that chooses on validation images.
    """

    model: nn.Module
    features: Float[Tensor, "N F"]
    rows: ValidationRows
    class_counts: tuple[float, ...]
    labelled_counts: tuple[float, ...]
    task: Task
    metric: str


@runtime_checkable
class PostHoc(Protocol):
    """A recipe that changes the last layer of a trained classifier; what it chooses, it chooses on validation."""

    def check(self, *, task: Task, where: str) -> None:
        """Refuse a task that the recipe says nothing about.

        Raises:
            ConfigError: naming the recipe, the task, and what to do.
        """
        ...

    def finish(self, trained: Trained) -> tuple[nn.Module, dict[str, Any]]:
        """Return the changed classifier, and what was chosen."""
        ...


Recipe = Rewriting | TwoStage | PostHoc
