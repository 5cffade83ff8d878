"""Decode a block of files into one array; in this process, or in a worker that is asked over a pipe."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import UInt8, UInt16

from raremix.core.errors import ReadError
from raremix.data.readers.decode import decode_fitted
from raremix.data.readers.fit import Resize
from raremix.data.readers.limits import read_bytes
from raremix.data.readers.reading import Reading

Block = UInt8[np.ndarray, "n C H W"] | UInt16[np.ndarray, "n C H W"]
Failure = tuple[Literal["file", "content"], str]
"""Whether a file could not be read or its content not be decoded, and the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What decoded images look like.

    Attributes:
        size, channels, bits, resize: see `raremix.data.readers.fit_image`.
        reading: which frame and range of values.
    """

    size: int
    channels: int
    bits: int
    resize: Resize
    reading: Reading

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The array's type."""
        return np.uint8 if self.bits == 8 else np.uint16


def decode_block(paths: Sequence[Path], hashes: Sequence[str], form: Form) -> tuple[Block, dict[int, Failure]]:
    """Decode files, black where one fails.

    Args:
        paths: the files.
        hashes: their SHA-256, verified before they are decoded.
        form: what the images shall look like.

    Returns:
        The images, and the reason for each place where there is none.
    """
    block = np.zeros((len(paths), form.channels, form.size, form.size), dtype=form.dtype)
    failures: dict[int, Failure] = {}
    for place, (path, digest) in enumerate(zip(paths, hashes, strict=True)):
        kind: Literal["file", "content"] = "file"
        try:
            data = read_bytes(path, sha256=digest)
            kind = "content"
            block[place] = decode_fitted(
                data,
                name=path.name,
                size=form.size,
                channels=form.channels,
                bits=form.bits,
                resize=form.resize,
                reading=form.reading,
            ).transpose(2, 0, 1)
        except ReadError as error:
            failures[place] = (kind, error.reason)
    return block, failures


def ask(pipe: BinaryIO, paths: Sequence[Path], hashes: Sequence[str], form: Form) -> None:
    """Ask a worker for a block."""
    request = {"paths": [str(path) for path in paths], "hashes": list(hashes), "form": asdict(form)}
    pipe.write(json.dumps(request).encode() + b"\n")
    pipe.flush()


def answer(pipe: BinaryIO, count: int, form: Form) -> tuple[Block, dict[int, Failure]]:
    """Read a worker's answer.

    Raises:
        EOFError: if the worker has ended.
    """
    line = pipe.readline()
    block = np.empty((count, form.channels, form.size, form.size), dtype=form.dtype)
    if not line.endswith(b"\n") or pipe.readinto(block.data.cast("B")) != block.nbytes:  # pyright: ignore[reportAttributeAccessIssue]
        raise EOFError
    return block, {place: (kind, reason) for place, kind, reason in json.loads(line)}


def serve() -> None:
    """Answer requests from standard input on standard output until it is closed; also when whoever asks was killed."""
    asked, said = sys.stdin.buffer, sys.stdout.buffer
    while line := asked.readline():
        request = json.loads(line)
        form = _form(request["form"])
        block, failures = decode_block([Path(path) for path in request["paths"]], request["hashes"], form)
        said.write(json.dumps([[place, *failure] for place, failure in failures.items()]).encode() + b"\n")
        said.write(block.data.cast("B"))
        said.flush()


def _form(table: dict[str, Any]) -> Form:
    reading = dict(table["reading"])
    if isinstance(reading["window"], list):
        reading["window"] = tuple(reading["window"])
    return Form(**{**table, "reading": Reading(**reading)})
