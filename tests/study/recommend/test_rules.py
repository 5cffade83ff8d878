"""The table of rules is whole, and each threshold is one at which the plan changes."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.study.recommend.fingerprints import GUESS, evidence, fingerprint, weights

from raremix.core.errors import GuardError, UnknownNameError, UsageError
from raremix.study.recommend.commented import limit_words, loudest
from raremix.study.recommend.contradictions import refuse_poor_quality
from raremix.study.recommend.decisions import Decision
from raremix.study.recommend.fingerprint import Quality
from raremix.study.recommend.limit import fit_to_limit
from raremix.study.recommend.plan import Plan, make_plan, minutes_of, registered, speaks_against
from raremix.study.recommend.rules import arms_as_markdown, cuts_as_markdown, read_rules, rules_as_markdown
from raremix.study.recommend.shape import (
    batch_size_of,
    chosen_weights,
    cost_of,
    first_size,
    folds_of,
    second_size,
    shape_of,
)
from raremix.study.recommend.shortcut import Association

RULES = read_rules()


def plan(f: Any, **options: Any) -> Plan:
    return make_plan(f, GUESS, RULES, name="p", **options)


def decision(made: Plan, rule: str) -> Decision:
    return next(one for one in made.decisions if one.id == rule)


def arms(made: Plan) -> set[str]:
    return {arm.table["name"] for arm in made.arms if "-lr" not in arm.table["name"]}


def test_the_table_names_every_rule_with_reason_strength_and_source() -> None:
    assert [rule for rule in RULES.rules if rule.startswith("R")] == [f"R{k}" for k in range(1, 19)]
    for rule in RULES.rules.values():
        assert rule.reason.endswith("."), rule.id
        assert rule.evidence, rule.id
        assert set(rule.strength) <= set("ABC /-"), rule.id
        assert RULES.cite(rule.sources), rule.id
    assert {rule.kind for rule in RULES.rules.values()} == {"fixed", "rule", "empirical"}


def test_every_source_is_cited_and_a_wrong_name_is_told() -> None:
    cited = {key for rule in RULES.rules.values() for key in rule.sources} | {
        k for arm in RULES.arms for k in arm.sources
    }
    assert cited == set(RULES.sources)
    with pytest.raises(UnknownNameError, match="threshold of R1"):
        RULES["R1"]["one_splitt"]
    with pytest.raises(UnknownNameError, match="unknown rule"):
        RULES["R99"]


def test_the_documentation_is_made_of_the_table() -> None:
    text = rules_as_markdown()
    assert all(f"| {rule.id} {rule.name}" in text for rule in RULES.rules.values())
    assert "[Collins et al. 2016](https://doi.org/10.1002/sim.6787)" in text
    assert all(f"`{arm.name}`" in arms_as_markdown() for arm in RULES.arms)
    assert all(cut.cost in cuts_as_markdown() for cut in RULES.cuts)
    page = (Path(__file__).parents[3] / "docs" / "recommend.md").read_text()
    assert all(f"<!-- {name} -->" in page for name in ("rules", "arms", "cuts"))


@pytest.mark.parametrize(
    ("test_groups", "folds", "word"),
    [(100, None, "one split"), (99, None, "intervals"), (30, None, "intervals"), (29, 5, "folds"), (5, 5, "folds")],
)
def test_r1_evaluation_by_test_groups_of_the_rarest_class(test_groups: int, folds: int | None, word: str) -> None:
    f = fingerprint((4000, 5 * test_groups))
    assert folds_of(f, RULES) == folds
    made = decision(plan(f), "R1")
    assert word in made.what
    assert made.settings.get("study.folds") == folds


@pytest.mark.parametrize(("groups", "is_scored"), [(5, True), (4, False), (1, False), (0, False)])
def test_r1_a_class_of_too_few_groups_is_described_and_not_scored(groups: int, is_scored: bool) -> None:
    made = decision(plan(fingerprint((800, 600, groups))), "R1")
    assert ("c2" in made.what and "not scored" in made.what) is not is_scored
    assert made.is_loud is not is_scored


def test_r1_a_class_of_one_group_forbids_folds() -> None:
    # In the fold that holds it, nothing could learn it.
    assert folds_of(fingerprint((800, 60, 2)), RULES) == 5
    assert folds_of(fingerprint((800, 60, 1)), RULES) is None


def test_r2_says_in_red_that_no_patient_is_named_and_proposes_a_pattern() -> None:
    assert not decision(plan(fingerprint()), "R2").is_loud
    unnamed = decision(plan(fingerprint(named_groups=False)), "R2")
    assert unnamed.is_loud
    assert "NO PATIENTS ARE NAMED" in unnamed.what
    proposed = decision(plan(fingerprint(named_groups=False, proposed_group=r"^(p\d+)")), "R2")
    assert proposed.is_loud
    assert r"^(p\d+)" in proposed.what


@pytest.mark.parametrize(("counts", "metric"), [((600, 200), "balanced_accuracy"), ((599, 201), "auroc")])
def test_r3_balanced_accuracy_from_a_ratio_of_3(counts: tuple[int, int], metric: str) -> None:
    assert plan(fingerprint(counts)).metric == metric


@pytest.mark.parametrize(("positives", "threshold"), [(20, "youden"), (19, "half")])
def test_r3_several_labels_have_thresholds_of_their_own_from_20_validation_positives(
    positives: int, threshold: str
) -> None:
    f = fingerprint((900, 700), task="multilabel")
    assert f.holdout is not None
    f = replace(f, holdout=replace(f.holdout, validation=(200, positives)))
    made = plan(f)
    assert made.study["study"]["metric"] == "average_precision"
    assert made.study["study"]["threshold"] == threshold
    assert made.decidable is not None
    assert made.decidable[0] == "auroc", "average precision has no closed form"


@pytest.mark.parametrize(
    ("side", "has_weights", "accelerated", "size"),
    [
        (1024, True, False, 224),
        (128, True, False, 128),
        (28, True, True, 96),
        (1024, False, True, 128),
        (1024, False, False, 64),
        (28, False, True, 28),
        (10, False, False, 28),
        (0, False, False, 64),
    ],
)
def test_r4_first_size(side: int, has_weights: bool, accelerated: bool, size: int) -> None:
    assert first_size(side, has_weights=has_weights, accelerated=accelerated, rules=RULES) == size


@pytest.mark.parametrize(
    ("side", "area", "modality", "second"),
    [
        (128, 0.062, "other", 128),
        (128, 0.063, "other", None),
        (127, 0.01, "other", None),
        (128, None, "other", None),
        (128, None, "chest_xray", 128),
        (128, None, "fundus", 128),
        (128, None, "mammography", 128),
        (128, None, "dermatoscopy", None),
    ],
)
def test_r4_second_configuration(side: int, area: float | None, modality: str, second: int | None) -> None:
    f = fingerprint(side=side, lesion_area=area, modality=modality)
    assert second_size(f, 64, RULES) == second


@pytest.mark.parametrize(("images", "millions", "taken"), [(1999, 30.0, True), (1999, 30.1, False), (2000, 86.0, True)])
def test_r5_no_large_network_for_few_images(images: int, millions: float, taken: bool) -> None:
    f = fingerprint((images - 900, 900), weights=(weights(millions=millions),))
    assert (chosen_weights(f, RULES) is not None) is taken
    assert plan(f).study["model"]["name"] == ("resnet50" if taken else "resnet18")


def test_r5_a_convnext_arm_for_many_images_whose_weights_are_at_hand() -> None:
    own = weights(name="convnext_tiny", millions=28)
    assert "convnext" in arms(plan(fingerprint((12_000, 8_001), weights=(own,))))
    assert "convnext" not in arms(plan(fingerprint((12_000, 8_000), weights=(own,))))
    without = plan(fingerprint((12_000, 8_001)))
    assert "convnext" not in arms(without)
    assert "weights" in without.left_out["convnext"]


@pytest.mark.parametrize(
    ("name", "rates"), [("resnet50", (3e-4, 9e-5)), ("convnext_tiny", (1e-4, 3e-5)), (None, (1e-3, 3e-4))]
)
def test_r10_the_grid_begins_at_the_network_s_usual_rate(name: str | None, rates: tuple[float, ...]) -> None:
    f = fingerprint(weights=() if name is None else (weights(name=name),))
    assert shape_of(f, RULES).rates == pytest.approx(rates)


@pytest.mark.parametrize(
    ("train", "batch"), [(10, 8), (319, 8), (320, 16), (640, 32), (1279, 32), (1280, 64), (10**6, 64)]
)
def test_r6_batch_is_a_power_of_two_of_at_most_5_percent(train: int, batch: int) -> None:
    assert batch_size_of(train, RULES) == batch


@pytest.mark.parametrize(("counts", "asks"), [((1500, 1000), True), ((1490, 1000), False)])
def test_r7_balanced_sampling_from_a_ratio_of_1_5(counts: tuple[int, int], asks: bool) -> None:
    assert ("balanced" in arms(plan(fingerprint(counts)))) is asks


def test_r7_an_arm_defers_rebalancing_where_a_rare_image_would_repeat_often() -> None:
    # 200 steps of 8 over two classes show each of 8 training images of the rare class exactly 100 times.
    often = fingerprint((111, 12), pooled=evidence((111, 12), design="out-of-fold", images=(80, 18, 25)))
    assert shape_of(often, RULES).batch_size == 8
    made = plan(often)
    assert "one arm defers" in decision(made, "R7").what
    assert {"balanced", "deferred-weights"} <= arms(made)
    rarely = plan(fingerprint((4000, 1000)))
    assert "defers" not in decision(rarely, "R7").what
    assert "balanced" in arms(rarely)
    assert "deferred-weights" not in arms(rarely)


@pytest.mark.parametrize(
    ("counts", "asked"),
    [
        ((598, 200), set()),
        ((600, 200), {"logit-adjustment"}),
        ((1999, 200), {"logit-adjustment"}),
        ((2000, 200), {"logit-adjustment", "crt", "ldam-drw"}),
    ],
)
def test_r8_loss_arms_by_imbalance(counts: tuple[int, int], asked: set[str]) -> None:
    made = plan(fingerprint(counts))
    mine = {"logit-adjustment", "crt", "ldam-drw"}
    assert (arms(made) | set(made.left_out)) & mine == asked
    assert "reference" in arms(made)


def test_r8_an_arm_whose_method_is_not_there_is_left_out_until_it_is() -> None:
    f = fingerprint((2000, 200))
    known = registered(f)
    arm = next(arm for arm in RULES.arms if arm.name == "logit-adjustment")
    against = speaks_against(arm, f, RULES, known={**known, "losses": known["losses"] - {"logit_adjustment"}})
    assert against is not None
    assert against.is_asked
    assert "no loss called 'logit_adjustment'" in against.text
    # Named in the registry, but not something that a study file can say.
    crt = next(arm for arm in RULES.arms if arm.name == "crt")
    assert speaks_against(crt, f, RULES, known={**known, "recipes": set()}) is not None


def test_r8_a_class_without_images_forbids_losses_that_count_all_classes() -> None:
    made = plan(fingerprint((800, 600, 0)))
    assert "ldam-drw" not in arms(made)


def test_r10_every_arm_gets_the_same_grid() -> None:
    made = plan(fingerprint((4000, 1000)))
    names = [arm.table["name"] for arm in made.arms]
    rates = {name: arm.table.get("train", {}).get("learning_rate") for name, arm in zip(names, made.arms, strict=True)}
    plain = [name for name in names if "-lr" not in name]
    assert len(names) == 2 * len(plain)
    assert len({rate for name, rate in rates.items() if "-lr" in name}) == 1
    assert f"{len(names)} trials" in decision(made, "R10").what


@pytest.mark.parametrize(("counts", "mixes"), [((1999, 200), False), ((2000, 200), True)])
def test_r12_mixing_from_a_ratio_of_10_and_never_alone(counts: tuple[int, int], mixes: bool) -> None:
    made = plan(fingerprint(counts))
    mixing = [arm for arm in made.arms if "mix" in arm.table]
    assert bool(mixing) is mixes
    assert all(arm.table["mix"]["stop"] == 0.9 for arm in mixing)
    if mixes:
        assert arms(made) - {"reference"} - {arm.table["name"] for arm in mixing}, "a remedy that does not mix"


@pytest.mark.parametrize(
    ("rare", "word"), [(462, "from scratch"), (460, "memorisation gate"), (31, "memorisation gate"), (29, "too few")]
)
def test_r15_which_synthesis(rare: int, word: str) -> None:
    # 65 % of the images are for training.
    assert word in decision(plan(fingerprint((4000, rare))), "R15").what


def test_r16_five_seeds_to_claim() -> None:
    made = plan(fingerprint())
    assert made.study["study"]["seeds"] == [0, 1, 2, 3, 4]
    assert not decision(made, "R16").is_loud


@pytest.mark.parametrize("kind", ["duplicates", "conflicts"])
def test_r17_more_than_one_percent_stops_and_asks(kind: str) -> None:
    few, many = (fingerprint(quality=Quality(**{kind: n}, examples=("a.png = b.png",))) for n in (10, 11))
    refuse_poor_quality(few, RULES)
    with pytest.raises(GuardError, match=f"--accept-{kind}") as refused:
        refuse_poor_quality(many, RULES)
    assert refused.value.exit_code == 3
    assert "a.png = b.png" in str(refused.value)
    refuse_poor_quality(many, RULES, **{f"accept_{kind}": True})


@pytest.mark.parametrize(
    ("name", "information", "is_loud"),
    [("device", 0.21, True), ("device", 0.2, False), ("scanner_model", 0.5, True), ("sex", 0.5, False)],
)
def test_r18_a_site_that_tells_the_class(name: str, information: float, is_loud: bool) -> None:
    one = Association(attribute=name, label="", information=information, values=3)
    made = decision(plan(fingerprint(associations=(one,))), "R18")
    assert made.is_loud is is_loud
    assert ("hold out by" in made.what) is is_loud


def test_r8_several_labels_have_losses_of_their_own() -> None:
    mild = plan(fingerprint((2000, 400), task="multilabel"))
    strong = plan(fingerprint((2000, 200), task="multilabel"))
    assert {"class-weights", "asymmetric"} <= arms(mild)
    assert "distribution-balanced" not in arms(mild) | set(mild.left_out)
    assert {"asymmetric", "distribution-balanced"} <= arms(strong)
    assert {"logit-adjustment", "ldam-drw"} <= set(strong.left_out), "the rules ask for these, and say why not"
    single = plan(fingerprint((2000, 200)))
    assert not {"asymmetric", "distribution-balanced"} & (arms(single) | set(single.left_out))


def offered(made: Plan) -> set[str]:
    return {arm.table["name"] for arm in made.offered}


def test_what_is_offered_is_not_run_and_not_paid_for() -> None:
    made = plan(fingerprint((2000, 300, 200)))
    assert {"balanced-softmax", "focal", "class-balanced", "gpaco", "cmo", "remix"} <= offered(made)
    assert not offered(made) & arms(made)
    assert not offered(made) & set(made.left_out)
    assert offered(plan(fingerprint((500, 500)))) == set()
    assert {"binary-focal", "dual-weighted-metric"} <= offered(plan(fingerprint((2000, 200), task="multilabel")))
    table = next(arm.table for arm in made.offered if arm.table["name"] == "gpaco")
    assert table["loss"]["queue"] == 512, "half of train at most: 2,500 / 4, and a power of two"
    assert {arm.rule for arm in RULES.arms if arm.is_offered} == {"R8", "R12", "R14", "R15"}


@pytest.mark.parametrize(("rare", "found"), [
    (20, {"repeated"}),
    (150, {"repeated", "translated", "varimix"}),
    (600, {"repeated", "translated", "varimix", "synthetic"}),
])  # fmt: skip
def test_r15_generated_images_are_offered_where_there_are_enough_to_learn_from(rare: int, found: set[str]) -> None:
    # Of those for training, 20 must be of the rarest class to translate, and 300 to draw from noise.
    made = plan(fingerprint((12_000, rare)))
    assert offered(made) & {"repeated", "translated", "varimix", "synthetic"} == found
    generators = {arm.table["name"]: arm.generator for arm in made.offered if arm.generator}
    assert set(generators) == found - {"repeated"}
    assert not {"repeated", "translated", "synthetic"} & offered(plan(fingerprint((12_000, rare), task="multilabel")))


def test_the_loudest_is_that_no_patients_are_named() -> None:
    made = plan(fingerprint((800, 600, 3), named_groups=False))
    assert [one.id for one in loudest(made)][:2] == ["R2", "R1"]


def test_a_time_limit_gives_up_in_the_order_of_the_table_and_says_what_it_costs() -> None:
    f = fingerprint((4000, 120, 100), side=512, modality="chest_xray")
    free = plan(f)
    total = free.cost.minutes + free.cost.second_minutes
    assert free.shape.second is not None
    assert free.cuts == ()
    last, order = total, [cut.cost for cut in RULES.cuts]
    seen: list[int] = []
    for share in (0.9, 0.5, 0.2, 0.1, 0.05, 0.02):
        made = plan(f, minutes=share * total)
        assert made.is_within_limit
        assert made.cost.minutes + made.cost.second_minutes <= min(last, share * total)
        last = share * total
        assert made.cost.minutes + made.cost.second_minutes <= (1 - RULES["F3"]["margin"]) * share * total
        places = [next(k for k, cost in enumerate(order) if cut.cost.startswith(cost)) for cut in made.cuts]
        assert places == sorted(places)
        seen.append(places[-1])
        assert made.shape.seeds >= 3
        assert len(made.shape.arms) >= 2
    assert seen == sorted(seen)


def test_no_cut_is_made_that_a_later_one_makes_needless() -> None:
    f = fingerprint((4000, 120, 100), side=512, modality="chest_xray")
    free = plan(f)
    made = plan(f, minutes=0.05 * free.cost.minutes)
    words = [cut.what for cut in made.cuts]
    assert len([text for text in words if " steps become " in text]) <= 1, words
    assert made.cuts[-1].minutes == pytest.approx(made.cost.minutes + made.cost.second_minutes)


def test_half_the_side_is_no_cut_where_it_is_no_faster() -> None:
    f = fingerprint((4000, 1000), side=512, accelerated=True)
    assert plan(f).shape.size == 128
    tight = plan(f, minutes=0.001)
    assert tight.shape.size == 64
    flat = plan(replace(f, seconds_per_image={32: 0.005, 64: 0.005, 128: 0.005}), minutes=0.001)
    assert flat.shape.size == 128


def test_a_step_costs_something_without_images_so_that_small_batches_do_not_help_for_ever() -> None:
    f = replace(fingerprint((4000, 120, 100)), seconds_per_step=0.5, seconds_per_run=2.0)
    made = plan(f, minutes=3.0)
    assert made.shape.batch_size >= RULES["R6"]["least"]
    assert ("CANNOT BE KEPT" in limit_words(made)) is not made.is_within_limit


def test_a_limit_that_cannot_be_kept_is_said() -> None:
    made = plan(fingerprint((4000, 120, 100)), minutes=0.01)
    assert not made.is_within_limit
    assert made.shape.folds is None
    assert made.shape.validations == RULES["F2"]["least_validations"]
    assert made.study["train"]["validations"] == made.shape.validations
    least = math.ceil(made.cost.minutes)
    assert f"CANNOT BE KEPT. The least plan takes about {least} minute" in limit_words(made)
    assert "NOT EVERY IMAGE IS SHOWN ONCE" in decision(made, "R7").what
    assert decision(made, "R7").is_loud
    assert "decidable difference grows from 3.0 to 6.0 points" in " ".join(cut.cost for cut in made.cuts)


def test_cost_is_runs_times_steps_and_scoring() -> None:
    f = fingerprint((4000, 1000))
    shape = replace(shape_of(f, RULES), arms=("reference",), rates=(0.001,), seeds=3, steps=100)
    made, _ = fit_to_limit(f, shape, RULES, minutes=None)
    assert made == shape
    assert f.holdout is not None
    _, validation, test = f.holdout.images
    once = RULES["F3"]["report_seconds"]
    seconds = 3 * 0.005 * (100 * shape.batch_size + (9 * validation + test) / 3)
    assert cost_of(f, shape, RULES).minutes == pytest.approx((seconds + once) / 60)
    slow = replace(f, seconds_per_step=0.1, seconds_per_run=5.0, seconds_to_read=30.0)
    seconds += 3 * (100 * 0.1 + 5.0) + 30.0
    found = cost_of(slow, shape, RULES)
    assert found.minutes == pytest.approx((seconds + once) / 60)
    assert found.seconds_per_step == pytest.approx(0.1 + 0.005 * shape.batch_size)
    slower = replace(slow, scoring_share=0.5)
    more = 3 * 0.005 * (9 * validation + test) * (1 / 2 - 1 / 3)
    assert cost_of(slower, shape, RULES).minutes == pytest.approx((seconds + once + more) / 60)
    fewer = replace(shape, validations=2)
    assert cost_of(slow, fewer, RULES).minutes == pytest.approx((seconds + once - 3 * 0.005 * 6 * validation / 3) / 60)
    assert cost_of(replace(slow, seconds_per_image={}), shape, RULES).minutes > 0


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("2h", 120), ("90m", 90), ("1h30m", 90), ("45", 45), ("1d", 1440), ("0.5h", 30), ("20min", 20)],
)
def test_times_are_read(text: str, minutes: float) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "soon", "-1h", "2 weeks"])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="2h, 90m"):
        minutes_of(text)


def test_settings_by_hand_win_over_the_rules() -> None:
    made = make_plan(
        fingerprint((4000, 1000)), replace(GUESS, table={"source": "phantom", "size": 40}), RULES, name="p",
        settings=["train.steps=7", "arm.balanced.sampler=sqrt", "data.size=40"],
    )  # fmt: skip
    assert made.study["train"]["steps"] == 7
    assert made.study["data"]["size"] == 40
    assert next(arm for arm in made.study["arm"] if arm["name"] == "balanced")["sampler"] == "sqrt"
