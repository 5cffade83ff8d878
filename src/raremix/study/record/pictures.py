"""The pictures of a report: examples of each class, what an arm's batch looks like, the worst errors."""

import base64
import io
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from raremix.core.random import rng
from raremix.mix import LEARNED_MIXERS
from raremix.study.prepare import Prepared, of_arm
from raremix.study.record.mixed_batches import mixed_batches
from raremix.study.spec import StudySpec

SIDE = 112
"""Pixels of a thumbnail's side: several hundred stay far below the report's 5 MB."""

PER_CLASS, PER_ARM, PER_ERRORS = 6, 8, 8


def pictures(
    spec: StudySpec,
    prepared: Prepared,
    ids: Int[np.ndarray, " N"],
    targets: Float[np.ndarray, "N K"],
    scores: Mapping[str, Float[np.ndarray, "N K"]],
    *,
    unmade: Collection[str] = (),
) -> dict[str, Any]:
    """Make all pictures.

    Args:
        spec: the study.
        prepared: its data.
        ids: manifest ids of the test rows.
        targets: their labels.
        scores: what each arm said, averaged over seeds.
        unmade: arms whose batches cannot be shown, since what they were trained with is not there any more.
    """
    shown = [arm.name for arm in spec.arms if arm.name in scores and arm.name not in unmade]
    return {
        "classes": class_examples(prepared),
        "arms": [arm_batch(spec, prepared, name) for name in shown],
        "errors": [
            error for name, said in scores.items() for error in worst_errors(prepared, ids, targets, said, name)
        ],
    }


def class_examples(prepared: Prepared) -> list[dict[str, Any]]:
    """Draw training images of every class."""
    manifest = prepared.manifest
    ids = manifest.rows("train")
    targets = manifest.targets(ids)
    examples = []
    for k, name in enumerate(manifest.card.classes):
        mine = ids[targets[:, k] > 0.5]
        chosen = rng(0, "show", k).permutation(len(mine))[:PER_CLASS]
        images = prepared.cache.take(mine[np.sort(chosen)]) if len(mine) else []
        examples.append({"label": name, "pngs": [to_png(image) for image in images]})
    return examples


def arm_batch(spec: StudySpec, prepared: Prepared, arm_name: str) -> dict[str, Any]:
    """Draw the first images of an arm's first batch, as the network sees them, with their mixed labels."""
    arm = spec.arm(arm_name)
    if arm.mix["name"] in LEARNED_MIXERS:
        # It begins as MixUp does: there is no network yet whose masks could be shown.
        arm = replace(arm, mix={"name": "mixup", "alpha": 1.0})
    _, mixed = next(mixed_batches(spec, of_arm(prepared, arm), arm))
    count = min(PER_ARM, len(mixed.images))
    values = (mixed.images[:count].detach().clamp(0, 1) * 255).round().byte().numpy()
    classes = prepared.manifest.card.classes
    return {
        "arm": arm_name,
        "pngs": [to_png(image) for image in values],
        "captions": [caption(mixed.targets[i].numpy(), classes) for i in range(count)],
    }


def worst_errors(
    prepared: Prepared,
    ids: Int[np.ndarray, " N"],
    targets: Float[np.ndarray, "N K"],
    scores: Float[np.ndarray, "N K"],
    arm: str,
) -> list[dict[str, Any]]:
    """Find the test images that an arm is surest about and wrong."""
    card = prepared.manifest.card
    truth, said = np.nan_to_num(targets), np.nan_to_num(scores)
    if card.task == "multilabel":
        gap = np.where(np.isnan(targets), 0.0, np.abs(truth - said))
        label = gap.argmax(axis=1)
        error = gap.max(axis=1)
        order = np.argsort(-error, kind="stable")[:PER_ERRORS].tolist()
        words = [
            (
                card.classes[label[i]] if truth[i, label[i]] > 0.5 else f"no {card.classes[label[i]]}",
                f"no {card.classes[label[i]]}" if truth[i, label[i]] > 0.5 else card.classes[label[i]],
            )
            for i in order
        ]
        sure = [float(error[i]) for i in order]
    else:
        called, true = said.argmax(axis=1), truth.argmax(axis=1)
        error = np.where(called != true, said.max(axis=1), -1.0)
        order = [i for i in np.argsort(-error, kind="stable")[:PER_ERRORS] if error[i] > 0]
        words = [(card.classes[true[i]], card.classes[called[i]]) for i in order]
        sure = [float(error[i]) for i in order]
    images = prepared.cache.take(ids[np.asarray(order, dtype=np.int64)]) if order else []
    return [
        {
            "arm": arm,
            "png": to_png(image),
            "true": true_name,
            "predicted": called_name,
            "score": round(score, 4),
            "row": int(ids[i]),
        }
        for i, image, (true_name, called_name), score in zip(order, images, words, sure, strict=True)
    ]


def to_png(image: np.ndarray, *, side: int | None = SIDE) -> str:
    """Encode an image as a PNG thumbnail in base64.

    Args:
        image: uint8 or uint16 of shape (C, H, W); of 2 channels the first is shown, of 4 the first three.
        side: pixels that its longer side has at most, or None.
    """
    shown = image[:1] if image.shape[0] < 3 else image[:3]
    shown = (shown >> 8).astype(np.uint8) if shown.dtype == np.uint16 else shown
    plain = shown[0] if shown.shape[0] == 1 else shown.transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(plain))
    if side is not None and max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def caption(target: np.ndarray, classes: tuple[str, ...]) -> str:
    """Say a target in words: shares and names of its largest classes."""
    order = [k for k in np.argsort(-np.nan_to_num(target), kind="stable") if target[k] > 0.005]
    return " + ".join(f"{target[k]:.0%} {classes[k]}" for k in order[:3]) or "no finding"
