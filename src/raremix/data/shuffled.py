"""Rows by position in shuffled passes: what the samplers are made of."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int


def walk(
    turns: Int[np.ndarray, " m"],
    *,
    count: int,
    passes: int,
    memo: dict[Any, Any],
    slot: int,
    draw: Callable[[int], Int[np.ndarray, " p"]],
) -> Int[np.ndarray, " m"]:
    """Look turns up in blocks of shuffled passes; the last block is kept, since turns mostly follow one another."""
    size = count * passes
    asked = np.asarray(turns, dtype=np.int64)
    rows = np.empty(len(asked), dtype=np.int64)
    if is_stretch(asked):
        start = int(asked[0])
        for at, part in pieces(start, start + len(asked), size=size, memo=memo, slot=slot, draw=draw):
            rows[at - start : at - start + len(part)] = part
        return rows
    for number, mine in runs(asked // size):
        rows[mine] = block(memo, slot, number, draw)[asked[mine] - number * size]
    return rows


def is_stretch(positions: Int[np.ndarray, " m"]) -> bool:
    """Say whether positions follow one another."""
    if not len(positions) or positions[-1] - positions[0] != len(positions) - 1:
        return False
    return bool((positions[1:] - positions[:-1] == 1).all())


def pieces(
    start: int, stop: int, *, size: int, memo: dict[Any, Any], slot: int, draw: Callable[[int], Int[np.ndarray, " p"]]
) -> Iterator[tuple[int, Int[np.ndarray, " q"]]]:
    """Yield the rows of turns that follow one another, in pieces, each with its first turn."""
    while start < stop:
        number, offset = divmod(start, size)
        part = block(memo, slot, number, draw)[offset : offset + stop - start]
        yield start, part
        start += len(part)


def block(
    memo: dict[Any, Any], slot: int, number: int, draw: Callable[[int], Int[np.ndarray, " p"]]
) -> Int[np.ndarray, " p"]:
    known = memo.get(slot)
    if known is None or known[0] != number:
        known = (number, draw(number))
        memo[slot] = known
    return known[1]


def runs(numbers: Int[np.ndarray, " m"]) -> Iterator[tuple[int, slice | Int[np.ndarray, " r"]]]:
    """Yield each number that occurs, in ascending order, with its places: a slice where they follow one another."""
    if not len(numbers):
        return
    first, last = int(numbers[0]), int(numbers[-1])
    if first == last and (numbers == first).all():
        yield first, slice(0, len(numbers))
        return
    is_ordered = bool((numbers[1:] >= numbers[:-1]).all())
    order = None if is_ordered else np.argsort(numbers, kind="stable")
    found = numbers if order is None else numbers[order]
    edges = [0, *(np.flatnonzero(found[1:] != found[:-1]) + 1).tolist(), len(found)]
    for start, stop in pairwise(edges):
        places = slice(start, stop)
        yield int(found[start]), places if order is None else order[places]
