"""Losses on soft targets, which skip what is not labelled; one file per loss."""

from raremix.core.protocols import Loss
from raremix.losses.asymmetric import Asymmetric, AsymmetricSoftmax, asymmetric, asymmetric_softmax
from raremix.losses.auc_margin import AUCMargin, auc_margin
from raremix.losses.balanced_softmax import BalancedSoftmax, balanced_softmax
from raremix.losses.binary_cross_entropy import BinaryCrossEntropy, binary_cross_entropy
from raremix.losses.class_balanced import ClassBalanced, class_balanced
from raremix.losses.cross_entropy import CrossEntropy, cross_entropy
from raremix.losses.deferred import Deferred
from raremix.losses.distribution_balanced import DistributionBalanced, distribution_balanced
from raremix.losses.dual_weighted_metric import DualWeightedMetric, dual_weighted_metric
from raremix.losses.expanded import Expanded
from raremix.losses.focal import BinaryFocal, Focal, binary_focal, focal
from raremix.losses.focal_euclidean import FocalEuclidean, focal_euclidean
from raremix.losses.gpaco import GPaCo, gpaco
from raremix.losses.ldam import LDAM, ldam
from raremix.losses.logit_adjustment import LogitAdjustment, logit_adjustment
from raremix.losses.partial_auc import PartialAUC, partial_auc
from raremix.losses.proxy_anchor import ProxyAnchor, proxy_anchor
from raremix.losses.supervised_contrastive import SupervisedContrastive, supervised_contrastive
from raremix.losses.two_way import TwoWay, two_way
from raremix.losses.zlpr import ZLPR, zlpr

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "focal": Focal,
    "binary_focal": BinaryFocal,
    "class_balanced": ClassBalanced,
    "ldam": LDAM,
    "balanced_softmax": BalancedSoftmax,
    "logit_adjustment": LogitAdjustment,
    "asymmetric": Asymmetric,
    "asymmetric_softmax": AsymmetricSoftmax,
    "distribution_balanced": DistributionBalanced,
    "two_way": TwoWay,
    "zlpr": ZLPR,
    "auc_margin": AUCMargin,
    "partial_auc": PartialAUC,
    "supervised_contrastive": SupervisedContrastive,
    "gpaco": GPaCo,
    "dual_weighted_metric": DualWeightedMetric,
    "proxy_anchor": ProxyAnchor,
    "focal_euclidean": FocalEuclidean,
}
"""Every loss, by the name that a study file gives it."""

LOSS_COMBINATIONS: dict[str, type[Loss]] = {"deferred": Deferred}
"""What makes one loss of others, by the name that a study file gives it."""

SOFTMAX_LOSSES: dict[type[Loss], str] = {
    CrossEntropy: "binary_cross_entropy",
    Focal: "binary_focal",
    ClassBalanced: 'binary_cross_entropy with class_weights = "effective"',
    LDAM: "asymmetric",
    BalancedSoftmax: "distribution_balanced",
    LogitAdjustment: "distribution_balanced",
    AsymmetricSoftmax: "asymmetric",
    GPaCo: "distribution_balanced",
    SupervisedContrastive: "binary_cross_entropy",
}
"""Losses for classes of which one is true, with what does the same work where an image may have several labels."""

__all__ = [
    "LDAM",
    "LOSSES",
    "LOSS_COMBINATIONS",
    "SOFTMAX_LOSSES",
    "ZLPR",
    "AUCMargin",
    "Asymmetric",
    "AsymmetricSoftmax",
    "BalancedSoftmax",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "ClassBalanced",
    "CrossEntropy",
    "Deferred",
    "DistributionBalanced",
    "DualWeightedMetric",
    "Expanded",
    "Focal",
    "FocalEuclidean",
    "GPaCo",
    "LogitAdjustment",
    "PartialAUC",
    "ProxyAnchor",
    "SupervisedContrastive",
    "TwoWay",
    "asymmetric",
    "asymmetric_softmax",
    "auc_margin",
    "balanced_softmax",
    "binary_cross_entropy",
    "binary_focal",
    "class_balanced",
    "cross_entropy",
    "distribution_balanced",
    "dual_weighted_metric",
    "focal",
    "focal_euclidean",
    "gpaco",
    "ldam",
    "logit_adjustment",
    "partial_auc",
    "proxy_anchor",
    "supervised_contrastive",
    "two_way",
    "zlpr",
]
