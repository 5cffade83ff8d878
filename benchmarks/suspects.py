"""How well suspects are ranked: known contamination is planted into real images, and looked for.

    python benchmarks/suspects.py --data ../shared/data --weights ../shared/weights/mobilenetv2_100_imagenet.safetensors

Into `--images` images of HAM10000 and of Kermany's chest X-rays, one per lesion or patient, are planted: copies that
were cropped, rotated, changed in contrast, compressed, or all of it (5 %); foreign images: of the other data set,
phantoms, noise, and screens of text (4 %); wrong labels, drawn by how common the other classes are (5 %). All are
planted at once, in files, and `raremix.study.audit.suspects.find_suspects` is run as a user would. Beside it, on the
same images: perceptual hash, structural similarity (SSIM over windows of 8 x 8 that do not overlap, of 64 px grey
images, so that all pairs can be computed), SelfClean's scores in the same representations, an isolation forest, and
thumbnails alone. The seed draws images and contamination; intervals are Student's over the seeds. Training an encoder
takes the most time, so it is done for the first `--own-seeds` only.

Into the labels of the ChestX-ray14 subset, up to 14 findings per image, only wrong ones are planted, in 5 % of the
images: half lose one of their findings, half get one more, drawn by how common it is.

Images contaminated by nature count as false alarms, for all alike. Pairs of two foreign images do not count.
"""

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from peer_environment import NUMBERS, machine
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from scipy.fft import dctn
from scipy.stats import t as student
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score

from raremix.core import files
from raremix.data import Card, Manifest, Phantom
from raremix.data.isolation import joining_distances
from raremix.data.neighbours import nearest, unit
from raremix.data.suspects import rank_suspects
from raremix.study.audit.representation import representation_of
from raremix.study.audit.suspects import find_suspects
from raremix.study.audit.vectors import vectors_of

COPIES, FOREIGN, FLIPPED = 0.05, 0.04, 0.05
CHANGES = ("crop", "rotation", "contrast", "compression", "all of it")
KINDS = ("other modality", "phantom", "noise", "text")
FINDINGS = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia")
FINDINGS += ("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
KERMANY = {"normal": 0, "bacteria": 1, "virus": 2}
SAME = 1e-12


@dataclass(frozen=True)
class Planted:
    """A data set with known contamination; rows are ids."""

    manifest: Manifest
    pairs: np.ndarray
    changes: list[str]
    foreign: np.ndarray
    flipped: np.ndarray


def real_images(name: str, data: Path) -> tuple[list[Path], list[str], np.ndarray, tuple[str, ...]]:
    """Return files, groups, class numbers and class names."""
    if name == "HAM10000":
        frame = pl.read_csv(data / "ham10000_128" / "labels.csv")
        classes = tuple(sorted(frame["dx"].unique()))
        labels = np.array([classes.index(label) for label in frame["dx"]])
        return [data / "ham10000_128/images" / f for f in frame["file"]], frame["lesion_id"].to_list(), labels, classes
    frame = pl.read_csv(data / "kermany_cxr_224" / "labels.csv")
    labels = np.array([KERMANY[label] for label in frame["subtype"]])
    paths = [data / "kermany_cxr_224/images" / f for f in frame["file"]]
    return paths, frame["patient_group"].to_list(), labels, tuple(KERMANY)


def changed(image: Image.Image, change: str, rng: np.random.Generator) -> Image.Image:
    """Return a copy as copies come to be."""
    side = image.size[0]
    if change in {"crop", "all of it"}:
        part = int(side * rng.uniform(0.8, 0.95))
        x, y = rng.integers(0, side - part + 1, 2).tolist()
        image = image.crop((x, y, x + part, y + part)).resize((side, side), Image.Resampling.BILINEAR)
    if change in {"rotation", "all of it"}:
        image = image.rotate(float(rng.uniform(5, 15) * rng.choice([-1, 1])), Image.Resampling.BILINEAR)
    if change in {"contrast", "all of it"}:
        values = (np.asarray(image, dtype=float) - 128) * rng.uniform(0.6, 1.5) + 128 + rng.uniform(-25, 25)
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if change in {"compression", "all of it"}:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(8, 30)))
        image = Image.open(buffer)
    return image


def foreign(kind: str, side: int, others: list[Path], phantoms: list[Path], rng: np.random.Generator) -> Image.Image:
    """Return an image that does not belong."""
    if kind == "other modality":
        return Image.open(others[rng.integers(len(others))])
    if kind == "phantom":
        return Image.open(phantoms[rng.integers(len(phantoms))])
    if kind == "noise":
        grain = int(rng.choice([4, 16, 64, side]))
        noise = rng.integers(0, 256, (grain, grain, 3), dtype=np.uint8)
        return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    image = Image.new("RGB", (side, side), tuple(rng.integers(200, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for y in range(4, side, 12):
        words = "".join(map(chr, rng.integers(97, 123, int(rng.integers(3, 30)))))
        draw.text((4, y), words, fill=tuple(rng.integers(0, 90, 3).tolist()))
    return image


def plant(name: str, data: Path, *, images: int, seed: int, folder: Path, phantoms: Path) -> Planted:
    """Write a contaminated data set."""
    rng = np.random.default_rng([seed, len(name)])
    paths, groups, labels, classes = real_images(name, data)
    others = real_images("Kermany" if name == "HAM10000" else "HAM10000", data)[0]
    modality = "dermatoscopy" if name == "HAM10000" else "chest_xray"
    drawn = (
        Phantom(modality=modality, images=200, size=128, imbalance_ratio=3.0, seed=seed).load(cache=phantoms).paths()
    )
    first = {groups[row]: row for row in rng.permutation(len(paths)).tolist()}
    chosen = rng.permutation(list(first.values()))[:images]
    folder.mkdir(parents=True)
    names = [f"{place}{paths[row].suffix}" for place, row in enumerate(chosen)]
    for row, own in zip(chosen, names, strict=True):
        shutil.copyfile(paths[row], folder / own)
    group, label = [groups[row] for row in chosen], labels[chosen].tolist()
    common = np.bincount(labels, minlength=len(classes)) / len(labels)
    mode, side = Image.open(paths[0]).mode, Image.open(paths[0]).size[0]

    def add(image: Image.Image, number: int) -> int:
        names.append(f"{len(names)}.png")
        image.convert(mode).save(folder / names[-1])
        group.append(f"planted {len(names)}")
        label.append(number)
        return len(names) - 1

    sources = rng.permutation(images)[: round(COPIES * images)].tolist()
    changes = [CHANGES[k % len(CHANGES)] for k in range(len(sources))]
    pairs = [
        (source, add(changed(Image.open(folder / names[source]), change, rng), label[source]))
        for source, change in zip(sources, changes, strict=True)
    ]
    strange = [
        add(foreign(KINDS[k % len(KINDS)], side, others, drawn, rng), int(rng.choice(len(classes), p=common)))
        for k in range(round(FOREIGN * images))
    ]
    flipped = rng.permutation(images)[: round(FLIPPED * images)]
    for row in flipped.tolist():
        chance = np.where(np.arange(len(classes)) == label[row], 0, common)
        label[row] = int(rng.choice(len(classes), p=chance / chance.sum()))
    # What was planted must not stand at the end of the table.
    ids = rng.permutation(len(names))
    frame = pl.DataFrame(
        {"id": ids, "path": names, "group": group}
        | {f"target:{c}": [float(one == k) for one in label] for k, c in enumerate(classes)}
    ).sort("id")
    card = Card(name=name, task="multiclass", classes=classes, modality=modality)
    return Planted(
        manifest=Manifest(frame=frame, card=card, root=folder),
        pairs=ids[np.array(pairs)],
        changes=changes,
        foreign=ids[strange],
        flipped=ids[flipped],
    )


def plant_labels(data: Path, *, seed: int) -> Planted:
    """Plant wrong findings into a set with several labels per image."""
    rng = np.random.default_rng([seed, 14])
    frame = pl.read_csv(data / "nih_cxr14_64" / "labels.csv")
    labels = frame.select(FINDINGS).to_numpy().astype(np.float64)
    common = labels.mean(axis=0)
    losing = rng.permutation(np.flatnonzero(labels.any(axis=1)))[: round(FLIPPED * len(labels) / 2)]
    gaining = rng.permutation(np.setdiff1d(np.arange(len(labels)), losing))[: round(FLIPPED * len(labels) / 2)]
    for row in losing.tolist():
        labels[row, rng.choice(np.flatnonzero(labels[row]))] = 0.0
    for row in gaining.tolist():
        chance = np.where(labels[row] > 0, 0, common)
        labels[row, rng.choice(len(FINDINGS), p=chance / chance.sum())] = 1.0
    table = {"id": np.arange(len(labels)), "path": frame["file"], "group": frame["patient_id"].cast(pl.String)}
    targets = {f"target:{name}": labels[:, k] for k, name in enumerate(FINDINGS)}
    card = Card(name="ChestX-ray14 subset", task="multilabel", classes=FINDINGS, modality="chest_xray")
    return Planted(
        manifest=Manifest(frame=pl.DataFrame(table | targets), card=card, root=data / "nih_cxr14_64" / "images"),
        pairs=np.zeros((0, 2), dtype=np.int64),
        changes=[],
        foreign=np.zeros(0, dtype=np.int64),
        flipped=np.concatenate([losing, gaining]),
    )


def hashes(grey: np.ndarray) -> np.ndarray:
    """Return the usual 64-bit perceptual hashes of 32 x 32 grey images, as +-1."""
    low = dctn(grey, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(grey), 64)
    return np.where(low > np.median(low[:, 1:], axis=1, keepdims=True), 1.0, -1.0)


def similarity(grey: np.ndarray, window: int = 8) -> np.ndarray:
    """Return SSIM of all pairs, over windows that do not overlap."""
    total, count = np.zeros((len(grey), len(grey))), 0
    for y in range(0, grey.shape[1], window):
        for x in range(0, grey.shape[2], window):
            part = grey[:, y : y + window, x : x + window].reshape(len(grey), -1)
            mean, variance = part.mean(axis=1), part.var(axis=1)
            means = np.outer(mean, mean)
            covariance = part @ part.T / part.shape[1] - means
            one, two = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            up = (2 * means + one) * (2 * covariance + two)
            down = (mean[:, None] ** 2 + mean**2 + one) * (variance[:, None] + variance + two)
            total, count = total + up / down, count + 1
    return total / count


def greys(manifest: Manifest, side: int) -> np.ndarray:
    """Return all images in grey at one size."""
    size = (side, side)
    images = [Image.open(path).convert("L").resize(size, Image.Resampling.BOX) for path in manifest.paths()]
    return np.stack([np.asarray(image, dtype=np.float64) for image in images])


def distances(features: np.ndarray) -> np.ndarray:
    """Return all cosine distances, infinite to oneself."""
    rows = unit(features)
    apart = np.maximum(1 - rows @ rows.T, 0).astype(np.float64)
    np.fill_diagonal(apart, np.inf)
    return apart


def ratio(apart: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return SelfClean's score of label errors: the squared distance to the nearest of the same label, as a share."""
    same = labels[:, None] == labels
    own, other = np.where(same, apart, np.inf).min(axis=1) ** 2, np.where(same, np.inf, apart).min(axis=1) ** 2
    return np.where(np.isinf(own), 1.0, own / (np.where(np.isinf(own), 0.0, own) + other + SAME))


Score = tuple[str, str, np.ndarray, int | None]
"""Kind, method, scores by row or by pair, effort."""


def by_pixels(planted: Planted) -> Iterator[Score]:
    """Yield what needs no representation."""
    if not len(planted.pairs):
        return
    count = len(planted.manifest)
    bits = hashes(greys(planted.manifest, 32))
    for name, values in (
        ("perceptual hash", bits @ bits.T),
        ("SSIM", similarity(greys(planted.manifest, 64))),
    ):
        yield "near-duplicate", name, values, None
        others = np.where(np.eye(count, dtype=bool), -np.inf, values)
        yield "off-topic", f"{name}, nearest image", -others.max(axis=1), None


def by_features(planted: Planted, name: str, weights: str | Path, *, cache: Path) -> Iterator[Score]:
    """Yield what raremix, and others' scores, make of a representation."""
    manifest = planted.manifest
    count, labels = len(manifest), manifest.targets().argmax(axis=1)
    for found in find_suspects(manifest, cache=cache, weights=weights):
        if found.kind != "label error" and not len(planted.pairs):
            continue
        yield found.kind, f"raremix, {name}", spread(found.ids, found.scores, count), found.look_at
    if not len(planted.pairs):
        return
    vectors = vectors_of(manifest, representation_of(weights, manifest, cache=cache), cache=cache)
    apart, rows = distances(vectors.features), unit(vectors.features)
    yield "near-duplicate", f"SelfClean's score, {name}", -apart, None
    joined = joining_distances(rows, nearest(rows, count=count - 1))
    yield "off-topic", f"joining distance alone, {name}", joined, None
    forest = IsolationForest(random_state=0).fit(rows)
    yield "off-topic", f"isolation forest, {name}", -forest.score_samples(rows), None
    yield "label error", f"SelfClean's score, {name}", ratio(apart, labels), None
    if name != "self":
        found = rank_suspects(vectors.thumbnails)[0]
        yield "near-duplicate", "thumbnails alone", spread(found.ids, found.scores, count), found.look_at


def spread(ids: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Return a list's scores by row or pair; what it does not hold comes last."""
    values = np.full((count,) * ids.ndim, scores.min() - 1)
    values[tuple(ids.T) if ids.ndim == 2 else ids] = scores
    return np.maximum(values, values.T) if ids.ndim == 2 else values


def judged(planted: Planted, kind: str, scores: np.ndarray, effort: int | None) -> dict[str, float]:
    """Return average precision, area under the curve, and what the effort finds."""
    count = len(planted.manifest)
    if kind == "near-duplicate":
        truth = np.zeros((count, count), dtype=bool)
        truth[planted.pairs[:, 0], planted.pairs[:, 1]] = truth[planted.pairs[:, 1], planted.pairs[:, 0]] = True
        is_foreign = np.isin(np.arange(count), planted.foreign)
        upper = np.triu(~np.outer(is_foreign, is_foreign), 1)
        truth, scores = truth[upper], scores[upper]
    else:
        truth = np.isin(np.arange(count), planted.foreign if kind == "off-topic" else planted.flipped)
    found = {
        "average_precision": float(average_precision_score(truth, scores)),
        "auroc": float(roc_auc_score(truth, scores)),
    }
    if effort is not None:
        first = np.argsort(-scores, kind="stable")[:effort]
        found |= {"look_at": float(effort), "found": float(truth[first].sum() / truth.sum())}
    return found


def by_change(planted: Planted, scores: np.ndarray) -> dict[str, float]:
    """Return, by change, the share of copies whose nearest image is their source."""
    others = np.where(np.eye(len(scores), dtype=bool), -np.inf, scores)
    hits = others[planted.pairs[:, 1]].argmax(axis=1) == planted.pairs[:, 0]
    names = np.array(planted.changes)
    return {change: float(hits[names == change].mean()) for change in CHANGES}


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half of its 95 % interval over seeds."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(half)


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per data set, kind and method."""
    keys = dict.fromkeys((run["data"], run["kind"], run["method"]) for run in runs)
    rows = []
    for data, kind, method in sorted(keys, key=lambda key: (key[0], key[1])):
        mine = [run for run in runs if (run["data"], run["kind"], run["method"]) == (data, kind, method)]
        row: dict[str, Any] = {"data": data, "kind": kind, "method": method, "seeds": len(mine)}
        for name in ("average_precision", "auroc", "look_at", "found"):
            if name in mine[0]:
                mean, half = interval([run[name] for run in mine])
                row |= {name: mean, f"{name}_half": None if np.isnan(half) else half}
        if "nearest" in mine[0]:
            row["nearest"] = {c: float(np.mean([run["nearest"][c] for run in mine])) for c in CHANGES}
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table(title="planted contamination: mean over seeds, +- half of the 95 % interval")
    for heading in (
        "data",
        "kind",
        "method",
        "seeds",
        "average precision",
        "AUROC",
        "look at the first",
        "which finds",
    ):
        table.add_column(heading, justify="left" if heading in {"data", "kind", "method"} else "right")
    for row in rows:
        table.add_row(row["data"], row["kind"], row["method"], str(row["seeds"]), *cells(row))
    console.print(table)


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row's numbers as text."""
    found = []
    for name in ("average_precision", "auroc"):
        half = row[f"{name}_half"]
        found.append(f"{row[name]:.3f}" + ("" if half is None else f" +- {half:.3f}"))
    return [*found, f"{row['look_at']:.0f}", f"{row['found']:.0%}"] if "look_at" in row else [*found, "", ""]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the same table as Markdown."""
    lines = [
        "| data | kind | method | seeds | average precision | AUROC | look at the first | which finds |",
        "|" + " --- |" * 8,
    ]
    lines += [
        f"| {row['data']} | {row['kind']} | {row['method']} | {row['seeds']} | {' | '.join(cells(row))} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--weights", type=Path, required=True, help="weights of a network, .safetensors")
    parser.add_argument("--images", type=int, default=1000, help="images of each set, before what is planted")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--own-seeds", type=int, default=2, help="seeds for which an encoder is trained on the images")
    parser.add_argument("--json", type=Path, default=NUMBERS / "suspects.json")
    parser.add_argument("--cache", type=Path, help="keep encoders and vectors here, so that another run is quick")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    options = parser.parse_args()
    console = Console(width=150)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        planted = {
            (name, seed): plant(
                name,
                options.data.resolve(),
                images=options.images,
                seed=seed,
                folder=root / f"{name}{seed}",
                phantoms=root / "phantoms",
            )
            for seed in range(options.seeds)
            for name in ("HAM10000", "Kermany")
        }
        planted |= {("ChestX-ray14", s): plant_labels(options.data.resolve(), seed=s) for s in range(options.seeds)}
        # What takes long comes last; every step adds to the file of numbers.
        steps = [("pixels", None), ("mobilenetv2", options.weights), ("self", "self")]
        for (step, weights), (key, data) in product(steps, planted.items()):
            if step == "self" and key[1] >= options.own_seeds:
                continue
            start = time.process_time()
            cache = options.cache or root / "cache"
            for kind, method, scores, effort in (
                by_pixels(data) if weights is None else by_features(data, step, weights, cache=cache)
            ):
                run = {"data": key[0], "seed": key[1], "kind": kind, "method": method}
                run |= judged(data, kind, scores, effort)
                if kind == "near-duplicate":
                    run["nearest"] = by_change(data, scores)
                runs.append(run)
            console.print(f"{key[0]}, seed {key[1]}, {step}: {time.process_time() - start:.0f} s of processor time")
            facts = {"images": options.images, "machine": machine(threads=1), "runs": runs}
            files.write_json(options.json, facts | {"rows": summary(runs)})
    show(summary(runs), console)
    if options.markdown is not None:
        files.write_text(options.markdown, markdown(summary(runs)) + "\n")
    console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
