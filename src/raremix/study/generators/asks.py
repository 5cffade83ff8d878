"""What arms ask of a study's own generators, against what these will be able to do: found before anything is fitted."""

from collections.abc import Sequence

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.generate import GENERATORS, Form, GeneratorMethod
from raremix.study.arm_table import ArmSpec
from raremix.study.data_tables import DataSpec
from raremix.study.extra_images import ExtraImages
from raremix.study.generators.table import GeneratorTable, called_weights
from raremix.study.generators.use import fitting_drawing, translator_tables

BITS = 8
"""Of the images that generators draw."""


def check_generators(arms: Sequence[ArmSpec], generators: Sequence[GeneratorTable], data: DataSpec) -> None:
    """Refuse arms that ask for what a generator will not be able to do, and generators that nothing asks for.

    Args:
        arms: the recipes.
        generators: the [[generator]] tables, in their order.
        data: how images are prepared.

    Raises:
        UnknownNameError: for a generator or a setting of drawing that there is not.
        ConfigError: for anything else, naming the key and saying what is allowed.
    """
    own = {table.name: table for table in generators}
    asked: set[str] = set()
    for arm in arms:
        asked |= _check_translators(arm, own)
        if arm.images is not None and arm.images.name == "generated":
            where = f"arm.{arm.name}.images"
            if arm.images.generator not in own:
                raise UnknownNameError(f"generator of arm {arm.name}", arm.images.generator, own)
            _check_images(arm.images, own[arm.images.generator], where=where)
            asked.add(arm.images.generator)
    names = list(own)
    for place, table in enumerate(generators):
        weights = called_weights(table, own)
        if weights is None:
            continue
        if names.index(weights) > place:
            raise ConfigError(f"generator {table.name} begins with {weights}: name {weights} before it")
        known = getattr(table.method, "begins_with", ())
        if own[weights].kind not in known:
            raise ConfigError(
                f"generator.{table.name}: method.weights = {weights!r} is a {own[weights].kind}, and {table.kind} "
                + (f"begins with a {' or '.join(known)}" if known else "begins with no generator of the study")
            )
        asked.add(weights)
    for name in names:
        if name not in asked:
            raise ConfigError(f"generator {name}: no arm asks for it, by images = {{ generator = ... }} or translator")
    if generators:
        _check_form(data)


def can_begin_with_images(method: GeneratorMethod) -> bool:
    """Whether what a method fits shows images as ones of another class."""
    return hasattr(method.drawer_class, "reconstruct")


def can_begin_with_noise(method: GeneratorMethod) -> bool:
    """Whether what a method fits draws images from noise."""
    return hasattr(method.drawer_class, "generate")


def _check_translators(arm: ArmSpec, own: dict[str, GeneratorTable]) -> set[str]:
    """Check the study's own generators that an arm's mixer translates by, and return their names."""
    tables = [table for table in translator_tables(arm.mix) if str(table.get("name")) in own]
    for table in tables:
        generator, where = own[table["name"]], f"translator of arm.{arm.name}.mix"
        if arm.imbalance is not None:
            raise ConfigError(
                f"arm.{arm.name}: a translator that the study fits knows the images that imbalance takes away; make "
                "[data] imbalanced instead"
            )
        if not can_begin_with_images(generator.method):
            raise ConfigError(
                f"{where} = {generator.name!r} is a {generator.kind}, which draws from noise alone: take one of "
                f"{_methods(with_images=True)}"
            )
        drawing = {key: value for key, value in table.items() if key != "name"}
        fitting_drawing(generator.method.drawer_class, drawing, where=where)
    return {table["name"] for table in tables}


def _check_images(images: ExtraImages, generator: GeneratorTable, *, where: str) -> None:
    """Refuse a beginning, or settings of drawing, that the generator will not have."""
    if images.begin in {"own", "others"} and not can_begin_with_images(generator.method):
        raise ConfigError(
            f'{where}.begin = "{images.begin}": {generator.name} is a {generator.kind}, which draws from noise alone; '
            f'leave begin out, or set "noise"; with images begin {_methods(with_images=True)}'
        )
    if images.begin == "noise" and not can_begin_with_noise(generator.method):
        raise ConfigError(
            f'{where}.begin = "noise": {generator.name} is a {generator.kind}, which begins with images alone; leave '
            f'begin out, or set "own" or "others"; from noise draw {_methods(with_images=False)}'
        )
    fitting_drawing(generator.method.drawer_class, images.draw, where=f"{where}.draw")


def _methods(*, with_images: bool) -> str:
    """Name the methods that begin with images, or with noise."""
    can = can_begin_with_images if with_images else can_begin_with_noise
    return ", ".join(name for name, method in GENERATORS.items() if can(method()))


def _check_form(data: DataSpec) -> None:
    """Refuse images that no generator draws, as far as the file says what they are."""
    if data.bits != BITS:
        raise ConfigError(
            f"data.bits = {data.bits}: generators draw {BITS}-bit images: set data.bits = {BITS}, or leave out "
            "[[generator]] and the arms that ask for it"
        )
    Form(size=data.size, channels=1 if data.channels is None else data.channels, classes=2)
