"""Use a trained classifier: evaluate it on labelled images, or score new ones."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raremix.config import build
from raremix.core.errors import ConfigError, HeldOutError, ManifestError, UnknownNameError, UsageError
from raremix.core.fitted import content_keys, read_fitted
from raremix.core.types import Progress
from raremix.data.manifest import Manifest, listed
from raremix.data.readers import SUFFIXES, Reading, decode_fitted, has_image_suffix, read_bytes
from raremix.data.sources.layout import files_below
from raremix.evaluate.calibration import scores_from_logits
from raremix.evaluate.decide import decide
from raremix.evaluate.probability import Probabilities, check_known, stated_prevalence
from raremix.evaluate.summary import measure
from raremix.models import ClassifierCard, load_classifier
from raremix.study.further_labels import FurtherLabels, WithFurtherLabels, read_further_labels
from raremix.train.feed import to_float
from raremix.train.inference import predict_logits


@dataclass(frozen=True, slots=True, kw_only=True)
class FileImages:
    """Images decoded when they are asked for, prepared as a classifier wants them.

    Attributes:
        paths: one file per id.
        card: size, channels, bits and way to resize.
        threads: decoding threads.
    """

    paths: Sequence[Path]
    card: ClassifierCard
    threads: int = 2

    def take(self, ids: Int[np.ndarray, " B"]) -> np.ndarray:
        """Return images of shape (B, C, H, W).

        Raises:
            ReadError: naming the file that cannot be read.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            return np.stack(list(pool.map(self._one, ids.tolist())))

    def _one(self, number: int) -> np.ndarray:
        card = self.card
        name = str(self.paths[number])
        fitted = decode_fitted(
            read_bytes(self.paths[number], name=name),
            name=name,
            size=card.size,
            channels=card.channels,
            bits=card.bits,
            resize=card.resize,  # pyright: ignore[reportArgumentType]
            reading=build(Reading, card.reading, where="the classifier's reading"),
        )
        return fitted.transpose(2, 0, 1)


def find_images(places: Sequence[Path]) -> list[Path]:
    """List the images that files, folders and tables of paths name, in a stable order.

    Raises:
        UsageError: if a place does not exist, or there is no image at all.
        ManifestError: for a folder that cannot be listed.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            names = files_below(place, root=place)
            found += [place / name for name in names if has_image_suffix(Path(name))]
        elif place.is_file():
            found.append(place)
        else:
            raise UsageError(f"{place}: no such file or folder")
    if not found:
        raise UsageError(
            f"no images in {', '.join(map(str, places))}: expected files with {', '.join(sorted(SUFFIXES))}"
        )
    return found


def predict_images(
    classifier: Path,
    paths: Sequence[Path],
    *,
    prevalence: Mapping[str, float] | None = None,
    vectors: Path | None = None,
    examples: Mapping[str, Sequence[Path]] | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Score images with a classifier's folder.

    Args:
        classifier: the folder.
        paths: images.
        prevalence: share of each class where the images come from; by default what the study stated, or else the
            shares of its validation images.
        vectors: of further labels, which the classifier was not trained on; see
            `raremix.study.further_labels.read_further_labels`.
        examples: images of further labels, by name.
        progress: called after every batch.

    Returns:
        One row per image: path, the probability of each class at that prevalence, and the decision (for multilabel, the
        labels above their thresholds). Decisions do not depend on the prevalence. Then a score of each further label
        under "further:" and its name, in [0, 1]: it ranks images, and is no probability.

    Raises:
        ConfigError: if the prevalence is none of these classes, the classifier does not know its own, or it cannot
            know further labels.
        UsageError: if further labels and their examples do not fit together.
    """
    model, card = load_classifier(classifier)
    K = len(card.classes)
    further = read_further_labels(vectors=vectors, examples=examples or {}, classes=card.classes)
    if further is not None:
        model = WithFurtherLabels(model, further, examples=_examples(further, card))
    every = predict_logits(
        model,
        FileImages(paths=paths, card=card),
        np.arange(len(paths)),
        num_classes=K + (0 if further is None else len(further.names)),
        batch_size=64,
        progress=progress,
    )
    logits = every[:, :K]
    scores = scores_from_logits(logits, task=card.task, temperature=card.temperature)
    called = decide(scores, task=card.task, thresholds=np.array(card.thresholds))
    chances = probabilities_of(card, logits, prevalence=prevalence or {})
    words = ["; ".join(card.classes[k] for k in np.flatnonzero(row)) for row in called]
    columns: dict[str, Any] = {"path": [str(path) for path in paths]}
    columns |= {name: chances[:, k] for k, name in enumerate(card.classes)}
    columns["decision"] = words
    if further is not None:
        scored = 1 / (1 + np.exp(-every[:, K:]))
        columns |= {f"further:{name}": scored[:, k] for k, name in enumerate(further.names)}
    return pl.DataFrame(columns)


def find_examples(folder: Path) -> dict[str, list[Path]]:
    """List the images in each folder of a folder; each is named after a label.

    Raises:
        UsageError: if there is no such folder, or no image in one of its folders.
    """
    places = sorted(place for place in folder.iterdir() if place.is_dir()) if folder.is_dir() else []
    if not places:
        raise UsageError(f"{folder}: expected a folder with one folder of images per further label")
    return {place.name: find_images([place]) for place in places}


def _examples(further: FurtherLabels, card: ClassifierCard) -> list[Float[Tensor, "_ C H W"]]:
    """Decode the examples of each further label."""
    found = []
    for name in further.names:
        paths = further.examples.get(name, ())
        images = FileImages(paths=paths, card=card).take(np.arange(len(paths))) if paths else None
        found.append(torch.zeros(0, card.channels, card.size, card.size) if images is None else to_float(images))
    return found


def probabilities_of(
    card: ClassifierCard, logits: Float[np.ndarray, "N K"], *, prevalence: Mapping[str, float]
) -> Float[np.ndarray, "N K"]:
    """Return what a classifier's logits say about images of a prevalence; that of its card where none is given.

    Raises:
        ConfigError: if the prevalence is none of these classes, or the classifier does not know its own.
    """
    known = dict(card.probabilities)
    if not known:
        if prevalence:
            raise ConfigError(
                "this classifier does not say how frequent its classes were: it was trained by an older version; train "
                "it again to state a prevalence"
            )
        return scores_from_logits(logits, task=card.task, temperature=card.temperature)
    at = known.pop("deployed")
    fitted = Probabilities(
        temperature=known["temperature"], offsets=tuple(known["offsets"]), prevalence=tuple(known["prevalence"])
    )
    stated = stated_prevalence(prevalence, classes=card.classes, task=card.task, prevalence=fitted.prevalence)
    if stated is not None:
        check_known(fitted.prevalence, classes=card.classes)
    return fitted.of(logits, task=card.task, deployed=stated or at)


def evaluate_classifier(
    classifier: Path,
    manifest: Manifest,
    *,
    split: str = "test",
    attributes: Sequence[str] = (),
    resamples: int = 2000,
    progress: Progress | None = None,
) -> tuple[pl.DataFrame, Float[np.ndarray, "N K"]]:
    """Measure a classifier's folder on labelled images; the claim is about these weights.

    Args:
        classifier: the folder.
        manifest: the images, with splits if they have any.
        split: which rows; "all" takes every row.
        attributes: columns by which results are broken down.
        resamples: of the bootstrap.
        progress: called after every batch.

    Returns:
        The table of `raremix.evaluate.measure`, and the scores of the rows.

    Raises:
        ManifestError: if the classes differ, or there are no such rows.
        HeldOutError: if the rows are those that the classifier was trained on.
        UnknownNameError: for an attribute that the data do not have.
    """
    for name in attributes:
        if name not in manifest.attributes:
            raise UnknownNameError("column to break results down by", name, manifest.attributes)
    model, card = load_classifier(classifier)
    refuse_other_classes(card, manifest)
    if manifest.hash() == card.manifest_hash and split in {"train", "all"}:
        raise HeldOutError("the classifier was trained on these rows: evaluate it on --split test, or on other data")
    ids = manifest.rows_of(split)
    refuse_seen(classifier, manifest, ids)
    logits = predict_logits(
        model,
        FileImages(paths=manifest.paths(ids), card=card),
        np.arange(len(ids)),
        num_classes=len(card.classes),
        batch_size=64,
        progress=progress,
    )
    scores = scores_from_logits(logits, task=card.task, temperature=card.temperature)
    frame = manifest.frame[manifest.positions(ids)]
    table = measure(
        manifest.targets(ids),
        scores,
        task=card.task,
        classes=card.classes,
        groups=frame["group"].to_numpy(),
        thresholds=np.array(card.thresholds),
        probabilities=probabilities_of(card, logits, prevalence={}),
        attributes={name: frame[name].cast(pl.Utf8).to_numpy() for name in attributes},
        claim="weights",
        resamples=resamples,
    )
    return table, scores


def refuse_other_classes(card: ClassifierCard, manifest: Manifest) -> None:
    """Refuse data that a classifier was not made for.

    Raises:
        ManifestError: if task, classes or their order differ.
    """
    if tuple(manifest.card.classes) != card.classes or manifest.card.task != card.task:
        raise ManifestError(
            f"the classifier knows {card.task} {', '.join(card.classes)}; the data have {manifest.card.task} "
            f"{', '.join(manifest.card.classes)}: name the same classes in the same order"
        )


def refuse_other_images(classifier: Path, card: ClassifierCard, shape: tuple[int, ...]) -> None:
    """Refuse images of another size, or with other channels, than a classifier looks at.

    Args:
        classifier: its folder, for the message.
        card: what is known of it.
        shape: of the images: (..., channels, height, width).

    Raises:
        ConfigError: saying which settings fit.
    """
    channels, size = shape[-3], shape[-1]
    if (card.channels, card.size) != (channels, size):
        raise ConfigError(
            f"{classifier} looks at {card.channels} x {card.size} x {card.size}, the images are "
            f"{channels} x {size} x {size}: set data.size={card.size} and data.channels={card.channels}"
        )


def refuse_seen(classifier: Path, manifest: Manifest, ids: Int[np.ndarray, " m"]) -> None:
    """Refuse images that a classifier was trained on, whatever they are called here."""
    seen = (read_fitted(classifier) or {}).get("train")
    if seen is None:
        return
    known = seen.holds(content_keys(manifest.frame["sha256"].gather(manifest.positions(ids))))
    if known.any():
        raise HeldOutError(
            f"{int(known.sum())} of {len(ids)} images are among those that the classifier was trained on (row "
            f"{listed(ids[known].tolist())}): evaluate it on --split test, or leave these images out"
        )
