"""From a study's mix table to a mixer: tables within tables, importance maps that are kept, mixers that learn."""

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints

from torch import nn

from raremix.config import Table, build_named, check
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.protocols import ImageTranslator, ImportanceMap, Mixer
from raremix.core.registry import look_up
from raremix.explain import IMPORTANCE_MAPS, DifferenceMap
from raremix.mix import COMBINATIONS, LEARNED_MIXERS, MIXERS, Method, VariMix
from raremix.study.generators.use import TRANSLATORS

LEARNING = ("at", "decay", "clean", "area", "margin")
"""Keys of a learned mixer's table that say how it is trained, and not how it mixes."""

KEPT_KEYS = ("grid", "every", "shuffled")
"""Keys of an importance table that say how its maps are kept, and not how they are drawn."""

ONLY_VARIMIX = (
    "importance: difference maps say what would change into another class, which only varimix asks; take another "
    "importance map"
)

FILLED_IN = {"network", "features", "is_learning"}
"""What a learned mixer is given by its training, and no file can hold."""


def make_mixer(table: Table, *, where: str, class_counts: tuple[float, ...] | None = None) -> Mixer:
    """Build the mixer of a table.

    Importance maps that are kept for every image are left to `kept_importance`, and what says how a learned mixer is
    trained to `learning_keys`.

    Raises:
        UnknownNameError: for a name or key that there is not.
        ConfigError: for a value that does not fit, or a mixer that learns within another.
    """
    for inner, place in _tables_within(table, where=where):
        if inner.get("name") in LEARNED_MIXERS:
            raise ConfigError(
                f"{place}: {inner['name']} is trained beside the classifier in a phase of every step, and cannot stand "
                f"in {table.get('name')}: give it an arm of its own"
            )
    learning = learning_keys(table)
    try:
        return build_named(
            {**MIXERS, **LEARNED_MIXERS, **COMBINATIONS},
            _without_kept_maps({key: value for key, value in table.items() if key not in learning})[0],
            kind="mixer",
            where=where,
            registries={
                Mixer: {**MIXERS, **COMBINATIONS},
                ImportanceMap: IMPORTANCE_MAPS,
                ImageTranslator: TRANSLATORS,
            },
            class_counts=class_counts,
        )
    except ConfigError as error:
        if str(error).startswith(where):
            raise
        raise ConfigError(f"{where}: {error}") from None  # a setting that its own method refuses


def check_mixer(table: Table, *, where: str) -> None:
    """Build a table's mixer and importance map once, so that a wrong key is found before anything is trained.

    Args:
        table: the mixer's; translators that are not fitted yet have a stand-in, as `stand_in` gives it.
        where: its place in the file.

    Raises:
        UnknownNameError: for a name or key that there is not.
        ConfigError: for a value that does not fit, or what would be ignored or fail once training runs; also within
            mixers that choose among others or schedule them.
    """
    mixer = make_mixer(table, where=where)
    kept = kept_importance(table, where=where)
    if kept is not None:
        kept.check(where=f"{where}.importance")
    tables = [(table, where), *_tables_within(table, where=where)]
    for (own, place), one in zip(tables, _within(mixer), strict=True):
        if isinstance(one, Method):
            _check_method(one, own, kept, where=place)


def _check_method(mixer: Method, table: Table, kept: "KeptImportance | None", *, where: str) -> None:
    """Refuse what a method would ignore, or fail by once training runs.

    Args:
        mixer: the method.
        table: its own.
        kept: the maps that are kept for all mixers of the arm, which go before its own.
        where: its place in the file.
    """
    own = _named(table.get("importance"))
    if _is_learned(mixer) and (kept is not None or (own and not asks_importance(mixer))):
        raise ConfigError(f"{where}.importance: a mixer that learns where to mix asks no importance map; leave it out")
    if own and not asks_importance(mixer):
        raise ConfigError(
            f'{where}.importance: nothing in {table.get("name")} looks at it; leave it out, or set label = "mass" or '
            'pairing = "most_dissimilar"'
        )
    if mixer.label == "mass" and kept is None and mixer.importance is None:
        raise ConfigError(f'{where}: label = "mass" needs importance = {{ name = ... }}')
    if isinstance(mixer, VariMix):
        if kept is not None and kept.needs_model:
            raise ConfigError(
                f"{where}.importance: VariMix asks what would change into the partner's class, and a classifier's maps "
                "are kept for an image's own class; take a difference map or saliency"
            )
    elif own.get("name") == "difference":
        raise ConfigError(f"{where}.{ONLY_VARIMIX}")
    if own and kept is not None and not _is_kept(own):
        raise ConfigError(
            f"{where}.importance: the maps that the arm keeps guide all of its mixers, so this would be ignored; leave "
            "it out, or give all the same table"
        )


def _within(mixer: Any) -> Iterator[Mixer]:
    """Yield a mixer, and those that it chooses from or schedules."""
    yield mixer
    inner = getattr(mixer, "mixers", None) or (getattr(mixer, "mixer", None),)
    for one in inner:
        if one is not None:
            yield from _within(one)


def _tables_within(table: Table, *, where: str) -> Iterator[tuple[Table, str]]:
    """Yield the tables of the mixers that one chooses from or schedules, as `_within` does, and their places."""
    listed = table.get("mixers")
    inner = [(f"{where}.mixers[{i}]", one) for i, one in enumerate(listed if isinstance(listed, list) else [])]
    for place, one in [*inner, (f"{where}.mixer", table.get("mixer"))]:
        if named := _named(one):
            yield named, place
            yield from _tables_within(named, where=place)


def _named(value: Any) -> Table:
    """Return a table, of which a string is the name alone; an empty one for anything else."""
    return value if isinstance(value, dict) else {"name": value} if isinstance(value, str) else {}


def _is_learned(mixer: Mixer) -> bool:
    return isinstance(mixer, tuple(LEARNED_MIXERS.values()))


def asks_importance(mixer: Method) -> bool:
    """Whether anything about a mixer depends on importance maps."""
    return (mixer.is_guided and not _is_learned(mixer)) or mixer.label == "mass" or mixer.pairing == "most_dissimilar"


def learning_keys(table: Table) -> Table:
    """Return what a learned mixer's table says about how it is trained, and not about how it mixes.

    Raises:
        UnknownNameError: for a key that is neither.
    """
    mixer = LEARNED_MIXERS.get(str(table.get("name")))
    if mixer is None:
        return {}
    known = {"name", *LEARNING, *inspect.signature(mixer).parameters} - FILLED_IN
    for key in table:
        if key not in known:
            raise UnknownNameError("key of a learned mixer", key, known)
    return {key: value for key, value in table.items() if key in LEARNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptImportance:
    """An importance table that keeps a map for every image.

    Attributes:
        table: of the importance map itself.
        grid: side of the kept maps.
        every: epochs between two refreshes by the averaged classifier, where the map asks for a classifier.
        shuffled: give every image the map of another training image of its class: a control, which shows whether it
            matters where the maps point.
    """

    table: Table
    grid: int = 16
    every: float = 1.0
    shuffled: bool = False

    def build(self, *, where: str, model: nn.Module | None = None) -> ImportanceMap:
        """Build the importance map, for a classifier where it asks for one."""
        return build_named(
            IMPORTANCE_MAPS,
            self.table,
            kind="importance map",
            where=where,
            registries={ImageTranslator: TRANSLATORS},
            model=model,
        )

    def check(self, *, where: str) -> None:
        """Refuse keys that the map does not know; one that asks for a classifier is built once there is one."""
        if not self.needs_model:
            self.build(where=where)
            return
        made = look_up(IMPORTANCE_MAPS, self.table["name"], kind="importance map")
        known = inspect.signature(made).parameters
        hints = get_type_hints(made)
        for key, value in self.table.items():
            if key not in {"name", *known}:
                raise UnknownNameError(f"key of {where}", key, known)
            if key in hints:
                check(value, hints[key], where=f"{where}.{key}")

    @property
    def needs_model(self) -> bool:
        """Whether the map is a classifier's."""
        return asks_for_model(self.table)

    @property
    def is_per_class(self) -> bool:
        """Whether an image has one map for every class that it could be changed into."""
        return self.table["name"] == "difference"


def kept_importance(table: Table, *, where: str) -> KeptImportance | None:
    """Return the importance table of a mixer whose maps are kept for every image, if there is one.

    Kept are maps that a classifier draws, since they are refreshed every few epochs only, and any map with a `grid`, or
    that is `shuffled`.
    """
    found = _without_kept_maps(table)[1]
    if not found:
        return None
    where = f"{where}.importance"
    if any(table != found[0] for table in found):
        raise ConfigError(f"{where}: all mixers of an arm share the maps that are kept; give them the same table")
    own = {key: value for key, value in found[0].items() if key in KEPT_KEYS}
    rest = {key: value for key, value in found[0].items() if key not in own}
    is_drawn_anew = asks_for_model(rest) and rest["name"] != "input_gradient"
    if "every" in own and not is_drawn_anew:
        raise ConfigError(f"{where}.every: only the maps of a classifier are drawn anew; leave it out")
    if rest["name"] == "input_gradient" and len(rest) > 1:
        raise ConfigError(f"{where}: the kept gradient is that of the training loss; leave out all but name and grid")
    grid, every = check(own.get("grid", 16), int, where=where), check(own.get("every", 1.0), float, where=where)
    if grid < 1 or every <= 0:
        raise ConfigError(f"{where}: grid must be at least 1 and every more than 0 epochs")
    shuffled = check(own.get("shuffled", False), bool, where=where)
    if shuffled and asks_for_model(rest):
        raise ConfigError(f"{where}.shuffled: only maps that stay as they are can be exchanged; leave it out")
    return KeptImportance(table=rest, grid=grid, every=every, shuffled=shuffled)


def stand_in(table: Table, unfitted: Collection[str]) -> Table:
    """Return a mixer's table in which saliency stands for difference maps of translators that are still to be fitted.

    So everything else in the table can be checked, and built, before they are.

    Args:
        table: the mixer's.
        unfitted: names of the generators that a study fits itself.

    Raises:
        UnknownNameError: for a key that difference maps have not.
        ConfigError: if another mixer than VariMix asks for them, or a value does not fit.
    """
    found: Table = {}
    for key, value in table.items():
        if isinstance(value, dict):
            translator = value.get("translator")
            name = translator.get("name") if isinstance(translator, dict) else translator
            if value.get("name") == "difference" and name in unfitted:
                if table.get("name") != "varimix":
                    raise ConfigError(f"{table.get('name')}.{ONLY_VARIMIX}")
                hints = get_type_hints(DifferenceMap)
                known = {"name", *inspect.signature(DifferenceMap).parameters, *KEPT_KEYS}
                for own, given in value.items():
                    if own not in known:
                        raise UnknownNameError("key of a difference map", own, known)
                    if own in hints and own != "translator":
                        check(given, hints[own], where=f"difference.{own}")
                kept = {own: value[own] for own in KEPT_KEYS if own in value}
                found[key] = {"name": "fine_grained", **kept}
            else:
                found[key] = stand_in(value, unfitted)
        elif isinstance(value, list):
            found[key] = [stand_in(one, unfitted) if isinstance(one, dict) else one for one in value]
        else:
            found[key] = value
    return found


def asks_for_model(table: Table) -> bool:
    """Whether an importance table names a map that a classifier draws."""
    made = look_up(IMPORTANCE_MAPS, str(table.get("name")), kind="importance map")
    return "model" in inspect.signature(made).parameters


def _without_kept_maps(table: Table) -> tuple[Table, list[Table]]:
    """Take the importance tables whose maps are kept out of a mixer's table, and out of those within it."""
    plain, found = dict(table), []
    importance = plain.get("importance")
    if importance is not None:
        named = {"name": importance} if isinstance(importance, str) else check(importance, Table, where="importance")
        if _is_kept(named):
            del plain["importance"]
            found.append(named)
    for key, value in table.items():
        inner = [_named(one) for one in (value if isinstance(value, list) else [value])]
        if key in {"mixer", "mixers"} and all(inner):
            pairs = [_without_kept_maps(one) for one in inner]
            plain[key] = [one for one, _ in pairs] if isinstance(value, list) else pairs[0][0]
            found += [table for _, tables in pairs for table in tables]
    return plain, found


def _is_kept(importance: Table) -> bool:
    return bool(set(KEPT_KEYS) & set(importance)) or asks_for_model(importance)
