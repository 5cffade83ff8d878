"""A last layer that looks at directions alone: logits are scaled cosines."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class CosineHead(nn.Module):
    """Logits as scale * cos of the angle between features and each class's weights, as margin losses expect [1].

    Frequent classes cannot win by the length of their weights, since lengths are divided out.

    [1] Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019,
    https://arxiv.org/abs/1906.07413.

    Args:
        features: length of what goes in.
        num_classes: number of logits.
        scale: what cosines are multiplied by, > 0.

    Example:
        >>> head = CosineHead(2, 1, scale=30.0)
        >>> _ = head.weight.data.copy_(torch.tensor([[0.0, 2.0]]))
        >>> head(torch.tensor([[0.0, 5.0], [1.0, 0.0]])).flatten().tolist()
        [30.0, 0.0]
    """

    def __init__(self, features: int, num_classes: int, *, scale: float = 30.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(num_classes, features), std=features**-0.5))
        self.scale = scale

    @property
    def settings(self) -> dict[str, Any]:
        """What it takes to build the layer again, before its weights are loaded."""
        return {"name": "cosine", "scale": self.scale}

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B K"]:
        """Return logits in [-scale, scale], in float32."""
        with torch.autocast(features.device.type, enabled=False):
            directions = functional.normalize(features.to(self.weight.dtype), dim=1)
            return self.scale * directions @ functional.normalize(self.weight, dim=1).T
