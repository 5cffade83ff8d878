"""Classifiers, thin over timm. Importing this package registers the small-image networks with timm."""

from raremix.models.classifier import Classifier, ClassifierSpec, parameter_groups
from raremix.models.folder import ClassifierCard, load_classifier, save_classifier
from raremix.models.small_stem import SMALL_STEM_BASES

__all__ = [
    "SMALL_STEM_BASES",
    "Classifier",
    "ClassifierCard",
    "ClassifierSpec",
    "load_classifier",
    "parameter_groups",
    "save_classifier",
]
