"""How much of an image's fine detail is left after it was resampled, as generators see images when they are trained.

    python benchmarks/detail.py --data IMAGES

The root mean square of the Laplacian of images of Kermany and HAM10000, after a crop (nine tenths of the side and more,
from the small image), after adaptive augmentation's shift by parts of a pixel, and after the conditional augmentation
of diffusion models, over that of the images as they are.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from memorisation import data_sets
from peer_environment import NUMBERS
from rich.console import Console
from rich.table import Table as RichTable
from torch import Tensor

from raremix.core import files
from raremix.data import build_cache
from raremix.data.augment import Classical
from raremix.generate.ada import draw_adaptation, kinds_of
from raremix.generate.ada_apply import adapt
from raremix.generate.diffusion_augment import Changed, apply_changed, draw_changed

IMAGES, SIZES = 200, (32, 64, 128)


def detail(images: Tensor) -> float:
    """Return the root mean square of the Laplacian."""
    around = images[..., :-2, 1:-1] + images[..., 2:, 1:-1] + images[..., 1:-1, :-2] + images[..., 1:-1, 2:]
    return float((4 * images[..., 1:-1, 1:-1] - around).square().mean().sqrt())


def resampled(images: Tensor) -> dict[str, Tensor]:
    """Return images in [-1, 1] after each way of resampling."""
    count, channels, side, _ = images.shape
    crop = Classical(rotation=0.0, crop=0.9, brightness=0.0, contrast=0.0, saturation=0.0, modality="other")
    cut = crop.apply(images / 2 + 0.5, crop.plan(count, rng=np.random.default_rng(0)))
    kinds = kinds_of(("move",), channels=channels)
    stream = np.random.default_rng(0)
    shifts = draw_adaptation(count, side=side, channels=channels, kinds=kinds, probability=1.0, rng=stream)
    told = draw_changed(count, share=1.0, rng=np.random.default_rng(0)).labels
    told[:, [0, 1, 2, 3, 4, 7, 8]] = 0  # the shift alone
    return {
        "a crop of the small image": cut * 2 - 1,
        "adaptive augmentation, shifted": adapt(images, shifts),
        "conditional augmentation, shifted": apply_changed(images, Changed(labels=told)),
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where decoded images are kept")
    parser.add_argument("--json", type=Path, default=NUMBERS / "detail.json")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name, (manifest, _, channels) in data_sets(options.data.resolve(), options.cache).items():
        ids = np.random.default_rng(0).permutation(manifest.ids)[:IMAGES]
        for size in SIZES:
            store = build_cache(manifest, size=size, channels=channels, root=options.cache)
            images = torch.from_numpy(store.take(ids)).float() / 127.5 - 1
            whole = detail(images)
            ways = {way: detail(some) / whole for way, some in resampled(images).items()}
            found[f"{name.split(',')[0]}, {size} px"] = ways
    table = RichTable("rms Laplacian over the images' own", *next(iter(found.values())))
    for name, ways in found.items():
        table.add_row(name, *(f"{share:.2f}" for share in ways.values()))
    Console(width=120).print(table)
    files.write_json(options.json.resolve(), found)


if __name__ == "__main__":
    main()
