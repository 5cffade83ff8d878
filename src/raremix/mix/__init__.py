"""Image mixing: who with whom (`pairing`), where (`mask`), what the label becomes (`label`); one file per method."""

from raremix.core.protocols import Mixer
from raremix.mix.cutmix import CutMix
from raremix.mix.method import Method
from raremix.mix.mixup import MixUp
from raremix.mix.none import NoMix
from raremix.mix.one_of import OneOf
from raremix.mix.scheduled import Scheduled, Sometimes

MIXERS: dict[str, type[Mixer]] = {
    "none": NoMix,
    "mixup": MixUp,
    "cutmix": CutMix,
}
"""Every method, by the name that a study file gives it."""

COMBINATIONS: dict[str, type[Mixer]] = {"one_of": OneOf, "scheduled": Scheduled, "sometimes": Sometimes}
"""Mixers that are made of other mixers, by the name that a study file gives them."""

__all__ = ["COMBINATIONS", "MIXERS", "CutMix", "Method", "MixUp", "NoMix", "OneOf", "Scheduled", "Sometimes"]
