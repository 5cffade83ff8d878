"""Train a small network on mixed batches, in a plain PyTorch loop: python examples/01_mix_a_batch.py.

Grey images of bright spots on noise, one class in ten of them ring-shaped. A mixer takes images and class numbers, and
returns mixed images with soft targets, which the loss takes as they are.
"""

import numpy as np
import torch
from torch import Tensor, nn

from raremix.core.random import rng, torch_seed
from raremix.losses import CrossEntropy
from raremix.mix import CutMix, MixUp, NoMix

STEPS, BATCH = 120, 64


def spots(rows: int, *, rare: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw spots (class 0) and, with a given probability, rings (class 1)."""
    stream = rng(seed, "phantom")
    y, x = np.mgrid[:28, :28][:, None] - stream.uniform(9, 19, size=(2, rows))[..., None, None]
    distance, radius = np.hypot(y, x), stream.uniform(3, 6, size=(rows, 1, 1))
    is_ring = stream.random(rows) < rare
    filled = (distance < radius) & ~(is_ring[:, None, None] & (distance < 0.6 * radius))
    images = 0.3 + 0.25 * filled + stream.normal(0, 0.15, size=filled.shape)
    return torch.tensor(images[:, None].clip(0, 1), dtype=torch.float32), torch.tensor(is_ring.astype(np.int64))


def network() -> nn.Module:
    """Build a small convolutional network."""
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(0, "init"))
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
        )


def train(mixer: NoMix | MixUp | CutMix, images: Tensor, classes: Tensor) -> nn.Module:
    """Train on mixed batches; step s mixes from its own stream, so that a run can be repeated."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loss = CrossEntropy(class_weights="sqrt", class_counts=torch.bincount(classes).numpy())
    for step in range(STEPS):
        rows = torch.from_numpy(rng(0, "shuffle", step).integers(0, len(images), size=BATCH))
        mixed, targets = mixer(images[rows], classes[rows], rng=rng(0, "mix", step))
        value = loss(model(mixed), targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    """Compare three mixers by sensitivity and specificity on new images."""
    images, classes = spots(1000, rare=0.1, seed=0)
    new_images, new_classes = spots(1000, rare=0.5, seed=1)
    for mixer in (NoMix(num_classes=2), MixUp(alpha=0.2, num_classes=2), CutMix(probability=0.5, num_classes=2)):
        model = train(mixer, images, classes)
        with torch.no_grad():
            is_called_ring = (model(new_images).argmax(dim=1) == 1).float()
        sensitivity = float(is_called_ring[new_classes == 1].mean())
        specificity = 1 - float(is_called_ring[new_classes == 0].mean())
        print(f"{type(mixer).__name__:7} sensitivity {sensitivity:.2f}, specificity {specificity:.2f}")


if __name__ == "__main__":
    main()
