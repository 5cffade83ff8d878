"""Run things in processes that are made to be killed, from the test's side; the other side is `killable.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class Killer:
    """Runs toys and studies in processes, and kills them."""

    def __init__(self) -> None:
        root = Path(__file__).parents[1]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.killable"],
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def run(self, folder: Path, *, kill_after: float | None = None, **what: dict[str, Any]) -> int:
        """Run until the end, or until a moment in seconds; return the exit code.

        Args:
            folder: where it writes.
            kill_after: seconds until it is killed, or None.
            **what: `toy`, changes to `tests.train.toys.Toy`, or `study`, the tables of a study file.
        """
        assert self.process.stdin is not None
        request = {"folder": str(folder), "kill_after": kill_after, **what}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self._answer())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()
