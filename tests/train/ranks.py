"""What each process of a run over several ranks does."""

import json
import warnings
from contextlib import suppress
from pathlib import Path

from lightning_fabric import Fabric
from tests.train.toys import Toy

from raremix.core.errors import StoppedError
from raremix.train import fit


def train(fabric: Fabric, *, toy: Toy, folder: Path, stop_at: int) -> None:
    """Train this rank's share until a step, and write down what it saw."""
    task = toy.task(rank=fabric.global_rank)
    done = [0]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with suppress(StoppedError):
            fit(
                task,
                toy.feed(rank=fabric.global_rank, ranks=fabric.world_size),
                spec=toy.spec,
                fabric=fabric,
                folder=folder,
                identity=toy.identity,
                progress=lambda what, step, total: done.__setitem__(0, step),
                # Only the second rank asks: all must follow.
                should_stop=lambda: fabric.global_rank == 0 and done[0] + 1 >= stop_at,
            )
    said = {"steps": task.steps, "warnings": [str(w.message) for w in warned]}
    (folder / f"rank{fabric.global_rank}.json").write_text(json.dumps(said))
