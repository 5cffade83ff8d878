"""Scoring maps on phantoms, whose lesions are known: a classifier that looks at the lesion has maps that find it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from raremix import cli
from raremix.core.errors import ConfigError, HeldOutError, ManifestError, UnknownNameError
from raremix.data.manifest import Manifest
from raremix.data.sources.phantom import Phantom
from raremix.explain import FunctionMap
from raremix.models import Classifier, ClassifierCard, ClassifierSpec, save_classifier
from raremix.study.localise.maps import AwayFromOwn, candidates, centre
from raremix.study.localise.masks import fit_mask, masked_rows
from raremix.study.localise.score import ScoreSettings, score_maps, summarise, write_scores

PHANTOM = Phantom(modality="chest_xray", images=60, size=28, classes=2, imbalance_ratio=1.0)
QUICK = ScoreSettings(maps=("gradcam", "input_gradient"), most=6, steps=2, shown=2, resamples=100)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return PHANTOM.load(cache=tmp_path_factory.mktemp("phantoms"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest) -> Path:
    """An untrained classifier of the phantoms."""
    spec = ClassifierSpec(name="resnet10t", stem="standard")
    model = spec.build(num_classes=2, size=28, channels=1, seed=0)
    assert isinstance(model, Classifier)
    card = ClassifierCard(
        task=manifest.card.task,
        classes=tuple(manifest.card.classes),
        size=28,
        channels=1,
        bits=8,
        resize="stretch",
        thresholds=(0.5, 0.5),
        temperature=1.0,
        modality="chest_xray",
        manifest_hash="",
        training={},
    )
    return save_classifier(
        tmp_path_factory.mktemp("models") / "classifier",
        architecture="resnet10t",
        weights=model.net.state_dict(),
        mean=(0.5,),
        std=(0.25,),
        options={},
        card=card,
    )


def test_only_rows_with_something_to_find_count(classifier: Path, manifest: Manifest) -> None:
    found = score_maps(classifier, manifest, settings=QUICK)
    sick = set(manifest.rows("test")[manifest.targets(manifest.rows("test"))[:, 1] == 1].tolist())
    assert found.with_masks == len(sick)
    assert found.without_masks == len(manifest.rows("test")) - len(sick)
    assert set(found.images["id"]) <= sick
    assert found.images["map"].unique(maintain_order=True).to_list() == [
        "uniform",
        "centre",
        "gradcam",
        "input_gradient",
    ]
    assert found.scored[0] == 6
    assert found.images.group_by("id").len()["len"].to_list() == [4] * 6


def test_uniform_maps_score_the_share_of_the_mask(classifier: Path, manifest: Manifest) -> None:
    found = score_maps(classifier, manifest, settings=QUICK).images.filter(pl.col("map") == "uniform")
    for figure in ("pointing", "energy", "iou_best", "iou_half"):
        np.testing.assert_allclose(found[figure], found["area"])
    np.testing.assert_allclose(found["auroc"], 0.5)
    assert found["is_flat"].all()


def test_scores_are_those_of_the_true_masks(
    classifier: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map that is the mask itself is perfect, which needs image, mask and row to belong together."""
    cohort = PHANTOM.draw_cohort()
    by_image = {}
    for row in range(PHANTOM.images):
        picture = PHANTOM.render(row, cohort=cohort)
        by_image[picture.image.tobytes()] = next(iter(picture.masks.values()), np.zeros((28, 28), dtype=bool))

    def true_mask(images: Tensor, targets: Tensor) -> Tensor:
        return torch.stack(
            [torch.from_numpy(by_image[bytes((one * 255).round().byte().numpy())]) for one in images[:, 0]]
        ).float()

    monkeypatch.setattr("raremix.study.localise.maps.centre", FunctionMap(function=true_mask))
    found = score_maps(classifier, manifest, settings=QUICK)
    best = found.summary.filter(pl.col("map") == "centre")
    figures = dict(zip(best["figure"], best["value"], strict=True))
    assert [figures[name] for name in ("pointing", "energy", "iou_best", "iou_half", "auroc")] == [1, 1, 1, 1, 1]


def test_same_seed_same_scores_and_files(classifier: Path, manifest: Manifest, tmp_path: Path) -> None:
    one, two = (score_maps(classifier, manifest, settings=QUICK) for _ in range(2))
    assert one.images.equals(two.images)
    assert one.summary.equals(two.summary)
    paths = write_scores(one, tmp_path, facts={"data": "phantom"})
    stored = json.loads(Path(paths["summary"]).read_text())
    assert stored["scored"] == 6
    assert len(stored["maps"]) == 4 * 7
    assert Path(paths["picture"]).stat().st_size > 0
    assert pl.read_csv(paths["images"])["probability"].is_between(0, 1).all()
    assert one.sheet.shape[1] > 4 * 72  # image, mask, centre, two maps


def test_gains_are_over_both_baselines() -> None:
    rows = [
        {"id": n, "group": str(n), "map": name, "is_flat": False, "energy": value + 0.01 * (n % 2)}
        for name, value in (("uniform", 0.1), ("centre", 0.3), ("good", 0.5), ("middling", 0.2))
        for n in range(8)
    ]
    found = summarise(pl.DataFrame(rows), resamples=100).filter(pl.col("figure") == "energy")
    assert dict(zip(found["map"], found["beats"], strict=True)) == {
        "uniform": False,
        "centre": False,
        "good": True,
        "middling": False,
    }
    middling = found.row(3, named=True)
    assert middling["gain_uniform"] == pytest.approx(0.1)
    assert middling["gain_centre"] == pytest.approx(-0.1)


def test_low_deletion_is_good() -> None:
    rows = [
        {"id": n, "group": str(n), "map": name, "is_flat": False, "deletion": value}
        for name, value in (("uniform", 0.5), ("centre", 0.4), ("good", 0.1))
        for n in range(4)
    ]
    found = summarise(pl.DataFrame(rows), resamples=100)
    assert found["beats"].to_list() == [False, False, True]
    assert found["gain_centre"].to_list()[2] == pytest.approx(0.3)


def test_says_what_is_missing(classifier: Path, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'gradcam'"):
        score_maps(classifier, manifest, settings=ScoreSettings(maps=("gradcan",)))
    with pytest.raises(ConfigError, match="need a translator"):
        score_maps(classifier, manifest, settings=ScoreSettings(maps=("difference",)))
    with pytest.raises(UnknownNameError, match="class"):
        score_maps(classifier, manifest, settings=ScoreSettings(towards="flu"))
    with pytest.raises(UnknownNameError, match="split"):
        masked_rows(classifier, manifest, "holdout")
    bare = Manifest(frame=manifest.frame.drop("mask"), card=manifest.card, root=manifest.root)
    with pytest.raises(ManifestError, match="no column `mask`"):
        masked_rows(classifier, bare, "test")
    empty = Manifest(
        frame=manifest.frame.with_columns(mask=pl.lit(None, dtype=pl.Utf8)), card=manifest.card, root=manifest.root
    )
    with pytest.raises(ManifestError, match="has a mask"):
        masked_rows(classifier, empty, "test")


def test_training_images_are_refused(classifier: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    class All:
        def holds(self, keys: object) -> np.ndarray:
            return np.ones(len(manifest.rows("train")), dtype=bool)

    monkeypatch.setattr("raremix.study.apply.read_fitted", lambda folder: {"train": All()})
    with pytest.raises(HeldOutError, match="trained on"):
        masked_rows(classifier, manifest, "train")


def test_masks_are_resized_as_images_are() -> None:
    mask = np.zeros((8, 16, 1), dtype=np.uint8)
    mask[:, 8:12] = 4  # a bit of a multi-label phantom
    assert fit_mask(mask, size=8).sum() == 16  # 8 rows, 2 of 8 columns
    padded = fit_mask(mask, size=16, resize="pad")
    assert padded[4:12, 8:12].all()
    assert padded.sum() == 32
    assert fit_mask(mask, size=8, resize="crop").sum() == 32


def test_difference_maps_ask_about_what_an_image_does_not_show() -> None:
    asked = []

    def change(images: Tensor, own: Tensor, other: Tensor) -> Tensor:
        asked.extend(zip(own.tolist(), other.tolist(), strict=True))
        return other.float()[:, None, None, None].expand(-1, 1, 4, 4) / 4

    images, targets = torch.rand(2, 1, 4, 4), torch.eye(3)[[0, 2]]
    found = AwayFromOwn(change=change)(images, targets)
    # The first is shown as 1 and 2: (.25 + .5) / 2; the second as 0 and 1: .125.
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([0.375, 0.125]))
    assert sorted(asked) == [(0, 1), (0, 2), (2, 0), (2, 1)]
    asked.clear()
    AwayFromOwn(change=change, towards=0)(images, targets)
    assert sorted(asked) == [(0, 1), (0, 2), (2, 0)]  # what shows class 0 already is shown as the others


class Brighter:
    """Translates to class k by setting the first pixel to k / 2; the way there is straight."""

    def __call__(self, images: Tensor, targets: Tensor, *, rng: np.random.Generator) -> Tensor:
        other = images.clone()
        other[:, :, 0, 0] = targets.argmax(dim=1)[:, None] / 2
        return other

    def reconstruct(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        return images

    def along(self, images: Tensor, own: Tensor, other: Tensor, place: Tensor) -> Tensor:
        end = self(images, torch.eye(3)[other], rng=np.random.default_rng(0))
        return images + place[:, None, None, None] * (end - images)


def test_maps_of_a_translator_show_what_it_changes() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    net[1].weight.data = torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 0]])
    net[1].bias.data = torch.tensor([0.25, 0.0, -9.0])
    maps = candidates(net, classes=3, translators={"b": Brighter()}, towards=1, names=["difference", "hyperplane"]).maps
    images, targets = torch.zeros(1, 1, 2, 2), torch.eye(3)[:1]
    only = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert torch.equal(maps["difference"](images, targets)[0, 0], only)
    assert torch.equal(maps["hyperplane"](images, targets)[0, 0], only)
    # Class 2 is never reached: no map instead of a wrong one.
    away = candidates(net, classes=3, translators={"b": Brighter()}, towards=2, names=["hyperplane"]).maps["hyperplane"]
    assert away(images, targets).count_nonzero() == 0
    # Of several translators each has maps of its own, and a kind of map that is left out is left out of all.
    both = {"a": Brighter(), "b": Brighter()}
    named = candidates(net, classes=3, translators=both, without=["hyperplane"]).maps
    assert [name for name in named if "(" in name] == ["difference (a)", "difference (b)"]
    assert "difference" not in named


def test_centre_is_highest_in_the_middle_and_every_map_is_found() -> None:
    found = centre(torch.zeros(2, 3, 9, 5), torch.zeros(2, 1))
    assert found.shape == (2, 1, 9, 5)
    assert found[0, 0, 4, 2] == 1
    torch.testing.assert_close(found, found.flip(2, 3))
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    maps = candidates(net, classes=2)
    assert {"gradcam", "hirescam", "integrated_gradients", "occlusion", "difference", "class_attention"} <= (
        set(maps.maps) | set(maps.left_out)
    )
    assert list(maps.maps)[:2] == ["uniform", "centre"]
    assert "translator" in maps.left_out["difference"]
    assert "translator" in maps.left_out["hyperplane"]
    assert "function" not in {*maps.maps, *maps.left_out}


def test_the_verb_prints_a_table(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"modality": '"chest_xray"', "images": 60, "size": 28, "classes": 2, "imbalance_ratio": 1.0}
    words = [part for key, value in settings.items() for part in ("--set", f"data.{key}={value}")]
    call = ["raremix", "maps", "score", "phantom", str(classifier), *words, "--cache", str(tmp_path / "cache")]
    call += ["--maps", "gradcam", "--most", "4", "--steps", "0", "-o", str(tmp_path / "out")]

    def run(*more: str) -> str:
        monkeypatch.setattr("sys.argv", [*call, *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        return capsys.readouterr().out

    assert "would score" in run("--dry-run")
    assert not (tmp_path / "out").exists()
    said = run()
    assert "gradcam" in said
    assert "centre" in said
    assert "* better than uniform and centre" in said
    facts = json.loads(run("--json"))
    assert {row["map"] for row in facts["maps"]} == {"uniform", "centre", "gradcam"}
    assert (tmp_path / "out" / "maps.png").is_file()
