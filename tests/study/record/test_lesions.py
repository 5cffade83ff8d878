"""Where a classifier's maps lie, in the report of a study whose images have true masks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.study.generators.generator_studies import DIFFERENCE, STARS, study

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError, HeldOutError, ManifestError, RaremixError, ReadError
from raremix.study import run_study
from raremix.study.arm_images import with_images
from raremix.study.generators.own import Workshop
from raremix.study.job import Job
from raremix.study.prepare import Prepared, prepare
from raremix.study.record import lesions as module
from raremix.study.record.lesions import lesion_facts
from raremix.study.record.outcomes import Outcome
from raremix.study.spec import StudySpec

pytestmark = pytest.mark.usefixtures("no_fsync")

SUNS = {**STARS, "name": "suns", "seed": 1}


def localised(**tables: Any) -> StudySpec:
    return study(**{"generator": [], "arm": [{"name": "baseline"}], "evaluate": {"localise": 3}, **tables})


def translating() -> StudySpec:
    """A study whose second and third arm mix by a translator each."""
    importance = [{**DIFFERENCE, "translator": name} for name in ("stars", "suns")]
    arms = [{"name": f"v{i}", "mix": {"name": "varimix", "importance": one}} for i, one in enumerate(importance)]
    return localised(generator=[STARS, SUNS], arm=[{"name": "baseline"}, *arms])


@pytest.fixture
def judged(tmp_path: Path) -> dict[Any, Any]:
    """The result of a reference arm, as far as it is asked before maps are scored."""
    files.write_bytes(tmp_path / "job" / "result" / "classifier" / "model.safetensors", b"weights")
    outcome = Outcome(facts={}, timing={}, predictions=pl.DataFrame(), history=[], folder=tmp_path / "job")
    return {Job(arm="baseline", seed=0, fold=None, key=""): outcome}


def test_maps_are_scored_once_and_stand_in_the_report(tmp_path: Path, monkeypatch: Any) -> None:
    spec = localised()
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


def test_all_maps_on_request(tmp_path: Path, judged: dict[Any, Any], monkeypatch: Any) -> None:
    prepared = prepare(localised(), cache=tmp_path / "cache")
    asked: list[Any] = []

    def seen(*arguments: Any, **options: Any) -> None:
        asked.append(options["settings"])
        raise ManifestError("enough")

    monkeypatch.setattr(module, "score_maps", seen)
    for how in ("quick", "all"):
        spec = localised(evaluate={"localise": 3, "localise_maps": how})
        assert lesion_facts(spec, prepared, judged, folder=tmp_path) is not None
    quick, every = asked
    assert (quick.steps, set(quick.without)) == (0, {"occlusion", "integrated_gradients", "hyperplane"})
    assert (every.steps, every.without) == (10, ())


def failing(error: RaremixError) -> Any:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ManifestError("no image of the test split has a mask with something to find"), "with something to find"),
        (ReadError("Jane Doe.png", "no image"), "a mask or image cannot be read: no image"),
        (CorruptError("generators/stars is damaged: fit the generator again"), "fit the generator again"),
    ],
)
def test_why_there_is_no_table_is_said(
    tmp_path: Path, judged: dict[Any, Any], monkeypatch: Any, error: RaremixError, words: str
) -> None:
    prepared = prepare(localised(), cache=tmp_path / "cache")
    monkeypatch.setattr(module, "score_maps", failing(error))
    found = lesion_facts(localised(), prepared, judged, folder=tmp_path)
    assert found is not None
    assert (found["rows"], found["images"]) == ([], 0)
    assert words in found["note"]
    assert "Jane" not in found["note"], "a file's name may be a patient's"
    assert not (tmp_path / module.KEPT).exists(), "masks may be mended"
    assert lesion_facts(localised(evaluate={}), prepared, judged, folder=tmp_path) is None


@pytest.mark.parametrize("error", [HeldOutError("it was trained on these"), ConfigError("it draws something else")])
def test_what_is_not_about_masks_is_not_kept_quiet(
    tmp_path: Path, judged: dict[Any, Any], monkeypatch: Any, error: RaremixError
) -> None:
    prepared = prepare(localised(), cache=tmp_path / "cache")
    monkeypatch.setattr(module, "score_maps", failing(error))
    with pytest.raises(type(error)):
        lesion_facts(localised(), prepared, judged, folder=tmp_path)


def test_every_translator_of_an_arm_has_its_maps_scored(
    tmp_path: Path, judged: dict[Any, Any], monkeypatch: Any
) -> None:
    spec = translating()
    shop = Workshop(spec=spec, folder=tmp_path, cache=tmp_path / "cache")
    prepared, _ = with_images(shop, prepare(spec, cache=tmp_path / "cache"))
    asked: list[Any] = []

    def seen(*arguments: Any, **options: Any) -> None:
        asked.append(options["translators"])
        raise ManifestError("enough")

    monkeypatch.setattr(module, "score_maps", seen)

    def names(prepared: Prepared) -> list[str]:
        lesion_facts(spec, prepared, judged, folder=tmp_path)
        return list(asked[-1])

    assert names(prepared) == ["stars", "suns"]
    assert asked[-1] == prepared.generators
    only = {"suns": prepared.generators["suns"]}
    assert names(replace(prepared, generators=only)) == ["suns"], "as far as they are there"
