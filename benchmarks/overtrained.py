"""Whether the look for copies catches a generator that has learnt its images by heart.

    python benchmarks/overtrained.py --data IMAGES --weights mobilenetv2_100_imagenet.safetensors --method dcgan
    python benchmarks/overtrained.py --data IMAGES --weights mobilenetv2_100_imagenet.safetensors --method diffusion

A generator without augmentation is fitted far too long on a few dozen of Kermany's X-rays at 32 px, by the verbs that
users run; `raremix quality` then judges what it draws. Beside it stands an exhaustive search that knows nothing of that
test: the highest correlation of a drawn image with any training image, over flips and shifts of up to two pixels. Drawn
images that correlate higher than any of the held-out real ones do are copies to it. Told are the test's verdict, the
share of these copies that it flags, and for how many training images that were copied it names one. A run that was
stopped goes on.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view
from peer_environment import NUMBERS, machine
from rich.console import Console
from rich.table import Table as RichTable

from raremix.core import files
from raremix.study.defaults import study_of
from raremix.study.generators.quality.judge import judge_synthetic
from raremix.study.prepare import cache_of, prepare

SIZE, REACH, HELD_OUT, TEST = 32, 2, 600, 20
PLAIN = {
    "dcgan": {"steps": 8000, "set": ["generator.width=32", "generator.augment=0"]},
    "diffusion": {
        "steps": 5000,
        "set": [
            "generator.width=16",
            "generator.layers=1",
            "generator.dropout=0",
            "generator.augment=0",
            "generator.hide=0",
            "train.batch_size=16",
        ],
    },
}


def write_table(data: Path, folder: Path, *, images: int) -> Path:
    """Write a table of one image per patient: some to learn by heart, others held out."""
    table = pl.read_csv(data / "kermany_cxr_224/labels.csv")
    table = table.unique("patient_group", keep="first", maintain_order=True)
    table = table[np.random.default_rng(0).permutation(len(table)).tolist()][: images + HELD_OUT + TEST]
    splits = ["train"] * images + ["validation"] * HELD_OUT + ["test"] * TEST
    files.write_csv(folder / "labels.csv", table.with_columns(split=pl.Series(splits)))
    study = folder / "overtrained.toml"
    text = f"""[study]
name = "overtrained"
title = "A generator that learnt by heart"

[data]
source = "table"
path = "{folder / "labels.csv"}"
image = "file"
images_root = "{data / "kermany_cxr_224/images"}"
label = "label"
group = "patient_group"
split = "split"
size = {SIZE}
channels = 1

[[arm]]
name = "none"
"""
    files.write_text(study, text)
    return study


def raremix(*words: object) -> None:
    """Run a verb."""
    subprocess.run([Path(sys.executable).with_name("raremix"), *map(str, words)], check=True)


def rows_of(windows: np.ndarray) -> np.ndarray:
    """Return windows as rows of mean 0 and length 1."""
    rows = windows.reshape(len(windows), -1).astype(np.float32)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def correlations(images: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return how well each image correlates with each training image at best, over flips and shifts."""
    side = SIZE - 2 * REACH
    middle = rows_of(images[:, REACH:-REACH, REACH:-REACH])
    best = np.full((len(images), len(training)), -1.0, dtype=np.float32)
    for view in (training, training[:, :, ::-1]):
        windows = sliding_window_view(view, (side, side), axis=(1, 2))
        for down in range(windows.shape[1]):
            for across in range(windows.shape[2]):
                best = np.maximum(best, middle @ rows_of(windows[:, down, across]).T)
    return best


def main() -> None:
    """Fit, draw, judge, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--weights", type=Path, required=True, help="weights of a network, .safetensors")
    parser.add_argument("--method", choices=list(PLAIN), default="dcgan")
    parser.add_argument("--steps", type=int, help="default: the method's here")
    parser.add_argument("--images", type=int, default=60, help="training images")
    parser.add_argument("--drawn", type=int, default=128, help="images to draw of each class, with the real ones")
    parser.add_argument("--folder", type=Path, help="default: runs/benchmarks/overtrained/METHOD")
    parser.add_argument("--json", type=Path, help="default: overtrained-METHOD.json beside the other numbers")
    options = parser.parse_args()
    folder = (options.folder or NUMBERS / "overtrained" / options.method).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cache = ["--cache", folder / "cache"]
    study = write_table(options.data.resolve(), folder, images=options.images)
    settings = [word for one in PLAIN[options.method]["set"] for word in ("--set", one)]
    steps = options.steps or PLAIN[options.method]["steps"]
    generator, drawn = folder / "generator", folder / "drawn"
    raremix(
        *("generator", "fit", study, "--method", options.method, "--size", SIZE, "--steps", steps),
        *("--output", generator, *settings, *cache),
    )
    to = ",".join(f"{name}={options.drawn}" for name in ("NORMAL", "PNEUMONIA"))
    raremix("synthesize", study, generator, "--begin", "noise", "--output", drawn, "--to", to, *cache)
    spec = study_of(str(drawn), settings=[f"data.size={SIZE}", "data.channels=1"])
    prepared = prepare(spec, cache=cache_of(spec.data, cache[1]))
    found = judge_synthetic(prepared, weights=str(options.weights.resolve()), cache=cache[1], seed=0)
    if found.audit is None:
        raise SystemExit(f"could not be told: {found.why_not}")

    frame = prepared.manifest.frame
    is_made = (frame["origin"] == "synthetic").to_numpy()
    is_train = (frame["split"] == "train").to_numpy() & ~is_made
    made, training, held_out = (
        prepared.manifest.ids[which] for which in (is_made, is_train, (frame["split"] == "validation").to_numpy())
    )
    real = prepared.cache.take(training)[:, 0]
    near = correlations(prepared.cache.take(made)[:, 0], real)
    limit = float(correlations(prepared.cache.take(held_out)[:, 0], real).max())
    places = np.flatnonzero(near.max(axis=1) > limit)
    copied = {int(made[place]): int(training[near[place].argmax()]) for place in places}
    named = {pair.made: pair.source for pair in found.pairs if pair.is_flagged}
    sources = set(copied.values())
    numbers = {
        "method": options.method,
        "steps": steps,
        "training_images": len(training),
        "drawn": len(made),
        "words": found.audit.words(),
        "is_memorised": found.audit.has_copies,
        "p": found.audit.every.p,
        "flagged": len(named),
        "correlation_limit": limit,
        "copies_by_search": len(copied),
        "of_these_flagged": sum(one in named for one in copied),
        "sources_by_search": len(sources),
        "of_these_named": len(sources & set(named.values())),
        "machine": machine(threads=1),
    }
    table = RichTable("", "", title=f"{options.method}, {steps} steps on {len(training)} images")
    table.add_row("verdict", found.audit.words())
    table.add_row("copies by exhaustive search", f"{len(copied)} of {len(made)} (correlation over {limit:.3f})")
    table.add_row("of these flagged", f"{numbers['of_these_flagged']}")
    table.add_row("training images copied, by search", f"{len(sources)}")
    table.add_row("of these named", f"{numbers['of_these_named']}")
    Console(width=110).print(table)
    files.write_json((options.json or NUMBERS / f"overtrained-{options.method}.json").resolve(), numbers)


if __name__ == "__main__":
    main()
