"""Made-up study records, realistic in size and shape: the values come from a seeded stream."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import norm

SKIN = (
    "nevus",
    "melanoma",
    "benign keratosis",
    "basal cell carcinoma",
    "actinic keratosis",
    "vascular lesion",
    "dermatofibroma",
)
SKIN_COUNTS = (4270, 702, 702, 322, 217, 92, 72)
CHEST = (
    "infiltration",
    "effusion",
    "atelectasis",
    "nodule",
    "mass",
    "pneumothorax",
    "consolidation",
    "pleural thickening",
    "cardiomegaly",
    "emphysema",
    "edema",
    "fibrosis",
    "pneumonia",
    "hernia",
)
CHEST_COUNTS = (1620, 1090, 940, 520, 470, 430, 380, 280, 230, 210, 190, 140, 110, 18)
ARMS = ("baseline", "classical", "mixup", "cutmix")
MIXES: dict[str, dict[str, Any]] = {
    "baseline": {"mix": {"name": "none"}, "augment": {"name": "none"}},
    "classical": {"mix": {"name": "none"}, "augment": {"name": "classical", "rotation": 20, "flip": True}},
    "mixup": {"mix": {"name": "mixup", "alpha": 0.2}, "augment": {"name": "classical", "rotation": 20, "flip": True}},
    "cutmix": {"mix": {"name": "cutmix", "alpha": 1.0}, "augment": {"name": "classical", "rotation": 20, "flip": True}},
}
SPEC = """[study]
name = "ham10000-rare"
seeds = [0, 1, 2, 3, 4]
reference = "baseline"
primary_metric = "balanced_accuracy"

[data]
source = "table"
path = "ham10000_128/labels.csv"
label = "dx"
group = "lesion_id"
size = 64

[model]
name = "resnet18"
small_stem = true

[train]
steps = 4000
batch = 64
ema = 0.999

[[arm]]
name = "baseline"

[[arm]]
name = "mixup"
mix = { name = "mixup", alpha = 0.2 }
"""


def multiclass(seed: int = 0) -> dict[str, Any]:
    """Seven classes, four arms, five seeds; one arm is better, one practically as good, one undecided."""
    record = _record(seed, SKIN, SKIN_COUNTS, "multiclass", "balanced_accuracy")
    record["study"] |= {"name": "ham10000-rare", "title": "Rare skin lesions: does mixing help?"}
    record["data"] |= {
        "name": "HAM10000",
        "modality": "dermatoscopy",
        "licence": "CC BY-NC 4.0",
        "group_name": "lesion",
        "source": "Harvard Dataverse, doi:10.7910/DVN/DBW86T",
        "citation": "Tschandl, Rosendahl, Kittler: The HAM10000 dataset. Scientific Data 5, 180161 (2018).",
    }
    return record


def binary(seed: int = 1) -> dict[str, Any]:
    """Two classes, three arms, three seeds."""
    record = _record(seed, ("normal", "pneumonia"), (3500, 390), "binary", "auroc", arms=ARMS[:3], seeds=3)
    record["study"] |= {"name": "kermany-rare", "title": "Pneumonia as the rare class, chest radiographs"}
    record["data"] |= {"name": "Kermany chest radiographs", "modality": "chest_xray", "licence": "CC BY 4.0"}
    return record


def multilabel(seed: int = 2) -> dict[str, Any]:
    """Fourteen labels, four arms, three seeds."""
    record = _record(seed, CHEST, CHEST_COUNTS, "multilabel", "auroc_macro", seeds=3)
    record["study"] |= {"name": "nih-subset", "title": "Fourteen findings on chest radiographs"}
    record["data"] |= {"name": "NIH ChestX-ray14, subset", "modality": "chest_xray"}
    return record


def images(record: dict[str, Any], *, size: int = 64, per_class: int = 8, seed: int = 3) -> dict[str, Any]:
    """Pictures for a record: noise with a lesion, which PNG cannot compress, so that sizes are realistic."""
    rng = np.random.default_rng(seed)
    arms = [arm["name"] for arm in record["arms"]]
    classes = record["data"]["classes"]
    return {
        "classes": [{"label": name, "pngs": [png(rng, size) for _ in range(per_class)]} for name in classes],
        "arms": [
            {
                "arm": arm,
                "pngs": [png(rng, size) for _ in range(8)],
                "captions": [f".{rng.integers(51, 99)} {classes[0]} + {classes[-1]}" for _ in range(8)],
            }
            for arm in arms
        ],
        "errors": [
            {
                "arm": arms[i % len(arms)],
                "png": png(rng, size),
                "true": classes[-1 - i % 2],
                "predicted": classes[0],
                "score": 0.99 - 0.01 * i,
                "row": int(rng.integers(0, 10000)),
            }
            for i in range(12)
        ],
    }


def png(rng: np.random.Generator, size: int) -> str:
    """One picture as base64 PNG."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    middle, radius = rng.uniform(0.35, 0.65, 2), rng.uniform(0.12, 0.3)
    lesion = 1 / (1 + np.exp(40 * (np.hypot(rows - middle[0], columns - middle[1]) - radius)))
    skin, dark = np.array([0.85, 0.66, 0.58]), np.array([0.42, 0.26, 0.2]) + rng.uniform(-0.05, 0.15)
    image = skin + lesion[..., None] * (dark - skin) + rng.normal(0, 0.025, (size, size, 3))
    buffer = io.BytesIO()
    Image.fromarray((255 * image.clip(0, 1)).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _record(
    seed: int,
    classes: tuple[str, ...],
    train: tuple[int, ...],
    task: str,
    primary: str,
    *,
    arms: tuple[str, ...] = ARMS,
    seeds: int = 5,
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    K = len(classes)
    counts = {
        split: {name: max(3, round(count * share)) for name, count in zip(classes, train, strict=True)}
        for split, share in (("train", 1.0), ("validation", 0.18), ("test", 0.24))
    }
    positives = {name: max(2, round(0.8 * counts["test"][name])) for name in classes}
    n_test = sum(counts["test"].values())
    skill = {arm: 1.25 + gain for arm, gain in zip(ARMS, (0.0, 0.14, 0.03, 0.33), strict=True)}
    return {
        "study": {
            "name": "study",
            "title": None,
            "created": "2026-11-21T14:05:09+00:00",
            "reference": "baseline",
            "primary_metric": primary,
            "seeds": list(range(seeds)),
            "folds": None,
            "claim": "recipe",
            "test_openings": 1,
            "status": "complete",
            "missing": [],
        },
        "data": {
            "name": "made-up",
            "task": task,
            "classes": list(classes),
            "modality": "other",
            "licence": "",
            "source": "",
            "citation": "",
            "images": sum(sum(split.values()) for split in counts.values()),
            "groups": 5970 + n_test,
            "grouped": True,
            "counts": counts,
            "group_counts": {"train": 5229, "validation": 941, "test": n_test - 200},
            "imbalance_ratio": train[0] / train[-1],
            "bands": {
                name: "head" if c > 1000 else "medium" if c > 250 else "tail"
                for name, c in zip(classes, train, strict=True)
            },
            "manifest_hash": "9f2c1b7e" * 8,
            "thinned": None,
        },
        "arms": [
            {
                "name": arm,
                "settings": MIXES[arm],
                "steps": 4000,
                "seconds": float(rng.uniform(900, 1200)),
                "images_per_second": float(rng.uniform(210, 260)),
                "best_step": {str(s): int(100 * rng.integers(18, 40)) for s in range(seeds)},
            }
            for arm in arms
        ],
        "metrics": _metrics(rng, classes, positives, n_test, primary, arms, skill),
        "comparisons": _comparisons(primary, arms, sum(list(positives.values())[1:]), n_test, seeds),
        "decidable": {
            "metric": primary,
            "difference": 0.031,
            "text": "This test set can decide differences of about 3.1 points or more.",
        },
        "curves": [
            c
            for arm in arms
            for name in ("macro", *classes)
            for c in _curves(rng, arm, name, skill[arm], positives, n_test)
        ],
        "reliability": [_reliability(rng, arm) for arm in arms],
        "confusion": []
        if task == "multilabel"
        else [_confusion(rng, arm, counts["test"], skill[arm], K) for arm in arms],
        "history": [_history(rng, arm, s, skill[arm], primary) for arm in arms for s in range(seeds)],
        "warnings": ["3 images could not be read and were left out (rows 118, 2204, 7130)."],
        "spec": SPEC,
        "versions": {
            "raremix": "0.1.0",
            "torch": "2.13.0",
            "torchvision": "0.28.0",
            "timm": "1.0.31",
            "numpy": "2.4.6",
            "python": "3.12.4",
        },
        "environment": {
            "device": "cpu",
            "threads": 2,
            "precision": "bf16-mixed",
            "memory_format": "channels_last",
            "deterministic": True,
        },
    }


def _metrics(
    rng: np.random.Generator,
    classes: tuple[str, ...],
    positives: dict[str, int],
    n_test: int,
    primary: str,
    arms: tuple[str, ...],
    skill: dict[str, float],
) -> list[dict[str, Any]]:
    found = []

    def add(arm: str, metric: str, scope: str, label: str | None, value: float, wide: float, count: int) -> None:
        value = float(np.clip(value, 0.01, 0.995))
        found.append(
            {
                "arm": arm,
                "metric": metric,
                "scope": scope,
                "label": label,
                "value": value,
                "low": max(0.0, value - wide),
                "high": min(1.0, value + 0.9 * wide),
                "n": n_test,
                "groups": n_test - 200,
                "positives": count,
                "note": None,
                "method": "two-level bootstrap, 10,000 resamples",
            }
        )

    for arm in arms:
        ability = float(norm.cdf(skill[arm] / np.sqrt(2)))
        overall = {
            "balanced_accuracy": ability - 0.12,
            "auroc_macro": ability + 0.09,
            "auroc": ability + 0.1,
            "average_precision_macro": ability - 0.2,
            "sensitivity": ability - 0.12,
            "specificity": ability + 0.12,
            "mcc": ability - 0.25,
            "f1_macro": ability - 0.15,
            "accuracy": ability,
            "ece": 0.09 - 0.05 * ability,
        }
        for metric, value in overall.items():
            add(arm, metric, "overall", None, value + rng.normal(0, 0.003), 0.024, sum(list(positives.values())[1:]))
        for i, name in enumerate(classes):
            count = positives[name]
            base = ability - 0.03 * i + rng.normal(0, 0.02)
            wide = 1.6 * np.sqrt(0.2 / count)
            add(arm, "sensitivity", "class", name, base - 0.05, wide, count)
            add(arm, "auroc", "class", name, base + 0.1, 0.4 * wide, count)
        for band, value in (("head", ability), ("medium", ability - 0.1), ("tail", ability - 0.22)):
            add(arm, primary, "band", band, value + rng.normal(0, 0.01), 0.05, 40)
        for label, count in (
            ("sex = female", 118),
            ("sex = male", 141),
            ("age < 40", 31),
            ("age 40 to 65", 120),
            ("age > 65", 101),
            ("device = unknown", 7),
        ):
            add(arm, primary, "subgroup", label, ability - 0.12 + rng.normal(0, 0.015), 0.6 / np.sqrt(count), count)
    return found


def _comparisons(primary: str, arms: tuple[str, ...], positives: int, n: int, seeds: int) -> list[dict[str, Any]]:
    effects = {
        "classical": (0.026, -0.004, 0.057, 0.088),
        "mixup": (0.001, -0.008, 0.0095, 0.86),
        "cutmix": (0.058, 0.027, 0.089, 0.0003),
    }
    harm = {
        "classical": (0.004, -0.01, 0.02, 0.5),
        "mixup": (-0.021, -0.034, -0.008, 0.002),
        "cutmix": (0.031, 0.012, 0.05, 0.001),
    }

    def entry(arm: str, metric: str, is_primary: bool, values: tuple[float, float, float, float]) -> dict[str, Any]:
        effect, low, high, p = values
        return {
            "arm": arm,
            "reference": "baseline",
            "metric": metric,
            "primary": is_primary,
            "effect": effect,
            "low": low,
            "high": high,
            "p": p,
            "p_holm": min(1.0, p * (len(arms) - 1)),
            "probability_better": 0.999 if low > 0 else 0.96 if effect > 0.01 else 0.57,
            "n": n,
            "groups": n - 200,
            "positives": positives,
            "seeds": seeds,
            "note": None,
        }

    others = arms[1:]
    return [entry(arm, primary, True, effects[arm]) for arm in others] + [
        entry(arm, "specificity", False, harm[arm]) for arm in others
    ]


def _curves(
    rng: np.random.Generator, arm: str, label: str, skill: float, positives: dict[str, int], n: int
) -> list[dict[str, Any]]:
    x = np.linspace(0, 1, 101)
    count = positives.get(label, 60)
    ability = skill + rng.normal(0, 0.08)
    wide = 1.2 / np.sqrt(count)
    roc = [norm.cdf(norm.ppf(np.clip(x, 1e-4, 1 - 1e-4)) + ability + shift) for shift in (0, -wide, wide)]
    share = count / n
    found = []
    for kind, lines in (("roc", roc), ("pr", [_precision(x, ability + shift, share) for shift in (0, -wide, wide)])):
        y, low, high = (line.clip(0, 1).round(5).tolist() for line in lines)
        found.append(
            {"arm": arm, "label": label, "kind": kind, "x": x.round(3).tolist(), "y": y, "low": low, "high": high}
        )
    return found


def _precision(recall: np.ndarray, ability: float, share: float) -> np.ndarray:
    false_alarms = norm.cdf(norm.ppf(np.clip(recall, 1e-3, 1 - 1e-4)) - ability)
    true = share * np.clip(recall, 1e-3, 1)
    return true / (true + (1 - share) * false_alarms)


def _reliability(rng: np.random.Generator, arm: str) -> dict[str, Any]:
    bins = []
    for i in range(10):
        confidence = 0.05 + 0.1 * i
        frequency = float(np.clip(confidence**1.25 + rng.normal(0, 0.02), 0, 1))
        n = int(20 + 900 * (i / 9) ** 4 + 120 * (1 - i / 9) ** 3)
        wide = 1.96 * np.sqrt(frequency * (1 - frequency) / n) + 0.01
        bins.append(
            {
                "confidence": confidence,
                "frequency": frequency,
                "low": max(0, frequency - wide),
                "high": min(1, frequency + wide),
                "n": n,
            }
        )
    return {
        "arm": arm,
        "bins": bins,
        "ece": float(rng.uniform(0.02, 0.07)),
        "temperature": float(rng.uniform(1.0, 1.7)),
    }


def _confusion(rng: np.random.Generator, arm: str, test: dict[str, int], skill: float, K: int) -> dict[str, Any]:
    counts = []
    for i, total in enumerate(test.values()):
        right = float(np.clip(0.55 + 0.25 * skill - 0.06 * i, 0.2, 0.97))
        spread = rng.dirichlet(np.linspace(3, 0.4, K))
        spread[i] = 0
        counts.append((total * (1 - right) * spread / spread.sum()).tolist())
        counts[-1][i] = total * right
    return {"arm": arm, "counts": counts}


def _history(rng: np.random.Generator, arm: str, seed: int, skill: float, primary: str) -> dict[str, Any]:
    steps = np.arange(20, 4001, 20)
    floor = {"baseline": 0.05, "classical": 0.2}.get(arm, 0.55)
    loss = floor + 1.6 * np.exp(-steps / 700) + rng.normal(0, 0.03, len(steps))
    at = np.arange(100, 4001, 100)
    metric = (0.45 + 0.22 * skill) * (1 - np.exp(-at / 600)) + rng.normal(0, 0.008, len(at))
    return {
        "arm": arm,
        "seed": seed,
        "steps": steps.tolist(),
        "loss": loss.round(4).tolist(),
        "metric_steps": at.tolist(),
        "metric": metric.round(4).tolist(),
        "metric_name": primary,
    }
