"""Train a segmentation network on mixed images and masks: python examples/08_segmentation_masks.py.

A plan says who is mixed with whom, and where. Applied to images it mixes pixels; applied to masks, the masks that
belong to them. Chest phantoms come with the true mask of every finding.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.random import rng, torch_seed
from raremix.core.types import Batch
from raremix.data import Phantom
from raremix.mix import CutMix

STEPS, BATCH, SIDE = 40, 16, 48


def phantoms(images: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images, labels (B, K), and one mask of all findings of each image."""
    phantom = Phantom(modality="chest_xray", images=images, size=SIDE, seed=seed, imbalance_ratio=1.0, difficulty=0.3)
    cohort = phantom.draw_cohort()
    pictures = [phantom.render(row, cohort=cohort) for row in range(images)]
    pixels = torch.from_numpy(np.stack([picture.image for picture in pictures])).float().unsqueeze(1) / 255
    nothing = np.zeros((SIDE, SIDE), dtype=bool)
    masks = [np.logical_or.reduce([nothing, *picture.masks.values()]) for picture in pictures]
    return pixels, torch.from_numpy(cohort.labels).float(), torch.from_numpy(np.stack(masks)).float().unsqueeze(1)


def network() -> nn.Module:
    """Build a small convolutional network with dilations."""
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(0, "init"))
        layers: list[nn.Module] = []
        for channels, dilation in ((1, 1), (16, 2), (16, 4)):
            layers += [nn.Conv2d(channels, 16, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(16), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(16, 1, 1))


def main() -> None:
    """Train, and print the overlap with the true masks of new images."""
    images, labels, masks = phantoms(64, seed=0)
    model, mixer = network(), CutMix(probability=0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rare = (masks.numel() / masks.sum()).clamp(max=20)
    for step in range(STEPS):
        rows = torch.from_numpy(rng(0, "shuffle", step).integers(0, len(images), size=BATCH))
        batch = Batch(images=images[rows], targets=labels[rows])
        plan = mixer.plan(batch, batch, rng=rng(0, "mix", step))
        mixed, mixed_masks = plan.apply(batch), plan.apply_masks(masks[rows])
        loss = functional.binary_cross_entropy_with_logits(model(mixed.images), mixed_masks, pos_weight=rare)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            print(f"step {step + 1}: loss {loss.item():.3f}")

    new_images, _, new_masks = phantoms(32, seed=1)
    with torch.no_grad():
        found = (model.eval()(new_images) > 0).float()
    dice = 2 * (found * new_masks).sum() / (found.sum() + new_masks.sum())
    print(f"Dice on new images: {dice.item():.2f}")


if __name__ == "__main__":
    main()
