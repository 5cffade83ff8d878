"""Put the quality of synthetic images on one page: one HTML file that opens offline and asks nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from raremix.core import files
from raremix.report.notation import grouped
from raremix.report.page import environment, resource
from raremix.report.strip import Strip

Triple = tuple[float, float, float]
"""A value with the ends of its interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """One class of the table.

    Attributes:
        name: the class.
        real, synthetic, held_out: how many images were compared.
        figures: of synthetic images, by key; empty where there are too few.
        floor: of held-out real images.
    """

    name: str
    real: int
    synthetic: int
    held_out: int
    figures: Mapping[str, Triple]
    floor: Mapping[str, Triple]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow:
    """What linear probes know of one class of held-out images.

    Attributes:
        name: the class.
        images, patients: how many were asked.
        synthetic: recall of the probe that saw synthetic images alone.
        real: of the one that saw as many real ones.
    """

    name: str
    images: int
    patients: int
    synthetic: Triple
    real: Triple


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRow:
    """What looks like copies in one class.

    Attributes:
        name: the class.
        images, flagged: how many.
        by_chance: how many flags honest images would raise.
        p: probability of as many flags, if all were honest, corrected for the number of classes.
        most: upper bound of the share of copies.
        calibration, below: held-out images of the class that calibrate, and how many of them lie below the threshold.
        is_memorised: whether more is flagged than chance explains.
    """

    name: str
    images: int
    flagged: int
    by_chance: float
    p: float
    most: float
    calibration: int
    below: int
    is_memorised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """Pictures of one class: generated ones, then real ones."""

    name: str
    strip: Strip


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRecord:
    """Everything that the page shows.

    Attributes:
        name: of the data set.
        created: when, as text.
        version: of raremix.
        lead: whether copies were found, in one sentence.
        is_alarming: whether that sentence is a warning.
        warnings: further ones: copies in single classes, few kinds of images.
        features: the encoder.
        compared: images of each kind that the figures compare at most.
        facts: the few numbers that a reader wants first.
        figures: keys and names of the figures, in order.
        rows: one per class, all of them first.
        probe: one per class that was asked; none where none could be.
        copies: one per class, all of them first; none where that could not be told.
        planted: kind of copy, the share that was found, and whether the test is blind to it.
        pairs: generated images beside the training images that they are nearest to.
        not_drawn: how many flagged ones are not among these pairs.
        albums: pictures of each class.
        provenance: what was compared.
    """

    name: str
    created: str
    version: str
    lead: str
    is_alarming: bool
    warnings: tuple[str, ...]
    features: str
    compared: int
    facts: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, str], ...]
    rows: tuple[QualityRow, ...]
    probe: tuple[ProbeRow, ...]
    copies: tuple[CopyRow, ...]
    planted: tuple[tuple[str, float, bool], ...]
    pairs: Strip
    not_drawn: int
    albums: tuple[Album, ...]
    provenance: tuple[tuple[str, str], ...]


def write_quality(path: Path, record: QualityRecord) -> Path:
    """Write the page.

    Raises:
        StorageError: if the file cannot be written.
    """
    return files.write_text(path, render_quality(record))


def render_quality(record: QualityRecord) -> str:
    """Render the page; the same record gives the same bytes, without scripts and without addresses."""
    return environment().get_template("quality.html.j2").render(
        style=Markup(resource("style.css") + resource("audit.css")), record=record, grouped=grouped, written=written
    )  # fmt: skip


def written(triple: Triple) -> str:
    """Write a value with its interval.

    Example:
        >>> written((0.5, 0.25, 0.75))
        '0.500 [0.250, 0.750]'
        >>> written((-0.0001, -0.001, 0.001))
        '0.000 [-0.001, 0.001]'
    """
    digits = 1 if abs(triple[0]) >= 100 else 3
    value, low, high = (f"{round(number, digits) + 0.0:.{digits}f}" for number in triple)  # no minus before a zero
    return f"{value} [{low}, {high}]"
