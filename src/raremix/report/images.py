"""The pictures that a study kept for its report, as `images.json` holds them."""

from pathlib import Path

from raremix.report.fields import Name, Names, Png, read_checked
from raremix.report.parts import Part


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


class Images(Part):
    """The pictures that a study kept for its report, as `images.json` holds them."""

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
