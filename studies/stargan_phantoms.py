"""Does a translator learn at all? A small StarGAN at 32 pixels on phantoms, judged by a classifier that it never met.

    python studies/stargan_phantoms.py [--steps 250] [--folder runs/studies/stargan_phantoms]

On held-out images: how often a translation to the other class is given that class (flip rate), beside how often the
image as it was, and its reconstruction, is; and the mean absolute error of reconstruction and of going there and back.
Writes studies/results/stargan_phantoms.json; the figures of docs/generate/stargan.md are from there.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raremix.core import files
from raremix.core.random import rng
from raremix.data.samplers import Balanced
from raremix.losses import LOSSES
from raremix.mix import MIXERS
from raremix.models import ClassifierSpec
from raremix.study.generators.fit import fit_generator, make_feed
from raremix.study.generators.spec import read_generator
from raremix.study.generators.use import open_translator
from raremix.study.prepare import Prepared, prepare
from raremix.train import Classification, TrainSpec, fit
from raremix.train.feed import to_float
from raremix.train.optimizer import make_optimizer
from raremix.train.spec import make_fabric

DATA = ["data.images=900", "data.classes=2", "data.imbalance_ratio=2", "data.size=32", "data.channels=1"]
NETWORK = ["generator.width=12", "generator.widest=32", "generator.hidden=64", "generator.learning_rate=1e-3"]
NETWORK += ["generator.mapping_rate=1e-5", "generator.diversity=1"]
BUDGET = [
    "train.batch_size=8",
    "train.average=0.99",
    'train.precision="32"',
    "train.accelerator=cpu",
    "train.workers=0",
]
JUDGE = TrainSpec(
    steps=250,
    batch_size=32,
    learning_rate=3e-3,
    validations=0,
    checkpoints=0,
    precision="32",
    accelerator="cpu",
    workers=0,
)


def main() -> None:
    """Fit, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--folder", type=Path, default=Path("runs/studies/stargan_phantoms"))
    asked = parser.parse_args()
    cache = asked.folder / "cache"
    spec = read_generator(
        "phantom", method="stargan", settings=[*DATA, *NETWORK, *BUDGET, f"train.steps={asked.steps}"]
    )
    prepared = prepare(spec.data, cache=cache)
    folder = fit_generator(spec, folder=asked.folder / f"generator-{asked.steps}", cache=cache, prepared=prepared)
    judge = train_judge(spec, prepared, asked.folder / "judge")
    found = measure(folder, prepared, judge)
    facts = {
        "steps": asked.steps,
        "settings": [*DATA, *NETWORK, *BUDGET],
        **found,
    }
    path = Path(__file__).parent / "results" / "stargan_phantoms.json"
    files.write_json(path, facts)
    sys.stdout.write(f"{facts}\n{path}\n")


def train_judge(spec: Any, prepared: Prepared, folder: Path) -> torch.nn.Module:
    """Train a classifier on real training images; the translator never met it."""
    model = ClassifierSpec(name="resnet10t", stem="standard").build(num_classes=2, channels=1, size=32, seed=1)
    ids = prepared.manifest.rows("train")
    targets = prepared.manifest.targets(ids)
    feed = replace(
        make_feed(spec, prepared, ids),
        pool=None,
        sampler=Balanced(targets=targets, seed=1),
        batch_size=JUDGE.batch_size,
        seed=1,
    )
    task = Classification(
        modules={"classifier": model},
        optimizers={"classifier": make_optimizer(model, JUDGE)},
        criterion=LOSSES["cross_entropy"](),
        mixer=MIXERS["none"](),
        seed=1,
        steps=JUDGE.steps,
    )
    result = fit(task, feed, spec=JUDGE, fabric=make_fabric(JUDGE), folder=folder, identity="judge")
    model.load_state_dict(result.weights["classifier"])
    return model.eval()


@torch.no_grad()
def measure(folder: Path, prepared: Prepared, judge: torch.nn.Module) -> dict[str, Any]:
    """Return flip rates and errors on the held-out images."""
    translator, card = open_translator(folder)
    manifest = prepared.manifest
    ids = np.concatenate([manifest.rows("validation"), manifest.rows("test")])
    images, targets = to_float(prepared.cache.take(ids)), torch.from_numpy(manifest.targets(ids)).float()
    other = targets.flip(1)
    there = translator(images, other, rng=rng(0, "mask"))
    latent = replace(translator, style="latent")(images, other, rng=rng(0, "mask"))
    again = translator.reconstruct(images, targets)
    back = translator.form.leave(translator.generator(translator.form.enter(there), translator.encode(images, targets)))
    own, goal = targets.argmax(dim=1), other.argmax(dim=1)

    def share(shown: torch.Tensor, wanted: torch.Tensor) -> dict[str, float]:
        called = torch.from_numpy(np.concatenate([judged(judge, part) for part in shown.split(64)]))
        each = {name: float((called == wanted)[own == k].float().mean()) for k, name in enumerate(card.classes)}
        return {"all": float((called == wanted).float().mean()), **{f"from {name}": v for name, v in each.items()}}

    return {
        "held_out_images": {name: int((own == k).sum()) for k, name in enumerate(card.classes)},
        "judge_accuracy": share(images, own),
        "called_the_other_class": {
            "as_it_was": share(images, goal),
            "reconstructed": share(again, goal),
            "translated_by_reference": share(there, goal),
            "translated_by_noise": share(latent, goal),
        },
        "reconstruction_error": float((again - images).abs().mean()),
        "cycle_error": float((back - images).abs().mean()),
        "change": float((there - again).abs().mean()),
    }


def judged(judge: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """Return the class that the judge gives each image."""
    return judge(images).argmax(dim=1).numpy()


if __name__ == "__main__":
    main()
