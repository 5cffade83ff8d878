"""What diffusion costs beside the bare modules of diffusers: a training step, and an image.

    python benchmarks/diffusion.py --sizes 32 64 --rounds 3
    python benchmarks/diffusion.py --method latent_diffusion --sizes 64 --rounds 3 [--weights FOLDER]
    python benchmarks/diffusion.py --generator runs/generators/x-diffusion --data study.toml --class bacteria

The first times raremix's loop (images from the cache, classical and conditional augmentation, hidden classes, weight
average, clipping, logging) and what diffusers' own training script does on one fixed batch (UNet2D, DDPM noise, v, mean
squared error, AdamW, clipping, EMAModel), in turn, in one process; of a latent diffusion from scratch, the steps after
its autoencoder's (a frozen AutoencoderKL, UNet2DConditionModel and a text encoder that is trained with it), and of one
that is tuned the steps of its low-rank matrices. The ratio
of a round is that of the medians of its steps. On a CPU processor time over all threads is compared, which neighbours
disturb less.

The second draws from a fitted model with few-step solvers, and with diffusers' DDPM pipeline as it comes (1,000 steps),
both in the same blocks, and measures the kernel distance of either to held-out images of the class, with its interval,
as `raremix quality` does: on features of a frozen network (--features, safetensors of timm's mobilenetv2_100), else on
pixels at 16 x 16. As near as the pipeline's is a distance whose interval begins below the end of the pipeline's; the
fastest of these is named, with its ratio; it draws again with bf16, channels_last and torch.compile, alone and at once.
"""

import argparse
import copy
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_environment import NUMBERS, machine
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from turns import clock

from raremix.core import files
from raremix.evaluate.generative import as_shown, generative_figures
from raremix.generate import Diffusion, LatentDiffusion, PixelDrawer, load_generator
from raremix.generate.diffusion_library import image_network
from raremix.generate.latent_diffusion import parts_of
from raremix.generate.sampling import latent
from raremix.study.defaults import study_of
from raremix.study.generators.draw import settings_of
from raremix.study.generators.fit import make_feed
from raremix.study.generators.spec import fitted_ids, form_of, read_generator
from raremix.study.prepare import prepare
from raremix.train import fit
from raremix.train.feed import to_float
from raremix.train.spec import make_fabric, resolve_precision

BATCH = {32: 16, 64: 8, 128: 4, 256: 2}
console = Console()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "diffusion.json", help="where the numbers are written")
    parser.add_argument("--sizes", type=int, nargs="*", default=[32], help="sides in pixels")
    parser.add_argument("--method", choices=("diffusion", "latent_diffusion"), default="diffusion")
    parser.add_argument(
        "--weights", type=Path, help="folder of Stable Diffusion's format: tune it by low-rank matrices"
    )
    parser.add_argument("--width", type=int, default=32, help="channels of the network")
    parser.add_argument("--batch", type=int, help="images per step")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of either")
    parser.add_argument("--steps", type=int, default=8, help="steps in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--generator", type=Path, help="folder of a fitted diffusion: time drawing from it")
    parser.add_argument("--data", help="data that it is compared with")
    parser.add_argument("--class", dest="label", help="class that is drawn")
    parser.add_argument("--count", type=int, default=96, help="images that are drawn")
    parser.add_argument("--block", type=int, default=16, help="images that are drawn at once, by either")
    parser.add_argument("--pipeline-steps", type=int, default=1000, help="steps of diffusers' pipeline")
    parser.add_argument("--features", type=Path, help="weights of the network whose features are compared")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/raremix").expanduser(), help="decoded images")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = drawing(options) if options.generator else [training(size, options) for size in options.sizes]
    found = {"machine": machine(threads=options.threads) | {"load": os.getloadavg()}, "rows": rows}
    for row in rows:
        print(
            "  ".join(
                f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}" for key, value in row.items()
            )
        )
    files.write_json(options.json, found)
    print(f"written to {options.json}")


# A training step


def training(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the times of a step of raremix and of the bare modules."""
    batch = options.batch or BATCH[size]
    extra = 3 if options.method == "latent_diffusion" and not options.weights else 0
    network = (
        f"generator.weights={options.weights.resolve()}" if options.weights else f"generator.width={options.width}"
    )
    settings = [
        "data.images=400",
        f"data.size={size}",
        "data.channels=1",
        network,
        f"train.steps={options.steps + 2 + extra}",
        *([f"generator.autoencoder_steps={extra}"] if extra else []),
        f"train.batch_size={batch}",
        "train.validations=0",
        "train.checkpoints=0",
    ]
    spec = read_generator("phantom", method=options.method, settings=settings)
    prepared = prepare(spec.data, cache=options.cache)
    bare_twin = bare_latent_steps if options.method == "latent_diffusion" else bare_steps
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            ours.append(statistics.median(our_steps(spec, prepared, Path(folder) / str(number))[extra:]))
            bare.append(statistics.median(bare_twin(spec, prepared)))
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return {
        "method": f"{options.method} by LoRA" if options.weights else options.method,
        "size": size,
        "batch": batch,
        "width": None if options.weights else options.width,
        "bare_ms": 1e3 * statistics.median(bare),
        "raremix_ms": 1e3 * statistics.median(ours),
        "ratio": statistics.median(ratios),
        "smallest": min(ratios),
        "largest": max(ratios),
        "precision": resolve_precision(spec.table.train),
    }


def our_steps(spec: Any, prepared: Any, folder: Path) -> list[float]:
    """Return seconds per step of the real loop, the first ones left out."""
    form, ids = form_of(spec, prepared), fitted_ids(prepared)
    networks = spec.table.method.networks(form, seed=0)
    moments: list[float] = []
    fabric = make_fabric(spec.table.train)
    now = clock(fabric.device, processor_time=True)
    fit(
        spec.table.method.training(networks, form, seed=0),
        make_feed(spec, prepared, ids),
        spec=spec.table.train,
        fabric=fabric,
        folder=folder,
        identity="benchmark",
        progress=lambda what, done, total: moments.append(now()),
    )
    return [b - a for a, b in pairwise(moments[1:])]


def bare_steps(spec: Any, prepared: Any) -> list[float]:
    """Return seconds per step of diffusers' modules on one batch, the first ones left out."""
    form, method = form_of(spec, prepared), spec.table.method
    assert isinstance(method, Diffusion)
    device, images, labels = fixed_batch(spec, prepared)
    network = image_network(
        side=form.side, channels=form.channels, width=method.width, layers=method.layers, dropout=method.dropout
    ).to(device, memory_format=torch.channels_last)
    table = nn.Embedding(form.classes + 1, 4 * method.width).to(device)

    def said(noisy: Tensor, times: Tensor) -> Tensor:
        return network(noisy, times, class_labels=table(labels)).sample

    return bare_loop(spec, [*network.parameters(), *table.parameters()], lambda: images, said)


def bare_latent_steps(spec: Any, prepared: Any) -> list[float]:
    """Return seconds per step of the modules of diffusers and transformers on one batch, the first ones left out."""
    prompts = tuple(f"an image of {name}" for name in prepared.manifest.card.classes)
    method = spec.table.method
    assert isinstance(method, LatentDiffusion)
    device, images, labels = fixed_batch(spec, prepared)
    parts = parts_of(replace(method, prompts=prompts).networks(form_of(spec, prepared), seed=0))
    unet = parts.unet.to(device, memory_format=torch.channels_last)
    text, vae = parts.text.to(device), parts.autoencoder.vae.to(device, memory_format=torch.channels_last)
    vae.requires_grad_(False)
    told = parts.tokens(prompts)[labels.cpu()].to(device)

    def encoded() -> Tensor:
        with torch.no_grad():
            return (vae.encode(images).latent_dist.sample() * vae.config.scaling_factor).float()

    def said(noisy: Tensor, times: Tensor) -> Tensor:
        return unet(noisy, times, encoder_hidden_states=text(told).last_hidden_state).sample

    trained = [one for one in (*unet.parameters(), *text.parameters()) if one.requires_grad]
    return bare_loop(spec, trained, encoded, said)


def fixed_batch(spec: Any, prepared: Any) -> tuple[torch.device, Tensor, Tensor]:
    """Return where to compute, and one batch of images and labels there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = make_feed(spec, prepared, fitted_ids(prepared)).batch(0)
    images = form_of(spec, prepared).enter(given.images).to(device, memory_format=torch.channels_last)
    return device, images, given.targets.argmax(dim=1).to(device)


def bare_loop(
    spec: Any, parameters: list[nn.Parameter], begin: Callable[[], Tensor], said: Callable[[Tensor, Tensor], Tensor]
) -> list[float]:
    """Return seconds per step of what diffusers' own training script does, the first ones left out.

    Args:
        spec: of the generator.
        parameters: those that are trained.
        begin: returns what is made noisy.
        said: what the network says of something noisy and its moments.
    """
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    device, settings = parameters[0].device, spec.table.method
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate or 1e-4, weight_decay=settings.weight_decay, fused=True
    )
    average = EMAModel(parameters, decay=0.9995, foreach=True)
    scheme = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    bf16, seconds, now = resolve_precision(spec.table.train) == "bf16", [], clock(device, processor_time=True)
    for _ in range(spec.table.train.steps):
        started = now()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            clean = begin()
            noise = torch.randn_like(clean)
            times = torch.randint(0, 1000, (len(clean),), device=device)
            noisy, wanted = scheme.add_noise(clean, noise, times), scheme.get_velocity(clean, noise, times)
            answer = said(noisy, times)
        functional.mse_loss(answer.float(), wanted).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        average.step(parameters)
        optimizer.zero_grad(set_to_none=True)
        seconds.append(now() - started)
    return seconds[2:]


# An image


def drawing(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return images per second and kernel distances of few-step solvers and of diffusers' pipeline."""
    drawer, card = load_generator(options.generator)
    assert isinstance(drawer, PixelDrawer)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    label, now = card.classes.index(options.label), clock(device, processor_time=True)
    prepared = prepare(study_of(options.data, settings=settings_of(card)), cache=options.cache)
    held = np.concatenate([prepared.manifest.rows("validation"), prepared.manifest.rows("test")])
    mine = held[prepared.manifest.targets(held)[:, label] > 0.5]
    features = features_of(options.features, channels=card.form.channels)
    real = features(to_float(prepared.cache.take(mine))).numpy()
    latents = torch.stack([latent(0, label, i, drawer.latent) for i in range(options.count)]).to(device)
    targets = torch.eye(len(card.classes))[label].expand(options.count, -1).to(device)
    rows: list[dict[str, Any]] = []

    def add(name: str, draw: Callable[[Tensor, Tensor], Tensor], *, warm: bool = True) -> dict[str, Any]:
        if warm:  # what is compiled or laid out anew is no part of an image's cost
            draw(targets[: options.block], latents[: options.block])
        started = now()
        drawn = [draw(a, b) for a, b in zip(targets.split(options.block), latents.split(options.block), strict=True)]
        taken = now() - started
        found = distance_to(real, features(torch.cat(drawn).cpu()).numpy())
        rows.append({"what": name, "images_per_second": options.count / taken, **found})
        console.print(rows[-1])
        return rows[-1]

    halves = np.array_split(np.random.default_rng(0).permutation(real), 2)
    rows.append({"what": "held-out images, halves", **distance_to(*halves)})
    console.print(rows[-1])
    settings = (("dpm++", 10), ("dpm++", 20), ("unipc", 10), ("unipc", 20), ("heun", 10), ("ddim", 50))
    ours = {}
    for solver, steps in settings:
        chosen = replace(drawer, solver=solver, num_inference_steps=steps, precision="32")
        ours[f"raremix {solver}, {steps} steps"] = (chosen, add(f"raremix {solver}, {steps} steps", chosen.generate))
    stream = torch.Generator().manual_seed(0)
    theirs = add(
        f"diffusers' DDPM, {options.pipeline_steps} steps",
        lambda targets, _: by_pipeline(drawer, targets, options, stream),
        warm=False,
    )
    for row in rows[1:]:
        row["ratio"] = row["images_per_second"] / theirs["images_per_second"]
    near = [name for name, (_, row) in ours.items() if row["low"] <= theirs["high"]]
    if not near:
        console.print("none is as near to real images as the pipeline's")
        return rows
    best = max(near, key=lambda name: ours[name][1]["images_per_second"])
    console.print(f"as near as the pipeline's, and fastest: {best}, {ours[best][1]['ratio']:.3g} times as fast")
    ways = {name: replace(ours[best][0], network=Mode(drawer.network, **mode)) for name, mode in MODES.items()}
    ways["as it draws by itself"] = replace(ours[best][0], precision="auto")
    plain = None
    for name, way in ways.items():
        row = add(f"{best}, {name}", way.generate)
        plain = plain or row["images_per_second"]
        row["ratio"] = row["images_per_second"] / plain
    return rows


MODES: dict[str, dict[str, bool]] = {
    "contiguous": {},
    "bf16": {"bf16": True},
    "channels_last": {"channels_last": True},
    "compiled": {"compiled": True},
    "bf16 and channels_last": {"bf16": True, "channels_last": True},
    "all three": {"bf16": True, "channels_last": True, "compiled": True},
}


class Mode(nn.Module):
    """A denoiser that is run in some way, whatever way it is asked in."""

    def __init__(
        self, network: nn.Module, *, bf16: bool = False, channels_last: bool = False, compiled: bool = False
    ) -> None:
        super().__init__()
        own = copy.deepcopy(network)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        own.to(memory_format=self.layout)
        self.held = [torch.compile(own) if compiled else own]  # in a list: the drawer lays out what it sees
        self.bf16 = bf16

    def forward(self, noisy: Tensor, times: Tensor, classes: Tensor) -> Tensor:
        noisy = noisy.contiguous(memory_format=self.layout)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.bf16):
            return self.held[0](noisy, times, classes).float()


def distance_to(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Return a kernel distance of vectors of length one, in thousandths, with its interval."""
    real, made = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (real, made))
    found = as_shown("kernel", generative_figures(real, made)["kernel"])
    return {"distance": found.value, "low": found.low, "high": found.high}


class OfClass(nn.Module):
    """A denoiser of one class, as the pipeline calls its network."""

    def __init__(self, drawer: PixelDrawer, targets: Tensor) -> None:
        super().__init__()
        self.denoiser: Any = drawer.network
        self.classes = targets.argmax(dim=1)
        self.config, self.dtype = self.denoiser.network.config, torch.float32
        self.device = next(self.denoiser.parameters()).device

    def forward(self, noisy: Tensor, time: Tensor) -> Any:
        from diffusers.models.unets.unet_2d import UNet2DOutput

        times = time.expand(len(noisy)).to(noisy.device)
        return UNet2DOutput(sample=self.denoiser(noisy, times, self.classes[: len(noisy)]))


def by_pipeline(drawer: PixelDrawer, targets: Tensor, options: argparse.Namespace, stream: torch.Generator) -> Tensor:
    """Draw with diffusers' DDPM pipeline and its scheduler as it comes, on the schedule that was trained with."""
    from diffusers import DDPMPipeline, DDPMScheduler

    scheme = DDPMScheduler(trained_betas=drawer.noise.betas, prediction_type=drawer.noise.prediction)
    pipeline = DDPMPipeline(unet=OfClass(drawer, targets), scheduler=scheme)
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        drawn = pipeline(
            batch_size=len(targets),
            num_inference_steps=options.pipeline_steps,
            generator=stream,
            output_type="np",
        ).images
    return drawer.form.leave(torch.from_numpy(drawn).permute(0, 3, 1, 2) * 2 - 1)


def features_of(weights: Path | None, *, channels: int) -> Callable[[Tensor], Tensor]:
    """Return what turns images into features."""
    if weights is None:
        return lambda images: functional.adaptive_avg_pool2d(images, 16).flatten(1)
    import timm

    network = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=0)
    state = {name: value.float() for name, value in load_file(weights).items() if not name.startswith("classifier")}
    network.load_state_dict(state)
    network.eval()

    @torch.inference_mode()
    def found(images: Tensor) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1) if channels == 1 else images[:, :3]
        large = functional.interpolate(rgb, size=128, mode="bilinear", antialias=True)
        return torch.cat([network(some * 2 - 1) for some in large.split(32)])

    return found


if __name__ == "__main__":
    main()
