"""From TOML to objects: one table is one constructor call.

`name` picks the class from a package's literal registry, every other key is a keyword argument that is validated
against its annotation, and what a file cannot hold (class counts, a modality) is injected by parameter name.
"""

import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tomli_w
from pydantic import ConfigDict, TypeAdapter, ValidationError

from raremix.core.errors import ConfigError, UnknownNameError, closest
from raremix.core.registry import look_up
from raremix.core.toml import parse_toml

T = TypeVar("T")
Table = dict[str, Any]


def read_toml(path: Path) -> Table:
    """Read a TOML file.

    Raises:
        ConfigError: if it is missing or not TOML.
    """
    try:
        return parse_toml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such study file") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


def write_toml(table: Table) -> str:
    """Write a table as TOML text; entries that are None are left out, since TOML has no such value."""
    return tomli_w.dumps(_plain(table))


def override(table: Table, settings: Iterable[str]) -> Table:
    """Return a table with `key.of.table=value` settings applied.

    A list of tables with names, such as [[arm]], is addressed by name: `arm.mixup.mix.alpha=0.4`. Values are TOML; what
    is not TOML is taken as text.

    Raises:
        ConfigError: if a setting has no "=", or addresses an arm that does not exist.

    Example:
        >>> override({"train": {"steps": 5}}, ["train.steps=7", "model.name=resnet18"])
        {'train': {'steps': 7}, 'model': {'name': 'resnet18'}}
    """
    changed = _copy(table)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {setting}: expected key.of.table=value, for example train.steps=200")
        _assign(changed, path.strip().split("."), _value(text.strip()), setting)
    return changed


Registries = Mapping[type, Mapping[str, Callable[..., Any]]]
"""Which registry holds the classes that fit an annotation, for tables within tables."""


def build(
    target: Callable[..., T],
    table: Mapping[str, Any],
    *,
    where: str,
    registries: Registries | None = None,
    **injected: Any,
) -> T:
    """Call a constructor with a table.

    Args:
        target: a class whose parameters are annotated.
        table: keyword arguments from a file.
        where: the table's place in the file, for messages.
        registries: for parameters that are themselves built from a table with a name, such as a mixer's importance map.
        **injected: what a file cannot hold; passed where the constructor has such a parameter and the table is silent.

    Raises:
        UnknownNameError: for a key that is no parameter.
        ConfigError: for a value that does not fit its annotation, or a missing one.
    """
    parameters = inspect.signature(target).parameters
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    arguments: Table = {}
    for key, value in table.items():
        if key not in parameters:
            raise UnknownNameError(f"key of {where}", key, parameters)
        arguments[key] = _argument(
            value, hints.get(key, Any), where=f"{where}.{key}", registries=registries or {}, injected=injected
        )
    for key, value in injected.items():
        if key in parameters and key not in arguments:
            arguments[key] = value
    missing = [name for name, p in parameters.items() if p.default is inspect.Parameter.empty and name not in arguments]
    if missing:
        raise ConfigError(f"{where} needs {', '.join(missing)}")
    return target(**arguments)


def build_named(
    registry: Mapping[str, Callable[..., T]],
    table: Mapping[str, Any],
    *,
    kind: str,
    where: str,
    registries: Registries | None = None,
    **injected: Any,
) -> T:
    """Call the constructor that a table names.

    Raises:
        ConfigError: if the table has no name.
        UnknownNameError: if the registry has none of that name.
    """
    rest = dict(table)
    name = rest.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f'{where} needs a name, for example name = "{next(iter(registry))}"')
    return build(look_up(registry, name, kind=kind), rest, where=where, registries=registries, **injected)


def _argument(value: Any, annotation: Any, *, where: str, registries: Registries, injected: Table) -> Any:
    """Build a parameter that is a registered kind of thing, or a tuple of them, from its table; check any other."""
    parts = {annotation, *get_args(annotation)}
    kind = next((kind for kind in registries if kind in parts), None)
    if kind is None:
        return check(value, annotation, where=where)
    if get_origin(annotation) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} = {value!r}: expected a list of tables with a name")
        return tuple(
            _argument(one, kind, where=f"{where}[{i}]", registries=registries, injected=injected)
            for i, one in enumerate(value)
        )
    table = {"name": value} if isinstance(value, str) else check(value, Table, where=where)
    return build_named(registries[kind], table, kind=kind.__name__, where=where, registries=registries, **injected)


def check(value: Any, annotation: Any, *, where: str) -> Any:
    """Validate a value against an annotation, and convert what TOML cannot say (paths, tuples).

    Raises:
        ConfigError: naming the place, what was expected and what came.
    """
    if isinstance(annotation, type) and is_dataclass(annotation):
        named = {"name": value} if isinstance(value, str) and "name" in annotation.__dataclass_fields__ else value
        return (
            value if isinstance(value, annotation) else build(annotation, check(named, Table, where=where), where=where)
        )
    try:
        # Only types that pydantic knows reach this from files; others (arrays, tensors) are injected unchecked.
        return TypeAdapter(annotation, config=_CONFIG).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        expected = first["msg"][:1].lower() + first["msg"][1:]
        guess = _guess(first["input"], first)
        raise ConfigError(f"{where} = {value!r}: {expected}{guess}") from None


_CONFIG = ConfigDict(arbitrary_types_allowed=True, strict=False)


def _guess(value: Any, error: Any) -> str:
    allowed = error.get("ctx", {}).get("expected") if error["type"] == "literal_error" else None
    if not allowed or not isinstance(value, str):
        return ""
    near = closest(value, [word.strip(" '") for word in allowed.replace(" or ", ",").split(",")])
    return f"; did you mean {near!r}?" if near else ""


def _assign(table: Table, path: list[str], value: Any, setting: str) -> None:
    here: Any = table
    for part in path[:-1]:
        if isinstance(here, list):
            names = [entry.get("name") for entry in here]
            if part not in names:
                raise UnknownNameError(f"entry of --set {setting}", part, [n for n in names if n])
            here = here[names.index(part)]
        else:
            # mix = "mixup" is short for mix = { name = "mixup" }.
            if isinstance(here.get(part), str):
                here[part] = {"name": here[part]}
            here = here.setdefault(part, {})
        if not isinstance(here, dict | list):
            raise ConfigError(f"--set {setting}: {part} is a value, not a table")
    if isinstance(here, list):
        raise ConfigError(f"--set {setting}: name a key of the entry, for example {'.'.join(path)}.key=value")
    here[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    return [_copy(entry) for entry in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
