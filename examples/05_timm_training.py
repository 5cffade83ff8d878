"""Train as timm's script does, but mix by any mixer of raremix: python examples/05_timm_training.py.

The loop is that of timm's train.py in short: create_loader, a mixup function, SoftTargetCrossEntropy while labels are
mixed, and mixing switched off for the last epochs. Only the line that makes `mixup_fn` is another.
"""

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy
from torch.utils.data import Dataset

from raremix.adapt.timm import Mixup
from raremix.mix import CutMix, MixUp, OneOf

EPOCHS, MIXUP_OFF_EPOCH, CLASSES, SIDE = 4, 3, 3, 32


class Stripes(Dataset):
    """Noisy stripes: none, across, or down."""

    def __init__(self, rows: int, *, seed: int) -> None:
        self.transform = None  # create_loader sets it
        stream = np.random.default_rng(seed)
        self.labels = stream.integers(CLASSES, size=rows)
        wave = 60 * (np.arange(SIDE) // 4 % 2)
        patterns = np.stack(
            [np.full((SIDE, SIDE), 30), np.broadcast_to(wave, (SIDE, SIDE)).T, np.tile(wave, (SIDE, 1))]
        )
        self.images = patterns[self.labels, ..., None] + stream.integers(0, 180, size=(rows, SIDE, SIDE, 3))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].astype(np.uint8))), int(self.labels[index])


def main() -> None:
    """Train a small network, and print what timm's script prints."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=CLASSES)
    settings = {"input_size": (3, SIDE, SIDE), "batch_size": 32, "use_prefetcher": False, "num_workers": 0}
    settings |= {"no_aug": True, "device": torch.device("cpu"), "pin_memory": False}
    loader_train = create_loader(Stripes(240, seed=0), is_training=True, **settings)
    loader_eval = create_loader(Stripes(120, seed=1), is_training=False, **settings)

    # In timm: Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=CLASSES).
    mixup_fn = Mixup(OneOf(mixers=(MixUp(alpha=0.8), CutMix()), num_classes=CLASSES), label_smoothing=0.1)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=EPOCHS, warmup_epochs=0)
    train_loss_fn = SoftTargetCrossEntropy()
    for epoch in range(EPOCHS):
        if epoch >= MIXUP_OFF_EPOCH:
            mixup_fn.mixup_enabled = False
        losses, top1 = AverageMeter(), AverageMeter()
        model.train()
        for x, target in loader_train:
            mixed, soft_target = mixup_fn(x, target)
            loss = train_loss_fn(model(mixed), soft_target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(x))
        scheduler.step(epoch + 1)
        model.eval()
        with torch.no_grad():
            for x, target in loader_eval:
                top1.update(accuracy(model(x), target)[0].item(), len(x))
        print(f"epoch {epoch}: mixing {mixup_fn.mixup_enabled!s:5} train loss {losses.avg:.3f}, Acc@1 {top1.avg:.1f}")


if __name__ == "__main__":
    main()
