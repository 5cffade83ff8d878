"""Write docs/pitfalls.md and its picture from what studies/pitfalls.py and the leakage studies measured.

raremix study studies/leakage_kermany_cpu.toml && raremix study studies/leakage_kermany_grouped_cpu.toml
python studies/pitfalls.py ../shared/data ../shared/weights/mobilenetv2_100_imagenet.safetensors
python studies/pitfalls_page.py runs/leakage_kermany_cpu runs/leakage_kermany_grouped_cpu ../shared/data
"""

import argparse
import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import polars as pl
from pitfalls import chest

from raremix.core import files
from raremix.data.manifest import Manifest
from raremix.evaluate import compare
from raremix.report import read_record

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
SIDES = {"claimed": "claimed", "honest": "without the mistake", "new": "on new patients"}
POINTS = ("leaky", "clean", "effect", "low", "high")
COLOURS = {"claimed": "#b3402a", "honest": "#5b7f95", "new": "#1d3a4f"}


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("leaky", type=Path, help="run folder of the study with folds by image")
    parser.add_argument("clean", type=Path, help="run folder of the study with folds by patient")
    parser.add_argument("data", type=Path, help="folder with kermany_cxr_224")
    parser.add_argument("--cache", type=Path, default=Path("runs/pitfalls_cache"), help="folder for hashes of files")
    options = parser.parse_args()
    measured = files.read_json(HERE / "results" / "pitfalls.json")
    draw(measured["mistakes"], DOCS / "images" / "pitfalls.png")
    network = trained(options.leaky, options.clean, chest(options.data, cache=options.cache))
    files.write_json(HERE / "results" / "leakage_kermany_cpu.json", network)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    page = environment.from_string((HERE / "pitfalls.md.jinja").read_text()).render(
        repeats=measured["repeats"],
        size=measured["size"],
        mistakes={key: in_points(mistake) for key, mistake in measured["mistakes"].items()},
        refusals=measured["refusals"],
        network={
            **network,
            **{key: f"{100 * network[key]:.1f}" for key in ("leaky", "clean", "effect", "low", "high")},
        },
        verdict=verdict(network, measured["mistakes"]),
    )
    files.write_text(DOCS / "pitfalls.md", page)


def in_points(mistake: dict[str, Any]) -> dict[str, str]:
    """Write means, and the mean and middle 95 % of what was claimed too much."""
    values = {name: 100 * np.array(mistake[name]) for name in SIDES}
    excess = values["claimed"] - values["new"]
    low, high = np.quantile(excess, [0.025, 0.975])
    return {
        **{name: mistake[name] for name in ("title", "data", "score")},
        **{name: f"{value.mean():.1f}" for name, value in values.items()},
        "excess": f"{excess.mean():+.1f}",
        "low": f"{low:+.1f}",
        "high": f"{high:+.1f}",
    }


def trained(leaky: Path, clean: Path, manifest: Manifest) -> dict[str, Any]:
    """Compare the out-of-fold scores of both studies on the same images, over patients and seeds."""
    names = manifest.card.classes
    tables = [pl.read_parquet(folder / "predictions.parquet").filter(split="test") for folder in (leaky, clean)]
    scores = []
    for table in tables:
        seeds = [table.filter(seed=seed).sort("id") for seed in sorted(table["seed"].unique())]
        if any(seed["id"].to_list() != manifest.ids.tolist() for seed in seeds):
            raise SystemExit("the studies do not hold the same images: run both on one table")
        scores.append(np.stack([seed.select(f"score:{name}" for name in names).to_numpy() for seed in seeds]))
    found = compare(
        manifest.targets(),
        *scores,
        metric="balanced_accuracy",
        task="multiclass",
        groups=manifest.frame["group"].to_numpy(),
        combine="metric",
    )
    return {
        "seeds": found.seeds,
        "folds": len(tables[1]["fold"].unique()),
        "steps": read_record(clean / "record.json").arms[0].steps,
        "n": found.n,
        "groups": found.groups,
        "leaky": found.value_a,
        "clean": found.value_b,
        "effect": found.effect,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


def verdict(network: dict[str, Any], mistakes: dict[str, Any]) -> str:
    """Say in words whether a cost was seen."""
    excess = np.array(mistakes["remembered"]["claimed"]) - np.array(mistakes["remembered"]["new"])
    parts = []
    if network["low"] > 0:
        parts.append("A cost was seen with the trained network.")
    else:
        parts.append("With the trained network, at this budget, no cost could be shown.")
    parts.append(
        f"Remembering makes it {100 * excess.mean():.1f} points on average."
        if np.quantile(excess, 0.025) > 0
        else "Even a classifier that remembers showed none beyond the spread of the splits."
    )
    return " ".join(parts)


def draw(mistakes: dict[str, Any], path: Path) -> None:
    """Draw the three figures of each mistake, with the middle 95 % of the repeats."""
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.75 * len(mistakes)), layout="constrained")
    for row, mistake in enumerate(reversed(mistakes.values())):
        for place, (name, words) in enumerate(SIDES.items()):
            values = 100 * np.array(mistake[name])
            low, high = np.quantile(values, [0.025, 0.975])
            height = row + 0.22 * (1 - place)
            axes.plot([low, high], [height, height], color=COLOURS[name], linewidth=2.5, alpha=0.45)
            axes.plot(values.mean(), height, "o", color=COLOURS[name], label=words if row == 0 else None)
    axes.set_yticks(range(len(mistakes)), [m["title"] for m in reversed(mistakes.values())])
    axes.set_xlabel("score, percent")
    axes.set_xlim(0, 100)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, 1.12), ncols=3)
    data = io.BytesIO()
    figure.savefig(data, dpi=110, metadata={"Software": None})
    plt.close(figure)
    files.write_bytes(path, data.getvalue())


if __name__ == "__main__":
    main()
