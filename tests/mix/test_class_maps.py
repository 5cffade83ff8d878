"""Maps per class: what other methods than VariMix make of them, and what VariMix does with several labels."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.contract.mixer_promises import assert_same_plan

from raremix.core.errors import DataError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import MIXERS, CutMix, Method, VariMix
from raremix.mix.class_maps import away_from_own, towards

GUIDED = [name for name, made in MIXERS.items() if issubclass(made, Method) and made.is_guided and made is not VariMix]


def a_batch(rows: int = 8, *, classes: int = 3, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.rand(rows, 3, 16, 16, generator=generator),
        targets=torch.eye(classes)[torch.arange(rows) % classes],
        importance=torch.rand(rows, classes, 4, 4, generator=generator) ** 3,
    )


def maps_of_one_cell(*values: float, rows: int = 1) -> torch.Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1).expand(rows, -1, 1, 1)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([1.0, 0.0, 0.0], 0.3),
        ([0.0, 1.0, 0.0], 0.65),
        ([1.0, 1.0, 0.0], 0.4),
        ([0.0, 0.0, 0.0], 0.5),
        ([torch.nan, 1.0, 0.4], 0.65),
        ([1.0, 1.0, 1.0], 0.0),
    ],
)
def test_an_image_has_the_mean_over_the_classes_that_it_does_not_show(targets: list[float], expected: float) -> None:
    batch = Batch(
        images=torch.zeros(1, 1, 4, 4),
        targets=torch.tensor([targets]),
        importance=maps_of_one_cell(0.9, 0.2, 0.4),
    )
    assert away_from_own(batch).flatten().tolist() == pytest.approx([expected])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([0.0, 1.0, 0.0], 0.2),
        ([1.0, 1.0, 0.0], 0.55),
        ([1.0, 1.0, 1.0], 0.5),
        ([0.0, 0.0, 0.0], 0.5),
        ([0.75, 0.25, 0.0], 0.725),
        ([torch.nan, 0.0, 1.0], 0.4),
    ],
)
def test_a_partner_has_the_mean_over_its_classes(targets: list[float], expected: float) -> None:
    maps = maps_of_one_cell(0.9, 0.2, 0.4)
    assert towards(maps, torch.tensor([targets])).flatten().tolist() == pytest.approx([expected])


def test_a_map_of_nan_says_nothing() -> None:
    assert towards(maps_of_one_cell(float("nan"), 0.2, 0.4), torch.eye(3)[1:2]).item() == pytest.approx(0.2)


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_guided_method_mixes_as_by_the_mean(name: str, classes: int) -> None:
    """Three classes are as many as channels: no mask may become one per colour."""
    batch, pool = a_batch(classes=classes), a_batch(5, classes=classes, seed=1)
    single, single_pool = (replace(one, importance=away_from_own(one)) for one in (batch, pool))
    mixer = MIXERS[name]()
    for given, expected in (((batch, batch), (single, single)), ((batch, pool), (single, single_pool))):
        plan = mixer.plan(*given, rng=rng(0, "mix"))
        assert_same_plan(plan, mixer.plan(*expected, rng=rng(0, "mix")))
        if isinstance(plan.mask, torch.Tensor):
            assert plan.mask.shape[1] == 1


@pytest.mark.parametrize("settings", [{"label": "mass"}, {"pairing": "most_dissimilar"}])
def test_labels_and_partners_go_by_the_mean_too(settings: dict[str, Any]) -> None:
    batch = a_batch()
    single = replace(batch, importance=away_from_own(batch))
    plans = [CutMix(**settings).plan(one, one, rng=rng(0, "mix")) for one in (batch, single)]
    assert_same_plan(*plans)


def test_as_many_maps_as_classes_are_needed() -> None:
    batch = replace(a_batch(), importance=torch.rand(8, 2, 4, 4))
    for mixer in (MIXERS["guidedmixup"](), VariMix()):
        with pytest.raises(DataError, match="2 importance maps per image, but targets of 3 classes"):
            mixer.plan(batch, batch, rng=rng(0, "mix"))


def test_varimix_with_several_labels_keeps_its_maps_in_range() -> None:
    """Maps that are 0.6 everywhere: summed over two labels they would reach every level, unlabelled none."""
    rows = 4000
    targets = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).repeat(rows // 2, 1)
    batch = Batch(images=torch.zeros(rows, 1, 2, 2), targets=targets, importance=torch.full((rows, 2, 1, 1), 0.6))
    weight = VariMix().plan(batch, batch, rng=rng(0, "mix")).weight[:rows]
    partners = VariMix().plan(batch, batch, rng=rng(0, "mix")).partner[:rows]
    for shown in (0, 1):
        assert float(weight[partners % 2 == shown].mean()) == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_rounds_no_map(half: torch.dtype) -> None:
    batch = a_batch()
    batch = replace(batch, targets=(torch.arange(24).reshape(8, 3) % 5 > 2).float())
    for mixer in (VariMix(), VariMix(label="mass"), VariMix(pairing="most_dissimilar")):
        expected = mixer.plan(batch, batch, rng=rng(0, "mix"))
        with torch.autocast("cpu", half):
            plan = mixer.plan(batch, batch, rng=rng(0, "mix"))
        assert_same_plan(plan, expected, exact=True)
