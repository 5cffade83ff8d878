"""Plant the classic faults into drawn phantoms, for the picture in docs/audit.md and to try the audit on.

python studies/audit_phantoms.py phantoms_with_faults
raremix audit phantoms_with_faults/labels.csv --label diagnosis --group patient --split split
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageEnhance

from raremix.core import files
from raremix.core.random import rng
from raremix.data import Phantom
from raremix.data.manifest import TARGET
from raremix.study.prepare import default_cache


def main() -> None:
    """Write the images and their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder")
    folder = parser.parse_args().folder
    phantoms = Phantom(images=400, size=128, classes=4, imbalance_ratio=12, images_per_group=1.8)
    manifest = phantoms.load(cache=default_cache())
    frame, classes = manifest.frame, manifest.card.classes
    label = [classes[int(k)] for k in manifest.targets().argmax(axis=1)]
    group, split = frame["group"].to_list(), frame["split"].to_list()
    files.folder(folder)
    names = [f"{row:04d}.png" for row in range(len(manifest))]
    for name, path in zip(names, manifest.paths(), strict=True):
        shutil.copyfile(path, folder / name)
    stream = rng(0, "phantom", 9)
    order = stream.permutation(len(names)).tolist()
    for _ in range(4):  # the same file under another label
        a, b = order.pop(), order.pop()
        shutil.copyfile(folder / names[a], folder / names[b])
    for _ in range(6):  # a copy in other contrast, half the size, saved as JPEG
        a, b = order.pop(), order.pop()
        with Image.open(folder / names[a]) as image:
            changed = ImageEnhance.Contrast(image.convert("RGB")).enhance(1.3).resize((64, 64))
        names[b] = f"{b:04d}.jpg"
        changed.save(folder / names[b], quality=80)
    for _ in range(5):  # a patient in two splits
        a = order.pop()
        others = [k for k in range(len(split)) if split[k] not in {split[a], None}]
        group[a] = group[others[int(stream.integers(len(others)))]]
    for share in (0.3, 0.6):  # a broken transfer
        whole = (folder / names[order[-1]]).read_bytes()
        files.write_bytes(folder / names[order.pop()], whole[: int(share * len(whole))])
    files.write_image(folder / names[order.pop()], np.full((128, 128, 3), 128, dtype=np.uint8))
    rare = [k for k in order if frame[TARGET + classes[-1]][k] == 1]
    for k in rare[: len(rare) // 2 + 1]:  # a frame that goes with the rarest class
        with Image.open(folder / names[k]) as image:
            files.write_image(folder / names[k], np.pad(np.asarray(image), ((12, 12), (12, 12), (0, 0))))
    table = pl.DataFrame({"file": names, "diagnosis": label, "patient": group, "split": split})
    files.write_csv(folder / "labels.csv", table)


if __name__ == "__main__":
    main()
