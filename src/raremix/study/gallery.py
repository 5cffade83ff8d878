"""A gallery of mixers: for a few pairs of images, what each method mixes, by which mask, and with which label."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from raremix.core import files
from raremix.core.errors import ConfigError
from raremix.core.markdown import literal
from raremix.core.masks import resize_mask
from raremix.core.pixels import take_rows
from raremix.core.protocols import Mixer
from raremix.core.random import rng
from raremix.core.registry import look_up
from raremix.core.types import Batch, Boxes, MixPlan, Progress
from raremix.mix import COMBINATIONS, LEARNED_MIXERS, MIXERS, Method, TransMix
from raremix.study.arm_table import ArmSpec
from raremix.study.feeds import make_feed
from raremix.study.mixers import make_mixer
from raremix.study.prepare import Prepared
from raremix.study.record.pictures import caption, to_png
from raremix.study.spec import StudySpec

SIDE, GAP, TITLE, LINE = 112, 6, 18, 16
"""Pixels: side of a picture, between pictures, of the columns' titles, of a line below a picture."""

BATCH = 16
"""Rows that a method chooses its pairs from."""

STAND_INS = "These data have no synthetic images for its partners: other real images stand in for them here."


def check_names(names: Iterable[str]) -> None:
    """Refuse names that are no mixer's.

    Raises:
        UnknownNameError: with the nearest known name.
    """
    for name in names:
        look_up({**MIXERS, **LEARNED_MIXERS, **COMBINATIONS}, name, kind="mixer")


def draw_gallery(
    spec: StudySpec,
    prepared: Prepared,
    folder: Path,
    *,
    names: tuple[str, ...] = (),
    pairs: int = 3,
    seed: int = 0,
    made_by: str = "raremix show mixes",
    progress: Progress | None = None,
) -> dict[str, str]:
    """Draw each method's pair, importance, mask, result and label, one picture per method, and a page of all.

    Args:
        spec: the study whose data are shown.
        prepared: its data.
        folder: where `<method>.png`, `index.md` and `gallery.html` are written.
        names: methods by name; all by default.
        pairs: rows of each picture.
        seed: chooses the images.
        made_by: the command that draws these pictures again.
        progress: called after every method.

    Returns:
        By method, the picture's path, or in words why there is none.

    Raises:
        UnknownNameError: if there is no mixer of a name.
    """
    check_names(names)
    wanted = names or (*MIXERS, *LEARNED_MIXERS)
    found: dict[str, str] = {}
    files.folder(folder)
    for done, name in enumerate(wanted):
        try:
            picture = draw_method(spec, prepared, name, pairs=pairs, seed=seed)
        except ConfigError as error:
            found[name] = f"not shown: {error}"
        else:
            found[name] = str(files.write_image(folder / f"{name}.png", picture))
        if progress is not None:
            progress("mixers", done + 1, len(wanted))
    _write_pages(folder, found, prepared, made_by=made_by)
    return found


def draw_method(spec: StudySpec, prepared: Prepared, name: str, *, pairs: int, seed: int) -> np.ndarray:
    """Draw one method's picture: a row per pair.

    Returns:
        uint8 of shape (H, W, 3).

    Raises:
        ConfigError: if there is nothing to draw: the method learns where to mix, or is made of others.
    """
    if name in LEARNED_MIXERS:
        raise ConfigError(
            f"{name} draws its masks by a network that is trained beside a classifier, and here none is; train both in "
            f'a study: mix = {{ name = "{name}" }}'
        )
    if name in COMBINATIONS:
        raise ConfigError(f"{name} is made of other mixers; draw those")
    table = {"name": "none"}
    arm = ArmSpec(name=name, mix={"name": name}, augment=table, sampler={"name": "balanced"}, loss={})
    shown = replace(spec, train=replace(spec.train, batch_size=BATCH, devices=1))
    counts = tuple(float(n) for n in prepared.manifest.class_counts("train"))
    mixer = make_mixer(arm.mix, where=f"arm.{name}.mix", class_counts=counts)
    lacks = lacks_synthetic(mixer, prepared)
    batch = make_feed(shown, prepared, replace(arm, mix=table) if lacks else arm, seed=seed).batch(0)
    pool = batch if batch.pool is None else batch.pool
    if lacks:
        pool = make_feed(shown, prepared, replace(arm, mix=table), seed=seed + 1).batch(0)
    drawn = mixer if isinstance(mixer, Method) and mixer.is_guided else None
    if drawn is not None:
        is_shared = pool is batch
        batch = drawn.with_importance(batch)
        pool = batch if is_shared else drawn.with_importance(pool)
    plan = mixer.plan(batch, pool, rng=rng(seed, "mix", 0))
    mixed = plan.apply(batch, pool)
    if isinstance(mixer, TransMix) and batch.importance is None and mixer.importance is not None:
        # It looks at the mixed image, and at no other.
        mixed = replace(mixed, importance=mixer.importance(mixed.images, mixed.targets))
    partner = "partner (stand-in)" if lacks else "partner"
    rows = _telling_rows(plan, batch, pool)[:pairs]
    classes = prepared.manifest.card.classes
    return _sheet([list(_cells(plan, batch, pool, mixed, row, classes, partner=partner)) for row in rows])


def lacks_synthetic(mixer: Mixer, prepared: Prepared) -> bool:
    """Whether a mixer draws its partners from synthetic images, and the training images are all real."""
    pool, manifest = mixer.streams.pool, prepared.manifest
    if pool is None or pool.origin != "synthetic":
        return False
    origins = manifest.frame["origin"].to_numpy()[manifest.positions(manifest.rows("train"))]
    return not (origins == "synthetic").any()


def _telling_rows(plan: MixPlan, batch: Batch, pool: Batch) -> list[int]:
    """Return rows in order of how much they show: two classes, and a good share of both."""
    own, partner = take_rows(batch.targets, plan.own), take_rows(pool.targets, plan.partner)
    differs = (own.nan_to_num() != partner.nan_to_num()).any(dim=1).float()
    share = _mask(plan, 16, 16).mean(dim=(1, 2, 3))
    score = differs + (0.5 - (share - 0.5).abs())
    return torch.argsort(-score, stable=True).tolist()


def _cells(
    plan: MixPlan, batch: Batch, pool: Batch, mixed: Batch, row: int, classes: tuple[str, ...], *, partner: str
) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield title, picture and caption of everything about one row of a plan."""
    own, other = int(plan.own[row]), int(plan.partner[row])
    height, width = batch.images.shape[-2:]
    yield "own", _bytes(batch.images[own]), caption(batch.targets[own].numpy(), classes)
    yield partner, _bytes(pool.images[other]), caption(pool.targets[other].numpy(), classes)
    if batch.importance is not None and pool.importance is not None:
        for title, maps, place in (("importance, own", batch, own), ("importance, partner", pool, other)):
            assert maps.importance is not None
            yield title, _heat(maps.importance[place, 0].numpy()), ""
    mask = _mask(plan, height, width)[row, 0]
    yield "mask (white: own)", _bytes(mask[None]), f"{float(mask.mean()):.0%} own pixels"
    where = "" if plan.at is None else f" (in the network, after {plan.at})"
    yield f"result{where}", _bytes(mixed.images[row]), caption(mixed.targets[row].numpy(), classes)
    if mixed.importance is not None:
        yield "importance, result", _heat(mixed.importance[row, 0].numpy()), ""


def _mask(plan: MixPlan, height: int, width: int) -> torch.Tensor:
    mask = plan.mask.to_mask() if isinstance(plan.mask, Boxes) else plan.mask
    return resize_mask(mask.detach().cpu(), height, width).expand(-1, 1, height, width)


def _bytes(image: torch.Tensor) -> np.ndarray:
    """Return an image as (H, W, 3) bytes; of two channels the first, of four the first three."""
    shown = image[:1].expand(3, -1, -1) if image.shape[0] < 3 else image[:3]
    return (shown.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _heat(importance: np.ndarray) -> np.ndarray:
    """Return a map in [0, 1] as colours from dark blue over green to yellow, readable without colour vision."""
    stops = np.array([[20, 20, 60], [50, 90, 140], [40, 160, 130], [150, 210, 70], [255, 240, 90]], dtype=np.float64)
    place = np.clip(importance, 0, 1)[..., None] * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)
    mixed = stops[low[..., 0]] + (stops[low[..., 0] + 1] - stops[low[..., 0]]) * (place - low)
    return mixed.round().astype(np.uint8)


def _sheet(rows: list[list[tuple[str, np.ndarray, str]]]) -> np.ndarray:
    """Lay pictures out in rows, titles above the first row, captions below each."""
    lines = 2
    high, wide = SIDE + lines * LINE + GAP, SIDE + GAP
    sheet = Image.new("RGB", (wide * len(rows[0]) + GAP, high * len(rows) + TITLE + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for r, cells in enumerate(rows):
        for c, (title, picture, words) in enumerate(cells):
            left, top = GAP + c * wide, TITLE + r * high
            sheet.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
            if r == 0:
                pen.text((left, 3), title, fill="black")
            for number, line in enumerate(_wrapped(pen, words, lines)):
                pen.text((left, top + SIDE + 1 + number * LINE), line, fill="black")
    return np.asarray(sheet)


def _wrapped(pen: ImageDraw.ImageDraw, words: str, lines: int) -> list[str]:
    """Break a caption into lines as wide as a picture; what does not fit ends in dots."""
    found = [""]
    for word in words.split():
        longer = f"{found[-1]} {word}".strip()
        if pen.textlength(longer) <= SIDE:
            found[-1] = longer
        else:
            found.append(word)
    cut = [line for line in found if line]
    return cut if len(cut) <= lines else [*cut[: lines - 1], f"{cut[lines - 1]} …"]


def _write_pages(folder: Path, found: dict[str, str], prepared: Prepared, *, made_by: str) -> None:
    notes = {name: STAND_INS for name, method in MIXERS.items() if lacks_synthetic(method(), prepared)}
    shown = {name: Path(path) for name, path in found.items() if path.endswith(".png")}
    left_out = {name: why for name, why in found.items() if name not in shown}
    card = prepared.manifest.card
    about = (
        f"What each method makes of {card.name}: two images, where the method looks at them their importance maps, the "
        "share of its own pixels that the first keeps, the result, and its label."
    )
    command = made_by.replace("`", "'")  # it is quoted by backticks
    page = [f"# Gallery of mixers\n\n{literal(about)} Made by `{command}`.\n"]
    for name, path in shown.items():
        page += [f"## {name}\n", *([f"{notes[name]}\n"] if name in notes else []), f"![{name}]({path.name})\n"]
    page += [f"* `{name}` is {literal(why)}\n" for name, why in left_out.items()]
    files.write_text(folder / "index.md", "\n".join(page))
    body = []
    for name, path in shown.items():
        note = f"<p>{escape(notes[name])}</p>" if name in notes else ""
        body.append(f"<h2>{escape(name)}</h2>{note}<img alt='{escape(name)}' src='{_inline(path)}'>")
    body += [f"<p><code>{escape(name)}</code> is {escape(why)}</p>" for name, why in left_out.items()]
    style = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem}img{max-width:100%}"
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{policy}"><title>Gallery of mixers</title><style>{style}</style>'
    )
    files.write_text(folder / "gallery.html", f"{head}<h1>Gallery of mixers</h1><p>{escape(about)}</p>{''.join(body)}")


def _inline(path: Path) -> str:
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    return f"data:image/png;base64,{to_png(image, side=None)}"
