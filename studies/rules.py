"""Compare what the rules of `raremix recommend` choose with the best arm, on every data set, and write docs/rules.md.

for f in studies/rules_*.toml; do raremix study $f; done
python studies/rules.py runs/rules_*

Every run folder holds the same arms on another data set. The rules see a data set's training images alone: their
fingerprint says which arms the plan would hold, and validation images choose among these, as `raremix study --best`
does. Test images then say what the choice was worth: whether it lies within one standard error of the best arm, and by
how much it falls short. Against it stand one arm for all data sets, a random arm, a choice among all arms by
validation, and the arm that did best on all the other data sets.
"""

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import jinja2
import matplotlib as mpl
import numpy as np
import polars as pl
from scipy import stats

from raremix.core import files
from raremix.core.types import Split
from raremix.data.manifest import Manifest
from raremix.evaluate import METRICS
from raremix.study.best.choice import Choice, choose
from raremix.study.recommend.fingerprint import take_fingerprint
from raremix.study.recommend.look import look_at
from raremix.study.recommend.plan import asked_arms
from raremix.study.recommend.rules import read_rules
from raremix.study.recommend.shape import shape_of
from raremix.study.record.comparisons import rankable_labels
from raremix.study.record.outcomes import Outcome, collect
from raremix.study.run import load_outcomes, plan_study
from raremix.study.spec import StudySpec, read_study

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
BASELINE = "baseline"
CALLED = {"reference": BASELINE}
"""What an arm of the rules is called in these studies, where that differs."""

SAME_IMAGES = ("rules_kermany", "rules_pneumoniamnist")
"""How the names of studies begin that hold the same images, made rare or made small: they are left out together."""

RULES, ALL, OTHERS, RANDOM = "the rules", "validation, among all arms", "the best on the other sets", "a random arm"
BEFORE = {RULES: "the rules before this test", ALL: "validation, among all arms, before this test"}
"""On the same runs, by the code of before: kept in results/rules_before.csv."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one data set shows.

    Attributes:
        name: of the study.
        title: in words.
        images, rarest: training images, and those of the rarest class.
        imbalance: the largest class over the smallest one, in training.
        test: test images.
        metric: what decides.
        asked: arms that the rules put into the plan.
        validation: the choice among all arms.
        ruled: the choice among those that the rules ask for.
        judged: all arms on test images.
    """

    name: str
    title: str
    images: int
    rarest: int
    imbalance: float
    test: int
    metric: str
    asked: tuple[str, ...]
    validation: Choice
    ruled: Choice
    judged: Choice

    def regret(self, arm: str) -> float:
        """Return by how much an arm falls short of the best one on test images."""
        values = {one.arm: one.value for one in self.judged.candidates}
        sign = 1 if METRICS[self.metric].higher_is_better else -1
        return sign * (values[self.judged.best] - values[arm])

    def is_within(self, arm: str) -> bool:
        """Return whether an arm is within one standard error of the best one on test images."""
        return next(one.is_within for one in self.judged.candidates if one.arm == arm)


def main() -> None:
    """Write the page, its picture and the table behind them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of finished rules_* studies")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="the cache folder of the studies")
    options = parser.parse_args()
    found = [look(folder, cache=options.cache) for folder in options.runs]
    found.sort(key=lambda one: one.imbalance)
    chosen = {one.name: policies(one, [other for other in found if not is_kin(one, other)]) for one in found}
    table = pl.DataFrame(
        [
            {
                "study": one.name,
                "policy": policy,
                "arm": " ".join(arms) if len(arms) < 2 else "",
                "within": mean(one.is_within(arm) for arm in arms),
                "regret": mean(one.regret(arm) for arm in arms),
            }
            for one in found
            for policy, arms in chosen[one.name].items()
        ]
    )
    before = pl.read_csv(HERE / "results" / "rules_before.csv", schema=table.schema)
    if set(before["study"]) == set(table["study"]):
        before = before.filter(pl.col("policy").is_in(list(BEFORE))).with_columns(pl.col("policy").replace(BEFORE))
        table = pl.concat([table, before])
    buffer = io.StringIO()
    table.write_csv(buffer, float_precision=4)
    files.write_text(HERE / "results" / "rules.csv", buffer.getvalue())
    draw(found, chosen, DOCS / "images" / "rules.png")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    page = environment.from_string((HERE / "rules.md.jinja").read_text())
    after = HERE / "discussion_rules.md"
    text = page.render(
        sets=found, chosen=chosen, policies=summary(table, sets=len(found)), rules=RULES, names=(RULES, ALL, OTHERS)
    )
    files.write_text(DOCS / "rules.md", text + (after.read_text() if after.is_file() else ""))


def look(folder: Path, *, cache: Path) -> Found:
    """Read a finished study, and make all choices on its images."""
    spec = read_study(folder / "study.toml")
    plan = plan_study(spec, runs=folder.parent, cache=cache)
    outcomes = load_outcomes(folder, plan.jobs)
    missing = [job for job in plan.jobs if job not in outcomes]
    if missing:
        raise SystemExit(f"{folder} is incomplete, {len(missing)} runs are missing: run the study again")
    (prepared,) = plan.prepared.values()
    manifest = prepared.untouched
    train = prepared.manifest.select(prepared.manifest.rows("train"))
    asked = asked_of(train, spec)
    counts = train.class_counts()
    everything = [arm.name for arm in spec.arms]
    return Found(
        name=spec.name,
        title=spec.title.removeprefix("Rules: "),
        images=len(train),
        rarest=int(counts.min()),
        imbalance=float(counts.max() / counts.min()),
        test=len(manifest.rows("test")),
        metric=spec.primary_metric(manifest.card.task),
        asked=tuple(asked),
        validation=choice(spec, manifest, outcomes, arms=everything, split="validation"),
        ruled=choice(spec, manifest, outcomes, arms=asked, split="validation"),
        judged=choice(spec, manifest, outcomes, arms=everything, split="test"),
    )


def asked_of(train: Manifest, spec: StudySpec) -> list[str]:
    """Return which of a study's arms the rules ask for, by its training images and its number of steps."""
    rules = read_rules()
    shares = {"validation": rules["F2"]["validation"], "test": rules["F2"]["test"]}
    f = take_fingerprint(train, look_at(train), shares=shares)
    # All of these are for training: none of them would go to validation or test again.
    f = replace(f, holdout=None, pooled=replace(f.pooled, images=(len(train), 0, 0)))
    shape = replace(shape_of(f, rules), batch_size=spec.train.batch_size, steps=spec.train.steps)
    names = {CALLED.get(name, name) for name in asked_arms(f, shape, rules)}
    return [arm.name for arm in spec.arms if arm.name in names]


def choice(
    spec: StudySpec, manifest: Manifest, outcomes: Mapping[object, Outcome], *, arms: Sequence[str], split: Split
) -> Choice:
    """Choose among some arms by the images of a split."""
    rows = collect(spec, manifest, outcomes, split=split)
    task = manifest.card.task
    return choose(
        [arm for arm in spec.arms if arm.name in arms],
        {name: rows.scores[name] for name in arms},
        {name: rows.thresholds[name] for name in arms},
        rows.targets,
        groups=rows.groups,
        task=task,
        metric=spec.primary_metric(task),
        labels=rankable_labels(rows.targets, rows.groups, task=task),
    )


def policies(one: Found, others: Sequence[Found]) -> dict[str, tuple[str, ...]]:
    """Return which arm each way of choosing takes on a data set; a random arm is each of them."""
    arms = [candidate.arm for candidate in one.judged.candidates]
    best = min(arms, key=lambda arm: mean(regrets) if (regrets := _regrets(arm, others)) else np.inf)
    return {
        RULES: (one.ruled.arm,),
        ALL: (one.validation.arm,),
        OTHERS: (best,),
        **{f"always {arm}": (arm,) for arm in arms},
        RANDOM: tuple(arms),
    }


def is_kin(one: Found, other: Found) -> bool:
    """Return whether two studies hold the same images."""
    return one is other or (one.name.startswith(SAME_IMAGES) and other.name.startswith(SAME_IMAGES))


def _regrets(arm: str, sets: Sequence[Found]) -> list[float]:
    return [one.regret(arm) for one in sets if arm in {candidate.arm for candidate in one.judged.candidates}]


def summary(table: pl.DataFrame, *, sets: int) -> list[dict[str, object]]:
    """Return one row per way of choosing that is there on at least three data sets.

    Intervals: Wilson's for the share of data sets; for the mean shortfall, Student's over data sets.
    """
    rows = []
    for (policy,), own in table.group_by("policy", maintain_order=True):
        regret, n = own["regret"].to_numpy() * 100, len(own)
        if n < min(3, sets):
            continue
        within = float(own["within"].sum())
        low, high = stats.binomtest(round(within), n).proportion_ci(method="wilson")
        half = float(stats.t.ppf(0.975, n - 1) * regret.std(ddof=1) / n**0.5) if n > 1 else float("nan")
        rows.append(
            {
                "policy": policy,
                "sets": n,
                "within": within,
                "low": low,
                "high": high,
                "regret": float(regret.mean()),
                "from": float(regret.mean()) - half,
                "to": float(regret.mean()) + half,
                "worst": float(regret.max()),
            }
        )
    return sorted(rows, key=lambda row: row["regret"])


def draw(found: Sequence[Found], chosen: Mapping[str, Mapping[str, tuple[str, ...]]], path: Path) -> None:
    """Draw the shortfall of every arm on every data set, and mark what the rules took."""
    arms = list(dict.fromkeys(one.arm for data in found for one in data.judged.candidates))
    values = np.full((len(found), len(arms)), np.nan)
    for i, data in enumerate(found):
        for one in data.judged.candidates:
            values[i, arms.index(one.arm)] = 100 * data.regret(one.arm)
    figure, axes = plt.subplots(figsize=(1.2 + 0.72 * len(arms), 1.6 + 0.38 * len(found)), layout="constrained")
    shown = axes.imshow(values, cmap="YlOrBr", vmin=0, vmax=max(10.0, float(np.nanpercentile(values, 90))))
    for i, data in enumerate(found):
        for j, arm in enumerate(arms):
            if np.isfinite(values[i, j]):
                weight = "bold" if data.is_within(arm) else "normal"
                dark = values[i, j] > 0.65 * shown.get_clim()[1]
                axes.text(j, i, f"{values[i, j]:.1f}", ha="center", va="center", fontsize=8, weight=weight,
                          color="white" if dark else "#222222")  # fmt: skip
        j = arms.index(chosen[data.name][RULES][0])
        axes.add_patch(plt.Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor="#1d3a4f", linewidth=2))
    axes.set_xticks(range(len(arms)), arms, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(found)), [f"{one.title}, {one.imbalance:.0f}:1" for one in found], fontsize=8)
    axes.set_title("Points short of the best arm; framed: what the rules took", fontsize=9, loc="left")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    plt.close(figure)
    files.write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    main()
