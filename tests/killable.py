"""Run a toy or a study in processes that are made to be killed.

One process imports everything once and forks a child for every request on its standard input, so that a kill costs no
new import. A request is a JSON line: {"folder": ..., "toy": {...}} or {"folder": ..., "study": {...}}, and "kill_after"
in seconds or null; the answer is how the child ended.
"""

import json
import os
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

from raremix.study import parse_study, run_study
from tests.train.toys import SPEC, Toy


def child(request: dict[str, object]) -> None:
    folder = Path(str(request["folder"]))
    if "study" in request:
        run_study(parse_study(request["study"], base=folder), runs=folder / "runs", cache=folder / "cache")  # type: ignore[arg-type]
        return
    changes = dict(request["toy"])  # type: ignore[call-overload]
    spec = replace(SPEC, **changes.pop("spec"))
    ran = Toy(spec=spec, **changes).run(folder)
    (folder / "state.json").write_text(json.dumps(ran.state()))


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main() -> None:
    say("ready")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(request)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                sys.stderr.flush()
                os._exit(code)
        say(wait(pid, request["kill_after"]))


def wait(pid: int, kill_after: float | None) -> int:
    end = None if kill_after is None else time.monotonic() + kill_after
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
            end = None
        time.sleep(0.001)


if __name__ == "__main__":
    main()
