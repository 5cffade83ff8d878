"""What the samplers of a study show: for the report, and for a look before anything is trained."""

from dataclasses import replace
from typing import Any

from raremix.data.coverage import Coverage, coverage
from raremix.study.arm_table import ArmSpec
from raremix.study.mixers import make_mixer, stand_in
from raremix.study.prepare import Prepared, of_arm
from raremix.study.spec import StudySpec, sampler_of


def arm_coverage(spec: StudySpec, arm: ArmSpec, prepared: Prepared) -> Coverage:
    """Count what an arm's sampler shows in its first epochs, under the study's first seed.

    A mixer that samples its own images does so here too; its partners are not counted.
    """
    own = _own_sampling(spec, arm)
    chosen = arm if own is None else replace(arm, sampler={"name": own})
    manifest = of_arm(prepared, arm).manifest
    targets = manifest.targets(manifest.rows("train"))
    return coverage(sampler_of(chosen, targets=targets, seed=spec.seeds[0]), targets)


def coverage_facts(spec: StudySpec, prepared: Prepared) -> list[dict[str, Any]]:
    """Return, for the record, what every arm shows whose images do not simply come once an epoch.

    Arms whose added images are not there are left out.
    """
    facts = []
    for arm in spec.arms:
        if arm.images is not None and arm.name not in prepared.arms:
            continue
        own = _own_sampling(spec, arm)
        if (own or arm.sampler["name"]) != "natural":
            facts.append({"arm": arm.name, "sampler": own or arm.sampler["name"], **described(spec, arm, prepared)})
    return facts


def sampler_coverage(spec: StudySpec, prepared: Prepared, name: str) -> dict[str, Any]:
    """Return what a sampler would show of a study's training images, whatever its arms take."""
    plain = replace(spec.arms[0], mix={"name": "none"}, sampler={"name": name}, imbalance=None)
    return described(spec, plain, prepared)


def described(spec: StudySpec, arm: ArmSpec, prepared: Prepared) -> dict[str, Any]:
    """Return what an arm's sampler shows as plain numbers."""
    found = arm_coverage(spec, arm, prepared)
    labels = zip(
        prepared.manifest.card.classes,
        found.images.tolist(),
        found.drawn.round(1).tolist(),
        found.distinct.round(1).tolist(),
        strict=True,
    )
    return {
        "images": found.rows,
        "epochs": found.epochs,
        "labels": [
            {"label": name, "images": images, "drawn": drawn, "distinct": distinct}
            for name, images, drawn, distinct in labels
        ],
        "unseen": round(found.unseen, 4),
        "most": found.most,
        "labels_per_image": [round(value, 3) for value in found.labels_per_image],
        "moved": round(found.moved, 4),
    }


def _own_sampling(spec: StudySpec, arm: ArmSpec) -> str | None:
    """Return how an arm's mixer samples its own images; the study's own translators need not be there for that."""
    plain = stand_in(arm.mix, [table.name for table in spec.generators])
    return make_mixer(plain, where=f"arm.{arm.name}.mix").streams.own.sampling
