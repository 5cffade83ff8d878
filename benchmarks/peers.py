"""Measure on other mixing libraries, and on raremix, what is easily got wrong: labels, inputs, odd batches, losses.

    python benchmarks/peers.py [--json FILE] [--docs FILE]

The libraries live in a virtual environment of their own, which the first run makes in --cache on top of the packages
that are installed here. Each line of the table is one check: what was done, what was expected, what came out of the
peer, what came out of raremix. --docs writes the table into a page, between its two markers.

OpenMixup's package cannot be imported without mmcv-full 1.x, of which there are no wheels. The files of its mixing
functions are therefore loaded by themselves, with stand-ins for the two helpers that they import from
`openmixup.models.utils`: one is used between several devices only, the other makes a pair of a number.
"""

import argparse
import importlib.metadata
import platform
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peer_environment import CACHE, NUMBERS, go_on_in
from peers_checks import attempt, batch_checks, input_checks, label_checks
from peers_losses import loss_checks

PEERS = [
    "kornia==0.9.0",
    "monai==1.6.1",
    "segmentation-models-pytorch==0.5.0",
    "opencv-contrib-python-headless==4.13.0.92",  # OpenMixup's SaliencyMix
    "gco-wrapper==3.0.9",  # OpenMixup's PuzzleMix
]
PEERS_ALONE = ["openmixup==0.2.9"]  # alone: mmcv-full, which it depends on, would have to be compiled
VERSIONS = ("torch", "torchvision", "timm", "kornia", "monai", "segmentation-models-pytorch", "openmixup", "raremix")
MARKERS = ("<!-- table -->", "<!-- end of table -->")


def main() -> None:
    """Make the peers' environment where it is missing, and measure in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "peers.json", help="where the findings are written")
    parser.add_argument("--docs", type=Path, help="a page whose table is replaced")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers live")
    options = parser.parse_args()
    go_on_in(options.cache / "peers", peers=PEERS, alone=PEERS_ALONE)
    warnings.simplefilter("ignore")
    report(measure(), json=options.json, docs=options.docs)


def measure() -> dict[str, Any]:
    """Do every check on the peer and on raremix."""
    import torch

    torch.set_num_threads(1)
    rows = []
    for check in [*label_checks(), *input_checks(), *batch_checks(), *loss_checks()]:
        theirs, ours = attempt(check.theirs), attempt(check.ours)
        rows.append(
            {
                "peer": check.peer,
                "done": check.done,
                "expected": check.expected,
                "theirs": asdict(theirs),
                "raremix": asdict(ours),
            }
        )
    versions = {name: importlib.metadata.version(name) for name in VERSIONS}
    return {"rows": rows, "versions": versions, "python": platform.python_version()}


def report(result: dict[str, Any], *, json: Path, docs: Path | None) -> None:
    """Print the table, write it as JSON, and put it into a page."""
    from rich.console import Console
    from rich.table import Table

    from raremix.core.files import write_json, write_text

    table = Table(title=", ".join(f"{name} {version}" for name, version in result["versions"].items()), show_lines=True)
    for column in ("peer", "done", "expected", "came", "raremix"):
        table.add_column(column)
    for row in result["rows"]:
        table.add_row(row["peer"], row["done"], row["expected"], _styled(row["theirs"]), _styled(row["raremix"]))
    Console(width=max(160, Console().width)).print(table)
    write_json(json.resolve(), result)
    if docs is not None:
        before, _, rest = docs.read_text(encoding="utf-8").partition(MARKERS[0])
        after = rest.partition(MARKERS[1])[2]
        write_text(docs.resolve(), f"{before}{MARKERS[0]}\n\n{markdown(result)}\n\n{MARKERS[1]}{after}")


def _styled(outcome: dict[str, Any]) -> str:
    return outcome["came"] if outcome["is_expected"] else f"[bold]{outcome['came']}[/bold]"


def markdown(result: dict[str, Any]) -> str:
    """Return the table as a page holds it; what was not expected is bold."""
    lines = ["| | done | expected | came | raremix |", "| --- | --- | --- | --- | --- |"]
    for row in result["rows"]:
        cells = [f"{row['peer']} {result['versions'][row['peer']]}", row["done"], row["expected"]]
        for who in ("theirs", "raremix"):
            came = row[who]["came"].replace("|", "\\|")
            cells.append(came if row[who]["is_expected"] else f"**{came}**")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
