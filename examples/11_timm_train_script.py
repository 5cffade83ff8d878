"""Mix by any mixer of raremix in timm's own training script, which stays as it is.

python examples/11_timm_train_script.py path/to/train.py --mixer saliencymix --data-dir DATA --mixup 1 ...

runs that script with all other arguments, but lets it find raremix's stand-ins as timm.data.Mixup and
timm.data.FastCollateMixup. `--mixup 1` switches mixing on, `--mixup-off-epoch` off again, `--smoothing` is heeded; all
else about mixing is not for timm's options to say but for the mixer's, as in `--set alpha=0.5`. The script is not part
of timm's packages: a checkout of https://github.com/huggingface/pytorch-image-models has it.

Without arguments, a script of a few lines in this file shows the replacement; it is not timm's, and trains nothing.
"""

import argparse
import runpy
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from raremix.config import Table, build_named, override
from raremix.core.errors import UsageError
from raremix.core.protocols import ImportanceMap, Mixer
from raremix.explain import IMPORTANCE_MAPS
from raremix.mix import COMBINATIONS, MIXERS

KINDS: Any = {Mixer: MIXERS, ImportanceMap: IMPORTANCE_MAPS}
make_mixer = partial(build_named, {**MIXERS, **COMBINATIONS}, kind="mixer", where="--mixer", registries=KINDS)
SMALL_SCRIPT = """
import torch
from timm.data import Mixup

mixup_fn = Mixup(mixup_alpha=1.0, cutmix_alpha=0.0, mode="batch", label_smoothing=0.1, num_classes=3)
x, target = mixup_fn(torch.rand(5, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1]))
print(f"images {tuple(x.shape)}, targets", target, sep="\\n")
"""


def run(script: Path, arguments: list[str], *, table: Table) -> None:
    """Run a script as Python does, but for two names in timm.data."""
    made = []
    with mock.patch.multiple(sys, argv=[str(script), *arguments], path=[str(script.resolve().parent), *sys.path]):
        import timm.data  # noqa: PLC0415 - the one beside the script, if there is one: the two belong together

        from raremix.adapt.timm import FastCollateMixup, Mixup  # noqa: PLC0415 - it imports timm

        def make(kind: Any, *, num_classes: int, label_smoothing: float, multi_label: bool = False, **_: Any) -> Any:
            made.append(make_mixer(table, num_classes=num_classes))
            print(f"in place of timm.data.{kind.__name__}: {made[-1]}", flush=True)
            return kind(made[-1], label_smoothing=label_smoothing, multi_label=multi_label)

        Mixup(make_mixer(table, num_classes=2))  # refuses a mixer that needs more than this loop has
        ours = {kind.__name__: partial(make, kind) for kind in (Mixup, FastCollateMixup)}
        with mock.patch.multiple(timm.data, **ours):
            runpy.run_path(str(script), run_name="__main__")
    if not made:
        raise UsageError(f"nothing was mixed: {script} asked for no Mixup; --mixup 1 switches mixing on")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage="%(prog)s SCRIPT --mixer NAME [--set KEY=VALUE] ...", allow_abbrev=False)
    parser.add_argument("script", type=Path)
    parser.add_argument("--mixer", required=True)
    parser.add_argument("--set", action="append", default=[])
    if len(sys.argv) == 1:
        print(f"No script was named. This is not timm's, but a few lines that import Mixup as it does:\n{SMALL_SCRIPT}")
        with TemporaryDirectory() as folder:
            (small := Path(folder) / "small.py").write_text(SMALL_SCRIPT, encoding="utf-8")
            run(small, [], table={"name": "saliencymix"})
    else:
        known, arguments = parser.parse_known_args()
        if not known.script.is_file():
            parser.error(f"{known.script}: no such script; the first argument is the path of timm's train.py")
        try:
            run(known.script, arguments, table=override({"name": known.mixer}, known.set))
        except UsageError as error:
            parser.error(str(error))
