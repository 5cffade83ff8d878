"""Time importance maps beside OpenCV's and OpenMixup's, in one process, taking turns.

    python benchmarks/importance.py [--json FILE] [--device cuda]

OpenCV, which raremix does not depend on, lives in a virtual environment of its own that the first run makes in --cache,
on top of the packages that are installed here. Every contestant is called in turn, and again, so that whatever else the
machine does hits all alike; the best and the median of its turns are reported, also over the peer's.

OpenCV is given 8-bit images, one by one, which are converted beforehand; it has no batches, and uses one thread for
these maps. OpenMixup did not install beside this torch: its spectral residual is written down here after its published
formula (grey, 128 pixels, 3 x 3 mean with repeated borders, Gaussian of 7 pixels, resized back).

With --device cuda all but OpenCV's maps are made on the GPU, of batches that lie there, and the clock is read when it
has done its work.
"""

import argparse
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from peer_environment import CACHE, NUMBERS, go_on_in, machine
from turns import clock, device_name, take_turns

PEERS = ["opencv-contrib-python-headless==5.0.0.93"]
SHAPES = [(64, 3, 224, 224), (128, 3, 28, 28)]
PEER = {"fine_grained": "OpenCV", "spectral_residual": "OpenMixup's formula"}


def main() -> None:
    """Make the peers' environment where it is missing, and measure in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "importance.json", help="where the numbers are written")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; OpenCV uses one for these maps")
    parser.add_argument("--turns", type=int, default=15, help="turns of each contestant")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers live")
    parser.add_argument("--device", default="cpu", help="where maps are made: cpu, cuda; OpenCV uses the CPU")
    options = parser.parse_args()
    go_on_in(options.cache / "importance", peers=PEERS)
    report(measure(threads=options.threads, turns=options.turns, device=options.device), options.json)


def pictures(shape: tuple[int, int, int, int]) -> Any:
    """Return 8-bit images with structure at every scale: smooth noise of several widths."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(shape)
    for side in (4, 9, 28, shape[-1]):
        noise = torch.rand(shape[0], shape[1], side, side, generator=generator)
        images += functional.interpolate(noise, size=shape[2:], mode="bilinear") / 4
    return (images * 255).round().byte()


def contestants(images: Any, *, device: str) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return what is timed: by map, by name, a call that makes the maps of one batch."""
    import cv2
    import torch

    from raremix.explain import FineGrained, SpectralResidual

    floats, targets = (images / 255).to(device), torch.zeros(len(images), 1, device=device)
    arrays = list(images.permute(0, 2, 3, 1).flip(3).contiguous().numpy())
    fine = cv2.saliency.StaticSaliencyFineGrained_create()
    spectral = cv2.saliency.StaticSaliencySpectralResidual_create()

    def ours(importance: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: importance(floats, targets)

    def opencv(saliency: Any) -> Callable[[], Any]:
        return lambda: [saliency.computeSaliency(image)[1] for image in arrays]

    return {
        "fine_grained": {
            "raremix": ours(FineGrained()),
            "raremix, OpenCV's windows": ours(FineGrained(reference=images.shape[-1])),
            "raremix, every second pixel": ours(FineGrained(stride=2)),
            "OpenCV": opencv(fine),
        },
        "spectral_residual": {
            "raremix": ours(SpectralResidual()),
            "raremix, 128 pixels": ours(SpectralResidual(size=128)),
            "OpenMixup's formula": lambda: openmixup_spectral_residual(floats),
            "OpenCV": opencv(spectral),
        },
    }


def openmixup_spectral_residual(images: Any) -> Any:
    """Compute the spectral residual by the formula that OpenMixup publishes."""
    import torch
    from torch.nn import functional
    from torchvision.transforms.v2 import functional as transforms

    grey = transforms.rgb_to_grayscale(images)
    side = grey.shape[-1]
    small = transforms.resize(grey, [128, 128]) if side > 128 else grey
    spectrum = torch.fft.fft2(small)
    log = (spectrum.abs().square() + 1e-10).sqrt().log()
    usual = functional.avg_pool2d(functional.pad(log, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    residual = torch.fft.ifft2(torch.polar((log - usual).exp(), spectrum.angle())).abs()
    blurred = transforms.gaussian_blur(residual, [7, 7], [3.0, 3.0])
    return transforms.resize(blurred, [side, side]) if side > 128 else blurred


def agreement(calls: dict[str, Callable[[], Any]]) -> float:
    """Return the smallest correlation of our fine-grained maps with OpenCV's, image by image."""
    import numpy as np

    ours = calls["raremix, OpenCV's windows"]()[:, 0].cpu().numpy()
    pairs = zip(ours, calls["OpenCV"](), strict=True)
    return float(min(np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs))


def measure(*, threads: int, turns: int, device: str) -> dict[str, Any]:
    """Time all contestants on all shapes, and note what they ran on."""
    import torch

    torch.set_num_threads(threads)
    rows, correlation = [], {}
    for shape in SHAPES:
        batch = "x".join(map(str, shape))
        methods = contestants(pictures(shape), device=device)
        correlation[batch] = agreement(methods["fine_grained"])
        for method, calls in methods.items():
            seconds = take_turns(calls, turns=turns, now=clock(device))
            peer = seconds[PEER[method]]
            rows += [
                {
                    "shape": batch,
                    "method": method,
                    "name": name,
                    "best_ms": 1e3 * min(turn),
                    "median_ms": 1e3 * median(turn),
                    "times_faster_best": min(peer) / min(turn),
                    "times_faster_median": median(peer) / median(turn),
                }
                for name, turn in seconds.items()
            ]
    names = ("torch", "torchvision", "numpy", "opencv-contrib-python-headless")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {
        "rows": rows,
        "correlation": correlation,
        "machine": machine(threads=threads) | {"device": device_name(device)},
        "versions": versions,
        "turns": turns,
    }


def report(result: dict[str, Any], path: Path) -> None:
    """Print a table, and write the same as JSON."""
    from rich.console import Console
    from rich.table import Table

    from raremix.core.files import write_json

    table = Table(title=f"Importance maps of a float32 batch, milliseconds; {result['machine']}")
    for column in ("batch", "map", "who", "best", "median", "peer's best / best", "peer's median / median"):
        table.add_column(column, justify="left" if column in {"batch", "map", "who"} else "right")
    for row in result["rows"]:
        table.add_row(
            row["shape"],
            row["method"],
            row["name"],
            f"{row['best_ms']:.3g}",
            f"{row['median_ms']:.3g}",
            f"{row['times_faster_best']:.1f}",
            f"{row['times_faster_median']:.1f}",
        )
    console = Console(width=max(120, Console().width))
    console.print(table)
    console.print(f"smallest correlation of an image's fine-grained map with OpenCV's: {result['correlation']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.resolve(), result)


if __name__ == "__main__":
    main()
