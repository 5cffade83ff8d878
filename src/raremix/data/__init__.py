"""Data: manifests and where they come from, guards, splits, samplers and the decode-once cache."""

from raremix.data.cache import ImageCache, build_cache, open_cache
from raremix.data.digests import with_digests
from raremix.data.guards import Finding, check, findings
from raremix.data.imbalance import Imbalance, make_imbalanced
from raremix.data.label_balanced import LabelBalanced
from raremix.data.manifest import Card, Manifest
from raremix.data.readers import decode_image, fit_image, read_image
from raremix.data.samplers import SAMPLERS, Balanced, Effective, Natural, Sampler, Sqrt
from raremix.data.sources import SOURCES, Folder, MedMNIST, Phantom, Table
from raremix.data.split import apply_split, fold_split, grouped_folds, linked_groups
from raremix.data.subset import thin, thin_to_ratio

__all__ = [
    "SAMPLERS",
    "SOURCES",
    "Balanced",
    "Card",
    "Effective",
    "Finding",
    "Folder",
    "ImageCache",
    "Imbalance",
    "LabelBalanced",
    "Manifest",
    "MedMNIST",
    "Natural",
    "Phantom",
    "Sampler",
    "Sqrt",
    "Table",
    "apply_split",
    "build_cache",
    "check",
    "decode_image",
    "findings",
    "fit_image",
    "fold_split",
    "grouped_folds",
    "linked_groups",
    "make_imbalanced",
    "open_cache",
    "read_image",
    "thin",
    "thin_to_ratio",
    "with_digests",
]
