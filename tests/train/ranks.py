"""What each process of a run over several ranks does."""

import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lightning_fabric import Fabric
from tests.train.toys import Toy
from torch import nn

from raremix.core.errors import StoppedError
from raremix.train import fit
from raremix.train.inference import predict_logits


def train(fabric: Fabric, *, toy: Toy, folder: Path, stop_at: int) -> None:
    """Train this rank's share until a step, and write down what it saw."""
    task, feed = toy.task(rank=fabric.global_rank), toy.feed(rank=fabric.global_rank, ranks=fabric.world_size)
    done = [0]

    def validate(modules: Mapping[str, nn.Module]) -> dict[str, float]:
        logits = predict_logits(modules["classifier"], feed.images, feed.ids, num_classes=toy.classes)
        return {"mean": float(logits.mean())}

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with suppress(StoppedError):
            fit(
                task,
                feed,
                spec=toy.spec,
                fabric=fabric,
                folder=folder,
                identity=toy.identity,
                validate=None if toy.metric is None else validate,
                metric=toy.metric,
                progress=lambda what, step, total: done.__setitem__(0, step),
                # Only the second rank asks: all must follow.
                should_stop=lambda: fabric.global_rank == 0 and done[0] + 1 >= stop_at,
            )
    said = {"steps": task.steps, "warnings": [str(w.message) for w in warned]}
    (folder / f"rank{fabric.global_rank}.json").write_text(json.dumps(said))
