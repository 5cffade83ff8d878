"""Parts of a run record about its images: what was made rare, added, left out, fitted on, sampled and translated."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raremix.report.fields import Count, Label, Name, Png, Share, Text


class Part(BaseModel):
    """A part of a record: it cannot be changed, and what it does not know is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class Rarity(Part):
    """How classes were made rare: training images per class before and after, and the ratio asked for and reached."""

    profile: Text | None = None
    asked: Annotated[float, Field(ge=1)] | None = None
    reached: Annotated[float, Field(ge=1)] | None = None
    before: dict[Name, Count]
    after: dict[Name, Count]

    @model_validator(mode="after")
    def _fewer(self) -> "Rarity":
        more = [name for name, count in self.after.items() if count > self.before.get(name, 0)]
        if more:
            raise ValueError(f"more images of {more} after classes were made rare than before")
        return self


class Added(Part):
    """What an arm added to its training images.

    Attributes:
        kind: images from a generator, or real ones once more.
        series: what arms that differ in the number or in the strength alone have in common, in words.
        train, validation: images added per class.
        dose: images added per real one, over the classes that got some.
        strength: how far image-to-image drawing went, where that was set.
    """

    kind: Literal["generated", "repeated"]
    series: Text
    train: dict[Name, Count]
    validation: dict[Name, Count] = {}
    dose: Annotated[float, Field(ge=0)]
    strength: Annotated[float, Field(gt=0, le=1)] | None = None


class Quarantine(Part):
    """Files that could not be read and were left out: how many of how many, and of which split and class."""

    files: Count
    of: Count
    counts: dict[Name, dict[Name, Count]] = {}


class FittedOn(Part):
    """The rows that something was fitted on or chosen by, and how many results say so."""

    what: Text
    split: Text
    rows: Count
    hash: Text
    results: Count = 0


class Translator(Part):
    """What a translator does to held-out images on the way to one class, and the verdict on its difference maps.

    Attributes:
        translator: its name.
        to: the class; empty where nothing could be measured.
        words: the verdict.
        flipped, low, high: share of the translations that are taken for the class, with its 95 % interval.
        before, redrawn: the same share of the images as they were, and as the translator draws them unchanged.
        change, cycle: mean absolute difference to the image, of its translation, and of the way there and back.
        area, tenth: mean and 10 % quantile of the area of masks by its difference maps, as a share of the image.
        kernel, kernel_before: kernel distance to real images of the class.
    """

    translator: Name
    to: Label = None
    words: Text
    flipped: float | None = None
    low: float | None = None
    high: float | None = None
    before: float | None = None
    redrawn: float | None = None
    change: float | None = None
    cycle: float | None = None
    area: float | None = None
    tenth: float | None = None
    kernel: float | None = None
    kernel_before: float | None = None


class LabelCoverage(Part):
    """How often an epoch shows a label: images that there are, draws of them, and different images among these."""

    label: Name
    images: Count
    drawn: Annotated[float, Field(ge=0)]
    distinct: Annotated[float, Field(ge=0)]


class SamplerCoverage(Part):
    """What an arm's sampler shows in an epoch; see `raremix.data.coverage`."""

    arm: Name
    sampler: Name
    images: Count
    epochs: Count = 1
    labels: tuple[LabelCoverage, ...] = ()
    unseen: Share
    most: Count
    labels_per_image: tuple[float, float]
    moved: Share


class LesionFigure(Part):
    """One figure of one map, with its interval, and whether it is better than maps that look at no image."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    beats: bool | None = None


class LesionMap(Part):
    """How well one importance map lies on the lesions."""

    map: Name
    figures: dict[Name, LesionFigure] = Field(default_factory=dict)


class Lesions(Part):
    """Importance maps of a classifier against true masks.

    Attributes:
        arm: the classifier's.
        images, patients: how many were scored.
        rows: one per map.
        picture: a few images, their masks and all maps.
        note: why there is no table, where there is none.
    """

    arm: Name
    images: Count
    patients: Count
    rows: tuple[LesionMap, ...] = ()
    picture: Png | None = None
    note: Text | None = None


class OriginPoint(Part):
    """One image in the plane, each axis from 0 to 1."""

    x: Share
    y: Share
    origin: Literal["real", "generated", "mixed"]
    label: Name


class Origins(Part):
    """Real, generated and mixed images of an arm, as a classifier that knows real ones sees them.

    Attributes:
        arm: the arm.
        features: the classifier.
        points: where they lie.
    """

    arm: Name
    features: Text
    points: tuple[OriginPoint, ...] = ()
