"""The same run over one process, two, and one again."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.ranks import train
from tests.train.toys import SPEC, Toy

from raremix.train.spec import make_fabric

TOY = Toy(mixer="none", norm=False, spec=replace(SPEC, batch_size=4, workers=1), rows=18)


def test_one_rank_two_ranks_one_rank(tmp_path: Path) -> None:
    """The global order never changes, and the weights agree but for the order in which numbers are added."""
    whole = TOY.run(tmp_path / "whole")
    cut = tmp_path / "cut"
    first = TOY.run(cut, stop_at=4)
    two = replace(TOY, spec=replace(TOY.spec, devices=2))
    make_fabric(two.spec).launch(partial(train, toy=two, folder=cut, stop_at=8))
    said = [json.loads((cut / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    with pytest.warns(UserWarning, match="ranks: 2 -> 1"):
        last = TOY.run(cut)

    seen: dict[int, Any] = {step: entry["ids"] for step, entry in (first.task.steps | last.task.steps).items()}
    for step in map(str, range(4, 8)):
        seen[int(step)] = said[0]["steps"][step]["ids"] + said[1]["steps"][step]["ids"]
    assert all(set(one["steps"]) == set(map(str, range(4, 8))) for one in said)
    assert seen == {step: entry["ids"] for step, entry in whole.task.steps.items()}
    for step in range(8, 12):
        assert last.task.steps[step]["images"] == whole.task.steps[step]["images"]

    assert whole.result is not None
    assert last.result is not None
    for key, value in whole.result.weights["classifier"].items():
        torch.testing.assert_close(last.result.weights["classifier"][key], value, atol=1e-6, rtol=0)
    assert not last.result.exact
    assert [note.partition(":")[2].strip() for note in last.result.notes] == ["ranks: 1 -> 2", "ranks: 2 -> 1"]
    assert all("ranks: 1 -> 2" in one["warnings"][0] for one in said)


@pytest.mark.slow
def test_the_first_rank_validates_alone(tmp_path: Path) -> None:
    """Without an average the trained network itself is scored, whose batch statistics no other rank waits for."""
    toy = replace(TOY, norm=True, metric="mean", spec=replace(TOY.spec, devices=2, average=0.0, validations=2))
    make_fabric(toy.spec).launch(partial(train, toy=toy, folder=tmp_path, stop_at=99))
    said = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert all(set(one["steps"]) == set(map(str, range(12))) for one in said)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum("validation/mean" in str(entry) for entry in log) == 2
    # What is logged is of all ranks, not of the first one's images.
    both = [[float.fromhex(one["steps"][str(step)]["loss"]) for one in said] for step in range(12)]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses == pytest.approx([(a + b) / 2 for a, b in both])
    assert losses != pytest.approx([a for a, _ in both])
