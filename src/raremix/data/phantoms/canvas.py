"""Primitives that the phantoms are drawn with: smooth noise, soft shapes, strokes, the sensor.

Coordinates run from -1 to 1 over the image, x to the right and y down. All noise lives on lattices of a fixed number of
cells, so that one address gives one scene at any size. Everything is float64: differences between processors then stay
far below the step of 8-bit pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A rendered phantom.

    Attributes:
        image: pixels.
        masks: where each finding is, by name; empty where there is none.
    """

    image: UInt8[np.ndarray, "S S"] | UInt8[np.ndarray, "S S 3"]
    masks: dict[str, Bool[np.ndarray, "S S"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """A line through points, or several of one kind.

    Attributes:
        points: (n, 2) coordinates x, y, or (lines, n, 2).
        width: at the start, and at the end, in units of half the image.
        value: coverage in [0, 1].
    """

    points: Float[np.ndarray, "*lines n 2"]
    width: tuple[float, float]
    value: float = 1.0


@lru_cache(maxsize=16)
def grid(size: int) -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, "S S"]]:
    """Return x and y of the pixel centres."""
    centres = (2.0 * np.arange(size) + 1.0) / size - 1.0
    x, y = np.meshgrid(centres, centres)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def noise(rng: np.random.Generator, size: int, *cells: int) -> Float[np.ndarray, "S S"]:
    """Draw smooth noise of about zero mean and unit variance.

    Args:
        rng: the stream; the number of draws does not depend on `size`.
        size: pixels across.
        *cells: lattice cells across the image, one number per octave; octaves are added with equal variance.
    """
    total = np.zeros((size, size))
    for count in cells:
        weights = _spline(size, count)
        total += weights @ rng.standard_normal((count + 3, count + 3)) @ weights.T
    # A cubic B-spline keeps 151/315 of the variance of its coefficients along each of the two axes.
    return total / (151 / 315 * np.sqrt(len(cells)))


def step(values: Float[np.ndarray, "*shape"], low: float, high: float) -> Float[np.ndarray, "*shape"]:
    """Rise smoothly from exactly 0 at `low` to exactly 1 at `high`; `low` may exceed `high`."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def blur(layer: Float[np.ndarray, "S S"], width: float) -> Float[np.ndarray, "S S"]:
    """Blur by a Gaussian whose standard deviation is `width` halves of the image; nothing is left out of the frame."""
    sigma = width * layer.shape[0] / 2.0
    return gaussian_filter(layer, sigma, mode="nearest", truncate=3.0) if sigma > 0.15 else layer


def strokes(lines: Sequence[Stroke], size: int) -> Float[np.ndarray, "S S"]:
    """Return the coverage of strokes, antialiased; where strokes cross, the later one counts."""
    canvas, scale = _canvas(size)
    pen = ImageDraw.Draw(canvas)
    half = 0.5 * scale * size
    half = 0.5 * scale * size
    for stroke in lines:
        joints = stroke.points.shape[-2] - 1
        first, last = stroke.width[0] * half, stroke.width[1] * half
        # Each part of a tapering stroke has one width, and starts where the part before it ended.
        parts = 1 if first == last else min(4, joints)
        for line in ((stroke.points + 1.0) * half).reshape(-1, 2 * joints + 2).tolist():
            for part in range(parts):
                width = first + (last - first) * (part + 0.5) / parts
                piece = line[2 * (joints * part // parts) : 2 * (joints * (part + 1) // parts) + 2]
                pen.line(piece, fill=round(255 * stroke.value * min(1.0, width)), width=max(1, round(width)))
    return _reduce(canvas, scale)


def polygons(
    shapes: Sequence[Float[np.ndarray, "_ 2"]], size: int, *, values: Sequence[float] | None = None
) -> Float[np.ndarray, "S S"]:
    """Return the coverage of filled polygons, antialiased; later ones cover earlier ones."""
    canvas, scale = _canvas(size)
    pen = ImageDraw.Draw(canvas)
    for index, shape in enumerate(shapes):
        points = (shape + 1.0) * (0.5 * scale * size)
        pen.polygon(points.ravel().tolist(), fill=255 if values is None else round(255 * values[index]))
    return _reduce(canvas, scale)


def discs(
    centres: Float[np.ndarray, "n 2"],
    radii: Float[np.ndarray, " n"],
    size: int,
    *,
    values: Float[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "S S"]:
    """Return the coverage of discs, antialiased; later ones cover earlier ones."""
    canvas, scale = _canvas(size)
    pen = ImageDraw.Draw(canvas)
    half = 0.5 * scale * size
    for index, ((x, y), radius) in enumerate(zip(centres.tolist(), radii.tolist(), strict=True)):
        box = [(x - radius + 1) * half, (y - radius + 1) * half, (x + radius + 1) * half, (y + radius + 1) * half]
        pen.ellipse(box, fill=255 if values is None else round(255 * float(values[index])))
    return _reduce(canvas, scale)


def curve(
    points: Float[np.ndarray, "*lines n 2"], *, count: int, closed: bool = False
) -> Float[np.ndarray, "*lines m 2"]:
    """Return `count` points along the Catmull-Rom spline through control points; many lines at once, if need be."""
    return _catmull_rom(points.shape[-2], count, closed) @ points


def sensor(
    image: Float[np.ndarray, "*shape"], *, noise: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "*shape"]:
    """Add shot and read-out noise to an image in [0, 1], pixel by pixel, and quantise it to 8 bits.

    Args:
        image: the scene.
        noise: standard deviation at full exposure, as a share of full scale.
        rng: the stream; the same draws give the same noise whatever the scene holds.
    """
    clean = np.clip(image, 0.0, 1.0)
    noisy = clean + noise * np.sqrt(0.25 + 0.75 * clean) * rng.standard_normal(image.shape)
    return np.clip(np.rint(noisy * 255.0), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _spline(size: int, cells: int) -> Float[np.ndarray, "S n"]:
    position = (np.arange(size) + 0.5) * cells / size
    index = np.minimum(position.astype(int), cells - 1)
    t = position - index
    weights = np.zeros((size, cells + 3))
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, piece in enumerate(pieces):
        weights[np.arange(size), index + offset] = piece / 6.0
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=64)
def _catmull_rom(n: int, count: int, closed: bool) -> Float[np.ndarray, "count n"]:
    position = np.linspace(0.0, n if closed else n - 1, count, endpoint=not closed)
    index = np.minimum(position.astype(int), n - 1 if closed else n - 2)
    t = position - index
    pieces = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    weights = np.zeros((count, n))
    for offset, piece in enumerate(pieces):
        place = index + offset - 1
        np.add.at(weights, (np.arange(count), place % n if closed else np.clip(place, 0, n - 1)), 0.5 * piece)
    weights.flags.writeable = False
    return weights


def _canvas(size: int) -> tuple[Image.Image, int]:
    scale = 4 if size < 56 else 3 if size <= 288 else 2
    return Image.new("L", (size * scale, size * scale)), scale


def _reduce(canvas: Image.Image, scale: int) -> Float[np.ndarray, "S S"]:
    return np.asarray(canvas.reduce(scale)) / 255.0
