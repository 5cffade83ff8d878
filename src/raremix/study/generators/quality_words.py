"""What a reader of figures of synthetic images would overlook, in plain words."""

from raremix.study.generators.quality import SyntheticQuality
from raremix.study.generators.quality_copies import Copies


def warnings_of(found: SyntheticQuality) -> tuple[str, ...]:
    """Return one sentence for each thing that is wrong with a class, beside the verdict on all images."""
    _, *classes = found.classes
    return tuple(
        memorised(one.name, one.copies, images=one.synthetic, classes=len(classes))
        for one in classes
        if one.copies is not None and one.copies.is_memorised
    )


def memorised(name: str, copies: Copies, *, images: int, classes: int) -> str:
    """Say that a class was memorised."""
    calibrated = f"of {copies.calibration} held-out images of this class, {copies.below} are"
    if not copies.calibration:
        calibrated = "no held-out image of this class says how near honest ones are, so look at the pairs"
    return (
        f"Memorised in {name}: {copies.flagged} of {images} images are nearer to a training image than honest ones "
        f"are, where {copies.by_chance:.1f} would be by chance (p = {copies.p_holm:.2g}, corrected for {classes} "
        f"classes); {calibrated}; with 95 % certainty, at most {100 * copies.most:.2g} % are copies."
    )
