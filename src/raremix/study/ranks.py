"""Train in several processes: their errors, their progress, and the wish to stop cross over."""

import os
import signal
from collections.abc import Callable
from functools import partial
from threading import Event, Thread
from typing import Any, TypeVar

from lightning_fabric import Fabric
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessException

from raremix.core.errors import RaremixError, RunError, StoppedError
from raremix.core.types import Progress
from raremix.train import TrainSpec
from raremix.train.spec import make_fabric

LOOK = 0.2
"""Seconds between two looks at whether to stop, and at how far the ranks are."""

Result = TypeVar("Result")


def launch(
    work: Callable[..., Result],
    *,
    train: TrainSpec,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Do some work in as many processes as a [train] table asks for, and wait for all of them.

    Args:
        work: what every rank does: a function of a module, which is called with the rank's Fabric and the keywords
            progress (None but on the first rank) and should_stop. It is sent to other processes, and so is all that
            `functools.partial` bound to it.
        train: the table, of more than one device.
        progress: called here now and then, with what the first rank reported last.
        should_stop: asked here; the ranks hear of it.

    Returns:
        What the first rank returned.

    Raises:
        StoppedError, RunError: as the first rank that failed did.
    """
    context = multiprocessing.get_context("spawn")
    stop, errors, over = context.Event(), context.SimpleQueue(), Event()
    reached = context.Array("q", 2)

    def watch() -> None:
        told, is_over = 0, False
        while not is_over:
            is_over = over.wait(LOOK)
            if should_stop():
                stop.set()
            done, total = reached[:]
            if progress is not None and done > told:
                progress("training", done, total)
                told = done

    # The arguments are bound: Fabric looks for modules in what it is given, and refuses frozen dataclasses.
    rank = partial(_rank, work=work, stop=stop, errors=errors, reached=reached)
    before = set(multiprocessing.active_children())
    watcher = Thread(target=watch, name="raremix-watch", daemon=True)
    watcher.start()
    try:
        return make_fabric(train).launch(rank)
    except ProcessException as error:
        if errors.empty():
            raise RunError(f"a training process failed: {str(error).strip().splitlines()[-1]}") from error
        was_stopped, text = errors.get()
        raise (StoppedError if was_stopped else RunError)(text) from None
    finally:
        over.set()
        watcher.join()
        for child in set(multiprocessing.active_children()) - before:
            child.kill()


def _rank(fabric: Fabric, *, work: Callable[..., Result], stop: Any, errors: Any, reached: Any) -> Result:
    parent = os.getppid()

    def interrupted(number: int, frame: object) -> None:
        # Ctrl-C reaches every process of a terminal, and the first one decides. Its death is told by the same signal.
        if os.getppid() != parent:
            os._exit(1)

    def report(what: str, done: int, total: int) -> None:
        reached[:] = [done, total]

    signal.signal(signal.SIGINT, interrupted)
    try:
        return work(fabric, progress=report if fabric.is_global_zero else None, should_stop=stop.is_set)
    except RaremixError as error:
        errors.put((isinstance(error, StoppedError), str(error)))
        raise
