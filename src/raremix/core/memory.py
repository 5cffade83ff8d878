"""Memory that runs out: told from other errors, gone on with in smaller parts, and said with what helps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raremix.core.errors import RunError

SAID = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""How PyTorch and the libraries under it say it, where they raise a plain RuntimeError: its allocator on a CPU, CUDA
where the driver is full, cuDNN, cuBLAS."""

FREE = (
    "end what else uses the memory; where it was a GPU's, CUDA_VISIBLE_DEVICES= (nothing) before the command computes "
    "on the processor"
)
"""What helps where nothing can be made smaller."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the machine.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
        True
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAID)


@contextmanager
def memory_advice(doing: str, advice: str = FREE) -> Iterator[None]:
    """Turn memory that runs out within into an error that says what helps.

    Args:
        doing: what is done within, after "memory ran out".
        advice: what helps.

    Raises:
        RunError: if memory runs out.

    Example:
        >>> with memory_advice("with 8 images at once", "ask for fewer, -n 4"):
        ...     raise MemoryError
        Traceback (most recent call last):
        raremix.core.errors.RunError: memory ran out with 8 images at once: ask for fewer, -n 4
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"memory ran out {doing}: {advice}") from None


@dataclass(slots=True)
class InParts:
    """Call what works row by row on all rows; where memory runs out, on half as many, and so on, down to one.

    It is for what gives each row the same result whichever rows stand beside it, but for rounding.

    Attributes:
        most: rows at once, as found so far; None: all.

    Example:
        >>> def four_at_most(rows):
        ...     if len(rows) > 4:
        ...         raise MemoryError
        ...     return rows + 1
        >>> parts = InParts()
        >>> parts(four_at_most, torch.arange(7)), parts.most
        (tensor([1, 2, 3, 4, 5, 6, 7]), 4)
    """

    most: int | None = None

    def __call__(self, draw: Callable[..., Tensor], *rows: Any) -> Tensor:
        """Return what `draw` makes of the rows, in their order.

        Args:
            draw: takes as many rows of each as there are.
            *rows: tensors, arrays or lists of one length, at least 1.

        Raises:
            RunError: if memory runs out for a single row.
        """
        count = len(rows[0])
        while True:
            size = min(self.most or count, count)
            try:
                return torch.cat([draw(*(one[i : i + size] for one in rows)) for i in range(0, count, size)])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Here and not above: as long as the error lives, so does what was in memory when it was raised.
            if size == 1:
                raise RunError(f"memory ran out for a single image: {FREE}")
            self.most = -(-size // 2)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
