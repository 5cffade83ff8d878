"""Tell and draw the generated images that a study trained on, for the pages that tables.py writes.

raremix quality RUN/synthetic/SET --features WEIGHTS --set data.size=32 --set data.channels=1    # of each set of a run
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raremix.core import files
from raremix.evaluate.generative import FIGURES, Figure, as_shown
from raremix.report.quality import written
from raremix.study import read_study
from raremix.study.defaults import study_of
from raremix.study.prepare import prepare

SHOWN = ("frechet", "kernel", "coverage")
COLUMNS, ENLARGED, GAP = 16, 64, 2
"""Images of a row, their side in pixels as they are drawn, and white pixels between rows."""


def sets_of(run: Path) -> list[Path]:
    """Return the folders of a run's generated images that `raremix quality` has judged."""
    return sorted(path.parent for path in run.glob("synthetic/*/quality.json"))


def names_of(run: Path) -> dict[Path, str]:
    """Return what to call each judged set: its generator, and of several how its images began and were drawn."""
    folders = sets_of(run)
    short = [folder.name.rpartition("-")[0] for folder in folders]
    names = {}
    for folder, name in zip(folders, short, strict=True):
        facts = files.read_json(folder / "synthesis.json") if short.count(name) > 1 else {}
        began = [f"from {facts.get('begin', 'noise')}"] if facts else []
        drawn = [f"{key} {value}" for key, value in (facts.get("drawing") or {}).items()]
        names[folder] = ", ".join([name, *began, *drawn])
    return names


def lines_of(run: Path) -> list[str]:
    """Describe a run's generated images: figures beside those of held-out real ones, and what was found of copies."""
    found = {name: files.read_json(folder / "quality.json") for folder, name in names_of(run).items()}
    if not found:
        return []
    encoder = ", ".join(sorted({told["features"] for told in found.values()}))
    heads = ["generator", "class", "images"]
    for key in SHOWN:
        heads += [FIGURES[key], "of real ones"]
    lines = [
        "Generated images, and held-out real ones of the same class, compared with the real training images "
        f"(encoder {encoder}):",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + " --- |" * len(heads),
    ]
    for generator, told in found.items():
        for one in told["classes"][1:]:
            if one["figures"] and one["floor"]:
                cells = [_figure(which[key], key) for key in SHOWN for which in _both(one)]
                lines.append(f"| {generator} | {one['name']} | {one['synthetic']} | " + " | ".join(cells) + " |")
    words = {generator: told["memorisation"] for generator, told in found.items()}
    said = {generator: one.get("words") or f"Copies: {one['not_told']}." for generator, one in words.items()}
    return [*lines, "", *(f"* {generator}: {text}" for generator, text in said.items()), ""]


def draw(run: Path, to: Path, *, cache: Path) -> str:
    """Draw the first real images of the class that was generated most, and a row of each generator's first ones.

    Returns:
        Whose rows these are, from above.
    """
    data = read_study(run / "study.toml").data
    rows, names = [], []
    for folder, name in names_of(run).items():
        told = max(files.read_json(folder / "quality.json")["classes"][1:], key=lambda one: one["synthetic"])
        settings = [f"data.size={data.size}", f"data.channels={data.channels}"]
        prepared = prepare(study_of(str(folder), settings=settings), cache=cache)
        frame, label = prepared.manifest.frame, prepared.manifest.card.classes.index(told["name"])
        own = (prepared.manifest.targets()[:, label] > 0.5) & (frame["split"] == "train").to_numpy()
        is_made = (frame["origin"] == "synthetic").to_numpy()
        if not rows:
            rows.append(prepared.cache.take(prepared.manifest.ids[own & ~is_made][:COLUMNS]))
            names.append(f"real ({told['name']})")
        rows.append(prepared.cache.take(prepared.manifest.ids[own & is_made][:COLUMNS]))
        names.append(name)
    sheet = np.full((len(rows) * (ENLARGED + GAP) - GAP, COLUMNS * ENLARGED, 3), 255, dtype=np.uint8)
    for place, images in enumerate(rows):
        for column, image in enumerate(images):
            shown = Image.fromarray(np.repeat(image, 3 // len(image), axis=0).transpose(1, 2, 0))
            top, left = place * (ENLARGED + GAP), column * ENLARGED
            sheet[top : top + ENLARGED, left : left + ENLARGED] = shown.resize((ENLARGED, ENLARGED), Image.NEAREST)
    files.write_image(to, sheet)
    return ", ".join(names)


def _both(one: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return one["figures"], one["floor"]


def _figure(figure: dict[str, float], key: str) -> str:
    shown = as_shown(key, Figure(**figure))
    return written((shown.value, shown.low, shown.high))
