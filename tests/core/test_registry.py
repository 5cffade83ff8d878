import pytest

from raremix.core.errors import UnknownNameError
from raremix.core.registry import look_up
from raremix.data.augment import AUGMENTATIONS
from raremix.data.samplers import SAMPLERS
from raremix.data.sources import SOURCES
from raremix.evaluate.metrics import METRICS
from raremix.losses import LOSSES
from raremix.mix import MIXERS

REGISTRIES = {
    "augmentation": AUGMENTATIONS,
    "sampler": SAMPLERS,
    "source": SOURCES,
    "metric": METRICS,
    "loss": LOSSES,
    "mixer": MIXERS,
}


def test_a_known_name() -> None:
    assert look_up({"a": 1, "b": 2}, "b", kind="thing") == 2


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registry_helps_with_a_slip(kind: str) -> None:
    registry = REGISTRIES[kind]
    for name in registry:
        assert look_up(registry, name, kind=kind) is registry[name]
        slip = name[:-1] + "q" if len(name) > 3 else name + "q"
        with pytest.raises(UnknownNameError, match=rf"unknown {kind} '{slip}': did you mean") as caught:
            look_up(registry, slip, kind=kind)
        assert caught.value.exit_code == 2


def test_names_are_ordinary_words() -> None:
    for registry in REGISTRIES.values():
        for name in registry:
            assert name == name.lower()
            assert name.replace("_", "").isalnum()
