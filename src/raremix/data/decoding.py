"""Decode many files in order, ahead of whoever takes them: by threads, and where it pays by processes of their own.

Pillow and pydicom hold Python's lock while they decode, so a second thread gains nothing. A process costs half a second
to start; the first block says whether that is worth it. A file that ends its process does not end the run: it is tried
again alone, and listed as unreadable if that ends the process too.
"""

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
from typing import BinaryIO, cast

import numpy as np

import raremix
from raremix.core.types import Progress
from raremix.data.readers.block import Block, Failure, Form, answer, ask, decode_block

# Decoded images that wait to be written bound the peak of memory, whatever the number of images is.
BLOCK_BYTES = 4 << 20
# Below this much decoding for one process, starting others takes longer than they save.
WORTH_SECONDS = 2.0
# The worker needs the readers alone; importing the whole of raremix.data would take it seconds.
_WORKER = """
import sys, types
sys.path.insert(0, sys.argv[1])
data = types.ModuleType("raremix.data")
data.__path__ = [sys.argv[1] + "/raremix/data"]
sys.modules["raremix.data"] = data
from raremix.data.readers.block import serve
serve()
"""
_CRASHED: Failure = ("content", "the decoder crashed on it: restore the file, or remove its row")

Decode = Callable[[Sequence[Path], Sequence[str], Form], tuple[Block, dict[int, Failure]]]


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
    each = form.channels * form.size**2 * (form.bits // 8)
    length = max(1, min(64, BLOCK_BYTES // max(each, 1)))
    spans = [slice(start, min(start + length, len(paths))) for start in range(0, len(paths), length)]
    done = 0

    def finish(span: slice, block: Block, failed: dict[int, Failure]) -> np.ndarray:
        nonlocal done
        failures.update({span.start + place: failure for place, failure in failed.items()})
        done = span.stop
        if progress is not None:
            progress("decode images", done, len(paths))
        return block

    start = time.perf_counter()
    head = spans[0]
    yield finish(head, *decode_block(paths[head], hashes[head], form))
    left = (time.perf_counter() - start) * (len(spans) - 1)
    rest = iter(spans[1:])
    with _decoders(workers if left >= WORTH_SECONDS else 1) as decode, ThreadPoolExecutor(workers) as pool:

        def submit(span: slice) -> tuple[slice, Future[tuple[Block, dict[int, Failure]]]]:
            return span, pool.submit(decode, paths[span], hashes[span], form)

        ahead = deque(submit(span) for span in islice(rest, workers + 2))
        while ahead:
            span, future = ahead.popleft()
            block, failed = future.result()
            following = next(rest, None)
            if following is not None:
                ahead.append(submit(following))
            yield finish(span, block, failed)


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

    def decode(paths: Sequence[Path], hashes: Sequence[str], form: Form) -> tuple[Block, dict[int, Failure]]:
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
            [sys.executable, "-c", _WORKER, str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._asked, self._said = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)

    def decode(self, paths: Sequence[Path], hashes: Sequence[str], form: Form) -> tuple[Block, dict[int, Failure]]:
        """Decode a block; where the process ends over it, file by file."""
        try:
            return self._ask(paths, hashes, form)
        except (EOFError, BrokenPipeError):
            self.close()
            self._start()
        if len(paths) == 1:
            return np.zeros((1, form.channels, form.size, form.size), dtype=form.dtype), {0: _CRASHED}
        parts = [self.decode(paths[i : i + 1], hashes[i : i + 1], form) for i in range(len(paths))]
        failed = {place: failure for place, (_, found) in enumerate(parts) for failure in found.values()}
        return np.concatenate([block for block, _ in parts]), failed

    def _ask(self, paths: Sequence[Path], hashes: Sequence[str], form: Form) -> tuple[Block, dict[int, Failure]]:
        ask(self._asked, paths, hashes, form)
        return answer(self._said, len(paths), form)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for pipe in (self._asked, self._said):
            with suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()
