"""Image mixing: who with whom (`pairing`), where (`mask`), what the label becomes (`label`); one file per method."""

from raremix.core.protocols import Mixer
from raremix.mix.attentivemix import AttentiveMix
from raremix.mix.automix import AutoMix, MixBlock
from raremix.mix.balanced_mixup import BalancedMixUp
from raremix.mix.cmo import CMO
from raremix.mix.comixup import CoMixup
from raremix.mix.cutmix import CutMix
from raremix.mix.fmix import FMix
from raremix.mix.genmix import GenMix
from raremix.mix.gridmix import GridMix
from raremix.mix.guidedmixup import GuidedMixup
from raremix.mix.manifold_mixup import ManifoldMixUp
from raremix.mix.method import Method
from raremix.mix.mixup import MixUp
from raremix.mix.mixup_union import MixUpUnion
from raremix.mix.none import NoMix
from raremix.mix.one_of import OneOf
from raremix.mix.puzzlemix import PuzzleMix
from raremix.mix.remix import Remix
from raremix.mix.resizemix import ResizeMix
from raremix.mix.saliencymix import SaliencyMix
from raremix.mix.scheduled import Scheduled, Sometimes
from raremix.mix.smoothmix import SmoothMix
from raremix.mix.snapmix import SnapMix
from raremix.mix.spmix import SPMix
from raremix.mix.transmix import TransMix
from raremix.mix.varimix import VariMix

MIXERS: dict[str, type[Mixer]] = {
    "none": NoMix,
    "mixup": MixUp,
    "cutmix": CutMix,
    "manifold_mixup": ManifoldMixUp,
    "resizemix": ResizeMix,
    "fmix": FMix,
    "gridmix": GridMix,
    "smoothmix": SmoothMix,
    "remix": Remix,
    "balanced_mixup": BalancedMixUp,
    "cmo": CMO,
    "saliencymix": SaliencyMix,
    "guidedmixup": GuidedMixup,
    "attentivemix": AttentiveMix,
    "snapmix": SnapMix,
    "transmix": TransMix,
    "puzzlemix": PuzzleMix,
    "comixup": CoMixup,
    "spmix": SPMix,
    "varimix": VariMix,
    "genmix": GenMix,
    "mixup_union": MixUpUnion,
}
"""Every method, by the name that a study file gives it."""

LEARNED_MIXERS: dict[str, type[Mixer]] = {"automix": AutoMix}
"""Methods that need a trained network before they mix, by the name that a study file gives them."""

COMBINATIONS: dict[str, type[Mixer]] = {"one_of": OneOf, "scheduled": Scheduled, "sometimes": Sometimes}
"""Mixers that are made of other mixers, by the name that a study file gives them."""

__all__ = [
    "CMO",
    "COMBINATIONS",
    "LEARNED_MIXERS",
    "MIXERS",
    "AttentiveMix",
    "AutoMix",
    "BalancedMixUp",
    "CoMixup",
    "CutMix",
    "FMix",
    "GenMix",
    "GridMix",
    "GuidedMixup",
    "ManifoldMixUp",
    "Method",
    "MixBlock",
    "MixUp",
    "MixUpUnion",
    "NoMix",
    "OneOf",
    "PuzzleMix",
    "Remix",
    "ResizeMix",
    "SPMix",
    "SaliencyMix",
    "Scheduled",
    "SmoothMix",
    "SnapMix",
    "Sometimes",
    "TransMix",
    "VariMix",
]
