"""Classifiers, thin over timm. Importing this package registers the small-image networks with timm."""

from raremix.models.classifier import Classifier, ClassifierSpec, parameter_groups
from raremix.models.folder import ClassifierCard, load_classifier, save_classifier
from raremix.models.head import HeadSpec, tame_head
from raremix.models.label_embedding import label_vectors
from raremix.models.learning_rate import usual_learning_rate
from raremix.models.prototype import PrototypeHead
from raremix.models.small_stem import SMALL_STEM_BASES
from raremix.models.tau_normalise import tau_normalise

__all__ = [
    "SMALL_STEM_BASES",
    "Classifier",
    "ClassifierCard",
    "ClassifierSpec",
    "HeadSpec",
    "PrototypeHead",
    "label_vectors",
    "load_classifier",
    "parameter_groups",
    "save_classifier",
    "tame_head",
    "tau_normalise",
    "usual_learning_rate",
]
