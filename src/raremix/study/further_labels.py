"""Labels that a classifier of prototypes was not trained on, known by a vector of their name, a few images, or both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError, UsageError
from raremix.core.features import features_seen, head_of
from raremix.models.label_embedding import read_all_vectors
from raremix.models.prototype import PrototypeHead


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherLabels:
    """Labels beside those of the classifier.

    Attributes:
        names: of the labels, in order.
        vectors: one per label, of the encoder that the classifier was trained with; None: there are none.
        examples: images of each label, for those that have any.
    """

    names: tuple[str, ...]
    vectors: Float[np.ndarray, "M T"] | None = None
    examples: Mapping[str, Sequence[Path]] = field(default_factory=dict)


def read_further_labels(
    *, vectors: Path | None, examples: Mapping[str, Sequence[Path]], classes: Sequence[str]
) -> FurtherLabels | None:
    """Read further labels; None if there are none.

    Args:
        vectors: .safetensors with one tensor per label, under its name; names of the classifier's own are left out.
        examples: images by label.
        classes: the classifier's own labels.

    Raises:
        ReadError: if the file cannot be read.
        UsageError: if a label with examples is one of the classifier's own, or has no vector although others have, or
            there is no further label in the file.
    """
    known = [name for name in examples if name in classes]
    if known:
        raise UsageError(f"examples of {', '.join(known)}: the classifier was trained on this label; leave it out")
    if vectors is None:
        return FurtherLabels(names=tuple(examples), examples=examples) if examples else None
    table = {name: vector for name, vector in read_all_vectors(vectors).items() if name not in classes}
    missing = [name for name in examples if name not in table]
    if missing:
        raise UsageError(
            f"{vectors.name} has no vector for {', '.join(missing)}: every further label needs one, or none"
        )
    if not table:
        raise UsageError(f"{vectors.name} names no label that the classifier was not trained on")
    return FurtherLabels(names=tuple(table), vectors=np.stack(list(table.values())), examples=examples)


class WithFurtherLabels(nn.Module):
    """A classifier whose logits go on with those of further labels.

    Args:
        model: ends with a layer of prototypes.
        labels: the further labels.
        examples: images in [0, 1] of each label, in their order, prepared as the classifier wants them; may be empty.

    Raises:
        ConfigError: if the classifier has no prototypes, or the vectors do not fit.
    """

    def __init__(
        self, model: nn.Module, labels: FurtherLabels, *, examples: Sequence[Float[Tensor, "_ C H W"]] = ()
    ) -> None:
        super().__init__()
        head = head_of(model)
        if not isinstance(head, PrototypeHead):
            raise ConfigError(
                'further labels need a classifier of prototypes: train one with [model] head = { name = "text", ... }'
            )
        self.model = model
        vectors = None if labels.vectors is None else torch.from_numpy(labels.vectors)
        rows = [self._features(images) for images in examples]
        self.further = head.with_labels(vectors, examples=rows if any(len(one) for one in rows) else ())

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B L"]:
        """Return the L logits: the classifier's own, then those of the further labels."""
        with features_seen(self.model) as seen:
            logits = self.model(images)
        return torch.cat([logits, self.further(seen[-1]).to(logits)], dim=1)

    @torch.inference_mode()
    def _features(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        with features_seen(self.model) as seen:
            self.model(images)
        return seen[-1].clone()
