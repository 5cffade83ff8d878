"""Time the audit beside cleanvision, count which planted copies each finds, and audit 100,000 rows.

    python benchmarks/audit.py --data ../shared/data [--rows 100000] [--json FILE]

cleanvision lives in a virtual environment of its own, which the first run makes in --cache on top of the packages that
are installed here. Both look at the same folder, in turn, and again; wall-clock and processor time (with that of child
processes) are reported, best of the turns, and each from the folder's name to the finished result: cleanvision's all
issues, and its duplicates only; raremix's whole audit with its page, once with an empty cache and once repeated.

How alike different pictures are: pairs whose hashes are near, compared at 64 x 64 pixels in both ways.

Planted copies: images of each set, changed in one known way and saved as JPEG of quality 90 beside the originals. Found
means: reported as exact or near-duplicate of its original. Pairs that were not planted are counted as false.

The 100,000 files are made up: smooth random fields with sensor noise, 224 x 224 JPEG of quality 85, one in fifty a copy
of another (half at the same quality, half at quality 60); eight images per patient. A process of its own audits them.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from peer_environment import CACHE, NUMBERS, go_on_in, machine
from PIL import Image, ImageEnhance

PEERS = ["cleanvision==0.3.7"]
SETS = {
    "Kermany": ("kermany_cxr_224", {"label": "label", "group": "patient_group", "split": "repo_split_leaky"}),
    "HAM10000": ("ham10000_128", {"label": "dx", "group": "lesion_id"}),
}
PLANTED = 150
SIDE = 224


def main() -> None:
    """Make the peer's environment where it is missing, and measure in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with kermany_cxr_224 and ham10000_128")
    parser.add_argument("--rows", type=int, default=0, help="made-up files to audit, 100000 for the published figure")
    parser.add_argument("--turns", type=int, default=2, help="turns of each contestant")
    parser.add_argument("--json", type=Path, default=NUMBERS / "audit.json", help="where the numbers are written")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peer lives")
    parser.add_argument("--only", nargs="+", choices=["apart", "planted", "speed", "large"], help="parts to measure")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        audit_one(options.one)
        return
    go_on_in(options.cache / "cleanvision", peers=PEERS)
    from raremix.core import files

    result = files.read_json(options.json) if options.json.is_file() else {}
    parts: dict[str, Callable[[], object]] = {}
    if options.data is not None:
        root = options.data.resolve()
        parts["apart"] = lambda: [apart(name, root) for name in (*SETS, "RetinaMNIST")]
        parts["planted"] = lambda: [row for name in SETS for row in planted(name, root)]
        parts["speed"] = lambda: [row for name in SETS for row in speed(name, root, turns=options.turns)]
    if options.rows:
        parts["large"] = lambda: large(options.rows)
    for part, measure in parts.items():
        if part in (options.only or parts):
            result[part] = measure()
            files.write_json(options.json.resolve(), result)
    result["machine"] = machine(threads=os.cpu_count() or 1)
    result["versions"] = {name: importlib.metadata.version(name) for name in ("cleanvision", "pillow", "numpy")}
    files.write_json(options.json.resolve(), result)
    report(result)


def speed(name: str, root: Path, *, turns: int) -> list[dict[str, object]]:
    """Time the contestants on one set."""
    folder, columns = SETS[name]
    table, images = root / folder / "labels.csv", root / folder / "images"
    with tempfile.TemporaryDirectory() as place:
        caches = iter(Path(place) / f"cache{number}" for number in range(turns + 1))
        last: list[Path] = [next(caches)]
        ours(table, columns, last[0])

        def fresh() -> None:
            last[0] = next(caches)
            ours(table, columns, last[0])

        calls: dict[str, Callable[[], object]] = {
            "raremix": fresh,
            "raremix, again": lambda: ours(table, columns, last[0]),
            "cleanvision, all issues": lambda: theirs(images),
            "cleanvision, duplicates only": lambda: theirs(images, "exact_duplicates", "near_duplicates"),
        }
        times: dict[str, list[tuple[float, float]]] = {who: [] for who in calls}
        for _ in range(turns):
            for who, call in calls.items():
                times[who].append(timed(call))
    count = pl.read_csv(table, infer_schema_length=0).height
    rows = []
    for who, taken in times.items():
        wall, processor = (min(turn[k] for turn in taken) for k in (0, 1))
        rows.append({"set": name, "who": who, "images": count, "wall": wall, "processor": processor})
    for row in rows:
        row["wall_over_raremix"] = row["wall"] / rows[0]["wall"]
        row["processor_over_raremix"] = row["processor"] / rows[0]["processor"]
    return rows


def ours(table: Path, columns: dict[str, str], cache: Path) -> None:
    """Audit a table and write the page."""
    from raremix.report.audit import write_audit
    from raremix.study.audit.record import audit_data, record_of
    from raremix.study.defaults import study_of

    settings = [f"data.{key}={json.dumps(value)}" for key, value in columns.items()]
    if (table.parent / "images").is_dir():
        settings.append('data.images_root="images"')
    write_audit(cache / "audit.html", record_of(audit_data(study_of(str(table), settings=settings), cache=cache)))


def theirs(images: Path, *issues: str) -> object:
    """Let cleanvision look at a folder."""
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = Imagelab(data_path=str(images))
        lab.find_issues({name: {} for name in issues} if issues else None, verbose=False)
    return lab


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the wall-clock and the processor time of a call, with that of the processes that it started."""
    before, start = os.times(), time.perf_counter()
    call()
    after = os.times()
    return time.perf_counter() - start, sum(after[:4]) - sum(before[:4])


def changes() -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Return the ways in which copies are changed."""

    def recompress(quality: int) -> Callable[[Image.Image], Image.Image]:
        def change(image: Image.Image) -> Image.Image:
            stream = io.BytesIO()
            image.save(stream, format="JPEG", quality=quality)
            return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")

        return change

    def crop(share: float) -> Callable[[Image.Image], Image.Image]:
        def change(image: Image.Image) -> Image.Image:
            w, h = image.size
            box = (round(share * w), round(share * h), round((1 - share) * w), round((1 - share) * h))
            return image.crop(box).resize((w, h), Image.Resampling.BICUBIC)

        return change

    return {
        "saved again": lambda image: image,
        "JPEG quality 30": recompress(30),
        "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
        "contrast x 1.5": lambda image: ImageEnhance.Contrast(image).enhance(1.5),
        "brightness x 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
        "gamma 0.7": lambda image: image.point(lambda v: round(255 * (v / 255) ** 0.7)),
        "2 % cropped off each side": crop(0.02),
        "rotated by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
        "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }


def planted(name: str, root: Path) -> list[dict[str, object]]:
    """Count which planted copies are found."""
    from raremix.data.audit import find_copies, look_at_all
    from raremix.data.manifest import Card, Manifest

    paths = sorted((root / SETS[name][0] / "images").glob("*.jp*g"))
    originals = [paths[k] for k in np.linspace(0, len(paths) - 1, 9 * PLANTED).astype(int)]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        truth: dict[str, tuple[str, str]] = {}
        for (what, change), part in zip(changes().items(), np.split(np.arange(len(originals)), 9), strict=True):
            for k in part:
                (folder / f"{k:05d}.jpg").write_bytes(originals[k].read_bytes())
                with Image.open(originals[k]) as image:
                    change(image.convert("RGB")).save(folder / f"{k:05d}c.jpg", format="JPEG", quality=90)
                truth[f"{k:05d}c.jpg"] = (f"{k:05d}.jpg", what)
        names = sorted(path.name for path in folder.iterdir())
        frame = pl.DataFrame({"path": names, "target:x": [1] * len(names)})
        manifest = Manifest(frame=frame, card=Card(name=name, task="multilabel", classes=("x",)), root=folder)
        copies = find_copies(manifest, look_at_all(manifest, cache=Path(place) / "cache"))
        sets = [*(list(part) for part in copies.identical), *copies.near.tolist()]
        found = {"raremix": [[names[row] for row in part] for part in sets]}
        lab = theirs(folder, "exact_duplicates", "near_duplicates")
        info = [lab.info[kind]["sets"] for kind in ("exact_duplicates", "near_duplicates")]
        found["cleanvision"] = [[Path(path).name for path in part] for sets in info for part in sets]
    for who, parts in found.items():
        pairs = {frozenset((a, b)) for part in parts for a in part for b in part if a != b}
        hit = dict.fromkeys(changes(), 0)
        for copy, (original, what) in truth.items():
            hit[what] += frozenset((copy, original)) in pairs
        false = sum(frozenset(pair) not in {frozenset((c, o)) for c, (o, _) in truth.items()} for pair in pairs)
        rows.append({"set": name, "who": who, "of": PLANTED, "false": false, **hit})
    return rows


def apart(name: str, root: Path) -> dict[str, object]:
    """Measure how alike different pictures with near hashes are, by plain correlation and beyond the average image."""
    from raremix.data.audit import look_at_all, near_pairs, perceptual_hashes
    from raremix.data.audit.copies import average_image, compare
    from raremix.data.guards import suspended
    from raremix.data.sources import MedMNIST, Table

    with tempfile.TemporaryDirectory() as place, suspended():
        cache = Path(place)
        if name in SETS:
            folder, columns = SETS[name]
            source = Table(path=root / folder / "labels.csv", images_root="images", label=columns["label"])
            manifest = source.load(cache=cache)
        else:
            manifest = MedMNIST(path=root / "medmnist" / "retinamnist.npz").load(cache=cache)
        looks = look_at_all(manifest, cache=cache)
        thumbnails = looks.thumbnails
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *near_pairs(perceptual_hashes(thumbnails), radius=7)])
        content = looks.frame["sha256"].to_numpy()
        pairs = pairs[content[pairs[:, 0]] != content[pairs[:, 1]]]
        average = average_image(thumbnails)
        beyond = compare(manifest, pairs, average)
        plain = compare(manifest, pairs, np.zeros_like(average))
    return {
        "set": name,
        "pairs with near hashes": len(pairs),
        "plain, highest": float(plain.max()),
        "plain, above .98": int((plain >= 0.98).sum()),
        "beyond the average, highest": float(beyond.max()),
        "beyond the average, above .93": int((beyond >= 0.93).sum()),
        "beyond the average, above .98": int((beyond >= 0.98).sum()),
    }


def large(count: int) -> dict[str, object]:
    """Make files up, and audit them in a process of its own, twice."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        start = time.perf_counter()
        size = make_files(folder, count)
        made = time.perf_counter() - start
        runs = []
        for _ in range(2):
            command = [sys.executable, __file__, "--one", str(folder)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {"rows": count, "megabytes": size / 1e6, "seconds_to_make": made, "first": runs[0], "again": runs[1]}


def make_files(folder: Path, count: int) -> int:
    """Write the made-up images and their table; return how many bytes they take."""
    (folder / "images").mkdir()

    def draw(start: int) -> int:
        size = 0
        for k in range(start, min(start + 500, count)):
            own = k - k % 500 if k % 50 == 49 else k  # one in fifty is a copy of the first of its block
            stream = np.random.Generator(np.random.Philox(own))
            coarse = Image.fromarray(stream.integers(0, 256, (7, 7), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.int16)
            noise = stream.integers(-6, 7, (SIDE, SIDE), dtype=np.int16)
            image = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
            path = folder / "images" / f"{k:06d}.jpg"
            image.save(path, quality=60 if k % 100 == 99 else 85)
            size += path.stat().st_size
        return size

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        total = sum(pool.map(draw, range(0, count, 500)))
    k = np.arange(count)
    pl.DataFrame(
        {
            "file": [f"{i:06d}.jpg" for i in k],
            "label": np.where(k % 20 == 0, "sick", "well"),
            "patient": k // 8,
            "split": np.array(["train", "train", "train", "validation", "test"])[(k // 9) % 5],
        }
    ).write_csv(folder / "labels.csv")
    return total


def audit_one(folder: Path) -> None:
    """Audit the made-up files, and print time and peak memory as JSON."""
    import raremix.study.audit.record

    assert raremix.study.audit.record
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    columns = {"label": "label", "group": "patient", "split": "split"}
    wall, processor = timed(lambda: ours(folder / "labels.csv", columns, folder / "cache"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": wall, "processor": processor, "peak_mebibytes": peak, "imported_mebibytes": imported}))


def report(result: dict[str, object]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(120, Console().width))
    for key, title in (
        ("apart", "how alike different pictures are"),
        ("planted", "planted copies found"),
        ("speed", "seconds"),
    ):
        rows: Sequence[dict[str, object]] = result.get(key, [])  # type: ignore[assignment]
        if rows:
            table = Table(*rows[0], title=title)
            for row in rows:
                table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
            console.print(table)
    if "large" in result:
        console.print_json(data=result["large"])
    console.print(result["machine"])


if __name__ == "__main__":
    main()
