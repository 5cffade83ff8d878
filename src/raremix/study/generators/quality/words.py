"""What a reader of figures of synthetic images would overlook, in plain words."""

from raremix.study.generators.quality.copies import Copies
from raremix.study.generators.quality.judge import ClassQuality, SyntheticQuality


def warnings_of(found: SyntheticQuality) -> tuple[str, ...]:
    """Return one sentence for each thing that is wrong with a class, or with all, beside the verdict on copies."""
    _, *classes = found.classes
    copied = [
        memorised(one.name, one.copies, images=one.synthetic, classes=len(classes))
        for one in classes
        if one.copies is not None and one.copies.is_memorised
    ]
    return (*copied, *(few_kinds(one) for one in found.classes if one.few_kinds is not None))


def few_kinds(one: ClassQuality) -> str:
    """Say that the images of a class are all alike."""
    if one.figures is None or one.few_kinds is None:
        return ""
    own, (real, count) = one.figures["coverage"], one.few_kinds
    return (
        f"Few kinds of images in {one.name}: the {one.synthetic} generated ones cover {own.value:.2f} of the real "
        f"images' neighbourhoods (at most {own.high:.2f}), where {count} held-out real ones cover {real.value:.2f} (at "
        f"least {real.low:.2f}): the generator draws the same things again and again, or things unlike the real ones."
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
