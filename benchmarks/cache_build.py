"""What building the cache costs: with one and two processes, beside the bare decoder, and with reduced JPEG decoding.

All read the same files, which are in the system's page cache. The bare decoder turns each file into an array with
Pillow in one process and drops it; for the reduced build it asks for the same reduction. Building the cache also
verifies each file against its hash, scales, converts, writes and hashes the array. Rounds alternate between the ways,
and the median over rounds is shown, in wall-clock and in processor time: of a disturbed machine the second one tells
more. Hashing the files when they are seen for the first time is timed apart.

    python benchmarks/cache_build.py --data path/to/images --size 224
    python benchmarks/cache_build.py --data path/to/images --enlarge 1024 --images 1500 --size 224
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from peer_environment import NUMBERS, machine
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from rich.console import Console
from rich.table import Table

from raremix.core import files
from raremix.data import Card, Manifest, build_cache, with_digests
from raremix.data.readers import Reading, decode_fitted, fit_image, has_image_suffix, read_image
from raremix.data.readers.raster import reduce_jpeg


def images_of(folder: Path, *, most: int) -> Manifest:
    """Return images below a folder, with one label that does not matter."""
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if has_image_suffix(p))
    paths = found[:: max(1, len(found) // most)][:most]
    frame = pl.DataFrame({"path": paths, "target:image": [1.0] * len(paths)})
    return Manifest(frame=frame, card=Card(name=folder.name, task="multilabel", classes=("image",)), root=folder)


def enlarged(manifest: Manifest, side: int, folder: Path) -> Manifest:
    """Write each image as a JPEG of another size: what an archive delivers, with real contents."""
    for path in manifest.frame["path"]:
        target = folder / Path(path).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(manifest.root / path) as image:
            image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(target, quality=90)
    return images_of(folder, most=len(manifest))


def bare(manifest: Manifest, *, form: dict[str, Any] | None = None) -> None:
    """Turn every file into an array with Pillow, a JPEG reduced if a form is given."""
    for path in manifest.paths():
        with Image.open(path) as image:
            if form is not None and isinstance(image, JpegImageFile):
                reduce_jpeg(image, **form)
            np.asarray(image)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and processor seconds of a call, those of its child processes included."""
    before, start = os.times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def closeness(manifest: Manifest, *, size: int, channels: int, count: int = 100) -> tuple[float, int]:
    """Return the mean and the largest difference that reduced decoding makes, in levels of 255."""
    differences = []
    for path in manifest.paths()[:count]:
        whole = fit_image(read_image(path), size=size, channels=channels, bits=8).astype(np.int64)
        reduced = decode_fitted(path.read_bytes(), name=path.name, size=size, channels=channels, bits=8)
        differences.append(np.abs(whole - reduced))
    return float(np.mean([d.mean() for d in differences])), int(max(d.max() for d in differences))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--size", type=int, default=224, help="pixels across")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--images", type=int, default=6000, help="at most so many, evenly spaced")
    parser.add_argument("--enlarge", type=int, help="write them as JPEG of this side first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=NUMBERS / "cache_build.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        manifest = images_of(options.data.resolve(), most=options.images)
        if options.enlarge:
            manifest = enlarged(manifest, options.enlarge, root / "enlarged")
        bare(manifest)
        hashing = seconds(lambda: with_digests(manifest, cache=root / "first"))
        hashed = with_digests(manifest, cache=root / "first")
        form = {"size": options.size, "channels": options.channels}
        reduced = {"size": options.size, "to_grey": options.channels == 1}
        built = 0

        def build(workers: int, draft: bool) -> Callable[[], object]:
            def work() -> object:
                nonlocal built
                built += 1
                where = root / f"cache{built}"
                return build_cache(hashed, **form, root=where, workers=workers, reading=Reading(draft=draft))

            return work

        ways = {
            "bare decoder, 1 process": lambda: bare(manifest),
            "cache, 1 process": build(1, False),
            "cache, 2 processes": build(2, False),
            "bare decoder, reduced, 1 process": lambda: bare(manifest, form=reduced),
            "cache, reduced, 1 process": build(1, True),
            "cache, reduced, 2 processes": build(2, True),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, work in ways.items():
                times[name].append(seconds(work))
        mean, largest = closeness(manifest, **form)
    count = len(manifest)
    middle = {name: [statistics.median(pair[i] for pair in pairs) for i in (0, 1)] for name, pairs in times.items()}
    table = Table(title=f"{count} images to {options.size} pixels, {options.channels} channel(s)")
    for heading in ("way", "wall s", "processor s", "images per second"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, (wall, processor) in middle.items():
        table.add_row(name, f"{wall:.2f}", f"{processor:.2f}", f"{count / wall:,.0f}")
    ratios = {
        "two processes over one": middle["cache, 1 process"][0] / middle["cache, 2 processes"][0],
        "two over one, reduced": middle["cache, reduced, 1 process"][0] / middle["cache, reduced, 2 processes"][0],
        "cache over bare, processor": middle["cache, 1 process"][1] / middle["bare decoder, 1 process"][1],
        "cache over bare, wall": middle["cache, 1 process"][0] / middle["bare decoder, 1 process"][0],
        "cache over bare, reduced, wall": middle["cache, reduced, 1 process"][0]
        / middle["bare decoder, reduced, 1 process"][0],
        "cache over bare, reduced, processor": middle["cache, reduced, 1 process"][1]
        / middle["bare decoder, reduced, 1 process"][1],
        "gain of reducing": middle["cache, 1 process"][1] / middle["cache, reduced, 1 process"][1],
    }
    console = Console()
    console.print(table)
    for name, value in ratios.items():
        console.print(f"{name}: {value:.2f}")
    console.print(f"hashing the files, once: {hashing[0]:.2f} s")
    console.print(f"reduced decoding differs by {mean:.2f} of 255 levels on average, by {largest} at most")
    facts = machine(threads=1)
    console.print(f"load of the last minute: {facts['load']:.1f}")
    result = {"machine": facts, "images": count, **form, "seconds": middle, "ratios": ratios, "hashing": hashing}
    files.write_json(
        options.json, {**result, "enlarge": options.enlarge, "difference": {"mean": mean, "largest": largest}}
    )
    console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
