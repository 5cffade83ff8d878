"""What every command does alike."""

import pytest
import torch

from raremix import cli
from raremix.cli.console import fitting


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_memory_that_runs_out_is_said_with_what_helps(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    said = capsys.readouterr()
    assert "error: memory ran out: end what else uses the memory" in said.err
    assert "Traceback" not in said.err


def test_other_errors_are_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


def test_a_table_that_is_wider_than_the_terminal_is_turned() -> None:
    rows = [("arm", "AUROC", "F1"), ("mixup", ".9", ".8")]
    assert fitting(rows, width=200) == rows
    assert fitting(rows, width=20) == [("arm", "mixup"), ("AUROC", ".9"), ("F1", ".8")]
    many = [*rows, rows[1], rows[1]]
    assert fitting(many, width=20) == many, "turned it would be wider still"
