"""Image mixing: who with whom (`pairing`), where (`mask`), what the label becomes (`label`); one file per method."""

from raremix.core.protocols import Mixer
from raremix.mix.cutmix import CutMix
from raremix.mix.mixup import MixUp
from raremix.mix.none import NoMix

MIXERS: dict[str, type[Mixer]] = {"none": NoMix, "mixup": MixUp, "cutmix": CutMix}
"""Every mixer, by the name that a study file gives it."""

__all__ = ["MIXERS", "CutMix", "MixUp", "NoMix"]
