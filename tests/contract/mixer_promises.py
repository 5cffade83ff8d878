"""What every mixer promises, as checks that take a mixer and raise AssertionError where it breaks its word."""

import dataclasses
from collections.abc import Callable
from itertools import product

import torch
from tests.contract.random_states import random_states
from torch import Tensor

from raremix.core.errors import TargetError
from raremix.core.masks import resize_mask
from raremix.core.protocols import Mixer
from raremix.core.random import rng
from raremix.core.types import Batch, MixPlan

SIZES = [(8, 8), (7, 13), (20, 6), (1, 1)]


def coded_batch(rows: int, height: int, width: int, *, dtype: torch.dtype = torch.float32) -> Batch:
    """Return up to four images of which image i is 1 in channel i alone, and belongs to class i alone.

    The mean of channel i of a mixed image is then the share of its pixels that come from image i, whatever the mask.
    """
    code = torch.eye(rows)
    images = code[:, :, None, None].expand(rows, rows, height, width).to(dtype).contiguous()
    return Batch(images=images, targets=code.clone(), ids=torch.arange(10, 10 + rows))


def random_batch(
    rows: int, *, channels: int = 3, height: int = 9, width: int = 12, dtype: torch.dtype = torch.float32
) -> Batch:
    """Return random images with soft targets of five classes."""
    generator = torch.Generator().manual_seed(rows)
    images = torch.rand(rows, channels, height, width, generator=generator).to(dtype)
    targets = torch.rand(rows, 5, generator=generator)
    return Batch(images=images, targets=targets / targets.sum(dim=1, keepdim=True), ids=torch.arange(rows))


def layouts(images: Tensor) -> dict[str, Tensor]:
    """Return the same images in the memory layouts that callers have."""
    rows, channels, height, width = images.shape
    wide = torch.zeros(rows, channels, height, 2 * width, dtype=images.dtype)
    wide[..., ::2] = images
    return {
        "contiguous": images.clone(memory_format=torch.contiguous_format),
        "channels_last": images.clone(memory_format=torch.channels_last),
        "every second column": wide[..., ::2],
        "one image repeated": images[:1].expand(rows, -1, -1, -1),
    }


def by_area(mixer: Mixer) -> Mixer:
    """Return the mixer with labels weighed by area, if it offers other rules."""
    return dataclasses.replace(mixer, label="area") if hasattr(mixer, "label") else mixer  # type: ignore[type-var]


def counted_pixels_equal_label_mass(mixer: Mixer) -> None:
    """The share of its pixels that an image gives is the share of its label that it gives, by the rule of area."""
    mixer = by_area(mixer)
    for (height, width), rows, seed in product(SIZES, (1, 2, 3, 4), range(4)):
        batch = coded_batch(rows, height, width)
        images, targets = mixer(batch.images, batch.targets, rng=rng(seed, "mix"))
        torch.testing.assert_close(images.mean(dim=(2, 3)), targets, rtol=0, atol=1e-6)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(targets)), rtol=0, atol=1e-6)


def inputs_are_untouched(mixer: Mixer) -> None:
    """Neither mixing nor writing to what comes out changes what went in, in any memory layout."""
    batch = random_batch(5)
    for images in layouts(batch.images).values():
        targets, ids = batch.targets.clone(), torch.arange(5)
        given = Batch(images=images, targets=targets, ids=ids)
        before = (images.clone(), targets.clone(), ids.clone())
        mixed = mixer.plan(given, given, rng=rng(0, "mix")).apply(given)
        assert mixed.ids is not None
        for out in (mixed.images, mixed.targets, mixed.ids):
            out.zero_()
        assert torch.equal(images, before[0])
        assert torch.equal(targets, before[1])
        assert torch.equal(ids, before[2])
        new_images, new_targets = mixer(images, targets, rng=rng(0, "mix"))
        new_images.zero_()
        new_targets.zero_()
        assert torch.equal(images, before[0])
        assert torch.equal(targets, before[1])


def layouts_agree(mixer: Mixer) -> None:
    """The memory layout changes no pixel, and channels-last images come out channels-last."""
    for dtype in (torch.float32, torch.bfloat16):
        batch = random_batch(6, dtype=dtype)
        images = layouts(batch.images)
        expected, _ = mixer(images["contiguous"], batch.targets, rng=rng(0, "mix"))
        assert expected.is_contiguous()
        for name in ("channels_last", "every second column"):
            mixed, _ = mixer(images[name], batch.targets, rng=rng(0, "mix"))
            assert torch.equal(mixed, expected), name
        last, _ = mixer(images["channels_last"], batch.targets, rng=rng(0, "mix"))
        assert last.is_contiguous(memory_format=torch.channels_last)


def global_randomness_is_untouched(mixer: Mixer) -> None:
    """No global random state is read or moved, with and without a stream, also in torch's deterministic mode."""
    batch = random_batch(4)
    before = random_states()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        mixer(batch.images, batch.targets, rng=rng(0, "mix"))
        mixer(batch.images, batch.targets)
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
    assert random_states() == before


def any_shape_and_type_will_do(mixer: Mixer) -> None:
    """Any B >= 1, any size, 1 to 4 channels, any float type; mixed values stay between those that were mixed."""
    for rows, channels, (height, width) in product((1, 2, 3, 8), (1, 2, 3, 4), SIZES):
        batch = random_batch(rows, channels=channels, height=height, width=width)
        images, targets = mixer(batch.images, batch.targets, rng=rng(1, "mix"))
        assert images.shape[1:] == (channels, height, width)
        assert targets.shape == (len(images), 5)
        if rows == 1:
            torch.testing.assert_close(images, batch.images.expand_as(images), rtol=0, atol=1e-6)
            torch.testing.assert_close(targets, batch.targets.expand_as(targets), rtol=0, atol=1e-6)
    exact = random_batch(4, dtype=torch.float64)
    expected, _ = mixer(exact.images, exact.targets, rng=rng(1, "mix"))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        images, targets = mixer(exact.images.to(dtype), exact.targets, rng=rng(1, "mix"))
        assert images.dtype == dtype
        assert targets.dtype == torch.float32
        rounding = 2.1 * torch.finfo(dtype).eps  # the images', and the mixed image's
        if is_guided(mixer):
            continue  # rounded images may have their maximum elsewhere, and then another mask
        torch.testing.assert_close(images.double(), expected, rtol=0, atol=rounding)
        # A method that moves its partner's pixels may bring any of them anywhere.
        over = (0, 2, 3) if _moves_pixels(mixer) else 0
        low, high = (exact.images.amin(dim=over, keepdim=True), exact.images.amax(dim=over, keepdim=True))
        assert bool((images.double() >= low - rounding).all() and (images.double() <= high + rounding).all())


def _moves_pixels(mixer: Mixer) -> bool:
    batch = random_batch(4)
    return mixer.plan(batch, batch, rng=rng(1, "mix")).partner_images is not None


def every_kind_of_target_is_taken(mixer: Mixer) -> None:
    """Class numbers, given `num_classes`, are one-hot rows; multi-hot labels mix by cell; wrong ones are refused."""
    images = random_batch(6).images
    classes = torch.tensor([0, 1, 2, 3, 4, 1])
    with_classes = dataclasses.replace(mixer, num_classes=5)  # type: ignore[type-var]
    one_hot = torch.nn.functional.one_hot(classes, 5)
    expected_images, expected = mixer(images, one_hot.float(), rng=rng(2, "mix"))
    for targets in (classes, classes.int(), classes.to(torch.uint8), one_hot, one_hot.bool()):
        new_images, new_targets = with_classes(images, targets, rng=rng(2, "mix"))
        assert torch.equal(new_images, expected_images)
        assert torch.equal(new_targets, expected)
        assert new_targets.dtype == torch.float32
    multi_hot = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]).float()
    _, mixed = mixer(images, multi_hot, rng=rng(2, "mix"))
    if not hasattr(mixer, "kappa"):  # a rule that weighs all of a row's labels needs all of them
        _, column = mixer(images, multi_hot[:, 1:2], rng=rng(2, "mix"))
        assert torch.equal(mixed[:, 1:2], column)
    _, by_cell = by_area(mixer)(images, multi_hot, rng=rng(2, "mix"))
    _, column = by_area(mixer)(images, multi_hot[:, 1:2], rng=rng(2, "mix"))
    assert torch.equal(by_cell[:, 1:2], column)
    assert bool(((mixed >= 0) & (mixed <= 1)).all())
    for wrong, refused in ((classes, mixer), (classes + 1, with_classes), (classes - 1, with_classes)):
        try:
            refused(images, wrong, rng=rng(2, "mix"))
        except TargetError:
            continue
        raise AssertionError("class numbers were taken that cannot be placed")


def missing_labels_do_not_spread(mixer: Mixer) -> None:
    """A target is NaN after mixing only, and always, where a contributor with a weight above zero is NaN."""
    for seed, rows in product(range(4), (1, 2, 7)):
        batch = random_batch(rows)
        targets = batch.targets.clone()
        targets[torch.rand(rows, 5, generator=torch.Generator().manual_seed(seed)) < 0.4] = torch.nan
        batch = Batch(images=batch.images, targets=targets)
        plan = mixer.plan(batch, batch, rng=rng(seed, "mix"))
        # Some rows are whole by hand, so that both ends are met whatever the mixer draws.
        weight = plan.weight.clone()
        weight[::3] = 1.0
        weight[1::3] = 0.0
        by_hand = dataclasses.replace(plan, weight=weight, partner_weight=None, others=None)
        for checked in (plan, by_hand):
            mixed = checked.apply(batch).targets
            _compare_with_definition(mixed, targets, checked)
        _, called = mixer(batch.images, targets, rng=rng(seed, "mix"))
        _compare_with_definition(called, targets, plan)


def contributors(plan: MixPlan, targets: Tensor, pool_targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return weight (R) and targets (R, K) of everything that a plan mixes."""
    parts = [(plan.weight.cpu(), targets[plan.own])]
    if plan.others is not None:
        parts += [(weight, pool_targets[rows]) for rows, _, weight in plan.others.each(torch.device("cpu"))]
    rest = 1 - torch.stack([weight for weight, _ in parts]).sum(dim=0)
    if plan.others is not None:
        rest = torch.where(rest.abs() < 1e-6, 0.0, rest)  # three or more weights add up to one but for rounding
    parts.append((rest if plan.partner_weight is None else plan.partner_weight.cpu(), pool_targets[plan.partner]))
    return parts


def _compare_with_definition(mixed: Tensor, targets: Tensor, plan: MixPlan) -> None:
    expected = torch.zeros_like(mixed)
    for weight, part in contributors(plan, targets, targets):
        expected += torch.where(weight[:, None] > 0, weight[:, None] * part, 0.0)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-6, equal_nan=True)


def weights_are_drawn_per_image(mixer: Mixer) -> None:
    """Weights lie in [0, 1], differ between the images of a batch, and change from stream to stream."""
    mixer = by_area(mixer)
    if hasattr(mixer, "cells"):  # a method that keeps a fixed number of cells draws it by option
        mixer = dataclasses.replace(mixer, cells=None)  # type: ignore[type-var]
    batch = random_batch(16, height=4, width=4)
    # Squares rather than noise: something to see for methods that look at the images.
    images = batch.images.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    batch = Batch(images=images, targets=batch.targets)
    plans = [mixer.plan(batch, batch, rng=rng(seed, "mix")) for seed in range(2)]
    for plan in plans:
        assert bool(((plan.weight >= 0) & (plan.weight <= 1)).all())
    is_mixing = any(bool((plan.weight < 1).any()) for plan in plans)
    if is_mixing:
        assert all(len(plan.weight.unique()) > 2 for plan in plans), "one weight for the whole batch"
        assert not torch.equal(plans[0].weight, plans[1].weight), "the stream is not used"


def weights_have_betas_moments(mixer: Mixer) -> None:
    """Where every pixel keeps the same share, that share has the moments of its Beta distribution.

    The shapes are (alpha, alpha), unless the mixer names its own.
    """
    if not hasattr(mixer, "alpha"):
        return
    batch = Batch(images=torch.zeros(20_000, 1, 2, 2), targets=torch.zeros(20_000, 1))
    for alpha in (0.1, 0.2, 1.0, 4.0):
        always = {"probability": 1.0} if hasattr(mixer, "probability") else {}
        drawing = dataclasses.replace(mixer, alpha=alpha, **always)  # type: ignore[type-var]
        plan = drawing.plan(batch, batch, rng=rng(3, "mix"))
        if not isinstance(plan.mask, Tensor) or plan.mask.shape[-2:] != (1, 1):
            return
        drawn = plan.weight.double()
        mean, variance, fourth = _beta_moments(*getattr(drawing, "shapes", (alpha, alpha)))
        count = len(drawn)
        assert abs(float(drawn.mean()) - mean) < 5 * (variance / count) ** 0.5, f"mean at alpha = {alpha}"
        spread = 5 * ((fourth - variance**2) / count) ** 0.5
        assert abs(float(((drawn - mean) ** 2).mean()) - variance) < spread, f"variance at alpha = {alpha}"


def _beta_moments(a: float, b: float) -> tuple[float, float, float]:
    """Return mean, variance and fourth central moment of Beta(a, b)."""
    mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
    excess = 6 * ((a - b) ** 2 * (a + b + 1) - a * b * (a + b + 2)) / (a * b * (a + b + 2) * (a + b + 3))
    return mean, variance, variance**2 * (excess + 3)


def probability_is_the_share_of_mixed_rows(mixer: Mixer) -> None:
    """`probability`, where a mixer has one, is the share of rows that are mixed at all."""
    if not hasattr(mixer, "probability"):
        return
    batch = Batch(images=torch.zeros(4000, 1, 32, 32), targets=torch.zeros(4000, 1))
    for probability in (0.0, 0.3):
        rarely = dataclasses.replace(mixer, probability=probability)  # type: ignore[type-var]
        always = dataclasses.replace(mixer, probability=1.0)  # type: ignore[type-var]
        mixed = float((rarely.plan(batch, batch, rng=rng(4, "mix")).weight < 1).float().mean())
        ever = float((always.plan(batch, batch, rng=rng(4, "mix")).weight < 1).float().mean())
        assert abs(mixed - probability * ever) < 5 * (0.25 / 4000) ** 0.5


def same_stream_gives_same_result(mixer: Mixer) -> None:
    """The plan is a function of stream, shapes and hyper-parameters (and of the images, where these guide it); not of
    type, layout or gradients.
    """
    batch = random_batch(6)
    expected = mixer.plan(batch, batch, rng=rng(5, "mix"))
    first, second = (mixer(batch.images, batch.targets, rng=rng(5, "mix")) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    last = batch.images.contiguous(memory_format=torch.channels_last)
    half = [] if is_guided(mixer) else [batch.images.bfloat16()]
    for images in (batch.images.double(), *half, last, batch.images.clone().requires_grad_()):
        other = Batch(images=images, targets=batch.targets)
        rounding = 1e-5 if is_guided(mixer) else 0.0
        assert_same_plan(mixer.plan(other, other, rng=rng(5, "mix")), expected, rounding=rounding)


def is_guided(mixer: Mixer) -> bool:
    """Say whether the images decide where a mixer takes its pixels from."""
    return getattr(mixer, "is_guided", False)


def assert_same_plan(plan: MixPlan, expected: MixPlan, *, rounding: float = 0.0, exact: bool = False) -> None:
    """Compare two plans value by value; without rounding both lie on the CPU. Exact: pixels that were moved, too."""
    for field in dataclasses.fields(plan):
        value, other = getattr(plan, field.name), getattr(expected, field.name)
        if dataclasses.is_dataclass(value):
            pairs = [(getattr(value, part.name), getattr(other, part.name)) for part in dataclasses.fields(value)]
        else:
            pairs = [(value, other)]
        for one, two in pairs:
            if exact and isinstance(one, Tensor):
                assert one.dtype == two.dtype, field.name
                assert torch.equal(one, two), field.name
            elif field.name in {"own_images", "partner_images"} and isinstance(one, Tensor):
                # Pixels, not decisions: they are of the images' type, and where the images are.
                finest = 2.1 * max(torch.finfo(values.dtype).eps for values in (one, two))
                torch.testing.assert_close(one.double().cpu(), two.double().cpu(), rtol=0, atol=max(rounding, finest))
            elif isinstance(one, Tensor):
                assert rounding or one.device.type == "cpu"
                torch.testing.assert_close(one.cpu(), two.cpu(), rtol=0, atol=rounding, msg=field.name)
            else:
                assert one == two, field.name


def partners_come_from_the_pool(mixer: Mixer) -> None:
    """With a pool of another size every output row is own * mask + pool * (1 - mask), and its target likewise."""
    batch = random_batch(5)
    for rows in (1, 3, 11):
        pool = random_batch(rows + 100)
        pool = Batch(images=pool.images[:rows] + 2.0, targets=pool.targets[:rows])
        plan = mixer.plan(batch, pool, rng=rng(6, "mix"))
        assert bool((plan.own >= 0).all() and (plan.own < 5).all())
        assert bool((plan.partner >= 0).all() and (plan.partner < rows).all())
        mixed = plan.apply(batch, pool)
        mask = plan.mask if isinstance(plan.mask, Tensor) else plan.mask.to_mask()
        full = resize_mask(mask, *batch.images.shape[-2:])
        partner = pool.images[plan.partner] if plan.partner_images is None else plan.partner_images
        own = batch.images[plan.own] if plan.own_images is None else plan.own_images
        expected = full * own + (1 - full) * partner
        if plan.others is not None:
            for others, share, _ in plan.others.each(torch.device("cpu")):
                expected += resize_mask(share, *batch.images.shape[-2:]) * (pool.images[others] - partner)
        torch.testing.assert_close(mixed.images, expected, rtol=0, atol=1e-6)
        # Whatever is not the batch's own comes from the pool, whose values all lie above 2.
        whole = (full <= 0).expand_as(mixed.images)
        assert bool((mixed.images[whole] >= 2 - 1e-6).all())
        _compare_with_pool(mixed.targets, plan, batch, pool)


def _compare_with_pool(mixed: Tensor, plan: MixPlan, batch: Batch, pool: Batch) -> None:
    parts = contributors(plan, batch.targets, pool.targets)
    expected = sum((weight[:, None] * part for weight, part in parts), torch.zeros_like(mixed))
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-6)


def gradients_flow(mixer: Mixer) -> None:
    """Mixing is a weighted mean of its inputs, also to autograd: gradients of the sum add up to its number of terms."""
    batch = random_batch(5)
    images = batch.images.clone().requires_grad_()
    mixed, _ = mixer(images, batch.targets, rng=rng(7, "mix"))
    plain, _ = mixer(batch.images, batch.targets, rng=rng(7, "mix"))
    torch.testing.assert_close(mixed.detach(), plain, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(mixed.sum(), images)
    assert bool(gradient.isfinite().all())
    torch.testing.assert_close(gradient.sum(), torch.tensor(float(mixed.numel())))


def autocast_changes_nothing(mixer: Mixer) -> None:
    """Plans and what is mixed by them are the same, bit by bit, inside and outside of autocast."""
    if hasattr(mixer, "network"):  # the caller's own, which may well be meant to run in half precision
        return
    for dtype, half in product((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float16)):
        for height, width in ((9, 12), (72, 80)):
            batch = random_batch(6, height=height, width=width, dtype=dtype)
            pool = random_batch(4, height=height, width=width, dtype=dtype)
            for others in (batch, pool):
                expected = mixer.plan(batch, others, rng=rng(8, "mix"))
                mixed = expected.apply(batch, others)
                with torch.autocast("cpu", half):
                    plan = mixer.plan(batch, others, rng=rng(8, "mix"))
                    inside = plan.apply(batch, others)
                assert_same_plan(plan, expected, exact=True)
                assert inside.images.dtype == mixed.images.dtype
                assert torch.equal(inside.images, mixed.images)
                assert torch.equal(inside.targets, mixed.targets)


def settings_are_values(mixer: Mixer) -> None:
    """A mixer is a frozen, keyword-only dataclass: equal settings are equal mixers."""
    assert dataclasses.is_dataclass(mixer)
    assert not isinstance(mixer, type)
    assert all(field.kw_only for field in dataclasses.fields(mixer))
    is_frozen = False
    try:
        mixer.num_classes = 3
    except dataclasses.FrozenInstanceError:
        is_frozen = True
    assert is_frozen, "settings can be changed after the fact"
    assert dataclasses.replace(mixer) == mixer
    assert hash(dataclasses.replace(mixer)) == hash(mixer)


PROMISES: list[Callable[[Mixer], None]] = [
    counted_pixels_equal_label_mass,
    inputs_are_untouched,
    layouts_agree,
    global_randomness_is_untouched,
    any_shape_and_type_will_do,
    every_kind_of_target_is_taken,
    missing_labels_do_not_spread,
    weights_are_drawn_per_image,
    weights_have_betas_moments,
    probability_is_the_share_of_mixed_rows,
    same_stream_gives_same_result,
    partners_come_from_the_pool,
    gradients_flow,
    autocast_changes_nothing,
    settings_are_values,
]
