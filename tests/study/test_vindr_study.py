"""The chest X-ray study on VinDr-PCXR's layout, which nobody may redistribute: its plan, on a made-up miniature."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.sources.miniatures import put_images, put_table

from raremix.data.sources.vindr_pcxr import DISEASES

STUDY = Path(__file__).parents[2] / "studies" / "cxr_ldm_vindr.toml"
HEADER = ["image_id", "rad_ID", "No finding", *DISEASES]
# Of ten images one shows each disease of the two tasks, and one another disease.
KINDS = ["Pneumonia", "Brocho-pneumonia", *["No finding"] * 7, "Bronchitis"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training images 0 .. 299 and test images 0 .. 99, each read by one radiologist, the first by two who differ."""
    folder = tmp_path_factory.mktemp("pcxr")
    for split, count in (("train", 300), ("test", 100)):
        rows = [(f"{split}{i:03}", KINDS[i % len(KINDS)]) for i in range(count)]
        lines = [row(name, "R1", kind) for name, kind in rows]
        put_table(
            folder / f"image_labels_{split}.csv",
            [",".join(HEADER), *lines, row(f"{split}000", "R2", "No finding")],
        )
        put_images(folder, [f"{split}/{name}.dicom" for name, _ in rows], size=8, channels=1)
    return folder


def row(image: str, reader: str, kind: str) -> str:
    return ",".join([image, reader, *(str(int(name == kind)) for name in HEADER[2:])])


@pytest.mark.parametrize(
    ("disease", "images"), [("Pneumonia", "79 images, 9 of"), ("Brocho-pneumonia", "80 images, 10 of")]
)
def test_both_tasks_are_planned(
    disease: str,
    images: str,
    root: Path,
    tmp_path: Path,
    run: Callable[..., tuple[int, str, str]],
    no_fsync: None,
) -> None:
    where = {"data.path": str(root), "data.classes": json.dumps(["No finding", disease]), "data.size": "80"}
    settings = [word for key, value in where.items() for word in ("--set", f"{key}={value}")]
    folders = ["--runs", tmp_path / "runs", "--cache", tmp_path / "cache"]
    code, said, told = run("study", STUDY, *settings, *folders, "--dry-run", "--json")
    assert code == 0, told
    plan = json.loads(said)
    assert plan["generators"] == ["ldm (30000 steps)"]
    assert plan["jobs"] == 5 * len(plan["arms"])
    assert {"baseline", "ldm-balanced-validation", "repeated-balanced", "ldm-from-normals"} < set(plan["arms"])
    # The first test image is left open by its readers, and those with bronchitis belong to neither class.
    assert images in plan["decidable"]["text"]
    assert not (tmp_path / "runs").exists()
