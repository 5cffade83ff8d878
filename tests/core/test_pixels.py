"""Memory that is taken again, never while anything still refers to it; and pixels, the same whatever way is taken."""

import gc

import pytest
import torch

from raremix.core import pixels
from raremix.core.pixels import (
    LARGE_BLOCK,
    LONG_ROW,
    all_rows,
    blend,
    blend_by_mask,
    empty_rows,
    inside_boxes,
    take_rows,
)

LIKE = torch.rand(1, 3, 64, 64)
ROWS = LARGE_BLOCK // (3 * 64 * 64 * 4) + 1


@pytest.fixture(autouse=True)
def _no_spare_blocks() -> None:
    pixels._spare.clear()


def test_a_block_is_taken_again_when_nothing_refers_to_it() -> None:
    first = empty_rows(ROWS, like=LIKE)
    place = first.data_ptr()
    del first
    assert empty_rows(ROWS, like=LIKE).data_ptr() == place


def test_a_block_that_is_taken_again_is_taken_once() -> None:
    empty_rows(ROWS, like=LIKE)
    first, second = (empty_rows(ROWS, like=LIKE) for _ in range(2))
    assert first.data_ptr() != second.data_ptr()
    first.zero_()
    second.fill_(1.0)
    assert bool((first == 0).all())


def test_a_block_is_not_taken_while_a_view_lives() -> None:
    first = empty_rows(ROWS, like=LIKE).zero_()
    view = first[3, 1].view(-1)[::2]
    del first
    gc.collect()
    second = empty_rows(ROWS, like=LIKE).fill_(1.0)
    assert bool((view == 0).all())
    assert bool((second == 1).all())


def test_a_block_is_not_taken_while_autograd_needs_it() -> None:
    weight = torch.ones(1, requires_grad=True)
    images = empty_rows(ROWS, like=LIKE).fill_(2.0)
    loss = (images * weight).sum()
    expected = float(images.sum())
    del images
    empty_rows(ROWS, like=LIKE).fill_(100.0)
    loss.backward()
    assert weight.grad is not None
    assert float(weight.grad) == pytest.approx(expected)


def test_a_block_is_not_taken_while_numpy_holds_it() -> None:
    array = empty_rows(ROWS, like=LIKE).zero_().numpy()
    empty_rows(ROWS, like=LIKE).fill_(1.0)
    assert not array.any()


def test_two_spare_blocks_of_a_size_and_four_sizes_are_kept_at_most() -> None:
    many = [empty_rows(ROWS, like=LIKE) for _ in range(5)]
    many.clear()
    assert [len(blocks) for blocks in pixels._spare.values()] == [2]
    for more in range(1, 9):
        empty_rows(ROWS + more, like=LIKE)
    assert len(pixels._spare) <= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rows", [2, ROWS * 2])
def test_rows_have_type_and_layout_of_the_images(dtype: torch.dtype, layout: torch.memory_format, rows: int) -> None:
    like = LIKE.to(dtype).contiguous(memory_format=layout)
    made = empty_rows(rows, like=like)
    assert made.shape == (rows, 3, 64, 64)
    assert made.dtype == dtype
    assert made.is_contiguous(memory_format=layout)
    assert made.data_ptr() % 64 == 0
    made.fill_(1.0)


def test_rows_of_all_rows_are_the_tensor_itself() -> None:
    values = torch.rand(4, 2)
    assert take_rows(values, all_rows(4)) is values
    assert torch.equal(take_rows(values, torch.arange(4)), values)
    assert torch.equal(take_rows(values, torch.tensor([3, 3])), values[[3, 3]])


@pytest.mark.parametrize("side", [9, 160])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_masks_blend_long_and_short_rows_alike(side: int, dtype: torch.dtype, layout: torch.memory_format) -> None:
    assert (LONG_ROW <= 3 * 160 * 160) and (LONG_ROW > 3 * 9 * 9)
    images, pool = (torch.rand(rows, 3, side, side).to(dtype).contiguous(memory_format=layout) for rows in (4, 5))
    own, partner, mask = torch.tensor([3, 0, 0]), torch.tensor([4, 1, 0]), torch.rand(3, 1, side, side)
    before = [value.clone() for value in (images, pool, mask)]
    mixed = blend_by_mask(images, pool, own=own, partner=partner, mask=mask)
    expected = mask * images[own].float() + (1 - mask) * pool[partner].float()
    torch.testing.assert_close(mixed.float(), expected, rtol=0, atol=1e-6 if dtype != torch.bfloat16 else 4e-3)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=layout)
    assert all(torch.equal(value, copy) for value, copy in zip((images, pool, mask), before, strict=True))
    needs_grad = mask.requires_grad_()
    torch.testing.assert_close(blend_by_mask(images, pool, own=own, partner=partner, mask=needs_grad).detach(), mixed)


def test_a_batch_that_is_its_own_pool_is_taken_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, others, unbind = torch.rand(3, 3, 160, 160), torch.rand(3, 3, 160, 160), torch.Tensor.unbind
    taken: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "unbind", lambda value: (taken.append(value), unbind(value))[1])
    rows = {"own": torch.tensor([0, 1, 2]), "partner": torch.tensor([1, 2, 0])}
    for pool, times in ((images, 1), (others, 2)):
        for mixed in (
            lambda pool=pool: blend(images, pool, **rows, share=torch.rand(3)),
            lambda pool=pool: blend_by_mask(images, pool, **rows, mask=torch.rand(3, 1, 160, 160)),
        ):
            taken.clear()
            mixed()
            assert sum(value is images or value is others for value in taken) == times


@pytest.mark.parametrize(("height", "width"), [(6, 6), (4, 9), (9, 4), (70, 70), (3, 80)])
def test_boxes_are_drawn_where_their_edges_say(height: int, width: int) -> None:
    edges = torch.tensor([[0, 1, 2, 1], [1, 0, 3, 1], [height, 2, 2, 3], [2, width, 3, 2]], dtype=torch.int32)
    inside = inside_boxes(edges, height=height, width=width, device=torch.device("cpu"))
    assert inside.shape == (4, 1, height, width)
    for drawn, (top, left, bottom, right) in zip(inside[:, 0], edges.T.tolist(), strict=True):
        expected = torch.zeros(height, width)
        expected[top:bottom, left:right] = 1
        assert torch.equal(drawn, expected)
