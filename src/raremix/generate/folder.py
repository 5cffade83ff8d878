"""A trained generator as a folder: weights, card, the rows that it was fitted on, README, and hashes of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from raremix.core import files
from raremix.core.errors import CorruptError, ManifestError, ReadError
from raremix.core.fitted import FITTED_ON, FittedOn, write_fitted
from raremix.core.markdown import literal
from raremix.core.protocols import ImageReconstructor
from raremix.core.tensors import require_safetensors
from raremix.core.types import Task
from raremix.generate.form import Form
from raremix.generate.method import ImageGenerator
from raremix.generate.registry import GENERATORS

PARTS = ("model.safetensors", "config.json", FITTED_ON)
FORMAT = "raremix-generator"
VERSION = 1
EXTRA = "extra."


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorCard:
    """What is known of a trained generator beside its weights.

    Attributes:
        method: its name in the registry.
        settings: its hyper-parameters.
        form: what it draws.
        classes: names, in the order of the targets.
        task, modality, data: of the data set that it was fitted on.
        bits, resize: how images were prepared.
        fitted_on: hash of the rows that it was fitted on.
        held_out: hash of the validation and test rows that it did not see.
        images: how many it was fitted on, by class.
        seed, steps, batch_size: of the training.
        notes: what a user should know: a resumed run, little diversity.
        raremix: version.
        identity: hash of everything that it depends on.
        measured: figures by name, from the training.
        classifier: hash of the weights of the classifier that helped to train it; empty: none did.
    """

    method: str
    settings: dict[str, Any]
    form: Form
    classes: tuple[str, ...]
    task: Task
    modality: str
    data: str
    bits: int
    resize: str
    fitted_on: str
    held_out: str
    images: tuple[int, ...]
    seed: int
    steps: int
    batch_size: int
    notes: tuple[str, ...] = ()
    raremix: str = ""
    identity: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    classifier: str = ""


def save_generator(
    folder: Path,
    *,
    card: GeneratorCard,
    weights: Mapping[str, Mapping[str, Tensor]],
    rows: FittedOn,
    extras: Mapping[str, Tensor] | None = None,
    before: Mapping[str, FittedOn] | None = None,
) -> Path:
    """Write a generator's folder.

    Args:
        folder: where; made if need be. Other files in it stay.
        card: what is known of it.
        weights: of the kept networks, by name.
        rows: what it was fitted on.
        extras: further tensors that are needed to draw.
        before: by use, the rows that what it began with was fitted on.
    """
    tensors = {f"{name}.{key}": value for name, state in weights.items() for key, value in state.items()}
    tensors |= {EXTRA + key: value for key, value in (extras or {}).items()}
    files.write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    files.write_json(folder / "config.json", {"format": FORMAT, "version": VERSION, **asdict(card)})
    write_fitted(folder, {"train": rows, **(before or {})})
    files.write_text(folder / "README.md", _readme(card))
    files.seal(folder, PARTS)
    return folder


def read_card(folder: Path) -> GeneratorCard:
    """Read what is known of a generator, after checking all its files.

    Raises:
        ManifestError: if it is not such a folder.
        CorruptError: if a file of it is damaged.
    """
    missing = [name for name in PARTS if not (folder / name).is_file()]
    if missing:
        raise ManifestError(
            f"{folder} is no generator folder: {', '.join(missing)} missing. Expected what `raremix generator fit` "
            "writes, for example runs/generators/NAME"
        )
    facts = files.read_json(folder / "config.json")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or facts.get("version") != VERSION:
        raise ManifestError(
            f"{folder} holds no generator of raremix (format {VERSION}): fit one with `raremix generator fit`"
        )
    vouched = files.verify(folder, advice="fit the generator again, or restore the folder")
    if not set(PARTS) <= set(vouched):
        raise CorruptError(f"{folder}/manifest.json does not vouch for {', '.join(PARTS)}: fit the generator again")
    try:
        del facts["format"], facts["version"]
        facts["form"] = Form(**facts["form"])
        facts |= {key: tuple(facts[key]) for key in ("classes", "images", "notes")}
        # JSON has one kind of list; settings are tuples.
        facts["settings"] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["settings"].items()}
        return GeneratorCard(**facts)
    except (KeyError, TypeError) as error:
        raise CorruptError(f"{folder}/config.json cannot be read ({error}): fit the generator again") from None


def load_generator(
    folder: Path, *, card: GeneratorCard | None = None
) -> tuple[ImageGenerator | ImageReconstructor, GeneratorCard]:
    """Read a generator's folder.

    Args:
        folder: what `save_generator` wrote.
        card: as read before, to check the files once only.

    Raises:
        ManifestError: if it is not such a folder.
        CorruptError: if a file of it is damaged, or does not fit the others.
    """
    card = read_card(folder) if card is None else card
    if card.method not in GENERATORS:
        raise ManifestError(f"{folder}: method {card.method!r} is unknown here; known: {', '.join(GENERATORS)}")
    try:
        require_safetensors(folder / "model.safetensors")
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        method = GENERATORS[card.method](**card.settings)
        networks = method.networks(card.form, seed=0)
        kept = {name: networks[name] for name in method.kept}
        for name, network in kept.items():
            mine = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
            network.load_state_dict(mine)
            network.requires_grad_(False)
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, ReadError, safetensors.SafetensorError) as error:
        raise CorruptError(f"{folder} cannot be read ({str(error).splitlines()[0]}): fit the generator again") from None
    extras = {key.removeprefix(EXTRA): tensor for key, tensor in tensors.items() if key.startswith(EXTRA)}
    return method.drawer(kept, card.form, extras=extras), card


def generator_hash(folder: Path) -> str:
    """Return the hash of a generator's files, which its images carry in their recipe."""
    return files.hash_value(files.read_json(folder / files.MANIFEST)["files"])


def _readme(card: GeneratorCard) -> str:
    rows = "\n".join(f"| {literal(name)} | {count} |" for name, count in zip(card.classes, card.images, strict=True))
    settings = "\n".join(f"* {literal(key)}: {literal(str(value))}" for key, value in card.settings.items())
    measured = "".join(f"* {literal(key)}: {value:.4g}\n" for key, value in card.measured.items())
    notes = "".join(f"* {literal(note)}\n" for note in card.notes)
    what = "translates images to" if GENERATORS[card.method].is_translator else "draws images of"
    return f"""---
tags: [image-generation, raremix]
---

# {card.method}: {len(card.classes)} classes of {literal(card.data)}

It {what} these classes: {card.form.size} x {card.form.size} pixels, {card.form.channels} channel(s),
{literal(card.modality)}.
A research model. Its images are made up: they must not decide about patients, and nothing here says that they are free
of copies of the images that it was fitted on.

| class | training images |
| --- | --- |
{rows}

* fitted on the rows `{card.fitted_on}`; their hashes are in fitted_on.parquet, and a study that holds any of them out
  refuses this generator
* held out: `{card.held_out}`
* {card.steps} steps of {card.batch_size} images, seed {card.seed}, raremix {card.raremix}
{measured}{notes}
## Settings

{settings}
"""
