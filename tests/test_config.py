"""One table is one constructor call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from raremix.config import build, build_named, override, read_toml, write_toml
from raremix.core.errors import ConfigError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something with every kind of parameter that a file can hold."""

    count: int
    kind: Literal["small", "large"] = "small"
    place: Path | None = None
    sizes: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()


def test_values_are_converted_to_their_annotations() -> None:
    thing = build(Thing, {"count": 3, "place": "a/b", "sizes": [1, 2]}, where="thing", classes=("x",))
    assert thing == Thing(count=3, place=Path("a/b"), sizes=(1, 2), classes=("x",))


def test_what_the_table_says_wins_over_what_is_injected() -> None:
    assert build(Thing, {"count": 3}, where="thing", count=5, unknown=1).count == 3


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        ({"count": "many"}, ConfigError, r"thing\.count = 'many'"),
        ({"count": 1, "kind": "smal"}, ConfigError, "did you mean 'small'"),
        ({"count": 1, "sise": []}, UnknownNameError, "did you mean 'sizes'"),
        ({}, ConfigError, "needs count"),
    ],
)
def test_what_does_not_fit_is_named(table: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build(Thing, table, where="thing")


def test_the_name_picks_the_class() -> None:
    registry = {"thing": Thing}
    assert build_named(registry, {"name": "thing", "count": 1}, kind="thing", where="t") == Thing(count=1)
    with pytest.raises(UnknownNameError, match="did you mean 'thing'"):
        build_named(registry, {"name": "thign", "count": 1}, kind="thing", where="t")
    with pytest.raises(ConfigError, match="needs a name"):
        build_named(registry, {"count": 1}, kind="thing", where="t")


def test_settings_address_tables_and_named_lists() -> None:
    table = {"train": {"steps": 5}, "arm": [{"name": "a"}, {"name": "b", "mix": "mixup"}]}
    changed = override(table, ["train.steps=7", "arm.b.mix.alpha=0.5", "data.source=phantom", "study.seeds=[1, 2]"])
    assert changed == {
        "train": {"steps": 7},
        "arm": [{"name": "a"}, {"name": "b", "mix": {"name": "mixup", "alpha": 0.5}}],
        "data": {"source": "phantom"},
        "study": {"seeds": [1, 2]},
    }
    assert table["train"] == {"steps": 5}, "the table that was given is not touched"


def test_settings_that_address_nothing() -> None:
    table = {"train": {"steps": 5}, "arm": [{"name": "a"}]}
    with pytest.raises(UnknownNameError, match="known: a"):
        override(table, ["arm.b.mix=none"])
    with pytest.raises(ConfigError, match="is a value"):
        override(table, ["train.steps.deep=1"])
    with pytest.raises(ConfigError, match=r"key\.of\.table=value"):
        override(table, ["train.steps"])


def test_toml_round_trip(tmp_path: Path) -> None:
    table = {"study": {"seeds": [0, 1], "metric": None}, "model": {"weights": Path("w.safetensors")}}
    path = tmp_path / "study.toml"
    path.write_text(write_toml(table))
    assert read_toml(path) == {"study": {"seeds": [0, 1]}, "model": {"weights": "w.safetensors"}}


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[study\n")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "latin.toml").write_bytes(b"a = '\xff'")
    for name in ("bad.toml", "deep.toml", "latin.toml"):
        with pytest.raises(ConfigError, match=name):
            read_toml(tmp_path / name)
    with pytest.raises(ConfigError, match="no such"):
        read_toml(tmp_path / "missing.toml")
