"""What a loss that compares features needs beside the classifier: a projection that is trained, and a queue.

The queue holds features of earlier images with what they show. Like kept importance maps it is part of a checkpoint, so
that a resumed run goes on with the same one.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.features import features_seen, forward_mixed
from raremix.core.protocols import FeatureLoss, Trainable
from raremix.core.types import Batch, MixPlan
from raremix.train.average import update_averages
from raremix.train.checkpoint import unwrap
from raremix.train.guide import from_first_rank


class Projection(nn.Module):
    """Two layers that bring features to a sphere, on which they are compared.

    Args:
        features: length of what goes into the classifier's last layer.
        width: length of what comes out.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width))

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """Return vectors of length 1, in float32."""
        return functional.normalize(self.layers(features).float(), dim=1)


@dataclass(slots=True, kw_only=True, eq=False)
class Contrast:
    """A queue of features, and where it is asked for the moving average that draws them.

    Attributes:
        features: the queue, of length 1 each; any value where `targets` is NaN.
        targets: what they show; NaN where the place is empty.
        place: where the next one goes.
        momentum: decay of the moving average; None: there is none.
        slow: the moving averages of "classifier" and "projection"; empty where there are none.
    """

    features: Float[Tensor, "Q D"]
    targets: Float[Tensor, "Q K"]
    place: Int[Tensor, ""]
    momentum: float | None
    slow: dict[str, nn.Module]
    _fresh: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def memory(self) -> dict[str, Tensor]:
        """The queue, and the weights of the moving averages."""
        kept = {"contrast/features": self.features, "contrast/targets": self.targets, "contrast/place": self.place}
        for name, module in self.slow.items():
            kept |= {f"contrast/{name}/{key}": value for key, value in module.state_dict().items()}
        return kept

    def loss(
        self,
        criterion: FeatureLoss,
        modules: Mapping[str, nn.Module],
        batch: Batch,
        plan: MixPlan,
        pool: Batch,
    ) -> Float[Tensor, ""]:
        """Run the network on a mixed batch, and compare its features with each other and with the queue."""
        network = unwrap(modules["classifier"])
        with features_seen(network) as seen:
            logits, targets = forward_mixed(modules["classifier"], batch, plan, pool, network=network)
        features = modules["projection"](seen[0].flatten(1))
        self._to(features.device)
        fresh = features.detach() if not self.slow else self._drawn_slowly(batch, plan, pool)
        keys, key_targets = self.features, self.targets
        if self.slow:
            # The moving average's view of the batch itself stands before what it drew earlier.
            keys, key_targets = torch.cat([fresh, keys]), torch.cat([targets.to(key_targets), key_targets])
        self._fresh.append((fresh, targets.detach()))
        return criterion.with_features(logits, targets, features=features, keys=keys, key_targets=key_targets)

    def after_step(self, task: Trainable, step: int) -> None:
        """Put the step's features into the queue, on every rank those of all ranks, and move the averages."""
        for features, targets in self._fresh:
            self._put(_of_all_ranks(features), _of_all_ranks(targets))
        self._fresh.clear()
        if self.slow:
            update_averages(task, self.slow, decay=self.momentum, step=step)
            for module in self.slow.values():
                from_first_rank(*module.buffers())

    @torch.no_grad()
    def _drawn_slowly(self, batch: Batch, plan: MixPlan, pool: Batch) -> Float[Tensor, "R D"]:
        network = self.slow["classifier"]
        with features_seen(network) as seen:
            forward_mixed(network, batch, plan, pool, network=network)
        return self.slow["projection"](seen[0].flatten(1))

    def _put(self, features: Tensor, targets: Tensor) -> None:
        size = len(self.features)
        features, targets = features[-size:] if size else features[:0], targets[-size:] if size else targets[:0]
        # Half precision can overflow; such a step is left out, and its features with it.
        is_finite = features.isfinite().all(dim=1, keepdim=True)
        rows = (self.place + torch.arange(len(features), device=self.place.device)) % max(size, 1)
        self.features[rows] = torch.where(is_finite, features, 0.0).to(self.features)
        self.targets[rows] = torch.where(is_finite, targets, torch.nan).to(self.targets)
        self.place.copy_((self.place + len(features)) % max(size, 1))

    def _to(self, device: torch.device) -> None:
        if self.features.device != device:
            self.features, self.targets = self.features.to(device), self.targets.to(device)
            self.place = self.place.to(device)
            for module in self.slow.values():
                module.to(device)


def make_contrast(criterion: FeatureLoss, model: nn.Module, projection: Projection, *, num_classes: int) -> Contrast:
    """Build an empty queue of the size that a loss asks for, and moving averages if it does.

    Args:
        criterion: the loss.
        model: the classifier, as it begins.
        projection: likewise.
        num_classes: K.
    """
    slow: dict[str, nn.Module] = {}
    if criterion.momentum is not None:
        modules = {"classifier": model, "projection": projection}
        slow = {name: copy.deepcopy(module).requires_grad_(False).eval() for name, module in modules.items()}
    return Contrast(
        features=torch.zeros(criterion.queue, criterion.width),
        targets=torch.full((criterion.queue, num_classes), torch.nan),
        place=torch.zeros((), dtype=torch.int64),
        momentum=criterion.momentum,
        slow=slow,
    )


def feature_width(model: nn.Module, images: Float[Tensor, "B C H W"]) -> int:
    """Return how many features go into a network's last layer."""
    was_training = model.training
    with torch.no_grad(), features_seen(model.eval()) as seen:
        model(images)
    model.train(was_training)
    return seen[0].flatten(1).shape[1]


def _of_all_ranks(value: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    gathered = [torch.empty_like(value) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, value.contiguous())
    return torch.cat(gathered)
