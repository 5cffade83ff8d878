"""Decode many files in order, ahead of whoever takes them: by threads, and where it pays by processes of their own.

Pillow and pydicom hold Python's lock while they decode, so a second thread gains nothing. A process takes a fifth of a
second to start; the first images say whether that is worth it, and the rest of the first block is decoded meanwhile. A
file that ends its process does not end the run: it is tried again alone, and listed as unreadable if that ends the
process too.
"""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import BinaryIO, cast

import numpy as np

import raremix
from raremix.core.types import Progress
from raremix.data.readers.block import Block, Failure, Form, answer, ask, decode_block

# Decoded images that wait to be written bound the peak of memory, whatever the number of images is.
BLOCK_BYTES = 4 << 20
# Below this much decoding for one process, starting others takes longer than they save.
WORTH_SECONDS = 2.0
# Images that say how long the others will take; the first one also pays for what is imported at first use.
PROBED = 6
# What a process is asked for at once: short, so that all end together, and long against the asking.
PIECE_SECONDS = 0.08
# The worker needs the readers alone: importing the whole of raremix.data would take it seconds, and jaxtyping, which
# annotates, a third of its start.
_WORKER = """
import json, sys, types
sys.path[:] = json.loads(sys.argv[1])
class Annotation:
    def __getitem__(self, shape):
        return object
jaxtyping = types.ModuleType("jaxtyping")
jaxtyping.__getattr__ = lambda name: Annotation()
sys.modules["jaxtyping"] = jaxtyping
data = types.ModuleType("raremix.data")
data.__path__ = [sys.path[0] + "/raremix/data"]
sys.modules["raremix.data"] = data
from raremix.data.readers.block import serve
serve()
"""
_CRASHED: Failure = ("content", "the decoder crashed on it: restore the file, or remove its row")

Decoded = tuple[Block, dict[int, Failure]]
Decode = Callable[[Sequence[Path], Sequence[str], Form], Decoded]


def decoded_blocks(
    paths: Sequence[Path],
    hashes: Sequence[str],
    failures: dict[int, Failure],
    *,
    form: Form,
    workers: int,
    progress: Progress | None = None,
) -> Iterator[np.ndarray]:
    """Yield blocks of decoded images in order, black where a file fails; a few blocks are decoded ahead.

    Args:
        paths: the files.
        hashes: their SHA-256, verified before they are decoded.
        failures: filled with the reason for each place where there is no image.
        form: what the images shall look like.
        workers: processes that decode, where there is enough to do.
        progress: called as blocks are done.
    """
    nbytes = form.channels * form.size**2 * (form.bits // 8)
    length = max(1, min(64, BLOCK_BYTES // max(nbytes, 1)))
    spans = [slice(start, min(start + length, len(paths))) for start in range(0, len(paths), length)]
    done = 0

    def finish(span: slice, block: Block, failed: dict[int, Failure]) -> np.ndarray:
        nonlocal done
        failures.update({span.start + place: failure for place, failure in failed.items()})
        done = span.stop
        if progress is not None:
            progress("decode images", done, len(paths))
        return block

    probed = slice(0, min(PROBED, length, len(paths)))
    timed = [_timed(path, digest, form) for path, digest in zip(paths[probed], hashes[probed], strict=True)]
    each = median(seconds for seconds, _ in timed)
    is_worth_it = each * (len(paths) - len(timed)) >= WORTH_SECONDS
    piece = max(1, min(length, int(PIECE_SECONDS / max(each, 1e-6))))
    rest = iter(spans[1:])
    with _decoders(workers if is_worth_it else 1) as decode, ThreadPoolExecutor(workers) as pool:

        def submit(span: slice) -> tuple[slice, list[Future[Decoded]]]:
            places = range(span.start, span.stop, piece)
            parts = [slice(place, min(place + piece, span.stop)) for place in places]
            return span, [pool.submit(decode, paths[part], hashes[part], form) for part in parts]

        try:
            ahead = deque(submit(span) for span in islice(rest, workers + 2))
            own = slice(probed.stop, spans[0].stop)
            yield finish(spans[0], *_joined([*(one for _, one in timed), decode_block(paths[own], hashes[own], form)]))
            while ahead:
                span, futures = ahead.popleft()
                block, failed = _joined([future.result() for future in futures])
                following = next(rest, None)
                if following is not None:
                    ahead.append(submit(following))
                yield finish(span, block, failed)
        finally:
            pool.shutdown(cancel_futures=True)


def _timed(path: Path, digest: str, form: Form) -> tuple[float, Decoded]:
    start = time.perf_counter()
    decoded = decode_block([path], [digest], form)
    return time.perf_counter() - start, decoded


def _joined(parts: Sequence[tuple[np.ndarray, dict[int, Failure]]]) -> tuple[np.ndarray, dict[int, Failure]]:
    """Return consecutive blocks of any lengths as one."""
    if len(parts) == 1:
        return parts[0]
    failures, before = {}, 0
    for block, failed in parts:
        failures |= {before + place: failure for place, failure in failed.items()}
        before += len(block)
    return np.concatenate([block for block, _ in parts]), failures


@contextmanager
def _decoders(processes: int) -> Iterator[Decode]:
    """Yield a function that decodes a block: here, or by the next free of several processes."""
    if processes < 2 or not sys.executable:
        yield decode_block
        return
    free: SimpleQueue[_Worker] = SimpleQueue()
    team = [_Worker() for _ in range(processes)]
    for worker in team:
        free.put(worker)

    def decode(paths: Sequence[Path], hashes: Sequence[str], form: Form) -> Decoded:
        worker = free.get()
        try:
            return worker.decode(paths, hashes, form)
        finally:
            free.put(worker)

    try:
        yield decode
    finally:
        for worker in team:
            worker.close()


class _Worker:
    """A process that decodes, started again where a file ends it."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        source = Path(str(raremix.__file__)).parents[1]
        # A session of its own: Ctrl-C is for whoever asks, who decides what is still finished.
        self._process = subprocess.Popen(
            # Without `site`, whose start takes longer than Python's: the paths that it found are handed on.
            [sys.executable, "-S", "-c", _WORKER, json.dumps([str(source), *map(str, sys.path)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # Nothing here multiplies matrices, and threads for it take time to start.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._asked, self._said = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)

    def decode(self, paths: Sequence[Path], hashes: Sequence[str], form: Form) -> Decoded:
        """Decode a block; where the process ends over it, file by file."""
        try:
            return self._ask(paths, hashes, form)
        except (EOFError, BrokenPipeError):
            self.close()
            self._start()
        if len(paths) == 1:
            return np.zeros((1, form.channels, form.size, form.size), dtype=form.dtype), {0: _CRASHED}
        return _joined([self.decode(paths[i : i + 1], hashes[i : i + 1], form) for i in range(len(paths))])

    def _ask(self, paths: Sequence[Path], hashes: Sequence[str], form: Form) -> Decoded:
        ask(self._asked, paths, hashes, form)
        return answer(self._said, len(paths), form)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for pipe in (self._asked, self._said):
            with suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()
