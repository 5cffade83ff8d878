"""The conclusion never says more than the record supports: one case per rule, and every condition broken in turn."""

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from raremix.report import Record, conclude, render
from raremix.report.words import judge, judge_all, sampling_sentences

BETTER = {"effect": 0.04, "low": 0.012, "high": 0.07, "p": 0.004, "p_holm": 0.008, "positives": 40, "seeds": 5}
CLAIMS = ("improved", "worsened", "better than", "worse than", "practically equal")


def study(
    *comparisons: dict[str, Any], metric: str = "balanced_accuracy", data: dict[str, Any] | None = None, **changes: Any
) -> Record:
    """A record with one arm per comparison beside the reference."""
    arms = [f"arm{i}" for i in range(len(comparisons))]
    return Record.model_validate(
        {
            "study": {
                "name": "s",
                "reference": "base",
                "primary_metric": metric,
                "seeds": [0, 1, 2, 3, 4],
                "test_openings": 1,
            }
            | changes,
            "data": {"name": "d", "task": "binary", "classes": ["a", "b"], "grouped": True} | (data or {}),
            "arms": [{"name": "base"}, *({"name": arm} for arm in arms)],
            "comparisons": [
                {"arm": arm, "reference": "base", "metric": metric, "primary": True} | comparison
                for arm, comparison in zip(arms, comparisons, strict=True)
            ],
            "decidable": {"metric": metric, "difference": 0.05},
        }
    )


def kind(comparison: dict[str, Any], **changes: Any) -> str:
    return judge_all(study(comparison, **changes))[0].kind


def test_better_is_said_with_effect_and_interval():
    said = conclude(study(BETTER))
    assert said[0] == "Against base, balanced accuracy improved with arm0 by 4 points (95 % interval 1.2 to 7)."
    assert "better than base" in said[1]
    assert "+1.2 to +7.0" in said[1]
    assert "p = 0.008" in said[1]


def test_harm_is_said():
    worse = BETTER | {"effect": -0.04, "low": -0.07, "high": -0.012}
    said = conclude(study(worse))
    assert said[0] == "Against base, balanced accuracy worsened with arm0 by 4 points (95 % interval 1.2 to 7)."
    assert "worse than base" in said[1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"p_holm": 0.05, "p": 0.02}, "open"),
        ({"p_holm": 0.2, "p": 0.02}, "open"),
        ({"p_holm": None}, "open"),
        ({"low": -0.0001}, "open"),
        ({"low": 0.0}, "open"),
        ({"positives": 9}, "few_positives"),
        ({"positives": None}, "few_positives"),
        ({"seeds": 2}, "few_seeds"),
        ({"seeds": None}, "few_seeds"),
        ({"seeds": 4}, "unfinished"),
        ({"effect": None}, "not_compared"),
        ({"low": None}, "not_compared"),
        ({"high": None}, "not_compared"),
        ({"low": None, "high": None, "positives": 4}, "few_positives"),
        ({"low": None, "high": None, "seeds": 1}, "few_seeds"),
        ({"primary": False}, "not_compared"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_each_condition_alone_forbids_the_claim(change: dict[str, Any], expected: str, sign: int):
    flipped = BETTER | change
    if sign < 0:
        low, high = flipped["low"], flipped["high"]
        flipped |= {
            "effect": None if flipped["effect"] is None else -flipped["effect"],
            "low": None if high is None else -high,
            "high": None if low is None else -low,
        }
    record = study(flipped)
    assert judge_all(record)[0].kind == expected
    told = " ".join(text for text in conclude(record) if not text.startswith("Exploratory"))
    assert not any(claim in told for claim in CLAIMS)


def test_the_borders_are_on_the_safe_side():
    assert kind(BETTER | {"positives": 10, "p_holm": 0.0499}) == "better"
    assert kind(BETTER | {"seeds": 3}, seeds=[0, 1, 2]) == "better"
    assert kind(BETTER | {"effect": 0.002, "low": -0.01, "high": 0.01, "p_holm": 1.0, "p": 0.8}) == "equal"
    assert kind(BETTER | {"effect": 0.002, "low": -0.0101, "high": 0.01, "p_holm": 1.0, "p": 0.8}) == "open"
    assert kind(BETTER | {"effect": 0.002, "low": -0.01, "high": 0.0101, "p_holm": 1.0, "p": 0.8}) == "open"


def test_a_tiny_difference_is_equal_even_where_it_is_significant():
    assert kind(BETTER | {"effect": 0.006, "low": 0.003, "high": 0.009}) == "equal"


def test_equality_needs_positives_and_seeds_as_well():
    equal = {"effect": 0.0, "low": -0.004, "high": 0.004, "p": 0.9, "p_holm": 0.9, "positives": 40, "seeds": 5}
    assert kind(equal) == "equal"
    assert kind(equal | {"positives": 9}) == "few_positives"
    assert kind(equal | {"seeds": 1}) == "few_seeds"


def test_no_difference_shown_names_what_could_be_decided():
    said = conclude(study(BETTER | {"low": -0.02, "high": 0.07, "p": 0.2, "p_holm": 0.4}))[0]
    assert said == (
        "No difference from base in balanced accuracy could be shown for arm0; "
        "this test set can decide differences of about 5 points."
    )


def test_no_more_is_promised_than_the_interval_kept():
    said = conclude(study(BETTER | {"low": -0.2, "high": 0.24, "p": 0.2, "p_holm": 0.4}))[0]
    assert "about 22 points" in said
    assert "5 were expected" in said


def test_what_can_be_decided_in_another_metric_is_not_told():
    record = study(BETTER | {"low": -0.02, "p": 0.2, "p_holm": 0.4})
    other = record.model_copy(update={"decidable": record.decidable.model_copy(update={"metric": "auroc"})})
    assert "decide" not in conclude(other)[0]


def test_an_interval_that_only_the_correction_undoes_is_told_as_such():
    said = conclude(study(BETTER | {"p": 0.02, "p_holm": 0.06}))[1]
    assert "could be shown" in said
    assert "The interval alone lies above zero, but p, corrected for the number of comparisons, is 0.060." in said


def test_a_smaller_error_is_better():
    lower = BETTER | {"effect": -0.04, "low": -0.07, "high": -0.012}
    assert kind(lower, metric="ece") == "better"
    assert kind(BETTER, metric="ece") == "worse"
    assert "improved with arm0 by 4 points (95 % interval 1.2 to 7)" in conclude(study(lower, metric="ece"))[0]


def test_incomplete_comes_first_and_nothing_is_concluded():
    record = study(BETTER, status="incomplete", missing=["arm0, seed 4", "arm1, seed 2: disk full"])
    said = conclude(record)
    assert said[0] == "This study is incomplete. Missing: arm0, seed 4 and arm1, seed 2: disk full."
    assert said[1] == "What is there so far allows no conclusion about balanced accuracy."
    assert "so far +4.0 points" in said[2]
    assert not any(claim in " ".join(said) for claim in CLAIMS)


def test_a_record_that_names_what_is_missing_is_not_complete():
    assert kind(BETTER, status="complete", missing=["arm0, seed 4"]) == "unfinished"


def test_many_missing_jobs_are_counted():
    said = conclude(study(BETTER, status="incomplete", missing=[f"job {i}" for i in range(20)]))[0]
    assert "job 7 and 12 more" in said
    assert "job 8" not in said


def test_weights_may_be_compared_with_one_seed_and_the_scope_is_told():
    said = conclude(study(BETTER | {"seeds": 1}, claim="weights", seeds=[0]))
    assert "improved" in said[0]
    assert any("about the trained weights, not about the recipes" in text for text in said)


def test_images_without_patients_are_a_limit_and_are_not_called_patients():
    said = conclude(study(BETTER | {"positives": 4}, data={"grouped": False}))
    assert "only 4 positive images" in said[1]
    assert any("No patient is known for any image" in text for text in said)


def test_the_rarest_class_is_named_where_there_are_several():
    said = conclude(study(BETTER | {"positives": 4}, data={"task": "multiclass", "group_name": "lesion"}))
    assert said[0] == "The test set holds too few lesions of the rarest class to rank arm0."
    assert "only 4 lesions of the rarest class" in said[1]


def test_openings_are_told_when_there_were_several():
    assert any("opened 3 times" in text for text in conclude(study(BETTER, test_openings=3)))
    assert not any("opened" in text for text in conclude(study(BETTER, test_openings=1)))


def test_better_arms_are_not_ranked_among_each_other():
    said = conclude(study(BETTER, BETTER | {"effect": 0.05, "high": 0.09}))
    assert any("which of the better arms is best was not tested" in text for text in said)


def test_one_arm_alone_is_not_compared():
    record = study().model_copy(update={"metrics": ()})
    assert conclude(record)[0] == "Only base was trained, so nothing was compared."


def test_an_arm_without_a_comparison_is_named_with_the_reason():
    said = conclude(study({"effect": None, "note": "undefined in an arm"}))
    assert said[0] == "No comparison was recorded for arm0."
    assert "undefined in an arm" in said[1]


def test_other_metrics_are_called_exploratory_and_harm_comes_first(records: ModuleType):
    said = [text for text in conclude(Record.model_validate(records.multiclass())) if text.startswith("Exploratory")]
    assert "worse than baseline was mixup in specificity" in said[0]
    assert "better than baseline was cutmix in specificity" in said[1]


def test_four_outcomes_in_one_lead(records: ModuleType):
    assert conclude(Record.model_validate(records.multiclass()))[0] == (
        "Against baseline, balanced accuracy improved with cutmix by 5.8 points (95 % interval 2.7 to 8.9). "
        "With mixup, it was practically equal. No difference could be shown for classical; "
        "this test set can decide differences of about 3.1 points."
    )


ends = st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)).map(sorted)


@settings(max_examples=150, deadline=None)
@given(
    ends=ends,
    p=st.none() | st.floats(0, 1),
    factor=st.floats(1, 4),
    positives=st.none() | st.integers(0, 30),
    seeds=st.none() | st.integers(0, 6),
    is_complete=st.booleans(),
    metric=st.sampled_from(["balanced_accuracy", "ece"]),
)
def test_whatever_the_record_a_claim_has_its_grounds(
    ends: list[float],
    p: float | None,
    factor: float,
    positives: int | None,
    seeds: int | None,
    is_complete: bool,
    metric: str,
):
    low, effect, high = ends
    p_holm = None if p is None else min(1.0, p * factor)
    record = study(
        {
            "effect": effect,
            "low": low,
            "high": high,
            "p": p,
            "p_holm": p_holm,
            "positives": positives,
            "seeds": seeds,
        },
        metric=metric,
        status="complete" if is_complete else "incomplete",
    )
    found = judge(record.comparisons[0], record)
    grounds = is_complete and positives is not None and positives >= 10 and seeds is not None and seeds >= 5
    if found in ("better", "worse"):
        assert grounds
        assert p_holm is not None
        assert p_holm < 0.05
        assert low > 0 or high < 0
        assert (found == "better") == ((effect > 0) == (metric != "ece"))
    if found == "equal":
        assert grounds
        assert max(abs(low), abs(high)) <= 0.01
    told = " ".join(conclude(record))
    assert ("improved" in told) == (found == "better")
    assert ("worsened" in told) == (found == "worse")
    assert ("practically equal" in told) == (found == "equal")


def test_sampling_is_told_as_controls_are(records: ModuleType) -> None:
    raw = records.binary()
    first, second = (arm["name"] for arm in raw["arms"][:2])
    entry = {"arm": second, "reference": first, "metric": raw["study"]["primary_metric"], **BETTER, "seeds": 3}
    record = Record.model_validate({**raw, "samplings": [entry]})
    (said,) = sampling_sentences(record)
    assert said.startswith(f"{second}: better than {first}")
    page = render(record)
    assert "against balanced sampling" in page
    assert "against balanced sampling" not in render(Record.model_validate(raw))
    with pytest.raises(ValidationError, match="does not have"):
        Record.model_validate({**raw, "samplings": [{**entry, "arm": "nobody"}]})
