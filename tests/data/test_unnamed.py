"""Numbers in place of groups: the same rows belong together, no name is left, and numbering again changes nothing."""

from pathlib import Path

import numpy as np
import polars as pl

from raremix.data.manifest import Card, Manifest
from raremix.data.unnamed import unnamed_groups


def test_the_same_rows_belong_together() -> None:
    groups = ["Erika", "Max", None, "Erika", "group-000000", None]
    frame = pl.DataFrame(
        {"path": [f"{k}.png" for k in range(6)], "group": groups, "target:a": [1.0, 0] * 3, "target:b": [0.0, 1] * 3}
    )
    before = Manifest(frame=frame, card=Card(name="t", task="binary", classes=("a", "b")), root=Path())
    after = unnamed_groups(before)
    numbered = [f"group-{k:06d}" for k in range(3)]
    assert after.frame["group"].to_list() == [numbered[0], numbered[1], "row:2", numbered[0], numbered[2], "row:5"]
    assert before.frame["group"].to_list()[0] == "Erika"
    assert unnamed_groups(after).frame.equals(after.frame)
    assert np.array_equal(after.targets(), before.targets())


def test_no_groups_at_all() -> None:
    frame = pl.DataFrame({"path": ["a.png", "b.png"], "target:a": [1.0, 0], "target:b": [0.0, 1]})
    manifest = Manifest(frame=frame, card=Card(name="t", task="binary", classes=("a", "b")), root=Path())
    assert unnamed_groups(manifest).frame["group"].equals(manifest.frame["group"])
