"""What adapters do from call to call: schedules, and batches that partners come from."""

from typing import Any

import pytest
import torch
from tests.adapt.toys import LeftFromNext, coded
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors

from raremix.adapt.collate import MixCollate
from raremix.adapt.lightning import mix_after_transfer
from raremix.adapt.loop import Loop, follows_schedule
from raremix.adapt.sample import mix, mix_sample
from raremix.adapt.timm import FastCollateMixup, Mixup
from raremix.adapt.torchvision import Mix
from raremix.core.errors import ConfigError, DataError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.explain import FineGrained
from raremix.mix import CMO, BalancedMixUp, CutMix, GenMix, MixUp, OneOf, SaliencyMix, Scheduled, Sometimes, SPMix

BATCH = (coded(4), torch.arange(4))
LATE = Scheduled(mixer=LeftFromNext(num_classes=4), start=0.5)
"""Mixes in the second half of the training, always by the same mask."""

WHITE = (torch.ones(4, 4, 8, 8), torch.full((4,), 3))
"""A batch of partners, all of class 3."""


def is_mixed(targets: Tensor) -> bool:
    return bool((targets.max(dim=1).values < 1).any())


def test_a_schedule_follows_the_calls() -> None:
    """Of six calls the first three lie before the schedule's start."""
    transform, mixup_fn = Mix(LATE, steps=6), Mixup(LATE, steps=6)
    samples = [(image, int(label)) for image, label in zip(*BATCH, strict=True)]
    arrays = [((255 * image).byte().numpy(), label) for image, label in samples]
    collate, fast = MixCollate(LATE, steps=6), FastCollateMixup(LATE, steps=6)
    for call in (
        lambda: transform(*BATCH),
        lambda: mixup_fn(*BATCH),
        lambda: collate(samples),
        lambda: fast(arrays),
    ):
        assert [is_mixed(call()[1]) for _ in range(6)] == [False] * 3 + [True] * 3


def test_a_resumed_training_goes_on_in_its_schedule() -> None:
    collate = MixCollate(LATE, steps=6, first_step=2)
    samples = [(image, int(label)) for image, label in zip(*BATCH, strict=True)]
    assert [is_mixed(collate(samples)[1]) for _ in range(3)] == [False, True, True]


def test_calls_while_timm_does_not_mix_are_counted() -> None:
    mixup_fn = Mixup(LATE, steps=4)
    mixup_fn.mixup_enabled = False
    mixup_fn(*BATCH)
    mixup_fn(*BATCH)
    mixup_fn.mixup_enabled = True
    assert is_mixed(mixup_fn(*BATCH)[1])


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_count_together_over_epochs(persistent: bool) -> None:
    """Two epochs of eight batches by two workers: the first epoch lies before the start, the second one after it."""
    data = TensorDataset(coded(4).repeat(8, 1, 1, 1), torch.arange(4).repeat(8))
    loader = DataLoader(
        data,
        batch_size=4,
        num_workers=2,
        collate_fn=MixCollate(LATE, steps=16),
        persistent_workers=persistent,
        multiprocessing_context="fork",
    )
    epochs = [[is_mixed(targets) for _, targets in loader] for _ in range(2)]
    assert epochs == [[False] * 8, [True] * 8]


@pytest.mark.parametrize("make", [Mix, Mixup, FastCollateMixup, MixCollate])
def test_a_schedule_needs_the_number_of_steps(make: Any) -> None:
    for mixer in (LATE, OneOf(mixers=(LATE, CutMix())), Sometimes(mixer=LATE, probability=0.5)):
        with pytest.raises(ConfigError, match="steps="):
            make(mixer)
    for mixer in (
        CutMix(),
        OneOf(mixers=(MixUp(), CutMix()), num_classes=3),
        Sometimes(mixer=CutMix(), probability=1.0),
    ):
        assert not follows_schedule(mixer)
        make(mixer)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 5, "first_step": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least"):
        Loop(LATE, **wrong)


@pytest.mark.parametrize("make", [Mix, Mixup, FastCollateMixup, MixCollate, mix_after_transfer])
@pytest.mark.parametrize("mixer", [GenMix(), CMO(), BalancedMixUp(), SPMix(), OneOf(mixers=(GenMix(), GenMix()))])
def test_methods_with_two_streams_need_a_pool(make: Any, mixer: Any) -> None:
    """They draw partners from other images than the batch; CMO alone, for example, would be CutMix."""
    with pytest.raises(ConfigError, match="pass pool="):
        make(mixer)
    make(mixer, pool=[WHITE])


def test_what_only_a_study_repeats_is_refused() -> None:
    with pytest.raises(ConfigError, match="offline_images"):
        Mix(GenMix(offline_images=100), pool=[WHITE])


def test_partners_come_from_the_pool() -> None:
    """White is the sum of all channels: what an image has beside its own channel is the pool's."""
    mixer = GenMix(probability=1.0, num_classes=4)
    samples = [(image, int(label)) for image, label in zip(*BATCH, strict=True)]
    arrays = [((255 * image).byte().numpy(), label) for image, label in samples]
    bytes_of_pool = ((255 * WHITE[0]).byte(), WHITE[1])
    for images, targets in (
        Mix(mixer, pool=[WHITE])(*BATCH),
        Mixup(mixer, pool=[WHITE])(*BATCH),
        MixCollate(mixer, pool=[WHITE])(samples),
        FastCollateMixup(mixer, pool=[bytes_of_pool])(arrays),
    ):
        scale = 255 if images.dtype == torch.uint8 else 1
        own = targets[:3].gather(1, torch.arange(3)[:, None])[:, 0]
        assert bool(((own > 0) & (own < 1)).all())
        torch.testing.assert_close(targets[:3, 3], 1 - own)
        others = (torch.arange(3) + 1) % 3
        seen = images[torch.arange(3), others].float().mean(dim=(1, 2)) / scale
        torch.testing.assert_close(seen, 1 - own, rtol=0, atol=1e-2)


def test_a_pool_is_gone_through_again_and_again() -> None:
    loader = DataLoader(TensorDataset(*WHITE), batch_size=2)
    loop = Loop(GenMix(), pool=loader)
    assert [len(loop.next().pool[0]) for _ in range(5)] == [2] * 5  # type: ignore[index]
    for pool, calls in (([], 1), (iter([WHITE]), 2)):
        loop = Loop(GenMix(), pool=pool)
        for _ in range(calls - 1):
            loop.next()
        with pytest.raises(DataError, match="yields no batch"):
            loop.next()


def test_a_pool_says_which_images_are_synthetic() -> None:
    """Real images find partners where those of the pool are generated, and none where they are not."""
    mixer = MixUp(alpha=1.0, pairing="synthetic_with_real", num_classes=4)
    none, some = torch.zeros(4, dtype=torch.bool), torch.tensor([True, False, False, False])
    found = [
        mix(mixer, *BATCH, rng=rng(0, "mix"), pool=pool).targets
        for pool in (
            WHITE,
            (*WHITE, none),
            Batch(images=WHITE[0], targets=torch.eye(4)),
            Batch(images=WHITE[0], targets=torch.eye(4), is_synthetic=none),
        )
    ]
    assert [is_mixed(targets) for targets in found] == [True, False, True, False]
    # Within a batch that says it, only the one synthetic image and its real partners are mixed.
    sample = {"x": BATCH[0], "y": BATCH[1], "made": some}
    assert is_mixed(mix_sample(mixer, sample, images="x", targets="y", is_synthetic="made", rng=rng(0, "mix"))["y"])
    with pytest.raises(ConfigError, match="is_synthetic"):
        mix_sample(mixer, sample, images="x", targets="y", rng=rng(0, "mix"))
    transform = Mix(mixer, labels_getter=lambda given: given["y"], is_synthetic_getter=lambda given: given["made"])
    assert is_mixed(transform(sample)["y"])


def test_maps_come_with_the_sample() -> None:
    """A box around what the maps say matters: the top left corner of every image."""
    maps = torch.zeros(4, 1, 8, 8)
    maps[:, :, 1, 1] = 1.0
    mixer = SaliencyMix(num_classes=4, importance=FineGrained())
    sample = {"x": torch.rand(4, 3, 8, 8), "y": torch.arange(4), "map": maps}
    given = Batch(images=sample["x"], targets=torch.eye(4), importance=maps)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = mixer.plan(given, given, rng=Loop(mixer).next().rng).apply(given).images
        mixed = Mix(mixer, labels_getter=lambda s: s["y"], importance_getter=lambda s: s["map"])(sample)
        assert torch.equal(mixed["x"], expected)
        assert torch.equal(mixed["map"], maps)
        collated = MixCollate(mixer, images="x", targets="y", importance="map", collate=lambda _: sample)([])
        assert torch.equal(collated["x"], expected)
        assert not torch.equal(Mix(mixer, labels_getter=lambda s: s["y"])(sample)["x"], expected)


def test_what_a_pool_does_not_bring_cannot_ride_along() -> None:
    mixer, masks = MixUp(num_classes=4), torch.zeros(4, 8, 8, dtype=torch.long)
    with pytest.raises(ConfigError, match="masks cannot ride along"):
        mix_sample(mixer, (*BATCH, masks), masks=2, rng=rng(0, "mix"), pool=WHITE)
    corners = tv_tensors.BoundingBoxes(torch.zeros(1, 4), format="XYXY", canvas_size=(8, 8))  # type: ignore[call-overload]
    for more, what in (
        (tv_tensors.Mask(masks), "masks"),
        (tv_tensors.Image(coded(4)), "further images"),
        ([{"boxes": corners}] * 4, "boxes"),
    ):
        with pytest.raises(ConfigError, match=f"{what} cannot ride along"):
            Mix(mixer, pool=[WHITE])(tv_tensors.Image(BATCH[0]), BATCH[1], more)


def test_pools_that_do_not_fit_are_refused() -> None:
    mixer = MixUp(num_classes=4)
    with pytest.raises(DataError, match="same scale"):
        mix(mixer, *BATCH, rng=rng(0, "mix"), pool=(torch.zeros(4, 4, 8, 8, dtype=torch.uint8), WHITE[1]))
    with pytest.raises(DataError, match="a pool yields"):
        mix(mixer, *BATCH, rng=rng(0, "mix"), pool=WHITE[:1])
