"""What a training step of StyleGAN2 or StarGAN v2 costs beside a bare loop over the same modules.

    python benchmarks/gans.py --sizes 32 --rounds 5
    python benchmarks/gans.py --sizes 128 --batch 32 --width 512 --base 16384 --precisions 32 bf16 --lazy
    python benchmarks/gans.py --methods stargan --layouts contiguous channels_last

The first times raremix's loop (images from the cache, flips, draws by address, steered augmentation, weight average,
logging) and plain PyTorch on one fixed batch: the same networks, losses, penalties at the same steps, Adam, and an
average of the weights; of StyleGAN2 augmentation at the same probability, of StarGAN the same four moves. Either does a
cycle of steps in turn, in one process: sixteen of StyleGAN2, which hold one gradient penalty and four path lengths, and
four of StarGAN, whose steps are alike. The ratio of a round is that of their sums.

--lazy also times StyleGAN2's bare loop with both penalties at every step. On a CPU processor time over all threads is
compared, which neighbours disturb less.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from peer_environment import NUMBERS, machine
from torch import Tensor, nn
from torch.nn import functional
from turns import clock

from raremix.core import files
from raremix.core.random import rng
from raremix.generate import StyleGAN2
from raremix.generate.ada import draw_adaptation, kinds_of
from raremix.generate.ada_apply import adapt
from raremix.generate.form import Form, classes_of
from raremix.generate.stylegan2 import noise_length
from raremix.study.generators.fit import make_feed
from raremix.study.generators.spec import fitted_ids, form_of, read_generator
from raremix.study.prepare import prepare
from raremix.train import fit
from raremix.train.spec import make_fabric, resolve_precision

BATCH = {32: 16, 64: 8, 128: 4, 256: 2}
CYCLE = {"stylegan2": 16, "stargan": 4}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "gans.json", help="where the numbers are written")
    parser.add_argument("--methods", nargs="*", choices=CYCLE, default=list(CYCLE), help="stylegan2, stargan")
    parser.add_argument("--sizes", type=int, nargs="*", default=[32], help="sides in pixels")
    parser.add_argument("--width", type=int, default=64, help="the most channels")
    parser.add_argument("--base", type=int, default=2048, help="channels at a side are this over the side")
    parser.add_argument("--batch", type=int, help="images per step")
    parser.add_argument("--probability", type=float, default=0.5, help="of augmentation")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of either")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--precisions", nargs="*", default=["32"], help="32, bf16")
    parser.add_argument("--layouts", nargs="*", default=["channels_last"], help="channels_last, contiguous")
    parser.add_argument("--lazy", action="store_true", help="time the penalties at every step too")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/raremix").expanduser(), help="decoded images")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    asked = product(options.methods, options.sizes, options.precisions, options.layouts)
    for method, size, precision, layout in asked:
        rows.append(training(method, size, precision, layout, options))
        print(
            "  ".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in rows[-1].items()), flush=True
        )
    facts = {"machine": machine(threads=options.threads) | {"load": os.getloadavg()}, "rows": rows}
    files.write_json(options.json, facts)
    print(f"written to {options.json}")


def training(method: str, size: int, precision: str, layout: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the times of a step of raremix and of the bare loop."""
    batch, cycle = options.batch or BATCH[size], CYCLE[method]
    own = {
        "stylegan2": [
            f"generator.channel_max={options.width}",
            f"generator.channel_base={options.base}",
            f"generator.probability={options.probability}",
            "generator.span=0",
            "generator.path=2",
        ],
        "stargan": [f"generator.width={max(1, options.base // size)}", f"generator.widest={options.width}"],
    }
    settings = [
        "data.images=400",
        "data.channels=3",
        f"data.size={size}",
        *own[method],
        f"train.steps={cycle + 1}",
        f"train.batch_size={batch}",
        f'train.precision="{precision}"',
        f"train.channels_last={str(layout == 'channels_last').lower()}",
        "train.validations=0",
        "train.checkpoints=0",
    ]
    spec = read_generator("phantom", method=method, settings=settings)
    prepared = prepare(spec.data, cache=options.cache)
    bare_cycle = {"stylegan2": bare_stylegan2, "stargan": bare_stargan}[method]
    ours, bare, eager = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            ours.append(our_cycle(spec, prepared, Path(folder) / str(number)))
            bare.append(bare_cycle(spec, prepared))
            if options.lazy and method == "stylegan2":
                eager.append(bare_stylegan2(spec, prepared, lazily=False))
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    found = {
        "method": method,
        "size": size,
        "batch": batch,
        "width": options.width,
        "precision": resolve_precision(spec.table.train),
        "layout": layout,
        "bare_ms": 1e3 * statistics.median(bare) / cycle,
        "raremix_ms": 1e3 * statistics.median(ours) / cycle,
        "ratio": statistics.median(ratios),
        "smallest": min(ratios),
        "largest": max(ratios),
        "images_per_second": cycle * batch / statistics.median(ours),
    }
    return found | ({"penalties_at_every_step_ms": 1e3 * statistics.median(eager) / cycle} if eager else {})


def our_cycle(spec: Any, prepared: Any, folder: Path) -> float:
    """Return the seconds of a cycle of the real loop; the step before it is left out."""
    form, ids = form_of(spec, prepared), fitted_ids(prepared)
    moments: list[float] = []
    fabric = make_fabric(spec.table.train)
    now, method = clock(fabric.device, processor_time=True), spec.table.method
    fit(
        method.training(method.networks(form, seed=0), form, seed=0, extras={"steps": spec.table.train.steps}),
        make_feed(spec, prepared, ids),
        spec=spec.table.train,
        fabric=fabric,
        folder=folder,
        identity="benchmark",
        progress=lambda what, done, total: moments.append(now()),
    )
    return moments[-1] - moments[0]


def bare_stylegan2(spec: Any, prepared: Any, *, lazily: bool = True) -> float:
    """Return the seconds of sixteen steps of plain PyTorch on one batch; the first one is left out."""
    bare = make_bare(spec, prepared)
    now, method, started = clock(bare.images.device, processor_time=True), bare.method, 0.0
    r1_every, path_every = (method.r1_every, method.path_every) if lazily else (1, 1)
    learnt = [*bare.mapping.parameters(), *bare.synthesis.parameters()]
    average = [parameter.detach().clone() for parameter in learnt]
    for step in range(CYCLE["stylegan2"] + 1):
        if step == 1:
            started = now()
        bare.learns("judging")
        moved(bare.judging, lambda step=step: judged(bare, step))
        if step % r1_every == 0:
            moved(bare.judging, lambda step=step: slope_of_real(bare, step))
        bare.learns("drawing")
        moved(bare.drawing, lambda step=step: functional.softplus(-bare.said(bare.seen(bare.drawn(), step, 2))).mean())
        if step % path_every == 0:
            moved(bare.drawing, lambda: slope_of_drawn(bare))
        with torch.no_grad():
            torch._foreach_lerp_(average, learnt, 2e-3)  # pyright: ignore[reportPrivateImportUsage]
    return now() - started


def bare_stargan(spec: Any, prepared: Any) -> float:
    """Return the seconds of four steps of plain PyTorch on one batch and its references; the first one is left out."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    form, method = form_of(spec, prepared), spec.table.method
    layout = torch.channels_last if spec.table.train.channels_last else torch.contiguous_format
    networks = {n: m.to(device, memory_format=layout) for n, m in method.networks(form, seed=0).items()}
    draw, style_of, encode, judge = (networks[n] for n in ("generator", "mapping", "encoder", "discriminator"))
    given = make_feed(spec, prepared, fitted_ids(prepared)).batch(0)
    assert given.pool is not None
    images, references = (form.enter(x).to(device, memory_format=layout) for x in (given.images, given.pool.images))
    own, wanted = classes_of(given.targets).to(device), classes_of(given.pool.targets)[::2].to(device)
    settings: dict[str, Any] = {"betas": (0.0, 0.99), "weight_decay": method.weight_decay}
    rates = ((draw, method.learning_rate), (encode, method.learning_rate), (style_of, method.mapping_rate))
    drawing = torch.optim.Adam([{"params": list(one.parameters()), "lr": rate} for one, rate in rates], **settings)
    judging = torch.optim.Adam(judge.parameters(), lr=method.learning_rate, **settings)
    bf16 = resolve_precision(spec.table.train) == "bf16"

    def call(network: nn.Module, *inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return network(*inputs).float()

    def learns(*who: nn.Module) -> None:
        for network in networks.values():
            network.requires_grad_(network in who)

    def style(source: str, number: int) -> Tensor:
        if source == "latent":
            return call(style_of, torch.randn(len(images), method.latent, device=device), wanted)
        with torch.no_grad():
            return call(encode, references[number::2], wanted)

    def judged_by(source: str) -> Tensor:
        real_images = images.detach().requires_grad_(True)
        real = call(judge, real_images, own)
        (slope,) = torch.autograd.grad(real.sum(), real_images, create_graph=True)
        with torch.no_grad():
            drawn = call(draw, images, style(source, 0))
        loss = functional.softplus(-real).mean() + functional.softplus(call(judge, drawn, wanted)).mean()
        return loss + method.r1 * 0.5 * slope.square().sum(dim=(1, 2, 3)).mean()

    def drawn_by(source: str) -> Tensor:
        asked = style(source, 0)
        drawn = call(draw, images, asked)
        loss = functional.softplus(-call(judge, drawn, wanted)).mean()
        loss = loss + method.style_weight * (call(encode, drawn, wanted) - asked).abs().mean()
        with torch.no_grad():
            other = call(draw, images, style(source, 1))
        loss = loss - method.diversity * (drawn - other).abs().mean()
        again = call(draw, drawn, call(encode, images, own))
        return loss + method.cycle * (again - images).abs().mean()

    learnt = [p for one in (draw, style_of, encode) for p in one.parameters()]
    average = [parameter.detach().clone() for parameter in learnt]
    now, started = clock(device, processor_time=True), 0.0
    for step in range(CYCLE["stargan"] + 1):
        if step == 1:
            started = now()
        learns(judge)
        for source in ("latent", "reference"):
            moved(judging, lambda source=source: judged_by(source))
        for source, who in (("latent", (draw, style_of, encode)), ("reference", (draw,))):
            learns(*who)
            moved(drawing, lambda source=source: drawn_by(source))
        with torch.no_grad():
            torch._foreach_lerp_(average, learnt, 1e-3)  # pyright: ignore[reportPrivateImportUsage]
    return now() - started


@dataclass(slots=True, kw_only=True)
class Bare:
    """StyleGAN2's networks and what moves them, with nothing of raremix's loop."""

    mapping: nn.Module
    synthesis: nn.Module
    judge: nn.Module
    drawing: torch.optim.Optimizer
    judging: torch.optim.Optimizer
    images: Tensor
    classes: Tensor
    form: Form
    method: StyleGAN2
    convs: int
    bf16: bool
    length: Tensor

    def learns(self, who: str) -> None:
        """Let gradients be kept for those who learn now."""
        self.judge.requires_grad_(who == "judging")
        self.mapping.requires_grad_(who == "drawing")
        self.synthesis.requires_grad_(who == "drawing")

    def styles(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw styles and noise."""
        device = self.images.device
        style = self.mapping(torch.randn(count, self.method.latent, device=device), self.classes[:count])
        noise = torch.randn(count, noise_length(self.form), device=device)
        return style[:, None].expand(-1, self.convs, -1), noise

    def drawn(self) -> Tensor:
        """Draw a batch."""
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bf16):
            return self.synthesis(*self.styles(len(self.images))).float()

    def said(self, x: Tensor) -> Tensor:
        """Return logits."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return self.judge(x, self.classes)

    def seen(self, x: Tensor, step: int, number: int) -> Tensor:
        """Augment."""
        kinds = kinds_of(self.method.augment, channels=self.form.channels)
        asked: dict[str, Any] = {"side": self.form.side, "channels": self.form.channels, "kinds": kinds}
        stream = rng(0, "augment", step, number)
        return adapt(x, draw_adaptation(len(x), probability=self.method.probability, rng=stream, **asked))


def make_bare(spec: Any, prepared: Any) -> Bare:
    """Build networks, optimisers and the one batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    form, method = form_of(spec, prepared), spec.table.method
    layout = torch.channels_last if spec.table.train.channels_last else torch.contiguous_format
    networks = {n: m.to(device, memory_format=layout) for n, m in method.networks(form, seed=0).items()}
    mapping, synthesis, judge = networks.values()
    settings: dict[str, Any] = {"lr": 2e-3, "betas": (0.0, 0.99), "fused": True}
    given = make_feed(spec, prepared, fitted_ids(prepared)).batch(0)
    return Bare(
        mapping=mapping,
        synthesis=synthesis,
        judge=judge,
        drawing=torch.optim.Adam([*mapping.parameters(), *synthesis.parameters()], **settings),
        judging=torch.optim.Adam(judge.parameters(), **settings),
        images=form.enter(given.images).to(device, memory_format=layout),
        classes=classes_of(given.targets).to(device),
        form=form,
        method=method,
        convs=2 * form.side.bit_length() - 5,
        bf16=resolve_precision(spec.table.train) == "bf16",
        length=torch.zeros((), device=device),
    )


def moved(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """Take a step."""
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    optimizer.step()


def judged(bare: Bare, step: int) -> Tensor:
    """Return the discriminator's loss."""
    with torch.no_grad():
        fake = bare.drawn()
    real = functional.softplus(-bare.said(bare.seen(bare.images, step, 0))).mean()
    return real + functional.softplus(bare.said(bare.seen(fake, step, 1))).mean()


def slope_of_real(bare: Bare, step: int) -> Tensor:
    """Return the gradient penalty."""
    images = bare.seen(bare.images, step, 0).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(bare.judge(images, bare.classes).sum(), images, create_graph=True)
    return 1e-2 * slope.square().sum(dim=(1, 2, 3)).mean()


def slope_of_drawn(bare: Bare) -> Tensor:
    """Return the path lengths' penalty."""
    styles, noise = bare.styles(len(bare.images) // 2)
    image = bare.synthesis(styles, noise)
    asked = (image * torch.randn_like(image)).sum() / bare.form.side
    (slope,) = torch.autograd.grad(asked, styles, create_graph=True)
    lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()
    bare.length = torch.lerp(bare.length, lengths.detach().mean(), 0.01)
    return 2 * (lengths - bare.length).square().mean()


if __name__ == "__main__":
    main()
