"""Look a name up in a package's literal registry."""

from collections.abc import Mapping
from typing import TypeVar

from raremix.core.errors import UnknownNameError

T = TypeVar("T")


def look_up(registry: Mapping[str, T], name: str, *, kind: str) -> T:
    """Return what a registry holds under a name.

    Args:
        registry: a literal mapping from names to classes or functions.
        name: the name to look up.
        kind: what the registry holds, in the singular, for the error message.

    Raises:
        UnknownNameError: with the nearest known name, if there is none of that name.

    Example:
        >>> look_up({"mixup": dict}, "mixup", kind="mixer")
        <class 'dict'>
    """
    try:
        return registry[name]
    except (KeyError, TypeError):
        raise UnknownNameError(kind, str(name), registry) from None
