"""The tables of a study file about its images: [data], [split] and [evaluate], and what makes classes rare."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from raremix.config import Table, build
from raremix.core.errors import ConfigError
from raremix.core.types import Split
from raremix.data.imbalance import Imbalance
from raremix.data.readers import Reading

OnUnreadable = Literal["refuse", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """The [split] table: how rows without a split are divided, always by group and stratified by class.

    Attributes:
        validation: share of the groups that chooses epochs, thresholds and temperature.
        test: share that is opened once; unused where the data bring a test split.
        seed: of the division; it is the same for every arm and seed.
    """

    validation: float = 0.15
    test: float = 0.2
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinSpec:
    """The [data.thin] table: make single classes rare on purpose, in the training split only.

    For a long tail over all classes there is `imbalance`.

    Attributes:
        counts: training images to keep, by class; the others keep all.
        classes: classes that keep one training image to `ratio` others.
        ratio: see `classes`.
        seed: which images stay.
    """

    counts: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    ratio: float = 9.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """The [data] table without the source's own keys: how images are prepared.

    Attributes:
        size: side of the square images in pixels.
        channels: 1 to 4; by default what the files hold.
        bits: 8 or 16.
        resize: "pad" keeps the whole image, "crop" fills the square, "stretch" ignores the aspect.
        reading: which frame and range of values of DICOM and NIfTI files; see `raremix.data.readers.Reading`.
        subgroups: columns by which results are broken down (sex, age_band, device ...).
        thin: single classes made rare on purpose.
        imbalance: all classes made a long tail on purpose.
        on_unreadable: what is done with files that cannot be read: "refuse" names them and stops, "skip" leaves them
            out and lists them in the run folder's quarantine.csv.
        allow_synthetic: splits beside train that may hold synthetic rows.
        cache: folder of decoded images; by default the user's cache folder.
    """

    size: int = 64
    channels: int | None = None
    bits: Literal[8, 16] = 8
    resize: Literal["pad", "crop", "stretch"] = "pad"
    reading: Reading = field(default_factory=Reading)
    subgroups: tuple[str, ...] = ()
    thin: ThinSpec | None = None
    imbalance: Imbalance | None = None
    on_unreadable: OnUnreadable = "refuse"
    allow_synthetic: tuple[Split, ...] = ()
    cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSpec:
    """The [evaluate] table: what probabilities are to hold for.

    Attributes:
        prevalence: share of each class where the classifier is used, such as { melanoma = 0.02 }; one class may be left
            out, and gets the rest; with several labels, those left out keep theirs. By default what the validation
            images show.
        shifts: "auto": arms whose training images were sampled, weighed, mixed, thinned or generated get one shift per
            class beside the temperature, from validation images, so that their probabilities are those of images as
            they come; "always" and "never" do so for all arms or none.
        localise: on how many test images with true masks the report says where importance maps lie; 0, the default,
            leaves that out: it takes a minute or more.
        localise_maps: "quick", or "all": also maps that need dozens of passes per image (occlusion, integrated
            gradients, hyperplane maps), and the figures that need no mask (insertion, deletion).
    """

    prevalence: dict[str, float] = field(default_factory=dict)
    shifts: Literal["auto", "always", "never"] = "auto"
    localise: int = 0
    localise_maps: Literal["quick", "all"] = "quick"


def read_data_table(table: Table) -> tuple[DataSpec, Table]:
    """Divide the [data] table into what is read here and what belongs to the source.

    Raises:
        ConfigError: if a value does not fit, or two entries say how rare classes are.
        UnknownNameError: for an unknown key of an inner table.
    """
    own: dict[str, Any] = {key: value for key, value in table.items() if key in DataSpec.__slots__}
    if isinstance(own.get("reading"), dict):
        own["reading"] = build(Reading, own["reading"], where="data.reading")
    if isinstance(own.get("thin"), dict):
        own["thin"] = build(ThinSpec, own["thin"], where="data.thin")
    if "imbalance" in own:
        own["imbalance"] = imbalance_of(own["imbalance"], where="data.imbalance")
    data = build(DataSpec, own, where="data")
    if data.thin is not None and data.imbalance is not None:
        raise ConfigError("data.thin and data.imbalance both say how rare classes are: leave one of them out")
    return data, {key: value for key, value in table.items() if key not in own}


def imbalance_of(value: Any, *, where: str) -> Imbalance | None:
    """Build an `imbalance` table, as it stands in [data] or in an arm.

    Raises:
        ConfigError: if it is no table, or does not fit.
    """
    if value is None or isinstance(value, Imbalance):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"{where} = {value!r}: expected a table, for example {{ ratio = 50 }}")
    return build(Imbalance, value, where=where)
