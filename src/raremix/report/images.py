"""The pictures that a study kept for its report, as `images.json` holds them."""

from pathlib import Path

from raremix.report.fields import Name, Names, Png, read_checked
from raremix.report.parts import Part

MOST_PICTURES = 16


class ClassImages(Part):
    """Example images of one class."""

    label: Name
    pngs: tuple[Png, ...] = ()


class ArmImages(Part):
    """What one arm's batch looks like."""

    arm: Name
    pngs: tuple[Png, ...] = ()
    captions: tuple[Names, ...] = ()


class ErrorImage(Part):
    """One confident error, named by its manifest row and by nothing that could name a patient."""

    arm: Name
    png: Png
    true: Names
    predicted: Names
    score: float | None = None
    row: int


class OriginImages(Part):
    """Images of one class and origin: real, generated, or mixed of both."""

    label: Name
    origin: Name
    pngs: tuple[Png, ...] = ()


class Evolution(Part):
    """How a generator came to draw."""

    generator: Name
    png: Png


class OriginPictures(Part):
    """Pictures of an arm with generated images."""

    arm: Name
    rows: tuple[OriginImages, ...] = ()
    evolutions: tuple[Evolution, ...] = ()


class Images(Part):
    """The pictures that a study kept for its report, as `images.json` holds them."""

    origins: OriginPictures | None = None
    classes: tuple[ClassImages, ...] = ()
    arms: tuple[ArmImages, ...] = ()
    errors: tuple[ErrorImage, ...] = ()

    def errors_of(self, arm: str) -> tuple[ErrorImage, ...]:
        """Return one arm's errors, in their order."""
        return tuple(error for error in self.errors if error.arm == arm)

    def arms_with_errors(self) -> tuple[str, ...]:
        """Name the arms that have errors, in the order in which they first come."""
        return tuple(dict.fromkeys(error.arm for error in self.errors))


def read_images(path: Path) -> Images | None:
    """Read and check a study's `images.json`; None where there is none.

    Raises:
        CorruptError: if it does not hold what it should, naming each place that does not fit.
    """
    return read_checked(Images, path) if path.is_file() else None


def fit(images: Images, *, budget: int) -> tuple[Images, int]:
    """Keep so many pictures of each kind that their size stays below a budget.

    Args:
        images: all pictures.
        budget: characters of base64.

    Returns:
        The kept pictures, evenly cut from the end of each row, and how many were left out.
    """
    total = len(_pngs(images))
    for most in range(MOST_PICTURES, -1, -1):
        kept = Images(
            classes=tuple(ClassImages(label=c.label, pngs=c.pngs[:most]) for c in images.classes),
            arms=tuple(ArmImages(arm=a.arm, pngs=a.pngs[:most], captions=a.captions) for a in images.arms),
            errors=tuple(e for arm in images.arms_with_errors() for e in images.errors_of(arm)[:most]),
            origins=None if images.origins is None else _cut(images.origins, most),
        )
        if sum(map(len, _pngs(kept))) <= budget:
            return kept, total - len(_pngs(kept))
    return Images(), total


def _cut(origins: OriginPictures, most: int) -> OriginPictures:
    rows = tuple(OriginImages(label=o.label, origin=o.origin, pngs=o.pngs[:most]) for o in origins.rows)
    return OriginPictures(arm=origins.arm, rows=rows, evolutions=origins.evolutions[:most])


def _pngs(images: Images) -> list[str]:
    rows = [*images.classes, *images.arms, *(images.origins.rows if images.origins else ())]
    single = [*images.errors, *(images.origins.evolutions if images.origins else ())]
    return [png for entry in rows for png in entry.pngs] + [entry.png for entry in single]
