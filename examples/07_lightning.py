"""Mix on the device in a LightningModule, by one line: python examples/07_lightning.py.

Lightning is no dependency of raremix. Without it, this example says so, and runs the same loop on Lightning Fabric.
"""

import importlib.util
from typing import Any

import lightning_fabric
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from raremix.adapt.lightning import mix_after_transfer
from raremix.core.random import rng
from raremix.losses import CrossEntropy
from raremix.mix import CutMix

MIXER = CutMix(num_classes=2)


def data() -> DataLoader:
    """Make bright and dark noise."""
    classes = torch.arange(64) % 2
    images = torch.rand(64, 1, 16, 16) * 0.5 + 0.5 * classes[:, None, None, None]
    return DataLoader(TensorDataset(images, classes), batch_size=16)


def network() -> nn.Module:
    """Build a linear classifier."""
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 2))


def with_lightning(lightning: Any) -> None:
    """Train by Lightning's trainer."""

    class Model(lightning.LightningModule):
        """A classifier whose training batches are mixed after they have reached the device."""

        on_after_batch_transfer = mix_after_transfer(MIXER)

        def __init__(self) -> None:
            super().__init__()
            self.network, self.loss = network(), CrossEntropy()

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            """Return the loss on soft targets."""
            images, targets = batch
            return self.loss(self.network(images), targets)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            """Return the optimiser."""
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = lightning.Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False)
    trainer.fit(Model(), data())


def with_fabric() -> None:
    """Train by a loop of one's own: the mixer is called where the batch is on the device."""
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1)
    model, loss = network(), CrossEntropy()
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for step, (images, classes) in enumerate(fabric.setup_dataloaders(data())):
        mixed, targets = MIXER(images, classes, rng=rng(0, "mix", step))
        value = loss(model(mixed), targets)
        optimizer.zero_grad()
        fabric.backward(value)
        optimizer.step()
        print(f"step {step}: loss {value.item():.3f}")


if __name__ == "__main__":
    if importlib.util.find_spec("lightning"):
        with_lightning(importlib.import_module("lightning"))
    else:
        print("lightning is not installed (pip install lightning): running on Lightning Fabric, which raremix brings")
        with_fabric()
