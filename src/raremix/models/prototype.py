"""A last layer of prototypes: images and labels in one space, and the distance between them as the logit."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.errors import ConfigError


class PrototypeHead(nn.Module):
    """Logits from squared distances to one prototype per class, after Jin et al. [1].

    f = g(features) and p_c = h(t_c) have length 1, D_c = |f - p_c|^2, logit_c = scale (margin - D_c). g and h are
    perceptrons; t_c is the label's own vector, frozen, less the mean of all labels' and of length 1: the vectors of
    label names nearly coincide before. Without label vectors the prototypes are learnt freely.

    [1] Jin, Lu, Zhu, Huo, Comput. Biol. Med. 157:106683, 2023, https://doi.org/10.1016/j.compbiomed.2023.106683. The
    publication leaves widths open; these are of Hayat et al., MLHC 2021, https://arxiv.org/abs/2107.06563.

    Args:
        features: length of what goes in.
        num_classes: number of prototypes.
        label_vectors: one per class, or None.
        centred: take the mean of the label vectors off; of no use for one-hot vectors.
        hidden: widths between.
        width: length of f and p.
        scale: first value of the scale, > 0; it is learnt.
        margin: first value of the margin; it is learnt.

    Raises:
        ConfigError: if there are not as many label vectors as classes, or one has no direction left.

    Example:
        >>> head = PrototypeHead(16, 2, label_vectors=torch.eye(2), centred=False)
        >>> logits = head(torch.rand(5, 16))
        >>> logits.shape, bool((logits <= 8.0001).all() & (logits >= -24.0001).all())  # 8 (1 - D), D in [0, 4]
        (torch.Size([5, 2]), True)
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        label_vectors: Float[Tensor, "K T"] | None = None,
        centred: bool = True,
        hidden: tuple[int, ...] = (512, 256),
        width: int = 128,
        scale: float = 8.0,
        margin: float = 1.0,
    ) -> None:
        super().__init__()
        if scale <= 0 or width < 1 or any(size < 1 for size in hidden):
            raise ConfigError(f"a head of prototypes needs scale > 0 and widths >= 1, got {scale}, {width}, {hidden}")
        self.of_images = _perceptron(features, hidden, width)
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.margin = nn.Parameter(torch.tensor(margin))
        self.label_vectors: Tensor | None
        self.centre: Tensor | None
        self.shape: dict[str, Any] = {"hidden": list(hidden), "width": width, "label_width": None}
        if label_vectors is None:
            self.of_labels = None
            self.free = nn.Parameter(nn.init.normal_(torch.empty(num_classes, width), std=width**-0.5))
            self.register_buffer("label_vectors", None)
            self.register_buffer("centre", None)
            return
        if len(label_vectors) != num_classes:
            raise ConfigError(f"{len(label_vectors)} label vectors for {num_classes} classes: one per class is needed")
        centre, directions = centre_and_directions(label_vectors, centred=centred)
        self.of_labels = _perceptron(len(centre), hidden, width)
        self.register_buffer("centre", centre)
        self.register_buffer("label_vectors", directions)
        self.shape["label_width"] = len(centre)

    @property
    def scale(self) -> Tensor:
        """What distances are multiplied by; positive by construction."""
        return self.log_scale.exp()

    @property
    def settings(self) -> dict[str, Any]:
        """What it takes to build the layer again, before its weights are loaded."""
        return {"name": "prototypes", **self.shape}

    def points(self) -> Float[Tensor, "K D"]:
        """Return the prototypes, of length 1."""
        if self.of_labels is None:
            return functional.normalize(self.free, dim=1)
        return functional.normalize(self.of_labels(self.label_vectors).float(), dim=1)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B K"]:
        """Return logits, in float32: distances between near points are lost in half precision."""
        images, points = functional.normalize(self.of_images(features).float(), dim=1), self.points()
        with torch.autocast(features.device.type, enabled=False):
            squared = 2 - 2 * images @ points.T
            return self.scale * (self.margin - squared)

    @torch.no_grad()
    def with_labels(
        self,
        label_vectors: Float[Tensor, "M T"] | None,
        *,
        examples: Sequence[Float[Tensor, "_ F"]] = (),
    ) -> "PrototypeHead":
        """Return the head for other labels: scores of labels that have a name, and few images or none.

        The prototype of a label without examples is that of its vector, p = h(t). Each example counts as much as the
        vector does: p = (h(t) + sum_i f_i) / |h(t) + sum_i f_i|, f_i = g(features_i); without vectors the examples
        alone, as in prototypical networks [1].

        [1] Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017,
        https://arxiv.org/abs/1703.05175.

        Args:
            label_vectors: of the same encoder as the head's own, one per new label; the head's own mean is taken off.
                None: every label needs an example.
            examples: for each new label the features of its images, as they go into this layer; none at all by default.

        Raises:
            ConfigError: if the head knows no label vectors, the lengths differ, or a label has neither.
        """
        other = copy.deepcopy(self)
        labels = len(examples) if label_vectors is None else len(label_vectors)
        if examples and len(examples) != labels:
            raise ConfigError(
                f"examples of {len(examples)} labels, and {labels} label vectors: expected as many of both"
            )
        if label_vectors is not None:
            if self.label_vectors is None or self.centre is None:
                raise ConfigError(
                    "this head's prototypes were learnt freely: only a head of label vectors knows new labels by their "
                    "vectors; give examples alone"
                )
            if label_vectors.shape[1] != len(self.centre):
                raise ConfigError(
                    f"label vectors of length {label_vectors.shape[1]}, and the head was trained on "
                    f"{len(self.centre)}: encode the new labels by the same encoder"
                )
            other.label_vectors = _directions(label_vectors.to(self.centre) - self.centre)
            if not examples:
                return other
        empty = [k for k, rows in enumerate(examples) if not len(rows)] if label_vectors is None else []
        if empty or not labels:
            raise ConfigError(
                f"label {', '.join(map(str, empty)) or 'none'} (counted from 0) has neither a vector nor an example"
            )
        points = torch.zeros(labels, self.shape["width"]) if label_vectors is None else other.points()
        seen = [functional.normalize(self.of_images(rows).float(), dim=1).sum(dim=0) for rows in examples]
        other.free = nn.Parameter(functional.normalize(points.to(seen[0]) + torch.stack(seen), dim=1))
        other.of_labels, other.label_vectors, other.centre = None, None, None
        other.shape["label_width"] = None
        return other


def _perceptron(features: int, hidden: tuple[int, ...], width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner in hidden:
        layers += [nn.Linear(features, inner), nn.ReLU()]
        features = inner
    return nn.Sequential(*layers, nn.Linear(features, width))


def centre_and_directions(
    label_vectors: Float[Tensor, "K T"], *, centred: bool = True, names: Sequence[str] = ()
) -> tuple[Float[Tensor, " T"], Float[Tensor, "K T"]]:
    """Return what is taken off label vectors, and which way each then points, of length 1.

    Args:
        label_vectors: one per class.
        centred: take their mean off; else nothing.
        names: of the classes, for the message.

    Raises:
        ConfigError: if a vector has no direction left.
    """
    vectors = label_vectors.to(torch.float32)
    centre = vectors.mean(dim=0) if centred else torch.zeros_like(vectors[0])
    return centre, _directions(vectors - centre, names=names)


def _directions(vectors: Float[Tensor, "K T"], *, names: Sequence[str] = ()) -> Float[Tensor, "K T"]:
    lengths = vectors.norm(dim=1)
    lost = (lengths <= 1e-6).nonzero().flatten().tolist()
    if lost:
        said = ", ".join(names[int(k)] for k in lost) if names else f"{', '.join(map(str, lost))} (counted from 0)"
        raise ConfigError(
            f"the label vectors of class {said} are the mean of all, or zero: they have no direction; give each label "
            "words of its own"
        )
    return vectors / lengths[:, None]
