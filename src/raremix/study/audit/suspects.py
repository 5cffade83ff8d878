"""Rank the images of a data set that a person should look at: near-duplicates, off-topic images, label errors."""

from pathlib import Path

from raremix.core.errors import ManifestError
from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.data.suspects import Suspects, rank_suspects
from raremix.study.audit.own_encoder import OWN_TRAINING
from raremix.study.audit.representation import representation_of
from raremix.study.audit.vectors import vectors_of
from raremix.train import TrainSpec


def find_suspects(
    manifest: Manifest,
    *,
    cache: Path,
    weights: str | Path = "self",
    size: int | None = None,
    training: TrainSpec = OWN_TRAINING,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Suspects]:
    """Rank suspects by a representation of the images; `raremix.data.suspects` says how.

    Args:
        manifest: the images; all must be readable. Labels and groups are used where there are any.
        cache: the cache folder; vectors are kept there by the images' content, so a second call takes seconds.
        weights: what turns images into vectors. "self": a small encoder that is trained on these images without
            labels; a .safetensors file of timm's tensor names; the folder of a classifier that a study trained; or the
            name of a network of timm, whose weights are downloaded if they are not on this machine.
        size: side of the images in pixels; 64 for "self", 96 for a network, a classifier's own.
        training: budget of "self".
        seed: of "self".
        progress: called while files are read, the encoder is trained, and images are encoded.

    Returns:
        Near-duplicates and off-topic images, and label errors where at least two labels are known.

    Raises:
        ManifestError: if there are no images.
        ReadError: if an image or the weights cannot be read.
        UnknownNameError: if `weights` is neither a path nor a network.

    Example:
        ``find_suspects(Folder(path="images").load(cache=cache), cache=cache, weights="resnet18.safetensors")``
    """
    if not len(manifest):
        raise ManifestError(f"{manifest.card.name!r} has no images to rank: expected at least one row")
    representation = representation_of(
        weights, manifest, cache=cache, size=size, training=training, seed=seed, progress=progress
    )
    vectors = vectors_of(manifest, representation, cache=cache, progress=progress)
    return rank_suspects(
        vectors.features,
        manifest.targets(),
        ids=manifest.ids,
        groups=manifest.frame["group"].to_numpy(),
        is_multilabel=manifest.card.task == "multilabel",
        thumbnails=vectors.thumbnails,
    )
