"""The batches of an arm as its network sees them, for the pictures of a report."""

from collections.abc import Iterator
from itertools import count

from raremix.core.random import rng
from raremix.core.types import Batch, MixPlan
from raremix.study.arm_table import ArmSpec
from raremix.study.feeds import make_feed, make_guide
from raremix.study.mixers import make_mixer
from raremix.study.prepare import Prepared
from raremix.study.spec import StudySpec


def mixed_batches(spec: StudySpec, prepared: Prepared, arm: ArmSpec) -> Iterator[tuple[MixPlan, Batch]]:
    """Yield how the batches of an arm's first run are mixed, and what comes of them; the same as in training.

    Args:
        spec: the study.
        prepared: the arm's data.
        arm: the recipe; its mixer is none that learns.
    """
    seed = spec.seeds[0]
    counts = tuple(float(n) for n in prepared.manifest.class_counts("train"))
    mixer = make_mixer(arm.mix, where=f"arm.{arm.name}.mix", class_counts=counts)
    feed = make_feed(spec, prepared, arm, seed=seed)
    guide = make_guide(arm, prepared, feed, cache=prepared.cache.folder.parent.parent)
    for step in count():
        batch = feed.batch(step) if guide is None else guide.attach(feed.batch(step))
        pool = batch if batch.pool is None else batch.pool
        plan = mixer.plan(batch, pool, rng=rng(seed, "mix", step, 0))
        yield plan, plan.apply(batch, pool)
