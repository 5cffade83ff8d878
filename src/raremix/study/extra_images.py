"""What an arm adds to its training images: generated ones, or its own once more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from raremix.config import Table, build
from raremix.core.errors import ConfigError, UnknownNameError

Begin = Literal["auto", "noise", "own", "others"]
"""What a synthetic image begins as: noise, a training image of its own class, or one of another class; "auto": noise
where the generator can, else others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraImages:
    """The `images` table of an arm.

    How many images of a class are added is said either by how many it then has (`to`), or by how many come on each of
    its real ones (`ratio`). An arm with `name = "repeated"` and the same number is the control of one with generated
    images: it sees as many images of the class, and as often, but none that is new.

    Attributes:
        name: "generated" by a [[generator]] of the study, or "repeated": real training images of the class once more.
        generator: which one.
        to: "balanced": every class gets as many images as the largest has; a number; or "class=number,class=number".
        ratio: images that are added per real one.
        classes: which classes get some. By default every class that falls short of `to`; with `ratio`, all but the most
            frequent one.
        begin: what a generated image begins as: "noise", a training image of its "own" class, or of "others".
        draw: settings of drawing, such as strength, steps and guidance, whichever the generator has.
        seed: of the noise, or of which images come again.
        validation: add them to the validation images too, as many to each real one of a class as in training. The
            moment and the thresholds are then chosen on images that are partly made up: the protocol of Rajaraman et
            al. (BIBM 2024, https://doi.org/10.1109/bibm62325.2024.10822172), flagged in the report.

    Raises:
        ConfigError: if the keys contradict each other.
    """

    name: Literal["generated", "repeated"] = "generated"
    generator: str = ""
    to: str | int | None = None
    ratio: float | None = None
    classes: tuple[str, ...] = ()
    begin: Begin = "auto"
    draw: Table = field(default_factory=dict)
    seed: int = 0
    validation: bool = False

    def __post_init__(self) -> None:
        if self.name == "generated" and not self.generator:
            raise ConfigError('images: generated ones need a generator: generator = "NAME" of a [[generator]]')
        if self.name == "repeated" and (self.generator or self.draw or self.begin != "auto"):
            raise ConfigError("images: repeated ones are real; leave generator, begin and draw out")
        if self.name == "repeated" and self.validation:
            raise ConfigError("images: repeated validation images would choose nothing else; leave validation out")
        if self.to is not None and self.ratio is not None:
            raise ConfigError("images: to and ratio both say how many are added; leave one of them out")
        if self.ratio is not None and not self.ratio > 0:
            raise ConfigError(f"images: ratio = {self.ratio}: expected more than 0 images per real one")

    def added(self, real: Mapping[str, int]) -> dict[str, int]:
        """Return how many images of each class are added.

        Args:
            real: real images by class.

        Raises:
            ConfigError: for a text that says no number.
            UnknownNameError: for a class that there is not.

        Example:
            >>> ExtraImages(name="repeated", to="balanced").added({"nevus": 9, "melanoma": 2})
            {'nevus': 0, 'melanoma': 7}
            >>> ExtraImages(name="repeated", ratio=0.5).added({"nevus": 9, "melanoma": 2})
            {'nevus': 0, 'melanoma': 1}
        """
        for name in self.classes:
            if name not in real:
                raise UnknownNameError("class of images", name, real)
        if self.ratio is None:
            target = counts_up_to("balanced" if self.to is None else str(self.to), real)
            wanted = {name: max(0, target.get(name, 0) - count) for name, count in real.items()}
        else:
            most = max(real, key=lambda name: real[name])
            chosen = self.classes or tuple(name for name in real if name != most)
            wanted = {name: round(self.ratio * count) if name in chosen else 0 for name, count in real.items()}
        return {name: count if not self.classes or name in self.classes else 0 for name, count in wanted.items()}


def images_of(value: Any, *, where: str) -> ExtraImages | None:
    """Build an `images` table, as it stands in an arm.

    Raises:
        ConfigError: if it is no table, or does not fit.
        UnknownNameError: for a key that it has not.
    """
    if value is None or isinstance(value, ExtraImages):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f'{where} = {value!r}: expected a table, for example {{ generator = "NAME", ratio = 1 }}')
    return build(ExtraImages, value, where=where)


def counts_up_to(to: str, real: Mapping[str, int]) -> dict[str, int]:
    """Return how many images of each class there are to be, real and added.

    Args:
        to: "balanced": as many as the largest class has; a number; or "class=number" with commas between.
        real: real images by class.

    Raises:
        ConfigError: for a text that says none of these, or names a class twice.
        UnknownNameError: for a class that there is not.
    """
    if to == "balanced":
        return dict.fromkeys(real, max(real.values()))
    if to.isdecimal():
        return dict.fromkeys(real, int(to))
    found = {}
    for part in to.split(","):
        name, equals, count = part.strip().rpartition("=")
        if not equals or not count.isdecimal():
            raise ConfigError(f'to = {to!r}: expected "balanced", a number, or class=number with commas between')
        if name not in real:
            raise UnknownNameError("class", name, real)
        if name in found:
            raise ConfigError(f"to = {to!r}: {name} is named twice")
        found[name] = int(count)
    return found
