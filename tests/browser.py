"""A headless browser that says what a page did: the tests of pages are skipped where none is installed."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--v=0",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a browser did with a page.

    Args:
        dom: the document after loading, as HTML.
        console: what the page, or its policy, wrote to the console.
        requests: every address that the page asked for.
    """

    dom: str
    console: list[str]
    requests: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """A headless browser, opened anew for every visit."""

    command: str
    folder: Path

    def visit(self, page: Path) -> Visit:
        """Open a page, wait until it is loaded, and report what happened."""
        log = self.folder / f"{page.stem}.netlog.json"
        done = subprocess.run(
            [
                self.command,
                *FLAGS,
                f"--user-data-dir={self.folder / page.stem}",
                f"--log-net-log={log}",
                "--timeout=8000",
                "--dump-dom",
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return Visit(dom=done.stdout, console=console, requests=_addresses(json.loads(log.read_text())))


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """A headless browser; the test is skipped where none is installed."""
    command = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if command is None:
        pytest.skip("no chromium here: the page is checked by its source only")
    return Browser(command=command, folder=tmp_path / "browser")


def _addresses(log: Any) -> list[str]:
    """Every address that a page asked for, by the browser's net log; what the browser asks by itself has no origin."""
    kind = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event["params"] for event in log["events"] if event["type"] == kind and "url" in event.get("params", {})]
    return list(dict.fromkeys(one["url"] for one in asked if one.get("initiator") != "not an origin"))
