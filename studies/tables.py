"""Write docs/results.md from the records of finished studies, and keep their comparisons beside the study files.

A page keeps what it has of studies whose runs are not given.

raremix study studies/retinamnist_28_cpu.toml      # ... and the others
python studies/tables.py runs/[hknpr]*_cpu runs/targets_retinamnist
python studies/tables.py runs/mixers_*_cpu --page mixers
python studies/tables.py runs/spmix_*_cpu runs/dwml_*_cpu runs/targets_ham10000 --page long_tails
python studies/tables.py runs/varimix_*_cpu runs/genmix_*_cpu runs/cxr_*_cpu --page generated --cache CACHE

Where `raremix quality` has judged the generated images of a run, its section has their figures and a picture.
"""

import argparse
import csv
import io
import re
from pathlib import Path

from synthetic import draw, lines_of, sets_of

from raremix.core import files
from raremix.report import Record, read_record
from raremix.report.figures.dose import added_words
from raremix.report.notation import metric_name
from raremix.report.words import ALPHA, conclude, control_sentences, sampling_sentences
from raremix.study.prepare import default_cache

HERE = Path(__file__).parent
PAGES = {
    "results": "Results on real images",
    "mixers": "Every mixer, at one budget",
    "long_tails": "Long tails, at one budget",
    "generated": "What generated images were worth, at one budget",
}
SHOWN = ("accuracy", "balanced_accuracy", "auroc", "average_precision", "f1")
OF_TWO = ("balanced_accuracy", "sensitivity", "specificity", "f1", "mcc", "cohen_kappa", "auroc")
"""What the publication on chest X-rays reports beside Youden's J."""

INTRODUCTION = """# {title}

Made by `python studies/tables.py` from the records of the studies named below; no figure is typed in by hand. Values
are means over seeds with 95 % intervals over patients and seeds; differences are paired, with Holm's correction over
the arms of a study, and of studies with folds between scores that are averaged over the seeds first. The rarest classes
are those of the tail, fewer than 20 training images, or where there is none the medium ones, up to 100; a step's cost
is that of the training steps alone, over the reference's. The `_cpu` studies are small on purpose: they end on two CPU
cores, so they compare recipes at a small budget, and are no claim about what a full training reaches. The full-size
files beside them are the same studies with the budget that a GPU allows.

Test sets chose nothing: moments, thresholds and temperatures come from validation images.
"""


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of finished studies")
    parser.add_argument("--page", choices=PAGES, default="results", help="page of docs/ to write")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where decoded images are")
    options = parser.parse_args()
    page = HERE.parent / "docs" / f"{options.page}.md"
    sections = sections_of(page.read_text()) if page.is_file() else {}
    for folder in options.runs:
        record = read_record(folder / "record.json")
        if not record.study.is_complete:
            raise SystemExit(f"{folder} is incomplete: run the study again")
        text = "\n".join([section(record), *generated(folder, record.study.name, cache=options.cache)])
        sections = beside_kin(sections, record.study.name, text)
        files.write_text(HERE / "results" / f"{record.study.name}.csv", comparisons(record))
    after = HERE / f"discussion_{options.page}.md"
    parts = [INTRODUCTION.format(title=PAGES[options.page]), *sections.values()]
    files.write_text(page, "\n".join([*parts, after.read_text()] if after.is_file() else parts))


def generated(folder: Path, study: str, *, cache: Path) -> list[str]:
    """Describe and draw a run's generated images, where there are any that were judged."""
    if not sets_of(folder):
        return []
    rows = draw(folder, HERE.parent / "docs" / "images" / f"{study}.png", cache=cache)
    return [*lines_of(folder), f"![The first of each, nothing chosen](images/{study}.png)", "", f"Rows: {rows}.", ""]


def sections_of(page: str) -> dict[str, str]:
    """Return the sections of a page that this program wrote, by the names of their studies, in order."""
    found = {}
    for part in re.split(r"^(?=## )", page, flags=re.MULTILINE):
        if told := re.search(r"^Study file: `studies/(\w+)\.toml`", part, flags=re.MULTILINE):
            found[told[1]] = part.rstrip("\n") + "\n"
    return found


def beside_kin(sections: dict[str, str], name: str, text: str) -> dict[str, str]:
    """Put a study's section where it was, or after the last one whose name begins with the same word, or at the end."""
    names = list(sections)
    if name not in sections:
        kin = [place for place, other in enumerate(names) if other.partition("_")[0] == name.partition("_")[0]]
        names.insert(kin[-1] + 1 if kin else len(names), name)
    return {other: text if other == name else sections[other] for other in names}


def section(record: Record) -> str:
    """Describe one study: data, table, conclusion."""
    study, data = record.study, record.data
    steps = record.arms[0].steps
    train = sum(data.counts.get("train", {}).values())
    facts = [
        f"Study file: `studies/{study.name}.toml`",
        f"{data.task}, {len(data.classes)} classes, imbalance ratio {data.imbalance_ratio:.0f}:1 in training",
        f"{data.images:,} images of {data.groups:,} {data.unit}" if data.grouped else f"{data.images:,} images",
        f"{train:,} labels in training" if data.task == "multilabel" else f"{train:,} training images",
        f"{steps} steps, seeds {', '.join(map(str, study.seeds))}" + (f", {study.folds} folds" if study.folds else ""),
    ]
    if data.thinned:
        facts.append(f"thinned in training: {data.thinned}")
    if record.decidable is not None and record.decidable.difference is not None:
        facts.append(f"this test set decides differences of about {100 * record.decidable.difference:.1f} points")
    notes = {found.note for arm in record.arms if (found := record.primary_comparison(arm.name)) and found.note}
    facts += [f"differences are the {note}" for note in sorted(notes)]
    first = study.primary_metric
    shown = OF_TWO if first == "youden_j" else SHOWN
    columns = [first, *(name for name in shown if name != first)]
    lines = [f"## {study.title}", "", "; ".join(facts) + ".", ""]
    heads = [f"{metric_name(name, capital=True)}{' (primary)' if name == first else ''}" for name in columns]
    heads += ["sensitivity, rarest classes", "cost of a step", "difference to the reference, points", "p (Holm)"]
    lines.append("| arm | " + " | ".join(heads) + " |")
    lines.append("| --- |" + " --- |" * len(heads))
    speed = {arm.name: arm.images_per_second for arm in record.arms}
    for arm in record.arms:
        cells = [_value(record, arm.name, name) for name in columns]
        cells.append(_rarest(record, arm.name))
        cells.append(f"{speed[study.reference] / arm.images_per_second:.2f}" if arm.images_per_second else "")
        found = record.primary_comparison(arm.name)
        if found is None or found.effect is None:
            cells += ["reference" if arm.name == study.reference else "", ""]
        else:
            low, high = found.low, found.high
            interval = "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
            cells += [f"{100 * found.effect:+.1f}{interval}", "" if found.p_holm is None else f"{found.p_holm:.3f}"]
        lines.append(f"| {arm.name} | " + " | ".join(cells) + " |")
    said = [*conclude(record), *added_words(record), *(f"Against the control: {s}" for s in control_sentences(record))]
    said += [f"Against balanced sampling: {sentence}" for sentence in sampling_sentences(record)]
    said += _decisions(record)
    said += [f"Translator {entry.translator}: {entry.words}" for entry in record.translators]
    return "\n".join([*lines, "", *(f"* {sentence}" for sentence in said), ""])


def _decisions(record: Record) -> list[str]:
    """Say of which pairs of arms McNemar's test tells the decisions about a class apart."""
    if not record.decisions:
        return []
    pairs = len({(one.arm, one.reference) for one in record.decisions})
    apart = [
        f"{one.arm} and {one.reference} on {one.label} ({one.only_arm} patients against {one.only_reference}, "
        f"p {'< .001' if one.p_holm < 0.001 else f'= {one.p_holm:.3f}'})"
        for one in record.decisions
        if one.p_holm < ALPHA
    ]
    told = f"it tells apart {'; '.join(apart)}" if apart else "it tells none apart"
    return [f"McNemar's test on the decisions about patients, class by class, {pairs} pairs of arms: {told}."]


def comparisons(record: Record) -> str:
    """Return every comparison of a study as CSV."""
    stream = io.StringIO()
    fields = [
        "arm",
        "reference",
        "metric",
        "primary",
        "effect",
        "low",
        "high",
        "p",
        "p_holm",
        "n",
        "positives",
        "seeds",
    ]
    writer = csv.DictWriter(stream, fields, lineterminator="\n")
    writer.writeheader()
    for entry in record.comparisons:
        values = entry.model_dump()
        writer.writerow({k: f"{v:.5f}" if isinstance(v := values[k], float) else v for k in fields})
    return stream.getvalue()


def _rarest(record: Record, arm: str) -> str:
    found = {e.label: e for e in record.metrics if (e.arm, e.metric, e.scope) == (arm, "sensitivity", "band")}
    entry = next((found[band] for band in ("tail", "medium") if band in found), None)
    return "" if entry is None or entry.value is None else f"{entry.value:.3f}{_interval(entry.low, entry.high)}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"


def _value(record: Record, arm: str, metric: str) -> str:
    found = record.overall(arm, metric)
    if found is None or found.value is None:
        return ""
    return f"{found.value:.3f}{_interval(found.low, found.high)}"


if __name__ == "__main__":
    main()
