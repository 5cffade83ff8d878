"""For a study's report: real, generated and mixed images, and how a classifier that knows real ones sees them.

The figures of Lee, Lee & Hong 2024 (GenMix, https://arxiv.org/abs/2405.20650): how the generator came to draw, examples
of each class and origin, and their features in the plane.
"""

import base64
import io
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from raremix.core.features import features_seen
from raremix.core.random import rng
from raremix.data.samplers import Balanced
from raremix.evaluate.generative import embed_in_plane
from raremix.evaluate.generative.embedding import LEAST
from raremix.mix import LEARNED_MIXERS
from raremix.models import load_classifier
from raremix.study.arm_table import ArmSpec
from raremix.study.generators.own import resolved
from raremix.study.generators.use import translators_in
from raremix.study.prepare import Prepared, of_arm
from raremix.study.record.mixed_batches import mixed_batches
from raremix.study.record.outcomes import Outcome
from raremix.study.record.pictures import to_png
from raremix.study.spec import StudySpec
from raremix.train.feed import to_float

EACH, SHOWN, BATCHES, BATCH = 200, 8, 40, 64
ORIGINS = ("real", "generated", "mixed")
WIDEST = 1400
"""Pixels of the widest evolution strip."""


def origin_facts(
    spec: StudySpec, prepared: Prepared, outcomes: Mapping[Any, Outcome], *, unmade: Collection[str] = ()
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return where the images of an arm with generated ones lie in the plane, and examples of each origin.

    The arm is the first that mixes generated images with real ones (GenMix), else the first that mixes with generated
    ones among its images, else the first that adds some. The features are those of the
    reference arm's first classifier.

    Args:
        spec: the study.
        prepared: its data; with folds, of the first one.
        outcomes: the results that are there.
        unmade: arms whose batches cannot be shown, since what they were trained with is not there any more.

    Returns:
        A part of the record and a part of the pictures; None where no arm has generated images, or the reference arm no
        result.
    """
    arm = _chosen(spec, prepared, unmade)
    judges = [o for job, o in outcomes.items() if job.arm == spec.reference and job.fold in (None, 0)]
    reference = spec.arm(spec.reference)
    if arm is None or not judges or reference.images is not None or translators_in(reference.mix):
        return None, None  # a judge that saw generated images cannot tell what they look like to one that did not
    own, ready = of_arm(prepared, arm), resolved(spec, prepared).arm(arm.name)
    images, labels = _of_origins(spec, own, ready)
    model, card = load_classifier(judges[0].folder / "result" / "classifier")
    vectors = {origin: _features(model.eval(), found) for origin, found in images.items() if len(found)}
    together = np.concatenate(list(vectors.values()))
    shown = {"arm": arm.name, "rows": _examples(images, labels, own), "evolutions": _evolutions(prepared)}
    if len(together) < LEAST or not np.isfinite(together).all():
        return None, shown
    places = embed_in_plane(together)
    origins = [origin for origin, found in vectors.items() for _ in found]
    classes = np.concatenate([labels[origin] for origin in vectors])
    record = {
        "arm": arm.name,
        "features": f"{card.training.get('arm', spec.reference)}, seed {card.training.get('seed', 0)}",
        "points": [
            {"x": round(float(x), 3), "y": round(float(y), 3), "origin": origin, "label": own.manifest.card.classes[k]}
            for (x, y), origin, k in zip(places, origins, classes, strict=True)
        ],
    }
    return record, shown


def _chosen(spec: StudySpec, prepared: Prepared, unmade: Collection[str]) -> ArmSpec | None:
    there = [arm for arm in spec.arms if arm.name in prepared.arms and arm.name not in unmade]
    found = [arm for arm in there if arm.images is not None and arm.images.name == "generated"]
    mixing = [a for a in found if a.mix["name"] != "none" and a.mix["name"] not in LEARNED_MIXERS]
    paired = [a for a in mixing if a.mix["name"] == "genmix"]
    return next(iter([*paired, *mixing, *found]), None)


def _of_origins(
    spec: StudySpec, prepared: Prepared, arm: ArmSpec
) -> tuple[dict[str, Float[Tensor, "n C H W"]], dict[str, Int[np.ndarray, " n"]]]:
    """Return real validation images, and generated and mixed training images, classes alike, with their (main) class.

    The judge knows the real training images, and would see them apart from all others for that alone.
    """
    manifest = prepared.manifest
    ids = np.concatenate([manifest.rows("validation"), manifest.rows("train")])
    splits = np.array(manifest.splits(ids))
    origin, targets = manifest.frame["origin"].gather(manifest.positions(ids)).to_numpy(), manifest.targets(ids)
    images: dict[str, Tensor] = {}
    labels: dict[str, np.ndarray] = {}
    for name, kind, split in (("real", "real", "validation"), ("generated", "synthetic", "train")):
        chosen = (origin == kind) & (splits == split)
        mine, own = ids[chosen], targets[chosen]
        rows = np.unique(Balanced(targets=own, seed=0).row(np.arange(4 * EACH))) if len(mine) else np.zeros(0, int)
        rows = np.sort(rng(0, "show", 21).permutation(rows)[:EACH])
        images[name], labels[name] = to_float(prepared.cache.take(mine[rows])), own[rows].argmax(axis=1)
    images["mixed"], labels["mixed"] = _mixed(spec, prepared, arm)
    return images, labels


def _mixed(spec: StudySpec, prepared: Prepared, arm: ArmSpec) -> tuple[Float[Tensor, "n C H W"], Int[np.ndarray, " n"]]:
    """Return images as an arm mixes them, as far as they are no image that there was before."""
    found, labels = [], []
    if arm.mix["name"] == "none" or arm.mix["name"] in LEARNED_MIXERS:
        return torch.zeros(0, *prepared.cache.shape[1:]), np.zeros(0, dtype=np.int64)
    for plan, mixed in islice(mixed_batches(spec, prepared, arm), BATCHES):
        is_mixed = ((plan.weight > 0) & (plan.weight < 1)).cpu()
        found.append(mixed.images.detach()[is_mixed])
        labels.append(mixed.targets[is_mixed].argmax(dim=1).numpy())
        if sum(len(some) for some in found) >= EACH:
            break
    return torch.cat(found)[:EACH].clamp(0, 1), np.concatenate(labels)[:EACH]


def _features(model: torch.nn.Module, images: Float[Tensor, "n C H W"]) -> Float[np.ndarray, "n d"]:
    with torch.inference_mode(), features_seen(model) as seen:
        for some in images.split(BATCH):
            model(some)
        return torch.cat([part.float().cpu() for part in seen]).numpy()


def _examples(
    images: Mapping[str, Tensor], labels: Mapping[str, np.ndarray], prepared: Prepared
) -> list[dict[str, Any]]:
    rows = []
    for k, name in enumerate(prepared.manifest.card.classes):
        for origin in ORIGINS:
            some = images[origin][torch.from_numpy(np.flatnonzero(labels[origin] == k)[:SHOWN])]
            pngs = [to_png(image) for image in (some * 255).round().byte().numpy()]
            rows += [{"label": name, "origin": origin, "pngs": pngs}] if pngs else []
    return rows


def _evolutions(prepared: Prepared) -> list[dict[str, Any]]:
    """Return the strips that show how the study's generators came to draw."""
    found = []
    for name, folder in prepared.generators.items():
        path = folder / "evolution.png"
        if path.is_file():
            strip = Image.open(path).convert("RGB")
            strip.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            strip.save(stream, format="PNG", optimize=True)
            found.append({"generator": name, "png": base64.b64encode(stream.getvalue()).decode()})
    return found
