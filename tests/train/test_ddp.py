"""Two gloo processes: the same order and draws as one, the same weights where no batch statistics are involved."""

from pathlib import Path

import polars as pl
import pytest
import safetensors.torch
import torch

from raremix.study import parse_study, run_study


def trained(place: Path, *, devices: int) -> tuple[dict[str, torch.Tensor], pl.DataFrame]:
    spec = parse_study(
        {
            "study": {"name": f"ranks{devices}", "seeds": [0], "resamples": 100},
            "data": {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 3, "size": 64},
            # No batch statistics, so that a rank's half of a batch gives the same gradient as the whole one.
            "model": {"name": "convnext_atto", "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}},
            "train": {
                "steps": 4,
                "batch_size": 8,
                "validations": 1,
                "checkpoints": 2,
                "devices": devices,
                "accelerator": "cpu",
            },
            "arm": [{"name": "plain", "augment": "classical"}],
        },
        base=Path(),
    )
    result = run_study(spec, runs=place / "runs", cache=place / "cache")
    assert result.failed == {}
    job = next((result.folder / "jobs").glob("*/result"))
    return safetensors.torch.load_file(job / "classifier" / "model.safetensors"), pl.read_parquet(
        job / "predictions.parquet"
    )


@pytest.mark.filterwarnings("ignore")  # the workers' own, about being forked off a program with threads
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    one, said_one = trained(tmp_path, devices=1)
    two, said_two = trained(tmp_path, devices=2)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    assert said_one["id"].to_list() == said_two["id"].to_list()
