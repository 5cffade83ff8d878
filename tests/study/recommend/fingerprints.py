"""Fingerprints made by hand: a plain one, from which each test changes what its rule looks at."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from raremix.evaluate.bands import bands
from raremix.study.recommend.fingerprint import Evidence, Fingerprint, ratio
from raremix.study.recommend.guess import Guess
from raremix.study.recommend.weights import Weights


def evidence(
    test: tuple[int, ...], *, design: str = "one split", images: tuple[int, int, int] = (650, 150, 200)
) -> Evidence:
    return Evidence(
        design=design,
        validation=tuple(round(0.75 * n) for n in test),
        test=test,
        images=images,
        half_widths=tuple(0.784 / n**0.5 if n else None for n in test),
        decidable={"balanced_accuracy": 0.06 if design == "one split" else 0.03, "auroc": 0.02},
        notes={"balanced_accuracy": "", "auroc": ""},
    )


def fingerprint(counts: tuple[int, ...] = (500, 500), **changes: Any) -> Fingerprint:
    """Return the fingerprint of a set of single-label images with these counts, each image a group of its own."""
    total = sum(counts)
    share = (round(0.65 * total), round(0.15 * total), round(0.2 * total))
    plain = Fingerprint(
        name="hand made",
        task="binary" if len(counts) == 2 else "multiclass",
        classes=tuple(f"c{k}" for k in range(len(counts))),
        modality="other",
        images=total,
        groups=total,
        grouped=False,
        named_groups=True,
        images_per_group=(1.0, 1),
        class_images=counts,
        class_groups=counts,
        ratio_images=ratio(counts),
        ratio_groups=ratio(counts),
        band=tuple(bands(_array(counts))),
        cardinality=1.0,
        without_label=0.0,
        holdout=evidence(tuple(round(0.2 * n) for n in counts), images=share),
        pooled=evidence(counts, design="out-of-fold", images=share),
        side=64,
        seconds_per_image={32: 0.002, 64: 0.005, 128: 0.02},
    )
    return replace(plain, **changes)


def weights(*, name: str = "resnet50", millions: float = 25.0) -> Weights:
    return Weights(path=Path(f"/weights/{name}.safetensors"), name=name, parameters=int(millions * 1e6))


GUESS = Guess(table={"source": "phantom"}, reasons={"source": "given"})


def _array(counts: tuple[int, ...]) -> Any:
    import numpy as np

    return np.array(counts)
