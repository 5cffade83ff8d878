"""Mix tables: what is refused alone is refused within other mixers, and before anything is trained."""

from typing import Any

import pytest

from raremix.core.errors import ConfigError
from raremix.study.mixers import check_mixer, make_mixer

WHERE = "arm.a.mix"
DIFFERENCE = {"name": "difference", "translator": "stargan", "grid": 8}
MASS_OF_MOVED = {"name": "resizemix", "label": "mass", "importance": "fine_grained"}
MOVED_BLOCKS = {"name": "puzzlemix", "transport": True, "label": "mass"}
WRAPPERS = {
    "alone": (lambda mix: mix, WHERE),
    "scheduled": (lambda mix: {"name": "scheduled", "mixer": mix, "start": 0.5}, f"{WHERE}.mixer"),
    "sometimes": (lambda mix: {"name": "sometimes", "mixer": mix, "probability": 0.5}, f"{WHERE}.mixer"),
    "one_of": (lambda mix: {"name": "one_of", "mixers": ["cutmix", mix]}, f"{WHERE}.mixers[1]"),
    "scheduled one_of": (
        lambda mix: {"name": "scheduled", "mixer": {"name": "one_of", "mixers": ["cutmix", mix]}},
        f"{WHERE}.mixer.mixers[1]",
    ),
}


@pytest.fixture(autouse=True)
def translators_that_need_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build difference maps without a fitted translator."""
    from raremix.study import mixers

    monkeypatch.setattr(mixers, "TRANSLATORS", {"stargan": lambda: lambda images, targets, rng: images})


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    ("mix", "place", "said"),
    [
        ({"name": "mixup", "label": "mass"}, "", 'label = "mass" needs importance'),
        ({"name": "mixup", "importance": "fine_grained"}, ".importance", "nothing in mixup looks at it"),
        ({"name": "mixup", "importance": "gradcam"}, ".importance", "nothing in mixup looks at it"),
        ({"name": "varimix", "importance": "gradcam"}, ".importance", "partner's class"),
        ({"name": "guidedmixup", "importance": DIFFERENCE}, ".importance", "only varimix"),
        ({"name": "guidedmixup", "importance": {**DIFFERENCE, "grid": 4}}, ".importance", "only varimix"),
        ({"name": "cutmix", "label": "mass", "importance": DIFFERENCE}, ".importance", "only varimix"),
    ],
)
def test_what_is_refused_alone_is_refused_within(wrapper: str, mix: dict[str, Any], place: str, said: str) -> None:
    wrap, where = WRAPPERS[wrapper]
    with pytest.raises(ConfigError) as caught:
        check_mixer(wrap(mix), where=WHERE)
    assert str(caught.value).startswith(f"{where}{place}:")
    assert said in str(caught.value)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    ("mix", "said"),
    [
        (MASS_OF_MOVED, "ResizeMix moves pixels"),
        (MOVED_BLOCKS, "PuzzleMix moves pixels"),
        ({"name": "cutmix", "alpha": -1.0}, "alpha must be"),
    ],
)
def test_what_a_method_refuses_is_told_with_its_place(wrapper: str, mix: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{WHERE}: {said}"):
        check_mixer(WRAPPERS[wrapper][0](mix), where=WHERE)


@pytest.mark.parametrize("wrapper", [name for name in WRAPPERS if name != "alone"])
@pytest.mark.parametrize("mix", ["automix", {"name": "automix", "alpha": 1.0}])
def test_a_mixer_that_learns_stands_alone(wrapper: str, mix: Any) -> None:
    wrap, where = WRAPPERS[wrapper]
    with pytest.raises(ConfigError, match=r"automix is trained beside the classifier .* an arm of its own") as caught:
        make_mixer(wrap(mix), where=WHERE)
    assert str(caught.value).startswith(f"{where}:")
    check_mixer({"name": "automix"}, where=WHERE)


@pytest.mark.parametrize("importance", ["fine_grained", "gradcam"])
def test_a_mixer_that_learns_asks_no_importance(importance: str) -> None:
    with pytest.raises(ConfigError, match=r"learns where to mix .* leave it out"):
        check_mixer({"name": "automix", "importance": importance}, where=WHERE)
    check_mixer({"name": "automix", "label": "mass", "importance": "fine_grained"}, where=WHERE)


def test_kept_maps_guide_all_mixers_of_an_arm() -> None:
    """Kept maps serve labels by mass beside them, and difference maps other methods than VariMix by their mean."""
    gradcam = {"name": "saliencymix", "importance": "gradcam"}
    difference = {"name": "varimix", "importance": DIFFERENCE}
    for mixers in ([gradcam, {"name": "cutmix", "label": "mass"}], [difference, "guidedmixup"], [gradcam, "snapmix"]):
        check_mixer({"name": "one_of", "mixers": mixers}, where=WHERE)
    for mixers, said in (
        ([gradcam, "varimix"], "partner's class"),
        ([gradcam, {"name": "guidedmixup", "importance": "fine_grained"}], "would be ignored"),
    ):
        with pytest.raises(ConfigError, match=rf"^{WHERE}\.mixers\[1\]\.importance: .*{said}"):
            check_mixer({"name": "one_of", "mixers": mixers}, where=WHERE)
