"""What the benchmarks share: clocks that wait for a GPU, and contestants that take turns."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported in the environment where the benchmark goes on
    import torch

Calls = Mapping[str, Callable[[], object]]


def clock(device: "torch.device | str", *, processor_time: bool = False) -> Callable[[], float]:
    """Return a clock that waits for what a GPU still has to do.

    Args:
        device: where the work is done.
        processor_time: on a CPU tell what all threads of this process took, which neighbours disturb less.
    """
    import torch

    if torch.device(device).type != "cuda":
        return time.process_time if processor_time else time.perf_counter

    def waited() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return waited


def taken(call: Callable[[], object], times: int = 1, *, now: Callable[[], float]) -> float:
    """Return the mean seconds of a few calls, by a clock."""
    start = now()
    for _ in range(times):
        call()
    return (now() - start) / times


def take_turns(
    calls: Calls, *, turns: int, now: Callable[[], float], times: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Call each once to warm up, then all in turn, so that what else the machine does hits all alike.

    Args:
        calls: by name.
        turns: of each.
        now: the clock.
        times: how often each is called in a turn; once by default.

    Returns:
        Mean seconds of a call, turn by turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(turns):
        for name, call in calls.items():
            seconds[name].append(taken(call, 1 if times is None else times[name], now=now))
    return seconds


def device_name(device: "torch.device | str") -> str:
    """Return what a device is called."""
    import torch

    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else str(device)
