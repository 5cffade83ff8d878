"""timm's loop: its loaders give what is mixed, and its switch works."""

import inspect

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from tests.adapt.toys import LeftFromNext, coded
from torch import Tensor
from torch.utils.data import Dataset

from raremix.adapt.timm import FastCollateMixup, Mixup, mixer_like_timm
from raremix.core.errors import ConfigError
from raremix.mix import CutMix, MixUp, OneOf


class Pictures(Dataset):
    """Images as timm's data sets give them, with the transform that `create_loader` sets."""

    def __init__(self, rows: int) -> None:
        self.transform = None
        shades = np.linspace(0, 255, rows).astype(np.uint8)
        self._rows = [(Image.fromarray(np.full((8, 8, 3), shade)), i % 2) for i, shade in enumerate(shades)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[object, int]:
        image, label = self._rows[index]
        return (image if self.transform is None else self.transform(image)), label


@pytest.mark.parametrize("rows", [1, 4, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_any_batch_of_timms_types_is_mixed_and_left_alone(rows: int, dtype: torch.dtype) -> None:
    images = (255 * coded(rows)).to(dtype) if dtype == torch.uint8 else coded(rows).to(dtype)
    before = images.clone()
    x, target = Mixup(MixUp(alpha=1.0, num_classes=rows))(images, torch.arange(rows))
    assert x.dtype == dtype
    assert torch.equal(images, before)
    scale = 255 if dtype == torch.uint8 else 1
    torch.testing.assert_close(x.float().mean(dim=(2, 3)) / scale, target, rtol=0, atol=1e-2)


def test_it_can_be_switched_off() -> None:
    mixup_fn = Mixup(CutMix(num_classes=4))
    assert mixup_fn.mixup_enabled
    mixup_fn.mixup_enabled = False
    images = coded(4)
    x, target = mixup_fn(images, torch.arange(4))
    assert x is images
    assert torch.equal(target, torch.eye(4))


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_labels_are_smoothed_as_timms_are(multi_label: bool, enabled: bool) -> None:
    """A fixed mask of a quarter: 0.75 and 0.25 of smoothed labels, for both, by timm's own function."""
    classes = torch.arange(4)
    given = torch.eye(4) if multi_label else classes
    mixup_fn = Mixup(LeftFromNext(num_classes=4), label_smoothing=0.1, multi_label=multi_label)
    mixup_fn.mixup_enabled = enabled
    _, target = mixup_fn(coded(4), given)
    smooth = timm.data.mixup.mixup_target(given, 4, lam=1.0, smoothing=0.1, multi_label=multi_label)
    expected = 0.75 * smooth + 0.25 * smooth.roll(-1, 0) if enabled else smooth
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ConfigError, match="label_smoothing"):
        Mixup(MixUp(), label_smoothing=smoothing)


def test_timms_settings_describe_a_mixer() -> None:
    assert mixer_like_timm(mixup_alpha=0.8, num_classes=3) == MixUp(alpha=0.8, num_classes=3)
    both = mixer_like_timm(mixup_alpha=0.8, cutmix_alpha=1.0, prob=0.5, switch_prob=0.25, num_classes=3)
    parts = (MixUp(alpha=0.8, probability=0.5, num_classes=3), CutMix(probability=0.5, num_classes=3))
    assert both == OneOf(mixers=parts, probabilities=(0.75, 0.25), num_classes=3)
    for wrong in ({"mixup_alpha": 0.0}, {"cutmix_minmax": (0.2, 0.8)}):
        with pytest.raises(ConfigError):
            mixer_like_timm(**wrong)
    known = inspect.signature(timm.data.Mixup).parameters
    ours = inspect.signature(mixer_like_timm).parameters
    assert set(ours) <= set(known)


def make_loader(*, use_prefetcher: bool, collate: FastCollateMixup | None = None, workers: int = 0) -> object:
    return timm.data.create_loader(
        Pictures(8),
        input_size=(3, 8, 8),
        batch_size=4,
        is_training=True,
        no_aug=True,
        use_prefetcher=use_prefetcher,
        num_workers=workers,
        collate_fn=collate,
        device=torch.device("cpu"),
        persistent_workers=workers > 0,
        worker_seeding="all",
        pin_memory=False,
    )


@pytest.mark.parametrize("use_prefetcher", [False, True])
def test_timms_loader_gives_batches_that_are_mixed(use_prefetcher: bool) -> None:
    mixup_fn = Mixup(MixUp(alpha=1.0, num_classes=2))
    changed = []
    for _ in range(4):  # the loader's order is chance, and a row may meet one of the same colour, or itself
        for x, y in make_loader(use_prefetcher=use_prefetcher):
            mixed, target = mixup_fn(x, y)
            assert mixed.dtype == torch.float32
            assert target.shape == (4, 2)
            changed.append(not torch.equal(mixed, x))
    assert sum(changed) >= len(changed) / 2


def soft_rows(loader: object) -> int:
    """Count the targets of an epoch that belong to more than one class."""
    rows: list[Tensor] = [target for _, target in loader]  # type: ignore[attr-defined]
    return int(((torch.cat(rows) > 0).sum(dim=1) > 1).sum())


@pytest.mark.parametrize("workers", [0, 1])
def test_the_collates_switch_reaches_workers_that_live_on(workers: int) -> None:
    """timm's loader switches its `FastCollateMixup` off in the main process, where persistent workers do not look."""
    collate = FastCollateMixup(MixUp(alpha=1.0, num_classes=2))
    loader = make_loader(use_prefetcher=True, collate=collate, workers=workers)
    assert loader.mixup_enabled
    assert sum(soft_rows(loader) for _ in range(8)) > 0  # by chance all rows of an epoch meet their own kind
    loader.mixup_enabled = False
    assert soft_rows(loader) == 0


def test_the_collate_reads_arrays_only() -> None:
    cache = [np.random.default_rng(i).integers(0, 256, (3, 8, 8), dtype=np.uint8) for i in range(5)]
    before = [array.copy() for array in cache]
    collate = FastCollateMixup(CutMix(num_classes=5))
    for _ in range(3):
        images, targets = collate([(array, i) for i, array in enumerate(cache)])
        images.zero_()
    assert images.dtype == torch.uint8
    assert targets.shape == (5, 5)
    assert all(np.array_equal(one, two) for one, two in zip(cache, before, strict=True))
