"""Metrics by step: JSON lines always, TensorBoard by option."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raremix.core import files
from raremix.core.errors import RunError


class Log:
    """Metrics by step as JSON lines, rewound on resume so that a resumed run leaves the same bytes.

    Args:
        folder: where `log.jsonl` lies.
        enabled: False on ranks other than the first.
        tensorboard: also write TensorBoard events.
    """

    def __init__(self, folder: Path, *, enabled: bool, tensorboard: bool) -> None:
        self.path = folder / "log.jsonl"
        self.enabled = enabled
        self.writer = _tensorboard(folder) if tensorboard and enabled else None

    def rewind(self, step: int) -> None:
        """Drop what was logged after a step."""
        if self.enabled:
            files.write_records(self.path, [r for r in files.read_records(self.path) if r["step"] <= step])

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a step."""
        if not self.enabled:
            return
        files.append_record(self.path, {"step": step, **values}, durable=False)
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def sync(self) -> None:
        """Bring what was logged to the disk, before a checkpoint says that these steps are done."""
        if self.enabled:
            files.sync(self.path)

    def close(self) -> None:
        """Flush what is buffered."""
        self.sync()
        if self.writer is not None:
            self.writer.close()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError:
        raise RunError("tensorboard = true needs the package: pip install 'raremix[tensorboard]'") from None
    return SummaryWriter(str(folder / "tensorboard"))
