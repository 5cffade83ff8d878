"""What the look for copies finds, and how often it cries wolf, on real images.

    python benchmarks/memorisation.py --data IMAGES --weights mobilenetv2_100_imagenet.safetensors

Patients (lesions) of Kermany's X-rays and of HAM10000 are dealt to four parts of up to `--images` images: those that a
generator would have been fitted on, the reference, those that calibrate, and those that stand for what an honest
generator draws: real images of patients whom it never saw. The latter two are then dealt again, 1,000 times. Each
time: the share of honest images that is flagged, of all and of each class, whether the set, or a class of it, is called
memorised, the same after 5 % of the set were replaced by copies of training images (all kinds in turn), and the share
of planted copies that is found by kind.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_environment import NUMBERS, machine
from rich.console import Console
from rich.table import Table as RichTable
from torch.nn import functional

from raremix.core import files
from raremix.data import Manifest, Table, build_cache
from raremix.evaluate.generative import (
    COPIES,
    LEVEL,
    PixelViews,
    Space,
    judge_ratios,
    pixel_space,
    plant_copies,
    ratios_of,
)
from raremix.study.audit.representation import Representation, representation_of

DRAWS, COPIED, PLANTED = 1000, 0.05, 100


def data_sets(data: Path, cache: Path) -> dict[str, tuple[Manifest, int, int]]:
    """Return manifest, size and channels of each."""
    ham = Table(
        path=data / "ham10000_128/labels.csv", image="file", images_root="images", label="dx", group="lesion_id"
    )
    kermany = Table(
        path=data / "kermany_cxr_224/labels.csv",
        image="file",
        images_root="images",
        label="subtype",
        group="patient_group",
    )
    return {"Kermany, 224 px": (kermany.load(cache=cache), 224, 1), "HAM10000, 128 px": (ham.load(cache=cache), 128, 3)}


def encoded(images: np.ndarray, representation: Representation) -> np.ndarray:
    """Return vectors of length one, with a view of each."""
    side, found = representation.form.size, []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            pixels = torch.from_numpy(images[start : start + 64]).float().div(255).expand(-1, 3, -1, -1)
            sized = functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
            rows = representation.encode(sized).float()
            found.append((rows / rows.norm(dim=1, keepdim=True)).numpy())
    return np.concatenate(found)[:, None]


def judged(
    manifest: Manifest, size: int, channels: int, *, images: int, seed: int, weights: Path, cache: Path
) -> dict[str, Any]:
    """Deal, plant and look."""
    store = build_cache(manifest, size=size, channels=channels, root=cache)
    groups = manifest.frame["group"].to_numpy()
    stream = np.random.default_rng(seed)
    parts = np.array_split(stream.permutation(np.unique(groups)), 4)
    ids = [manifest.ids[np.isin(groups, part)][:images] for part in parts]
    train, reference, unseen = (store.take(some) for some in (ids[0], ids[1], np.concatenate(ids[2:])))
    labels = manifest.targets(np.concatenate(ids[2:])).argmax(axis=1)
    chosen = stream.permutation(len(train))[:PLANTED]
    planted = {kind: plant_copies(train[chosen], kind=kind) for kind in COPIES}
    representation = representation_of(weights, manifest, cache=cache)
    views = {
        "pixels": (PixelViews(unseen), {kind: PixelViews(copies) for kind, copies in planted.items()}),
        "features": (
            encoded(unseen, representation),
            {kind: encoded(copies, representation) for kind, copies in planted.items()},
        ),
    }
    ends = {
        "pixels": (pixel_space(train), pixel_space(reference)),
        "features": (encoded(train, representation)[:, 0], encoded(reference, representation)[:, 0]),
    }
    every = []
    for name, (rows, copied) in views.items():
        own, other = ends[name]
        # All images nobody trained on are asked once, as "made"; which of them calibrate is drawn below.
        space = Space(name=name, train=own, reference=other, calibration=rows[:1], made=rows, planted=copied)
        every.append(ratios_of(space))
    runs = []
    for draw in range(DRAWS):
        calibrating, honest = np.array_split(np.random.default_rng([draw, 1]).permutation(len(unseen)), 2)
        copies = round(COPIED * len(honest))
        kinds = [list(COPIES)[k % len(COPIES)] for k in range(copies)]
        clean = [replace(one, calibration=one.made[calibrating], made=one.made[honest]) for one in every]
        clean = [replace(one, source=one.source[: len(one.made)]) for one in clean]
        dirty = [
            replace(one, made=np.append(one.made[copies:], [one.planted[kind][k] for k, kind in enumerate(kinds)]))
            for one in clean
        ]
        known, found = (judge_ratios(some, calibration_patients=len(calibrating)) for some in (clean, dirty))
        classes = [
            known.among(labels[honest] == k, alike=labels[calibrating] == k) for k in range(len(manifest.card.classes))
        ]
        runs.append((known, found, classes))
    return {
        "images": [len(train), len(reference), len(unseen) // 2, len(unseen) - len(unseen) // 2],
        "draws": len(runs),
        "flagged": float(np.mean([known.is_flagged.mean() for known, _, _ in runs])),
        "false_alarms": float(np.mean([known.has_copies for known, _, _ in runs])),
        "detected": float(np.mean([found.has_copies for _, found, _ in runs])),
        "found": {kind: float(np.mean([known.sight.found[kind] for known, _, _ in runs])) for kind in COPIES},
        "classes": {
            name: {
                "images": float(np.mean([classes[k].images for _, _, classes in runs])),
                "flagged": sum(classes[k].flagged for _, _, classes in runs)
                / max(1, sum(classes[k].images for _, _, classes in runs)),
                "false_alarms": float(np.mean([classes[k].p < LEVEL for _, _, classes in runs])),
            }
            for k, name in enumerate(manifest.card.classes)
        },
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--weights", type=Path, required=True, help="weights of a network, .safetensors")
    parser.add_argument("--images", type=int, default=500, help="images of each part, at most")
    parser.add_argument("--seed", type=int, default=0, help="deals patients to the parts")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where decoded images are kept")
    parser.add_argument("--json", type=Path, default=NUMBERS / "memorisation.json")
    options = parser.parse_args()
    found = {
        name: judged(
            manifest,
            size,
            channels,
            images=options.images,
            seed=options.seed,
            weights=options.weights.resolve(),
            cache=options.cache,
        )
        for name, (manifest, size, channels) in data_sets(options.data.resolve(), options.cache).items()
    }
    table = RichTable("", *found, title=f"the look for copies, {DRAWS} draws")
    table.add_row("honest images flagged", *(f"{100 * one['flagged']:.2f} %" for one in found.values()))
    for row, key in (("honest sets called memorised", "false_alarms"), ("sets with 5 % copies called so", "detected")):
        table.add_row(row, *(f"{100 * one[key]:.1f} %" for one in found.values()))
    for kind in COPIES:
        table.add_row(f"planted, found: {kind}", *(f"{100 * one['found'][kind]:.0f} %" for one in found.values()))
    Console(width=110).print(table)
    for title, one in found.items():
        classes = RichTable("class", "honest images", "flagged", "called memorised", title=title)
        for name, row in one["classes"].items():
            shares = (f"{100 * row[key]:.2f} %" for key in ("flagged", "false_alarms"))
            classes.add_row(name, f"{row['images']:.0f}", *shares)
        Console(width=110).print(classes)
    files.write_json(options.json.resolve(), {"sets": found, "machine": machine(threads=torch.get_num_threads())})


if __name__ == "__main__":
    main()
