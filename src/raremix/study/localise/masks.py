"""The true masks of a data set, as a classifier sees its images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from raremix.core.errors import ManifestError
from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.data.readers import Pixels, Resize, fit_image, read_image
from raremix.models import ClassifierCard, load_classifier
from raremix.study.apply import refuse_other_classes, refuse_seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Masks with something to find.

    Attributes:
        ids: rows whose mask is neither empty nor full.
        masks: by row.
        without: how many masks were empty or full.
    """

    ids: Int[np.ndarray, " n"]
    masks: dict[int, Bool[np.ndarray, "S S"]]
    without: int


def masked_rows(classifier: Path, manifest: Manifest, split: str) -> Int[np.ndarray, " n"]:
    """Return the rows of a split that have a mask file and a class.

    Args:
        classifier: its folder.
        manifest: the data.
        split: train, validation, test, or all.

    Raises:
        ManifestError: if there is none, or the data have other classes.
        HeldOutError: if the classifier was trained on them.
        UnknownNameError: if there is no such split.
    """
    _, card = load_classifier(classifier)
    refuse_other_classes(card, manifest)
    if "mask" not in manifest.frame.columns:
        raise ManifestError(
            "the data have no column `mask`: where the lesions are is known for phantoms, and for tables with a column "
            "of mask files"
        )
    ids = manifest.rows_of(split)
    has = np.array([path is not None for path in manifest.masks(ids)], dtype=bool)
    has &= (manifest.targets(ids) > 0.5).any(axis=1)
    if not has.any():
        raise ManifestError(f"no row of the {split} split has a mask: expected files in the column `mask`")
    refuse_seen(classifier, manifest, ids[has])
    return ids[has]


def read_masks(
    manifest: Manifest, ids: Int[np.ndarray, " n"], card: ClassifierCard, *, progress: Progress | None
) -> Masks:
    """Read masks as the classifier's images are read; whatever is not 0 is lesion.

    Args:
        manifest: the data.
        ids: rows that have a mask.
        card: of the classifier: size of its images, and how they are resized.
        progress: called while masks are read.

    Raises:
        ReadError: naming the mask that cannot be read.
    """
    masks: dict[int, Bool[np.ndarray, "S S"]] = {}
    for done, (number, path) in enumerate(zip(ids.tolist(), manifest.masks(ids), strict=True), start=1):
        assert path is not None
        mask = fit_mask(read_image(path, name=str(path)), size=card.size, resize=card.resize)  # pyright: ignore[reportArgumentType]
        if 0 < int(mask.sum()) < mask.size:
            masks[number] = mask
        if progress is not None and (done % 64 == 0 or done == len(ids)):
            progress("reading masks", done, len(ids))
    kept = np.array(list(masks), dtype=np.int64)
    return Masks(ids=kept, masks=masks, without=len(ids) - len(kept))


def fit_mask(pixels: Pixels, *, size: int, resize: Resize = "stretch") -> Bool[np.ndarray, "size size"]:
    """Resize a mask as its image is: a pixel is inside where at least half of what it covers is.

    Example:
        >>> fit_mask(np.array([[[1], [0]], [[1], [0]]], dtype=np.uint8), size=2).tolist()
        [[True, False], [True, False]]
    """
    solid = np.where((pixels > 0).any(axis=2, keepdims=True), 255, 0).astype(np.uint8)
    return np.asarray(fit_image(solid, size=size, channels=1, bits=8, resize=resize)[..., 0] >= 128)
