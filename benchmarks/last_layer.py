"""What moderate first logits are worth in a plain fine-tuning loop: timm's own last layer against `tame_head`.

    python benchmarks/last_layer.py [studies/ham10000_64_cpu.toml ...] [--set model.name=... data.size=48]

The data, the network and its weights are those of study files. The loop is torch alone: AdamW, a warm-up and a cosine,
flips, no weight average, images in their order shuffled by the seed. Two networks of a seed start with the same weights
but for the last layer, and are shown the same batches. Validation images are scored; no test image is read.
"""

import argparse
import importlib.metadata
import math
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from peer_environment import NUMBERS, machine
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import t
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor, nn

from raremix.core import files
from raremix.core.random import rng, torch_seed
from raremix.models import classifier as building
from raremix.study import read_study
from raremix.study.prepare import Prepared, cache_of, prepare
from raremix.study.spec import StudySpec
from raremix.train.feed import to_float

HERE = Path(__file__).parent
STUDY = HERE.parent / "studies" / "ham10000_64_cpu.toml"
METRICS = ("AUROC", "balanced accuracy")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="*", default=[STUDY], help="study files")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], help="other settings of the study files")
    parser.add_argument("--steps", type=int, nargs="+", default=[70, 210], help="lengths of the fine-tuning")
    parser.add_argument("--seeds", type=int, default=5, help="pairs of networks")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--cache", type=Path, default=None, help="cache of decoded images")
    parser.add_argument("--json", type=Path, default=NUMBERS / "last_layer.json", help="where the numbers are written")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for path in options.studies:
        spec = read_study(path, settings=options.settings)
        prepared = prepare(spec, cache=cache_of(spec.data, options.cache))
        asked = [(steps, seed) for steps in options.steps for seed in range(options.seeds)]
        for steps, seed in track(asked, description=path.stem):
            for is_tamed in (False, True):
                first, scores = tuned(spec, prepared, steps=steps, seed=seed, is_tamed=is_tamed)
                rows.append(
                    {"study": path.stem, "steps": steps, "seed": seed, "tamed": is_tamed, "first_loss": first} | scores
                )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "timm")}
    files.write_json(options.json, {"machine": machine(threads=options.threads), "versions": versions, "runs": rows})
    Console().print(summary(rows))
    print(f"\n{options.json}")


def tuned(
    spec: StudySpec, prepared: Prepared, *, steps: int, seed: int, is_tamed: bool
) -> tuple[float, dict[str, float]]:
    """Fine-tune once; return the loss of the first step, and scores of the validation images."""
    manifest, train = prepared.manifest, spec.train
    classes = len(manifest.card.classes)
    tame = building.start_head
    if not is_tamed:
        building.start_head = lambda net, *, zeros: None
    try:
        model = spec.model.build(num_classes=classes, channels=prepared.channels, size=spec.data.size, seed=seed)
    finally:
        building.start_head = tame
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.learning_rate, weight_decay=0.05)
    ids, stream, first = rng(seed, "shuffle").permutation(manifest.rows("train")), rng(seed, "augment"), math.nan
    targets = torch.from_numpy(manifest.targets(ids)).argmax(dim=1)
    for step in range(steps):
        rise, fall = (step + 1) / max(1, 0.05 * steps), (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = train.learning_rate * min(rise, fall)
        some = np.arange(step * train.batch_size, (step + 1) * train.batch_size) % len(ids)
        images = to_float(prepared.cache.take(ids[some]))
        images = images.flip(3) if stream.random() < 0.5 else images
        torch.manual_seed(torch_seed(seed, "dropout", step))
        loss = nn.functional.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), targets[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = loss.item() if step == 0 else first
    return first, scored(model, prepared)


def scored(model: nn.Module, prepared: Prepared) -> dict[str, float]:
    """Score the validation images."""
    ids = prepared.manifest.rows("validation")
    truth, said = prepared.manifest.targets(ids).argmax(axis=1), probabilities(model.eval(), prepared, ids).numpy()
    kinds = range(said.shape[1])
    auroc = float(np.mean([roc_auc_score(truth == kind, said[:, kind]) for kind in kinds]))
    return dict(zip(METRICS, (auroc, float(balanced_accuracy_score(truth, said.argmax(axis=1)))), strict=True))


@torch.no_grad()
def probabilities(model: nn.Module, prepared: Prepared, ids: np.ndarray) -> Float[Tensor, "n K"]:
    """Return what the network says of images."""
    blocks = np.array_split(ids, max(1, len(ids) // 128))
    return torch.cat([model(to_float(prepared.cache.take(block))).softmax(dim=1) for block in blocks])


def summary(rows: list[dict]) -> Table:
    """Draw up means, and paired differences with 95 % intervals over seeds."""
    table = Table("study", "steps", "metric", "timm's layer", "tame_head", "difference [95 %]", "first loss")
    for study, steps in dict.fromkeys((row["study"], row["steps"]) for row in rows):
        part = [row for row in rows if (row["study"], row["steps"]) == (study, steps)]
        pairs = {tamed: [row for row in part if row["tamed"] == tamed] for tamed in (False, True)}
        loss = " and ".join(f"{np.mean([row['first_loss'] for row in pairs[tamed]]):.1f}" for tamed in pairs)
        for metric in METRICS:
            before, after = (np.array([row[metric] for row in pairs[tamed]]) for tamed in (False, True))
            gain, wide = (after - before).mean(), math.nan
            if len(before) > 1:
                wide = t.ppf(0.975, len(before) - 1) * (after - before).std(ddof=1) / len(before) ** 0.5
            table.add_row(
                study,
                str(steps),
                metric,
                f"{before.mean():.3f}",
                f"{after.mean():.3f}",
                f"{gain:+.3f} [{gain - wide:+.3f}, {gain + wide:+.3f}]",
                loss,
            )
    return table


if __name__ == "__main__":
    main()
