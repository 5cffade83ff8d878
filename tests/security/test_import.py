"""S8: importing raremix asks nobody, starts nothing and writes nothing, in a home that cannot be written to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Audit hooks see what Python itself does, whichever library asked for it: https://peps.python.org/pep-0578/
WATCH = """
import os, sys
DENIED = ("socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system", "os.posix_spawn",
          "os.exec", "os.fork", "os.mkdir", "os.rename", "os.remove", "shutil.rmtree", "webbrowser.open")
def watch(event, arguments):
    # How ctypes, which torch and scipy ask, finds a library of the system.
    if event == "subprocess.Popen" and arguments[0] == "/sbin/ldconfig":
        return
    if event in DENIED:
        raise SystemExit(f"denied: {event} {arguments}")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        if arguments[0] != os.devnull:
            raise SystemExit(f"denied: open {arguments}")
sys.addaudithook(watch)
"""


def run(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-B", "-c", WATCH + code],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )


@pytest.mark.parametrize(
    "code",
    [
        "import raremix",
        "import raremix.cli",
        "import raremix.mix, raremix.losses",
        "import sys; from raremix import cli; sys.argv = ['raremix', '--help']; cli.main()",
    ],
)
def test_import_asks_nobody(code: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stderr
    tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'])",
        "open('x', 'w')",
    ],
)
def test_the_watch_sees(code: str, tmp_path: Path) -> None:
    done = run(code, tmp_path)
    assert done.returncode == 1
    assert "denied: " in done.stderr
