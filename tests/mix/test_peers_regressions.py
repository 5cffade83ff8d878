"""Bugs found in other libraries, which must be impossible here; each is named after where it was found."""

import numpy as np
import pytest
import torch

from raremix.core.random import rng
from raremix.core.types import Batch, Boxes
from raremix.losses import cross_entropy
from raremix.mix import MIXERS, CutMix, MixUp


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


def test_monai_mixup_raises_on_rows_of_labels() -> None:
    """MONAI 1.6.1: MixUp does not take labels of shape (B, K)."""
    _, targets = MixUp()(torch.rand(4, 1, 8, 8), torch.rand(4, 6), rng=rng(0, "mix"))
    assert targets.shape == (4, 6)


def test_kornia_labels_mean_the_same_in_mixup_and_cutmix() -> None:
    """kornia 0.9.0: CutMix weighs the other image's share, MixUp its own; here `weight` is always the own share."""
    code = torch.eye(4)
    batch = Batch(images=code[:, :, None, None].expand(4, 4, 16, 16), targets=code)
    for mixer in (MixUp(alpha=1.0), CutMix()):
        plan = mixer.plan(batch, batch, rng=rng(0, "mix"))
        mixed = plan.apply(batch)
        kept = mixed.images.mean(dim=(2, 3)).diagonal()
        is_apart = plan.partner != torch.arange(4)
        assert bool(is_apart.any())
        torch.testing.assert_close(kept[is_apart], plan.weight[is_apart])
        torch.testing.assert_close(mixed.targets.diagonal()[is_apart], plan.weight[is_apart])


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
    MIXERS[name](**({} if name == "none" else {"alpha": 1.0}))(images, targets, rng=rng(0, "mix"))
    assert torch.equal(images, before)
    assert torch.equal(targets, torch.eye(6))


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_timm_mixup_asserts_an_even_batch(name: str, rows: int) -> None:
    """timm 1.0.31: a last batch with an odd number of images raises."""
    images, _ = MIXERS[name]()(torch.rand(rows, 3, 8, 8), torch.rand(rows, 2), rng=rng(0, "mix"))
    assert images.shape == (rows, 3, 8, 8)


def test_timm_collate_corrupts_cached_arrays() -> None:
    """timm 1.0.31: FastCollateMixup in pair mode writes into the arrays that a cache still holds."""
    cache = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
    before = cache.copy()
    images = torch.from_numpy(cache)
    for mixer in (MixUp(alpha=1.0), CutMix()):
        mixed, _ = mixer(images, torch.eye(4), rng=rng(0, "mix"))
        mixed.zero_()
    assert np.array_equal(cache, before)


@pytest.mark.parametrize("name", MIXERS)
def test_torchvision_treats_bytes_differently_in_mixup_and_cutmix(name: str) -> None:
    """torchvision 0.29: MixUp raises on uint8 while CutMix works; here all say the same, and what to do."""
    with pytest.raises(Exception, match=r"divide 8-bit images by 255"):
        MIXERS[name]()(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.eye(2))


def test_torchvision_pairs_by_rolling() -> None:
    """torchvision 0.29: partners are the batch rolled by one: with four images of a class in a row 3 in 4 agree."""
    classes = torch.arange(16).repeat_interleave(4)
    batch = Batch(images=torch.rand(64, 1, 2, 2), targets=torch.nn.functional.one_hot(classes).float())
    same = [
        (classes[MixUp().plan(batch, batch, rng=rng(seed, "mix")).partner] == classes).float().mean()
        for seed in range(20)
    ]
    assert float(torch.stack(same).mean()) == pytest.approx(4 / 64, abs=0.03)


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


def test_losses_elsewhere_do_not_skip_missing_labels() -> None:
    """timm, segmentation_models.pytorch, kornia: one NaN label makes the loss of the batch NaN."""
    targets = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
    assert float(cross_entropy(torch.zeros(2, 2), targets)) == pytest.approx(np.log(2))


def test_beta_is_not_another_distribution() -> None:
    """Another library shipped a Beta sampler with wrong moments: the variance at alpha = 0.2 is 0.179."""
    batch = Batch(images=torch.rand(20_000, 1, 1, 1), targets=torch.rand(20_000, 1))
    weight = MixUp(alpha=0.2).plan(batch, batch, rng=rng(0, "mix")).weight.double()
    assert float(weight.mean()) == pytest.approx(0.5, abs=0.015)
    assert float(weight.var()) == pytest.approx(1 / (4 * 1.4), abs=0.005)
    assert float((weight < 0.5).double().mean()) == pytest.approx(0.5, abs=0.02)
