import ast
from pathlib import Path

import pytest

import raremix
from raremix.core import errors
from raremix.core.errors import RaremixError, ReadError, UnknownNameError, closest

TREE = {
    "RunError": 1,
    "StorageError": 1,
    "BusyError": 1,
    "CorruptError": 1,
    "ResumeError": 1,
    "StoppedError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "UnknownNameError": 2,
    "DataError": 2,
    "ReadError": 2,
    "ManifestError": 2,
    "TargetError": 2,
    "GuardError": 3,
    "LeakageError": 3,
    "HeldOutError": 3,
}


def descendants(kind: type[RaremixError]) -> dict[str, int]:
    found = {}
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            found |= {child.__name__: child.exit_code, **descendants(child)}
    return found


def test_branches_are_exit_codes() -> None:
    assert descendants(RaremixError) == TREE


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = str(errors.__doc__)
    for name in TREE:
        assert f"-- {name}" in drawn


def test_an_unknown_name_gets_a_guess() -> None:
    error = UnknownNameError("mixer", "mixpu", ["none", "mixup", "cutmix"])
    assert str(error) == "unknown mixer 'mixpu': did you mean 'mixup'? known: cutmix, mixup, none"
    assert error.guess == "mixup"
    assert str(UnknownNameError("mixer", "zzz", ["none"])) == "unknown mixer 'zzz': known: none"
    assert str(UnknownNameError("mixer", "x", [])) == "unknown mixer 'x': known: none"


def test_a_long_list_is_cut_short() -> None:
    names = [f"network{number:03d}" for number in range(500)]
    text = str(UnknownNameError("network", "network0007", names))
    assert "did you mean 'network007'?" in text
    assert "and 492 more" in text
    assert len(text) < 250


def test_a_file_is_named() -> None:
    error = ReadError("row 3 (a.png)", "it is truncated: restore it")
    assert (str(error), error.path_id) == ("row 3 (a.png): it is truncated: restore it", "row 3 (a.png)")


@pytest.mark.parametrize(
    ("name", "expected"), [("mixpu", "mixup"), ("MixUp", "mixup"), ("cut-mix", "cutmix"), ("resnet", None), ("", None)]
)
def test_closest(name: str, expected: str | None) -> None:
    assert closest(name, ["mixup", "cutmix"]) == expected


def test_no_error_is_swallowed() -> None:
    """Broad catches stand only around foreign decoders, in the readers."""
    source = Path(str(raremix.__file__)).parent
    broad = []
    for path in source.rglob("*.py"):
        text = path.read_text()
        if "except Exception" not in text and "except BaseException" not in text and "except:" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ExceptHandler):
                kind = "" if node.type is None else ast.unparse(node.type)
                reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
                if kind in {"", "Exception", "BaseException"} and not reraises:
                    broad.append(f"{path.relative_to(source)}:{node.lineno}")
    assert [where for where in broad if not where.startswith("data/readers/")] == []
