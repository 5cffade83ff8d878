"""Bugs found in other libraries, which must be impossible here; each is named after where it was found."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import make
from tests.contract.mixer_promises import by_area, is_guided
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import raremix
from raremix.core.protocols import Mixer
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes, MixPlan
from raremix.losses import LOSSES, cross_entropy
from raremix.mix import MIXERS, CutMix, MixUp


def coded_batch(rows: int = 4, *, height: int = 24, width: int = 20) -> Batch:
    """Return images of which image i has channel i alone, with a texture, so that pixels say where they come from."""
    texture = 0.2 + 0.8 * torch.rand(rows, 1, height, width, generator=torch.Generator().manual_seed(0))
    return Batch(images=torch.eye(rows)[:, :, None, None] * texture, targets=torch.eye(rows))


def mask_of(plan: MixPlan) -> Tensor:
    return plan.mask.to_mask() if isinstance(plan.mask, Boxes) else plan.mask


def test_monai_cutmix_gives_rows_of_labels_to_the_other_image() -> None:
    """MONAI 1.6.1: with (B, K) labels the whole label goes to the partner while 95 % of the pixels stay."""
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, 100, 100)
    batch = Batch(images=images, targets=torch.eye(2))
    box = Boxes(edges=torch.tensor([[0, 0], [0, 0], [10, 10], [50, 50]]), height=100, width=100)
    plan = CutMix().plan(batch, batch, rng=rng(1, "mix"))
    plan = type(plan)(own=plan.own, partner=torch.tensor([1, 0]), mask=box, weight=box.share())
    mixed = plan.apply(batch)
    assert float((mixed.images[0] == 0).float().mean()) == pytest.approx(0.95)
    assert mixed.targets[0].tolist() == pytest.approx([0.95, 0.05])


@pytest.mark.parametrize("name", MIXERS)
def test_monai_mixup_raises_on_rows_of_labels(name: str) -> None:
    """MONAI 1.6.1: MixUp does not take labels of shape (B, K)."""
    images, targets = MIXERS[name]()(torch.rand(4, 1, 8, 8), torch.rand(4, 6), rng=rng(0, "mix"))
    assert targets.shape == (len(images), 6)


@pytest.mark.parametrize("name", MIXERS)
def test_kornia_labels_mean_the_same_in_mixup_and_cutmix(name: str) -> None:
    """kornia 0.9.0: the weight is the other image's share; in CutMix with use_correct_lambda it is the own.

    Here `weight` is the own share, whatever the method.
    """
    batch = coded_batch()
    ones = Batch(images=(batch.images > 0).float(), targets=batch.targets)
    for seed in range(5):
        plan = by_area(MIXERS[name]()).plan(batch, batch, rng=rng(seed, "mix"))
        rows = torch.arange(len(plan.own))
        mixed = plan.apply(ones)
        is_apart = plan.partner != plan.own
        kept, label = mixed.images.mean(dim=(2, 3))[rows, plan.own], mixed.targets[rows, plan.own]
        torch.testing.assert_close(kept[is_apart], plan.weight[is_apart], rtol=0, atol=1e-5)
        torch.testing.assert_close(label[is_apart], plan.weight[is_apart], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MIXERS)
def test_kornia_multilabel_raises(name: str) -> None:
    """kornia 0.9.0: multi-hot labels raise."""
    multi_hot = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    _, targets = MIXERS[name]()(torch.rand(3, 1, 8, 8), multi_hot, rng=rng(0, "mix"))
    assert bool(((targets >= 0) & (targets <= 1)).all())


@pytest.mark.parametrize("name", MIXERS)
def test_timm_mixup_writes_into_its_input(name: str) -> None:
    """timm 1.0.31: Mixup mixes into the batch it is given."""
    images, targets = torch.rand(6, 3, 32, 32), torch.eye(6)
    before = images.clone()
    settings = {"alpha": 1.0} if hasattr(MIXERS[name], "alpha") else {}
    MIXERS[name](**settings)(images, targets, rng=rng(0, "mix"))
    assert torch.equal(images, before)
    assert torch.equal(targets, torch.eye(6))


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_timm_mixup_asserts_an_even_batch(name: str, rows: int) -> None:
    """timm 1.0.31: a last batch with an odd number of images raises."""
    images, _ = MIXERS[name]()(torch.rand(rows, 3, 8, 8), torch.rand(rows, 2), rng=rng(0, "mix"))
    assert images.shape[1:] == (3, 8, 8)
    assert len(images) in {rows, 2 * rows}  # VariMix makes two images of each pair


@pytest.mark.parametrize("name", MIXERS)
def test_timm_collate_corrupts_cached_arrays(name: str) -> None:
    """timm 1.0.31: FastCollateMixup in its modes pair and half writes into arrays that a data set still holds.

    Its counterpart here, `raremix.adapt.timm.FastCollateMixup`, has a test of its own.
    """
    cache = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
    before = cache.copy()
    mixed, _ = MIXERS[name]()(torch.from_numpy(cache), torch.eye(4), rng=rng(0, "mix"))
    mixed.zero_()
    assert np.array_equal(cache, before)


@pytest.mark.parametrize("name", MIXERS)
def test_torchvision_treats_bytes_differently_in_mixup_and_cutmix(name: str) -> None:
    """torchvision 0.29: MixUp raises on uint8 while CutMix works; here all say the same, and what to do."""
    with pytest.raises(Exception, match=r"divide 8-bit images by 255"):
        MIXERS[name]()(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.eye(2))


@pytest.mark.parametrize("name", MIXERS)
def test_torchvision_pairs_by_rolling(name: str) -> None:
    """torchvision 0.29: partners are the batch rolled by one: with four images of a class in a row 3 in 4 agree."""
    mixer = MIXERS[name]()
    if getattr(mixer, "pairing", None) != "any":
        pytest.skip("pairs by a rule of its own")
    classes = torch.arange(16).repeat_interleave(4)
    batch = Batch(images=torch.rand(64, 1, 8, 8), targets=torch.nn.functional.one_hot(classes).float())
    same = []
    for seed in range(20):
        plan = mixer.plan(batch, batch, rng=rng(seed, "mix"))
        same.append((classes[plan.partner] == classes[plan.own]).float().mean())
    assert float(torch.stack(same).mean()) == pytest.approx(4 / 64, abs=0.04)


def test_openmixup_needs_a_gpu() -> None:
    """OpenMixup 0.2.9: `.cuda()` is hard-coded in its mixing functions; no line of raremix has it."""
    folder = Path(raremix.__file__).parent
    assert not [path for path in folder.rglob("*.py") if ".cuda(" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", MIXERS)
def test_openmixup_runs_on_cpu_tensors_only_with_a_gpu(name: str) -> None:
    """OpenMixup 0.2.9: without a GPU 6 of 7 functions fail; here all run where their images are."""
    images, targets = MIXERS[name]()(torch.rand(4, 3, 16, 16), torch.eye(4), rng=rng(0, "mix"))
    assert images.device.type == targets.device.type == "cpu"


@pytest.mark.parametrize("name", MIXERS)
def test_openmixup_saliencymix_has_one_box_for_the_batch(name: str) -> None:
    """OpenMixup 0.2.9: SaliencyMix takes the first partner's box for all images; here each has its own mask."""
    images = torch.zeros(6, 3, 64, 64)
    for i in range(6):
        images[i, :, 5 + 9 * i : 10 + 9 * i, 5 + 9 * i : 10 + 9 * i] = 1.0
    batch = Batch(images=images, targets=torch.eye(6))
    plans = [MIXERS[name]().plan(batch, batch, rng=rng(seed, "mix")) for seed in range(3)]
    masks = [mask_of(plan) for plan in plans]
    if all(bool((mask == 1).all()) for mask in masks):
        pytest.skip("mixes nothing by itself")
    distinct = max(len({tuple(row.flatten().tolist()) for row in mask}) for mask in masks)
    # A row that mixes more than two images may have nothing of its own, and then shares its mask with another such row.
    is_pair = is_guided(MIXERS[name]()) and plans[0].others is None
    assert distinct == len(masks[0]) if is_pair else distinct > 2


@pytest.mark.parametrize("name", MIXERS)
def test_openmixup_guidedmixup_pairs_after_pairing(name: str) -> None:
    """OpenMixup 37e1372: GuidedMixup finds its partners after images and labels were paired at random.

    Here an image that gives a share of the label gives pixels too.
    """
    batch = coded_batch()
    for seed in range(5):
        mixed = MIXERS[name]().plan(batch, batch, rng=rng(seed, "mix")).apply(batch)
        shown = mixed.images.amax(dim=(2, 3)) > 0
        assert bool((shown | (mixed.targets == 0)).all())


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize(("height", "width"), [(28, 28), (30, 30), (27, 31)])
def test_openmixup_puzzlemix_crashes_at_28_pixels(name: str, height: int, width: int) -> None:
    """OpenMixup 0.2.9: PuzzleMix fails where the blocks, whose number it draws, are not of an even number of pixels."""
    batch = Batch(images=torch.rand(4, 3, height, width), targets=torch.eye(4))
    for seed in range(4):
        mixed = MIXERS[name]().plan(batch, batch, rng=rng(seed, "mix")).apply(batch)
        assert mixed.images.shape[1:] == (3, height, width)


class Largest(TorchDispatchMode):
    """Note the largest tensor that comes out of any operation."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [value.untyped_storage().nbytes() for value in tree_leaves(out) if isinstance(value, Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


def largest_tensor_and_peak(mixer: Mixer, rows: int) -> tuple[int, int]:
    """Return the bytes of the largest tensor, and of all that numpy held at once, in mixing a batch."""
    generator = torch.Generator().manual_seed(rows)
    batch = Batch(images=torch.rand(rows, 3, 32, 32, generator=generator), targets=torch.eye(rows)[:, :5])
    mixer.plan(batch, batch, rng=rng(0, "mix"))  # what is kept between calls is made
    tracemalloc.start()
    with Largest() as largest:
        mixer.plan(batch, batch, rng=rng(0, "mix")).apply(batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return largest.numel, peak


@pytest.mark.parametrize("name", MIXERS)
def test_openmixup_builds_tensors_of_all_pairs_of_images(name: str) -> None:
    """OpenMixup 37e1372: distances are taken over B x B x HW values. Here memory grows as the batch does."""
    (small, small_peak), (large, large_peak) = (largest_tensor_and_peak(MIXERS[name](), rows) for rows in (24, 96))
    images = 96 * 3 * 32 * 32 * 4
    assert large <= max(5 * small, 1.1 * images)
    assert large_peak <= max(6 * small_peak, images)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("is_given", [False, True])
def test_varimix_has_no_mask_where_nothing_differs(name: str, level: float, is_given: bool) -> None:
    """VariMix's code: a flat difference map gives a mask of NaN; here flat images and maps mix to finite values."""
    maps = torch.full((4, 1, 8, 8), level) if is_given else None
    batch = Batch(images=torch.full((4, 3, 16, 16), level), targets=torch.eye(4), importance=maps)
    for seed in range(3):
        plan = MIXERS[name]().plan(batch, batch, rng=rng(seed, "mix"))
        mixed = plan.apply(batch)
        assert bool(mask_of(plan).isfinite().all())
        assert bool(((plan.weight >= 0) & (plan.weight <= 1)).all())
        torch.testing.assert_close(mixed.images, torch.full_like(mixed.images, level), rtol=0, atol=1e-5)
        assert bool(mixed.targets.isfinite().all())


def test_varimix_averages_over_the_batch_before_weighting() -> None:
    """VariMix's code: cross-entropy is averaged before the label weights are applied: no image keeps its own."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 3, generator=generator)
    batch = Batch(images=torch.rand(8, 1, 16, 16), targets=torch.eye(3)[torch.arange(8) % 3])
    plan = MixUp(alpha=1.0).plan(batch, batch, rng=rng(0, "mix"))
    mixed = plan.apply(batch)
    rows = [
        weight * torch.nn.functional.cross_entropy(logits[i], batch.targets[i])
        + (1 - weight) * torch.nn.functional.cross_entropy(logits[i], batch.targets[j])
        for i, (weight, j) in enumerate(zip(plan.weight, plan.partner, strict=True))
    ]
    torch.testing.assert_close(cross_entropy(logits, mixed.targets), torch.stack(rows).mean())


@pytest.mark.parametrize("name", LOSSES)
def test_losses_elsewhere_do_not_skip_missing_labels(name: str) -> None:
    """timm, segmentation_models.pytorch, kornia, MONAI: one NaN label makes the loss of the batch NaN."""
    logits = torch.tensor([[1.0, -1.0], [0.5, 2.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
    function = make(LOSSES[name], counts=(30, 10))
    loss = function(logits, targets)
    torch.testing.assert_close(loss, function(logits[:1], targets[:1]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(gradient[0].isfinite().all())
    assert gradient[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_elsewhere_reject_soft_labels(name: str) -> None:
    """kornia's and segmentation_models.pytorch's multi-class focal losses take class numbers only."""
    images, targets = MixUp(alpha=1.0, num_classes=3)(torch.rand(6, 1, 4, 4), torch.arange(6) % 3, rng=rng(0, "mix"))
    assert bool(((targets > 0) & (targets < 1)).any())
    loss = make(LOSSES[name], counts=(30, 20, 10))(images.mean(dim=(1, 2, 3))[:, None].expand(6, 3), targets)
    assert bool(loss.isfinite())


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_beta_is_not_another_distribution(alpha: float) -> None:
    """Another library shipped a Beta sampler with wrong moments: the variance at alpha = 0.2 is 0.179."""
    batch = Batch(images=torch.rand(20_000, 1, 1, 1), targets=torch.rand(20_000, 1))
    weight = MixUp(alpha=alpha).plan(batch, batch, rng=rng(0, "mix")).weight.double()
    assert float(weight.mean()) == pytest.approx(0.5, abs=0.015)
    assert float(weight.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.005)
    assert float((weight < 0.5).double().mean()) == pytest.approx(0.5, abs=0.02)
