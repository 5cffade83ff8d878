from pathlib import Path

import numpy as np
import pytest
from tests.data.sources.miniatures import put_images, put_table

from raremix.config import build
from raremix.core.errors import ConfigError, ManifestError, TargetError, UnknownNameError
from raremix.data.sources.chexpert import OBSERVATIONS, CheXpert

HEADER = ",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding", *OBSERVATIONS])
EDEMA, ATELECTASIS = OBSERVATIONS.index("Edema"), OBSERVATIONS.index("Atelectasis")


def line(path: str, *, view: str = "Frontal,AP", root: str = "CheXpert-v1.0-small", **found: str) -> str:
    values = [found.get(name.replace(" ", "_"), "") for name in OBSERVATIONS]
    return ",".join([f"{root}/{path}", "Female", "68", view, "", *values])


def put(root: Path, *, name: str = "CheXpert-v1.0-small") -> Path:
    rows = {
        "train/patient00001/study1/view1_frontal.jpg": {"Edema": "1.0", "Atelectasis": "-1.0"},
        "train/patient00001/study2/view1_frontal.jpg": {"Edema": "-1.0"},
        "train/patient00002/study1/view2_lateral.jpg": {"view": "Lateral,", "Edema": "0.0"},
    }
    valid = {"valid/patient64541/study1/view1_frontal.jpg": {"Edema": "0.0", "Atelectasis": "1.0"}}
    put_images(root, [*rows, *valid], channels=1)
    put_table(root / "train.csv", [HEADER, *(line(p, root=name, **found) for p, found in rows.items())])
    put_table(root / "valid.csv", [HEADER, *(line(p, root=name, **found) for p, found in valid.items())])
    return root


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("ignore", (np.nan, np.nan)),
        ("empty", (np.nan, np.nan)),
        ("zeros", (0.0, 0.0)),
        ("ones", (1.0, 1.0)),
        ({"Edema": "ones", "Atelectasis": "zeros"}, (0.0, 1.0)),
    ],
)
def test_uncertain_labels(tmp_path: Path, policy: object, expected: tuple[float, float]) -> None:
    source = build(CheXpert, {"path": str(put(tmp_path / "d")), "uncertain": policy}, where="data")
    manifest = source.load(cache=tmp_path / "c")
    assert manifest.frame["path"].to_list() == [
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00001/study2/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    ]
    assert manifest.frame["group"].to_list() == ["patient00001", "patient00001", "patient64541"]
    assert manifest.frame["split"].to_list() == ["train", "train", "validation"]
    targets = manifest.targets()
    np.testing.assert_array_equal((targets[0, ATELECTASIS], targets[1, EDEMA]), expected)
    # What is not mentioned counts as absent, as in the published baselines.
    assert targets[1, ATELECTASIS] == 0
    assert manifest.attributes == ["sex", "age_band", "view"]


def test_uncertain_labels_need_a_policy(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    with pytest.raises(TargetError, match="-1 in column 'Edema', 1 times: say what it counts as"):
        CheXpert(path=root).load(cache=tmp_path / "c")
    with pytest.raises(TargetError, match="-1 in column 'Atelectasis'"):
        CheXpert(path=root, uncertain={"Edema": "ones"}).load(cache=tmp_path / "c")
    with pytest.raises(UnknownNameError, match="did you mean 'Edema'"):
        CheXpert(path=root, uncertain={"Edma": "ones"})
    with pytest.raises(ConfigError, match="uncertain"):
        build(CheXpert, {"path": "x", "uncertain": "one"}, where="data")


def test_blank_and_view(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    empty = CheXpert(path=root, uncertain="ones", blank="empty", view="all").load(cache=tmp_path / "c")
    assert len(empty) == 4
    assert np.isnan(empty.targets()[1, ATELECTASIS])
    lateral = CheXpert(path=root, uncertain="ones", view="lateral", labels=["Edema"]).load(cache=tmp_path / "c")
    assert lateral.frame["path"].to_list() == ["train/patient00002/study1/view2_lateral.jpg"]
    assert lateral.card.classes == ("Edema",)


def test_large_release_and_missing_images(tmp_path: Path) -> None:
    root = put(tmp_path / "anything", name="CheXpert-v1.0")
    assert len(CheXpert(path=root, uncertain="ones").load(cache=tmp_path / "c")) == 3
    (root / "train/patient00001/study2/view1_frontal.jpg").unlink()
    with pytest.raises(ManifestError, match="1 of 3 files are missing"):
        CheXpert(path=root, uncertain="ones").load(cache=tmp_path / "c")
    assert len(CheXpert(path=root, uncertain="ones", subset=True).load(cache=tmp_path / "c")) == 2


def test_refusals(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    put_table(root / "train.csv", [HEADER, line("train/patient00001/study1/view1_frontal.jpg", Edema="2")])
    with pytest.raises(TargetError, match="'Edema' other than 1, 0, -1 or empty"):
        CheXpert(path=root, uncertain="ones").load(cache=tmp_path / "c")
    put_table(root / "train.csv", [HEADER, line("train/p1/view1_frontal.jpg")])
    with pytest.raises(ManifestError, match="no patient in the path"):
        CheXpert(path=root, uncertain="ones").load(cache=tmp_path / "c")
    put_table(root / "train.csv", [HEADER, line("../../patient1/x.jpg")])
    with pytest.raises(ManifestError, match="below the root"):
        CheXpert(path=root, uncertain="ones").load(cache=tmp_path / "c")
    (root / "train.csv").unlink()
    with pytest.raises(ManifestError, match="no table of the training images"):
        CheXpert(path=root).load(cache=tmp_path / "c")
