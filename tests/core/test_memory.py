"""Memory that runs out: recognised in all its forms, spared by parts, and said with what helps."""

import numpy as np
import pytest
import torch

from raremix.core.errors import RunError
from raremix.core.memory import InParts, is_out_of_memory, memory_advice


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_every_form_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    with (
        pytest.raises(RunError, match="memory ran out with 8 images: take 4"),
        memory_advice("with 8 images", "take 4"),
    ):
        raise error


def test_what_pytorch_and_numpy_really_raise() -> None:
    for make in (lambda: torch.empty(10**15), lambda: np.empty(10**17)):
        with pytest.raises(RunError, match="memory ran out with it: end what else"), memory_advice("with it"):
            make()


def test_other_errors_stay_what_they_are() -> None:
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")):
        assert not is_out_of_memory(error)
        with pytest.raises(type(error)), memory_advice("", ""):
            raise error
        with pytest.raises(type(error)):
            InParts()(_raising(error), torch.zeros(2))


def test_parts_are_halved_and_the_size_is_kept() -> None:
    asked: list[int] = []

    def at_most_three(rows: torch.Tensor, names: list[str]) -> torch.Tensor:
        asked.append(len(rows))
        assert len(rows) == len(names)
        if len(rows) > 3:
            raise MemoryError
        return 2 * rows

    parts, rows = InParts(), torch.arange(10)
    assert parts(at_most_three, rows, list("abcdefghij")).tolist() == (2 * rows).tolist()
    assert asked == [10, 5, 3, 3, 3, 1]
    asked.clear()
    parts(at_most_three, rows[:5], list("abcde"))
    assert asked == [3, 2], "not tried again"


def test_a_single_image_that_does_not_fit_is_said() -> None:
    with pytest.raises(RunError, match="memory ran out for a single image: end what else uses the memory"):
        InParts()(_raising(MemoryError()), torch.zeros(5))


def _raising(error: Exception):
    def draw(rows: torch.Tensor) -> torch.Tensor:
        raise error

    return draw
