"""The chest X-ray study on VinDr-PCXR's layout, which nobody may redistribute: on made-up miniatures."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.data.dicoms import dicom
from tests.data.sources.miniatures import put_images, put_table

from raremix.core import files
from raremix.data.sources.vindr_pcxr import DISEASES
from raremix.study import read_study, run_study

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


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 training and 40 test images as DICOM files of twelve bits, bright where there is pneumonia."""
    folder, draws = tmp_path_factory.mktemp("small"), np.random.default_rng(0)
    for split, count in (("train", 120), ("test", 40)):
        rows = [(f"{split}{i:03}", "Pneumonia" if i % 4 == 0 else "No finding") for i in range(count)]
        put_table(
            folder / f"image_labels_{split}.csv", [",".join(HEADER), *(row(name, "R1", kind) for name, kind in rows)]
        )
        for name, kind in rows:
            pixels = draws.integers(0, 3000, (40, 36)).astype(np.uint16) + 1000 * (kind == "Pneumonia")
            inverted = {"PhotometricInterpretation": "MONOCHROME1"} if name.endswith("3") else {}
            files.write_bytes(
                folder / split / f"{name}.dicom", dicom(pixels.astype(np.uint16), BitsStored=12, **inverted)
            )
    return folder


SMALL = """
extends = "{study}"
[study]
seeds = [0]
resamples = 50
[data]
path = "{data}"
size = 32
[model]
name = "resnet10t"
stem = "standard"
[train]
steps = 2
batch_size = 8
validations = 1
checkpoints = 0
workers = 0
[[generator]]
name = "ldm"
method = {{ name = "latent_diffusion", width = 8, layers = 1, text_width = 32, autoencoder_width = 8 }}
train = {{ steps = 2, batch_size = 4, validations = 0, checkpoints = 0 }}
[[arm]]
name = "classical"
[[arm]]
name = "balanced-sampler"
sampler = "balanced"
[[arm]]
name = "ldm-balanced"
images = {{ generator = "ldm", begin = "own", draw = {{ strength = 0.5, num_inference_steps = 2 }}, to = "balanced" }}
[[arm]]
name = "ldm-balanced-validation"
[arm.images]
generator = "ldm"
begin = "own"
draw = {{ strength = 0.5, num_inference_steps = 2 }}
to = "balanced"
validation = true
[[arm]]
name = "repeated-balanced"
images = {{ name = "repeated", to = "balanced" }}
"""


def test_from_dicom_files_to_the_report(small: Path, tmp_path: Path, no_fsync: None) -> None:
    files.write_text(tmp_path / "small.toml", SMALL.format(study=STUDY, data=small))
    result = run_study(read_study(tmp_path / "small.toml"), runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert result.failed == {}
    record = files.read_json(result.folder / "record.json")
    assert record["data"]["counts"]["test"] == {"No finding": 30, "Pneumonia": 10}
    added = {arm["name"]: arm["added"] for arm in record["arms"]}
    assert added["ldm-balanced"]["train"] == added["repeated-balanced"]["train"]
    assert added["ldm-balanced-validation"]["validation"]["Pneumonia"] > 0
    assert {(one["arm"], one["reference"]) for one in record["controls"]} == {
        ("ldm-balanced", "repeated-balanced"),
        ("ldm-balanced-validation", "repeated-balanced"),
    }
    assert {one["reference"] for one in record["samplings"]} == {"balanced-sampler"}
    assert {one["label"] for one in record["decisions"]} == {"No finding", "Pneumonia"}
    page = result.report.read_text()
    for words in ("no independent witnesses", "Youden", "Right about whom", "against balanced sampling"):
        assert words in page


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
