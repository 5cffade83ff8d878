"""What difference maps of a data set cost: passes of the translator's networks, seconds, and memory.

    python benchmarks/adm.py --images 1000 10000 --size 128

A StarGAN with its first weights translates phantoms to every other class, as `raremix maps adm` does; the clock does
not mind what it draws. Beside it stand bare passes of its generator over the same batches: one per image and other
class, and one more per image, which is its reconstruction. Peak memory is that of the whole process; each number of
images has a process of its own.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from peer_environment import NUMBERS, machine
from turns import clock

from raremix.core import files
from raremix.generate import load_generator
from raremix.study.defaults import study_of
from raremix.study.generators.difference_maps import BATCH, compute_maps
from raremix.study.generators.fit import fit_generator
from raremix.study.generators.spec import read_generator
from raremix.study.generators.use import drawing_device
from raremix.study.prepare import prepare


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "adm.json", help="where the numbers are written")
    parser.add_argument("--images", type=int, nargs="*", default=[500, 2000], help="numbers of images")
    parser.add_argument("--size", type=int, default=64, help="side in pixels")
    parser.add_argument("--classes", type=int, default=3, help="classes")
    parser.add_argument("--width", type=int, default=16, help="channels of the translator at full size")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/raremix").expanduser(), help="decoded images")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        files.write_json(options.one, measure(options, options.images[0]))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.images:
            path = Path(folder) / f"{count}.json"
            words = ["--size", options.size, "--classes", options.classes, "--width", options.width]
            words += ["--cache", options.cache, "--threads", options.threads, "--images", count, "--one", path]
            subprocess.run([sys.executable, __file__, *map(str, words)], check=True)
            rows.append(files.read_json(path))
            print("  ".join(f"{key}: {value}" for key, value in rows[-1].items()), flush=True)
    files.write_json(options.json, {"machine": machine(threads=options.threads), "rows": rows})
    print(f"written to {options.json}")


def measure(options: argparse.Namespace, count: int) -> dict[str, object]:
    """Return what the maps of so many images cost."""
    data = [f"data.images={count}", f"data.size={options.size}", f"data.classes={options.classes}"]
    method = [f"generator.width={options.width}", f"generator.widest={4 * options.width}", "generator.hidden=32"]
    train = ["train.steps=1", "train.batch_size=2", "train.validations=0", "train.checkpoints=0"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "stars"
        spec = read_generator("phantom", method="stargan", settings=[*data, *method, *train])
        fit_generator(spec, folder=folder, cache=options.cache)
        prepared = prepare(study_of("phantom", settings=data), cache=options.cache)
        drawer, _ = load_generator(folder)
        device = drawing_device()
        now = clock(device, processor_time=device.type == "cpu")
        before = _peak()
        started = now()
        with Passes() as counted:
            compute_maps(folder, prepared, split="all", cache=Path(place) / "maps")
        ours, after = now() - started, _peak()
        bare = bare_passes(drawer.generator, prepared, device, now, classes=options.classes)
    return {
        "images": count,
        "generator_passes_per_image": counted["Translator"] / count,
        "style_passes_per_image": counted["StyleEncoder"] / count,
        "seconds": ours,
        "bare_seconds": bare,
        "ratio": ours / bare,
        "peak_mb_before": before,
        "peak_mb": after,
    }


class Passes:
    """Count the images that go through the translator's networks."""

    def __enter__(self) -> Counter[str]:
        """Begin to count."""
        counted: Counter[str] = Counter()

        def count(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            name = type(module).__name__
            if name in {"Translator", "StyleEncoder"}:
                counted[name] += len(given[0])

        self.hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
        return counted

    def __exit__(self, *_: object) -> None:
        """Stop counting."""
        self.hook.remove()


@torch.no_grad()
def bare_passes(generator: torch.nn.Module, prepared, device: torch.device, now, *, classes: int) -> float:
    """Return the time of one pass per image and other class, and of one more, over batches that are there."""
    ids = prepared.manifest.ids
    images = torch.from_numpy(prepared.cache.take(ids[:BATCH])).to(device).float().div(127.5).sub(1)
    style = torch.zeros(len(images), 64, device=device)
    started = now()
    for _ in range(classes * -(-len(ids) // BATCH)):
        generator(images, style)
    return now() - started


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
