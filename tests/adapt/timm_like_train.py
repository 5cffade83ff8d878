"""A script that asks for mixing as timm's train.py does: by the same import, settings, loader and switch.

It trains one layer, and prints of each batch what a test can count: how bright the rows are, and their targets.
"""

import argparse
import json

import torch
from timm.data import FastCollateMixup, Mixup, create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy

SIDE = 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--mixup", type=float, default=0.0)
    parser.add_argument("--mixup-off-epoch", type=int, default=0)
    parser.add_argument("--smoothing", type=float, default=0.1)
    parser.add_argument("--no-prefetcher", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    mixup_fn = collate_fn = None
    if args.mixup > 0:
        settings = {"mixup_alpha": args.mixup, "cutmix_alpha": 0.0, "cutmix_minmax": None, "prob": 1.0}
        settings |= {"switch_prob": 0.5, "mode": "batch", "label_smoothing": args.smoothing, "num_classes": 2}
        if args.no_prefetcher:
            mixup_fn = Mixup(**settings)
        else:
            collate_fn = FastCollateMixup(**settings)
    loader = create_loader(
        create_dataset("", root=args.data_dir, split="train", is_training=True),
        input_size=(3, SIDE, SIDE),
        batch_size=8,
        is_training=True,
        no_aug=True,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        num_workers=1,
        use_prefetcher=not args.no_prefetcher,
        collate_fn=collate_fn,
        device=torch.device("cpu"),
    )
    model, loss_fn = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE**2, 2)), SoftTargetCrossEntropy()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for epoch in range(args.epochs):
        if args.mixup_off_epoch and epoch >= args.mixup_off_epoch:
            if not args.no_prefetcher and loader.mixup_enabled:
                loader.mixup_enabled = False
            elif mixup_fn is not None:
                mixup_fn.mixup_enabled = False
        for x, target in loader:
            images, targets = (x, target) if mixup_fn is None else mixup_fn(x, target)
            row = {"epoch": epoch, "shades": images.mean(dim=(1, 2, 3)).tolist(), "targets": targets.tolist()}
            if targets.ndim == 2:
                loss = loss_fn(model(images), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                row["loss"] = loss.item()
            print(json.dumps(row))  # noqa: T201 - for the test that runs this


if __name__ == "__main__":
    main()
