"""Where a classifier's maps lie, in the report of a study whose images have true masks."""

from pathlib import Path
from typing import Any

from raremix.core import files
from raremix.study import lesions as module
from raremix.study import parse_study, run_study


def test_maps_are_scored_once_and_stand_in_the_report(tmp_path: Path, monkeypatch: Any) -> None:
    spec = parse_study(
        {
            "study": {"name": "s", "seeds": [0], "resamples": 50},
            "data": {"source": "phantom", "images": 80, "classes": 2, "imbalance_ratio": 3, "size": 32, "channels": 1},
            "model": {"name": "resnet10t", "stem": "standard"},
            "train": {"steps": 2, "batch_size": 8, "validations": 1, "checkpoints": 0, "workers": 0},
            "evaluate": {"localise": 3},
        },
        base=Path(),
    )
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    found = files.read_json(result.folder / "record.json")["lesions"]
    assert found["images"] == 3
    names = [row["map"] for row in found["rows"]]
    assert {"uniform", "centre", "gradcam", "fine_grained"} <= set(names)
    assert not {"occlusion", "hyperplane"} & set(names)
    for row in found["rows"]:
        assert all(0 <= one["value"] <= 1 for one in row["figures"].values())
    page = result.report.read_text()
    assert "Where the classifier looks" in page
    assert "on 3 test images" in page

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("what is known is not measured again")

    monkeypatch.setattr(module, "score_maps", never)
    run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert files.read_json(result.folder / "record.json")["lesions"] == found
