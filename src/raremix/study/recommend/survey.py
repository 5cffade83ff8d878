"""Look at data that nobody described: guess the columns, load, measure, and take the fingerprint."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from raremix.core.errors import LeakageError, ManifestError
from raremix.core.types import Progress
from raremix.data.audit import names_groups
from raremix.data.manifest import Manifest, listed
from raremix.models import ClassifierSpec
from raremix.study.recommend.fingerprint import Fingerprint, Speed, take_fingerprint
from raremix.study.recommend.guess import ACQUISITION, SUBGROUPS, Guess, group_pattern, guess_data
from raremix.study.recommend.look import look_at
from raremix.study.recommend.rules import Rules, read_rules
from raremix.study.recommend.shape import first_size
from raremix.study.recommend.step_time import RunTime, time_run, time_scoring, time_step
from raremix.study.recommend.weights import Weights, find_weights, read_weights
from raremix.study.spec import StudySpec, parse_study, read_study

Measure = Callable[[int, ClassifierSpec, int], float]
"""Image side, network, channels -> seconds that an image adds to a training step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is known about data before a plan is made.

    Attributes:
        guess: the [data] table with its reasons.
        fingerprint: what the plan depends on.
    """

    guess: Guess
    fingerprint: Fingerprint


def survey(
    place: str,
    *,
    cache: Path,
    settings: Sequence[str] = (),
    weights: Path | None = None,
    measure: Measure | None = None,
    progress: Callable[[str], Progress] = lambda title: lambda what, done, total: None,
) -> Survey:
    """Take the fingerprint of a place.

    Args:
        place: a folder, a table, an .npz, "phantom", or a study file, whose [data] is taken.
        cache: the cache folder.
        settings: overrides as `key.of.table=value`.
        weights: pretrained weights to use; others are looked for.
        measure: says what an image adds to a training step, all else costing nothing; None measures on this machine.
        progress: makes the progress callback of a stretch of work from its title.

    Raises:
        UsageError, DataError, GuardError: if the data cannot be used as they are.
    """
    rules = read_rules()
    guess = _from_study(place, settings) if Path(place).suffix == ".toml" else guess_data(place, settings=settings)
    manifest, guess = _load(guess, cache=cache, progress=progress("Reading images"))
    started = time.perf_counter()
    look = look_at(manifest, progress=progress("Looking at images"))
    reading = (time.perf_counter() - started) / max(len(look.ids), 1)
    places = [Path.cwd(), Path(place).expanduser() if place != "phantom" else Path.cwd()]
    found = (read_weights(weights),) if weights is not None else find_weights(places)
    has_groups = names_groups(manifest)
    pattern = None if has_groups else _proposed(manifest, rules)
    accelerated = torch.cuda.is_available()
    size = first_size(look.side, has_weights=bool(found), accelerated=accelerated, rules=rules)
    channels = 3 if bool(look.colour.any()) else 1
    network = found[0] if found else None
    if measure is None and not accelerated and (busy := busy_words()):
        guess = replace(guess, notes=(*guess.notes, busy))
    speed = measure_speed(
        size, network=network, channels=channels, rules=rules, measure=measure, progress=progress("Timing")
    )
    fingerprint = take_fingerprint(
        manifest,
        look,
        shares={"validation": rules["F2"]["validation"], "test": rules["F2"]["test"]},
        named_groups=has_groups,
        proposed_group=pattern,
        weights=found,
        speed=replace(speed, read=reading if measure is None else 0.0),
        accelerated=accelerated,
    )
    _refuse_undividable(fingerprint)
    return Survey(guess=guess, fingerprint=fingerprint)


def _refuse_undividable(f: Fingerprint) -> None:
    """Refuse data of which no study can be made, before a plan says otherwise."""
    if f.holdout is not None or f.can_fold:
        return
    few = [f"{name} {count}" for name, count in zip(f.classes, f.class_groups, strict=True) if count < 3]
    which = f"; too few groups have: {listed(few)}" if few else ""
    plural = "" if f.groups == 1 else "s"
    raise ManifestError(
        f"{f.images:,} images of {f.groups:,} group{plural} cannot be divided into training, validation and test: "
        f"expected classes with at least 3 groups (patients, lesions; without a group column, images){which}. Look at "
        "the group column, or collect more"
    )


def busy_words() -> str:
    """Say that other programs keep the processors busy, so that training would be timed too slow; "" if they do not."""
    processors = os.cpu_count() or 1
    try:
        # Of the last minute's load, this program's own look at the images is one.
        load = os.getloadavg()[0] - 1
    except (AttributeError, OSError):
        return ""
    if load < 0.75 * processors:
        return ""
    return (
        f"Other programs keep this machine busy (load {load:.0f} on {processors} processors), so that training looks "
        "slower than it is, and a time limit leaves less. When it is idle, run raremix recommend again."
    )


def measure_speed(
    size: int, *, network: Weights | None, channels: int, rules: Rules, measure: Measure | None, progress: Progress
) -> Speed:
    """Time training at half of a size, at the size, and at R4's multiple of it.

    Args:
        size: side of the plan's images.
        network: whose weights are at hand, or None for the network from scratch.
        channels: of the images.
        rules: the table.
        measure: see `survey`.
        progress: called after each size.
    """
    spec = ClassifierSpec(name=rules["R5"]["network"])
    if network is not None:
        # The standard stem is what weights are loaded into; the numbers in it do not change the time.
        spec = ClassifierSpec(name=network.name, stem="standard", options=dict(network.options))
    sizes = sorted({max(8, size // 2), size, rules["R4"]["factor"] * size})
    fixed = time_run(spec, channels) if measure is None else RunTime()
    seconds = {}
    for number, side in enumerate(sizes, start=1):
        seconds[side] = (measure or partial(time_step, fixed=fixed.step))(side, spec, channels)
        progress("timing a step", number, len(sizes))
    if measure is not None:
        return Speed(image=seconds)
    scoring = time_scoring(size, spec, channels) / seconds[size]
    return Speed(image=seconds, step=fixed.step, run=fixed.run, scoring=scoring)


def _load(guess: Guess, *, cache: Path, progress: Progress) -> tuple[Manifest, Guess]:
    """Load the data; where a MedMNIST file's own split leaks, have its training images split anew."""
    try:
        manifest = _spec(guess).source.load(cache=cache, progress=progress)
    except LeakageError as error:
        if guess.table.get("source") != "medmnist" or guess.table.get("resplit"):
            raise
        table = {**guess.table, "resplit": True}
        reason = "the official training and validation images leak into each other, so these two are split anew"
        note = f"The official split leaks ({str(error).partition(': ')[2].partition(':')[0]}): see resplit."
        guess = replace(guess, table=table, reasons={**guess.reasons, "resplit": reason}, notes=(*guess.notes, note))
        manifest = _spec(guess).source.load(cache=cache, progress=progress)
    known = [name for name in manifest.attributes if name.lower() in {*SUBGROUPS, *ACQUISITION}]
    if known and "subgroups" not in guess.table:
        reasons = {**guess.reasons, "subgroups": "the data have these columns: results are broken down by them"}
        guess = replace(guess, table={**guess.table, "subgroups": known}, reasons=reasons)
    return manifest, guess


def _spec(guess: Guess) -> StudySpec:
    return parse_study({"study": {"name": "survey"}, "data": guess.table}, base=Path.cwd())


def _from_study(place: str, settings: Sequence[str]) -> Guess:
    spec = read_study(Path(place), settings=settings)
    own = {"size", "channels", "cache"}
    kept: dict[str, Any] = {"resize": spec.data.resize, "subgroups": list(spec.data.subgroups)}
    table = {**spec.source_table, **{key: value for key, value in kept.items() if key not in own and value}}
    table.setdefault("source", "phantom")
    split_keys = tuple(key for key in ("split", "split_values") if key in table)
    return Guess(table=table, reasons=dict.fromkeys(table, f"as in {place}"), split_keys=split_keys)


def _proposed(manifest: Manifest, rules: Rules) -> str | None:
    rule = rules["R2"]
    found = group_pattern(
        [path.rsplit("/", 1)[-1] for path in manifest.frame["path"]],
        least=rule["images_per_group_from"],
        most=rule["images_per_group_to"],
        groups=rule["groups_from"],
    )
    return None if found is None else found[0]
