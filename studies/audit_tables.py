"""Audit the published sets that the studies use, and write docs/audits.md; no figure is typed in by hand.

    python studies/audit_tables.py [--cache FOLDER]

The data are looked for where the study files say. The page holds counts and words: no picture, no row, no file name.
"""

import argparse
from pathlib import Path

from raremix.core import files
from raremix.study.audit.record import audit_data, summary_of
from raremix.study.prepare import default_cache
from raremix.study.spec import read_study

HERE = Path(__file__).parent
SETS = (
    ("Kermany, a random split", "kermany_64.toml", {"split": '"repo_split_leaky"'}),
    ("Kermany, the official split", "kermany_64.toml", {}),
    ("HAM10000, one image per lesion", "ham10000_64.toml", {}),
    ("ChestX-ray14 subset, a random split", "nih_cxr14_64.toml", {"split": '"repo_split_leaky"'}),
    ("RetinaMNIST, 28 pixels", "retinamnist_28.toml", {}),
    ("PneumoniaMNIST, 28 pixels, with the patients", "pneumoniamnist_28.toml", {"resplit": "false"}),
)

INTRODUCTION = """# Audits of published sets

Made by `python studies/audit_tables.py`, which runs `raremix audit` on the data of the studies; no figure is typed in
by hand. What the audit looks for, how, and what it cannot see: [Audit](audit.md).

The first shows a mistake that is made often: images were divided at random, although patients have several. The split
of ChestX-ray14 that is shown shares patients too; its official one keeps them together.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder in which what was seen is kept")
    options = parser.parse_args()
    parts = [INTRODUCTION]
    for title, study, changes in SETS:
        settings = [f"data.{key}={value}" for key, value in changes.items()]
        audited = audit_data(read_study(HERE / study, settings=settings), cache=options.cache)
        asked = " ".join(f"--set '{setting}'" for setting in settings)
        command = f"raremix audit studies/{study} {asked}".strip()
        parts.append(f"## {title}\n\n`{command}`\n\n{summary_of(audited)}")
    files.write_text(HERE.parent / "docs" / "audits.md", "\n".join(parts))


if __name__ == "__main__":
    main()
