"""What the benchmarks share: an environment for the peers, and what they ran on."""

import os
import platform
import site
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

CACHE = Path.home() / ".cache" / "raremix" / "benchmarks"
"""Where the peers' environments live."""

NUMBERS = Path("runs/benchmarks")
"""Where the benchmarks write their numbers."""


def go_on_in(home: Path, *, peers: Sequence[str], alone: Sequence[str] = ()) -> None:
    """Go on in an environment with the peers: return in it, and end the process that was started outside of it.

    The first run makes the environment, on top of the packages that are installed here.

    Args:
        home: folder of the environment.
        peers: what pip installs.
        alone: what pip installs without what it depends on.
    """
    if Path(sys.prefix) == home:
        return
    python = home / "bin" / "python"
    if not (home / "made").exists():
        import raremix

        venv.create(home, with_pip=True, clear=True)
        packages = next(home.glob("lib/python*/site-packages"))
        parents = [*site.getsitepackages(), str(Path(raremix.__file__).parents[1])]
        (packages / "parent.pth").write_text("\n".join(parents) + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet"]
        if peers:
            subprocess.run([*install, *peers], check=True)
        if alone:
            subprocess.run([*install, "--no-deps", *alone], check=True)
        (home / "made").touch()
    raise SystemExit(subprocess.run([str(python), *sys.argv], check=False).returncode)


def machine(*, threads: int) -> dict[str, object]:
    """Return what a benchmark ran on: processor, threads, load of the last minute, Python."""
    return {
        "processor": processor(),
        "threads": threads,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
