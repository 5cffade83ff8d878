"""A trained classifier as a folder that timm loads: model.safetensors, config.json, README.md, raremix.json.

`timm.create_model("local-dir:FOLDER", pretrained=True)` builds it. `raremix.json` adds what a decision needs: classes,
thresholds, temperature, and the hash of the data that it was trained on. `manifest.json` vouches for these files.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
from torch import Tensor

from raremix.core import files
from raremix.core.errors import CorruptError, ManifestError, ReadError
from raremix.core.fitted import FITTED_ON, FittedOn, write_fitted
from raremix.core.markdown import literal
from raremix.core.tensors import require_safetensors
from raremix.core.types import Task
from raremix.models.classifier import CLOSED_OPTIONS, Classifier
from raremix.models.head import head_features, head_from_settings, replace_head

PARTS = ("model.safetensors", "config.json", "raremix.json")
"""The files that a prediction depends on; their hashes are in `manifest.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierCard:
    """What a decision needs beside the weights.

    Attributes:
        task: binary, multiclass or multilabel.
        classes: names of the logits, in order.
        size, channels, bits, resize: how images are prepared.
        thresholds: decision threshold per class, chosen on validation images.
        temperature: logits are divided by it before they become probabilities; fitted on validation images.
        modality: the data card's.
        manifest_hash: of the data set that it was trained on.
        training: settings and where the figures come from, for the README.
        reading: how frames and values are chosen, where that is not the default.
        probabilities: how logits become probabilities of images as they come: temperature, offsets and prevalence as
            `raremix.evaluate.probability.Probabilities` names them, and "deployed", the prevalence where the classifier
            is used, or None; empty: the temperature above is all there is.
    """

    task: Task
    classes: tuple[str, ...]
    size: int
    channels: int
    bits: int
    resize: str
    thresholds: tuple[float, ...]
    temperature: float
    modality: str
    manifest_hash: str
    training: dict[str, Any]
    reading: dict[str, Any] = field(default_factory=dict)
    probabilities: dict[str, Any] = field(default_factory=dict)


def save_classifier(
    folder: Path,
    *,
    architecture: str,
    weights: dict[str, Tensor],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    options: dict[str, Any],
    card: ClassifierCard,
    head: dict[str, Any] | None = None,
    fitted_on: Mapping[str, FittedOn] | None = None,
) -> Path:
    """Write a classifier's folder.

    Args:
        folder: where; made if need be.
        architecture: timm's name of the network.
        weights: state of the network, without normalisation.
        mean, std: normalisation by channel.
        options: keyword arguments of timm's constructor.
        card: what a decision needs.
        head: settings of a last layer that is not timm's.
        fitted_on: the rows that it was trained on, and those by which the moment to keep and the thresholds were
            chosen, by use: "train", "validation".
    """
    size = (card.channels, card.size, card.size)
    config = {
        "architecture": architecture,
        "num_classes": len(card.classes),
        "label_names": list(card.classes),
        "model_args": {**options, "num_classes": len(card.classes), "in_chans": card.channels},
        "pretrained_cfg": {
            "num_classes": len(card.classes),
            "input_size": size,
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": mean,
            "std": std,
            "license": "see README.md",
        },
    }
    if head is not None:
        config["raremix_head"] = head
    files.write_tensors(folder / "model.safetensors", weights, {"format": "pt"})
    files.write_json(folder / "config.json", config)
    files.write_json(folder / "raremix.json", asdict(card))
    files.write_text(folder / "README.md", _readme(architecture, card, is_timm=head is None))
    if fitted_on is not None:
        write_fitted(folder, fitted_on)
    files.seal(folder, [*PARTS, *([] if fitted_on is None else [FITTED_ON])])
    return folder


def load_classifier(folder: Path) -> tuple[Classifier, ClassifierCard]:
    """Read a classifier's folder.

    Raises:
        ManifestError: if it is not such a folder.
        CorruptError: if a file of it is damaged.
    """
    missing = [name for name in PARTS if not (folder / name).is_file()]
    if missing:
        raise ManifestError(
            f"{folder} is no classifier folder: {', '.join(missing)} missing. Expected the folder that "
            "`raremix train` or `raremix study` writes, for example runs/NAME/classifiers/ARM"
        )
    files.verify(folder, advice="train the classifier again, or restore the folder")
    config, stored = files.read_json(folder / "config.json"), files.read_json(folder / "raremix.json")
    try:
        card = ClassifierCard(
            **{**stored, "classes": tuple(stored["classes"]), "thresholds": tuple(stored["thresholds"])}
        )
        architecture, options = str(config["architecture"]), dict(config["model_args"])
        # A folder from elsewhere must not make timm load another file, or ask a hub.
        if set(options) & set(CLOSED_OPTIONS) or not timm.is_model(architecture.partition(".")[0]):
            raise TypeError("its config.json names another file or hub")
        require_safetensors(folder / "model.safetensors")
        net = timm.create_model(architecture, pretrained=False, **options)
        mean, std = tuple(config["pretrained_cfg"]["mean"]), tuple(config["pretrained_cfg"]["std"])
        if config.get("raremix_head") is not None:
            features = head_features(net, channels=card.channels, size=card.size)
            replace_head(net, head_from_settings(config["raremix_head"], features, len(card.classes)))
        net.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
        return Classifier(net, mean=mean, std=std).eval(), card
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, ReadError, safetensors.SafetensorError) as error:
        raise CorruptError(
            f"{folder} cannot be read ({error}): train the classifier again, or restore the folder"
        ) from None


def _prevalence(card: ClassifierCard) -> str:
    """Say what mixture of classes the probabilities are right for."""
    found = card.probabilities
    shares = found.get("deployed") or found.get("prevalence")
    if not shares:
        return ""
    shifted = "" if not any(found["offsets"]) else " Classes are shifted for it, beside the temperature;"
    told = ", ".join(f"{literal(name)} {share:.4g}" for name, share in zip(card.classes, shares, strict=True))
    return f"""
What it decides follows from the thresholds below. Its probabilities hold where classes are as frequent as these:
{told}.{shifted or " For that"} `--prevalence CLASS=SHARE` states what holds where you use it.
"""


def _readme(architecture: str, card: ClassifierCard, *, is_timm: bool = True) -> str:
    rows = "\n".join(
        f"| {literal(name)} | {threshold:.4f} |" for name, threshold in zip(card.classes, card.thresholds, strict=True)
    )
    settings = "\n".join(f"* {literal(key)}: {literal(str(value))}" for key, value in card.training.items())
    own = "_stem" in architecture
    code = f"""import timm{"; import raremix.models  # registers the small-image network" if own else ""}
model = timm.create_model("local-dir:THIS_FOLDER", pretrained=True)"""
    if not is_timm:  # the last layer is not timm's
        code = 'from raremix.models import load_classifier\nmodel, card = load_classifier(Path("THIS_FOLDER"))'
    return f"""---
library_name: timm
tags: [image-classification, raremix]
---

# {architecture}, {card.task}, {len(card.classes)} classes

Trained by raremix on {literal(card.modality)} images of {card.size} x {card.size} pixels, {card.channels} channel(s).
It is a research model: it is no medical device, and it must not decide about patients.

```python
{code}
```

Images go in normalised as `config.json` says. Logits are divided by the temperature {card.temperature:.4f} before
{"the sigmoid" if card.task == "multilabel" else "the softmax"}. `raremix predict THIS_FOLDER IMAGES` does all of it.
{_prevalence(card)}
| class | threshold, chosen on validation images |
| --- | --- |
{rows}

Manifest: `{card.manifest_hash}`

{settings}
"""
