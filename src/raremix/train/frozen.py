"""A classifier of which the last layer alone is trained."""

from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.features import head_of


class Frozen(nn.Module):
    """Hold everything but a classifier's last layer as it is: weights, and batch statistics in training too.

    Args:
        classifier: images -> logits; its weights stop asking for gradients.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 2))
        >>> frozen = Frozen(net).train()
        >>> net[1].training, net[2].training, [p.requires_grad for p in net.parameters()]
        (False, True, [False, False, True, True])
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False)
        head_of(classifier).requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> "Frozen":
        """Put the last layer into training mode, and nothing else."""
        super().train(False)
        self.training = mode
        head_of(self.classifier).train(mode)
        return self

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Return logits."""
        return self.classifier(images)
