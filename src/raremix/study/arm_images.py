"""The images that arms add to their training split: drawn, read, and put together with the rows of the study.

What is drawn lies in the run folder as `synthetic/NAME-KEY`, where the key is the hash of all that the images depend
on. A killed study goes on where it was.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from raremix.core import files
from raremix.core.errors import ConfigError, RaremixError, RunError, StoppedError
from raremix.core.random import rng
from raremix.data.cache import ImageCache, build_cache
from raremix.data.guards import check
from raremix.data.joined import JoinedImages
from raremix.data.manifest import Manifest
from raremix.study.arm_table import ArmSpec
from raremix.study.extra_images import ExtraImages
from raremix.study.failures import FOREIGN, reason_of
from raremix.study.generators.guard import refuse_among_real, refuse_leaking_rows
from raremix.study.generators.own import Workshop, fit_generators, generator_keys, generators_of, leave_trace
from raremix.study.generators.spec import counts_of, fitted_ids
from raremix.study.generators.synthesize import synthesize
from raremix.study.generators.table import GeneratorTable
from raremix.study.generators.use import translators_in
from raremix.study.prepare import Prepared
from raremix.study.spec import StudySpec


def images_facts(arm: ArmSpec, keys: Mapping[str, str]) -> dict[str, Any]:
    """Return what an arm's result depends on beside its tables: the images that it adds, and its own translators."""
    facts: dict[str, Any] = {}
    if arm.images is not None:
        extra = arm.images
        facts["images"] = {
            **{name: getattr(extra, name) for name in ExtraImages.__dataclass_fields__},
            "generator": keys.get(extra.generator, ""),
        }
    translators = {str(name): keys[str(name)] for name in translators_in(arm.mix) if str(name) in keys}
    if translators:
        facts["translators"] = translators
    return facts


def with_images(
    shop: Workshop, prepared: Prepared, *, keys: Mapping[str, str] | None = None, finished: Collection[str] = ()
) -> tuple[Prepared, dict[str, str]]:
    """Fit the generators that arms ask for, and make the images that they add.

    Args:
        shop: the study.
        prepared: its data, of one fold.
        keys: of all generators, as `raremix.study.generators.own.generator_keys` returns them, if they are known.
        finished: arms that have all of their results. Nothing is fitted or drawn for these: what they were trained with
            is opened as far as it is still there.

    Returns:
        The data, with those of the arms that add images, and why other arms cannot be trained, or not be shown, by
        name.

    Raises:
        StoppedError: if it was asked to stop; what was made stays.
    """
    spec = shop.spec
    if not spec.generators and all(arm.images is None for arm in spec.arms):
        return prepared, {}
    keys = generator_keys(spec, prepared) if keys is None else keys
    needed = generators_of(spec, [arm.name for arm in spec.arms if arm.name not in finished])
    folders, reasons = fit_generators(shop, prepared, keys=keys, needed=needed)
    prepared = replace(prepared, generators=folders)
    arms: dict[str, Prepared] = {}
    failed: dict[str, str] = {}
    for arm in spec.arms:
        is_finished = arm.name in finished
        asked = [str(name) for name in translators_in(arm.mix)]
        # Images that were drawn are there without their generator.
        asked += [arm.images.generator] if arm.images is not None and not is_finished else []
        missing = [name for name in asked if name in reasons]
        if missing:
            failed[arm.name] = f"generator {missing[0]}: {reasons[missing[0]]}"
        if arm.images is None or (missing and not is_finished):
            continue
        try:
            arms[arm.name] = _with_extra(shop, prepared, arm.images, keys, is_drawn=is_finished or not shop.is_maker)
        except StoppedError:
            raise
        except (RaremixError, *FOREIGN) as error:
            if not shop.is_maker:
                raise
            failed[arm.name] = reason_of(error)
            leave_trace(shop.folder / "synthetic", arm.name, error)
            shop.say(f"the images of {arm.name} {'are gone' if is_finished else 'failed'}: {failed[arm.name]}")
    return replace(prepared, arms=arms), failed


def check_place(spec: StudySpec, prepared: Prepared, folder: Path) -> None:
    """Refuse a run folder among the real images, before a generator is fitted whose images would lie there.

    Raises:
        GuardError: saying which option helps.
    """
    if any(arm.images is not None and arm.images.name == "generated" for arm in spec.arms):
        refuse_among_real(folder, prepared.manifest, option="--runs")


def check_extra(arm: ArmSpec, prepared: Prepared, *, generators: Sequence[GeneratorTable] = ()) -> None:
    """Refuse an arm's `images` that do not go with the data, before any work.

    Raises:
        ConfigError: saying what does not fit.
        UnknownNameError: for a class that there is not.
    """
    if arm.images is None:
        return
    if prepared.manifest.card.task == "multilabel":
        raise ConfigError(
            f"arm.{arm.name}.images: images are added per class, and these data may have several findings per image; "
            "name one finding as label, or leave images out"
        )
    wanted = arm.images.added(_real(prepared))
    table = next((table for table in generators if table.name == arm.images.generator), None)
    unseen = [name for name, count in wanted.items() if count and table is not None and name in table.without]
    if unseen:
        raise ConfigError(
            f"arm.{arm.name}.images asks {arm.images.generator} for {', '.join(unseen)}, which it is fitted without: "
            "say for which classes it is, with classes = [...]"
        )
    if not any(wanted.values()):
        raise ConfigError(f"arm.{arm.name}.images adds nothing: every class has as many images already")


def _real(prepared: Prepared) -> dict[str, int]:
    return dict(zip(prepared.manifest.card.classes, counts_of(prepared, fitted_ids(prepared)), strict=True))


def _with_extra(
    shop: Workshop, prepared: Prepared, extra: ExtraImages, keys: Mapping[str, str], *, is_drawn: bool
) -> Prepared:
    """Return an arm's data: the study's, and what the arm adds."""
    train, validation = _wanted(prepared, extra)
    if extra.name == "repeated":
        return _repeated(prepared, train, seed=extra.seed)
    drawn = _drawn(shop, prepared, extra, keys, is_drawn=is_drawn)
    return _generated(shop, prepared, drawn, train=train, validation=validation)


def _wanted(prepared: Prepared, extra: ExtraImages) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many images of each class are added to the training and, in proportion, to the validation split."""
    real = _real(prepared)
    added, held = extra.added(real), prepared.manifest.class_counts("validation").tolist()
    share = {name: added[name] / max(1, real[name]) if extra.validation else 0.0 for name in real}
    return added, {name: round(share[name] * int(n)) for name, n in zip(real, held, strict=True)}


def _drawn(
    shop: Workshop, prepared: Prepared, extra: ExtraImages, keys: Mapping[str, str], *, is_drawn: bool
) -> Manifest:
    """Draw all images that arms ask for of one generator, drawn in one way, and return real and synthetic rows.

    Raises:
        RunError: if they are drawn already, and not there.
    """
    about = [keys[extra.generator], extra.begin, extra.draw, extra.seed]
    output = shop.folder / "synthetic" / f"{extra.generator}-{files.hash_value(about)[:8]}"
    if is_drawn:
        if not (output / "manifest.parquet").is_file():
            raise RunError(f"{output} is missing, which held them: run the study again in another folder (--runs)")
        return Manifest.read(output / "manifest.parquet")
    same = [
        arm.images
        for arm in shop.spec.arms
        if arm.images is not None
        and arm.images.name == "generated"
        and [keys[arm.images.generator], arm.images.begin, arm.images.draw, arm.images.seed] == about
    ]
    real, total = _real(prepared), dict.fromkeys(prepared.manifest.card.classes, 0)
    for one in same:
        train, validation = _wanted(prepared, one)
        total = {name: max(total[name], train[name] + validation[name]) for name in total}
    path = synthesize(
        prepared,
        generator=prepared.generators[extra.generator],
        output=output,
        to={name: real[name] + count for name, count in total.items()},
        seed=extra.seed,
        begin=extra.begin,
        drawing=extra.draw,
        progress=shop.make(f"Drawing images ({extra.generator})"),
    )
    return Manifest.read(path)


def _generated(
    shop: Workshop, prepared: Prepared, drawn: Manifest, *, train: Mapping[str, int], validation: Mapping[str, int]
) -> Prepared:
    """Add the first images of each class to the training split, and the next ones to the validation split."""
    assert isinstance(prepared.cache, ImageCache)
    # Synthetic rows that the data brought stay what they are: only new ones count.
    is_made = ~np.isin(drawn.ids, prepared.manifest.ids)
    labels = drawn.targets().argmax(axis=1)
    splits = drawn.frame["split"].to_numpy().astype(object)
    keep = ~is_made
    for label, name in enumerate(drawn.card.classes):
        own = np.flatnonzero(is_made & (labels == label))
        own = own[np.argsort(drawn.ids[own], kind="stable")]
        first, second = train[name], train[name] + validation[name]
        keep[own[:second]] = True
        splits[own[first:second]] = "validation"
    frame = drawn.frame.with_columns(pl.Series("split", splits, dtype=pl.Utf8))
    made = replace(drawn, frame=frame.filter(pl.Series(keep & is_made)))
    whole = replace(drawn, frame=frame.filter(pl.Series(keep)))
    check(whole, allow_synthetic=("validation",) if any(validation.values()) else (), check_files=False)
    refuse_leaking_rows(whole)
    data = shop.spec.data
    images = build_cache(
        made,
        size=data.size,
        channels=prepared.channels,
        root=shop.cache,
        bits=data.bits,
        resize=data.resize,
        progress=shop.make("Reading images"),
    )
    return _joined(prepared, whole, images, real=prepared.manifest.ids, made=made.ids, source=made.ids)


def _repeated(prepared: Prepared, wanted: Mapping[str, int], *, seed: int) -> Prepared:
    """Add real training images of each class once more, in an order by chance, each as often as the others."""
    manifest = prepared.manifest
    ids = fitted_ids(prepared)
    labels = manifest.targets(ids).argmax(axis=1)
    chosen = [np.zeros(0, dtype=np.int64)]
    for label, name in enumerate(manifest.card.classes):
        own = manifest.positions(ids[labels == label])
        for number in range(-(-wanted[name] // max(1, len(own)))):
            order = own[rng(seed, "pair", label, number).permutation(len(own))]
            chosen.append(order[: wanted[name] - number * len(own)])
    places = np.concatenate(chosen)
    fresh = int(prepared.untouched.ids.max()) + 1 + np.arange(len(places))
    more = manifest.frame[places.tolist()].with_columns(
        pl.Series("id", fresh), pl.lit("repeated", dtype=manifest.frame["origin"].dtype).alias("origin")
    )
    whole = replace(manifest, frame=pl.concat([manifest.frame, more]))
    assert isinstance(prepared.cache, ImageCache)
    return _joined(prepared, whole, prepared.cache, real=manifest.ids, made=fresh, source=manifest.ids[places])


def _joined(
    prepared: Prepared,
    whole: Manifest,
    images: ImageCache,
    *,
    real: np.ndarray,
    made: np.ndarray,
    source: np.ndarray,
) -> Prepared:
    assert isinstance(prepared.cache, ImageCache)
    ids = np.concatenate([real, made])
    order = np.argsort(ids)
    part = np.concatenate([np.zeros(len(real), dtype=np.int64), np.ones(len(made), dtype=np.int64)])
    cache = JoinedImages(
        parts=(prepared.cache, images),
        ids=ids[order],
        part=part[order],
        source=np.concatenate([real, source])[order],
    )
    return replace(prepared, manifest=whole, cache=cache, arms={})
