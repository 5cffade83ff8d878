"""What an epoch costs when it is read from the cache, beside decoding it, and how much memory that takes.

Both read the same images in the same shuffled order, in batches, into arrays of the same form: decoding reads, decodes
and scales every file (by one thread, and by one per processor); the cache gathers rows of its array. The files are in
the system's page cache for both. Peak memory is that of a fresh process that builds the cache and reads an epoch of a
quarter, a half and all of the images, beside that of a process that only imports raremix.

    python benchmarks/cache_read.py --data path/to/images --size 224
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from raremix.core import files
from raremix.core.random import rng
from raremix.data import Card, Manifest, Phantom, build_cache, fit_image, read_image
from raremix.data.readers import SUFFIXES

BATCH = 128


def images_of(folder: Path) -> Manifest:
    """Return all images below a folder, with one label that does not matter."""
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    frame = pl.DataFrame({"path": paths, "target:image": [1.0] * len(paths)})
    return Manifest(frame=frame, card=Card(name=folder.name, task="multilabel", classes=("image",)), root=folder)


def seconds(epoch: Callable[[np.ndarray], None], count: int, rounds: int) -> float:
    """Return the median time of an epoch over the rounds."""
    times = []
    for number in range(rounds):
        order = rng(0, "shuffle", number).permutation(count)
        start = time.perf_counter()
        epoch(order)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def decoded(manifest: Manifest, *, size: int, channels: int, workers: int) -> Callable[[np.ndarray], None]:
    """Return a function that decodes an epoch."""
    paths = manifest.paths()

    def one(row: int) -> np.ndarray:
        return fit_image(read_image(paths[row]), size=size, channels=channels, bits=8).transpose(2, 0, 1)

    def epoch(order: np.ndarray) -> None:
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                np.stack(list(pool.map(one, rows) if workers > 1 else map(one, rows)))

    return epoch


def read_epoch(manifest: Manifest, *, size: int, channels: int, root: Path) -> Callable[[np.ndarray], None]:
    """Return a function that reads an epoch from the cache."""
    cache = build_cache(manifest, size=size, channels=channels, root=root)

    def epoch(order: np.ndarray) -> None:
        for start in range(0, len(order), BATCH):
            cache.take(manifest.ids[order[start : start + BATCH]])

    return epoch


def peak_mebibytes(manifest: Manifest, *, size: int, channels: int, root: Path) -> dict[str, float]:
    """Return the peak memory in MiB of a fresh process that builds a cache of this manifest and reads an epoch."""
    path = manifest.write(root / f"m{len(manifest)}" / "manifest.parquet")
    command = [sys.executable, __file__, "--measure", str(path), "--size", str(size), "--channels", str(channels)]
    done = subprocess.run(
        [*command, "--root", str(root / f"m{len(manifest)}")], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def measure(path: Path, *, size: int, channels: int, root: Path) -> None:
    """Build a cache, read an epoch, and print this process's peak memory."""
    before = own_peak()
    manifest = Manifest.read(path)
    read_epoch(manifest, size=size, channels=channels, root=root)(np.arange(len(manifest)))
    print(json.dumps({"imported": before, "peak": own_peak()}))


def own_peak() -> float:
    """Return this process's peak memory in MiB (getrusage would give the parent's, if that is larger)."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of images; phantoms by default")
    parser.add_argument("--size", type=int, default=224, help="pixels across")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--images", type=int, default=800, help="number of phantoms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/cache_read.json"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    form = {"size": options.size, "channels": options.channels}
    if options.measure is not None:
        measure(options.measure, **form, root=options.root)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.data is None:
            phantom = Phantom(modality="chest_xray", images=options.images, size=options.size, imbalance_ratio=3.0)
            manifest = phantom.load(cache=root / "phantoms")
        else:
            manifest = images_of(options.data.resolve())
        count = len(manifest)
        cores = os.cpu_count() or 1
        start = time.perf_counter()
        cached = read_epoch(manifest, **form, root=root / "cache")
        build = time.perf_counter() - start
        times = {
            "decode, 1 thread": seconds(decoded(manifest, **form, workers=1), count, options.rounds),
            f"decode, {cores} threads": seconds(decoded(manifest, **form, workers=cores), count, options.rounds),
            "cache, 1 thread": seconds(cached, count, options.rounds),
        }
        # Rows without a hash are hashed by the measured process too, so that all of the build is counted.
        bare = replace(manifest, frame=manifest.frame.with_columns(sha256=pl.lit(None, dtype=pl.Utf8)))
        sizes = sorted({count // 4, count // 2, count} - {0})
        peaks = {n: peak_mebibytes(bare.select(bare.ids[:n]), **form, root=root / "peaks") for n in sizes}
    fastest = min(value for name, value in times.items() if name.startswith("decode"))
    ratio = fastest / times["cache, 1 thread"]
    table = Table(title=f"{count} images at {options.size} pixels, {options.channels} channel(s)")
    for heading in ("way", "seconds per epoch", "images per second"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, value in times.items():
        table.add_row(name, f"{value:.3f}", f"{count / value:,.0f}")
    memory = Table(title="peak memory of a process that builds the cache and reads an epoch")
    for heading in ("images", "array, MiB", "imported, MiB", "peak, MiB"):
        memory.add_column(heading, justify="right")
    for n, peak in peaks.items():
        memory.add_row(
            str(n),
            f"{n * options.channels * options.size**2 / 2**20:.0f}",
            *(f"{value:.0f}" for value in peak.values()),
        )
    console = Console()
    console.print(table)
    console.print(
        f"the cache is {ratio:.1f} times faster than the fastest decoding (at least 10 is wanted); "
        f"building it took {build:.1f} s"
    )
    console.print(memory)
    result = {
        "images": count,
        **form,
        "seconds": times,
        "ratio": ratio,
        "build_seconds": build,
        "peak_mebibytes": {str(n): peak for n, peak in peaks.items()},
    }
    files.write_json(options.json, result)
    console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
