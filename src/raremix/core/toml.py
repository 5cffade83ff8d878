"""Read TOML files that somebody else may have written: what Python's parser would take hours or all memory for."""

import tomllib
from pathlib import Path
from typing import Any

# Study files have a few kilobytes, the table of all rules 30.
MAX_BYTES = 1 << 20
# Of a key of n parts, Python's parser keeps n tuples of up to n parts: 200 kB of "a.a.a" take 40 GB.
MAX_DOTS = 100


def parse_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not TOML, or larger or deeper than any that a person writes.

    Example:
        ``parse_toml(Path("study.toml"))["study"]["seeds"]``
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES >> 10:,} KiB")
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.count(b".") > MAX_DOTS:
            raise ValueError(f"line {number} has more than {MAX_DOTS} dots")
    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
