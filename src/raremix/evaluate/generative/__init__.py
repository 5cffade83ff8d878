"""What generated images are worth: distances to real ones, what they cover, and whether they are copies.

Everything takes vectors of images, one row per image, by whatever encoder the caller names. Figures of different
encoders must not be compared.
"""

from raremix.evaluate.generative.copies import COPIES, plant_copies
from raremix.evaluate.generative.distances import frechet_distance, kernel_distance
from raremix.evaluate.generative.embedding import embed_in_plane
from raremix.evaluate.generative.figures import FIGURES, Figure, as_shown, generative_figures
from raremix.evaluate.generative.memorisation import (
    LEVEL,
    MIN_CALIBRATION,
    Flags,
    MemorisationAudit,
    Ratios,
    Sight,
    Space,
    audit_memorisation,
    judge_ratios,
    ratios_of,
)
from raremix.evaluate.generative.neighbourhoods import Neighbourhoods, neighbourhoods
from raremix.evaluate.generative.pixels import PixelViews, pixel_space, pixel_views
from raremix.evaluate.generative.probe import Probe, linear_probe

__all__ = [
    "COPIES",
    "FIGURES",
    "LEVEL",
    "MIN_CALIBRATION",
    "Figure",
    "Flags",
    "MemorisationAudit",
    "Neighbourhoods",
    "PixelViews",
    "Probe",
    "Ratios",
    "Sight",
    "Space",
    "as_shown",
    "audit_memorisation",
    "embed_in_plane",
    "frechet_distance",
    "generative_figures",
    "judge_ratios",
    "kernel_distance",
    "linear_probe",
    "neighbourhoods",
    "pixel_space",
    "pixel_views",
    "plant_copies",
    "ratios_of",
]
