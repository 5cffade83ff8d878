"""Chest-like radiograph phantoms: a body of overlapping attenuations, findings, and the X-ray machine.

An X-ray image adds up what lies along each ray. Each organ is a soft shape with an attenuation; the sum goes through
one exposure curve that is set by the body alone, so a finding changes the image only where it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from raremix.data.phantoms.canvas import (
    Picture,
    Stroke,
    blur,
    curve,
    discs,
    grid,
    noise,
    polygons,
    sensor,
    step,
    strokes,
)
from raremix.data.phantoms.chest_findings import FINDINGS, Chest

NORMAL = "normal"
CLASSES = (NORMAL, *FINDINGS)
VIEWS = ("PA", "PA", "AP")
MEAN_AGES = (46, 52, 63, 66, 60, 38, 71)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An X-ray machine: its contrast, sharpness and noise, its marker, and how often its images show leads or tubes."""

    contrast: float
    blur: float
    noise: float
    marker: str
    corner: tuple[float, float]
    tubes: float
    collimation: float


DEVICES = (
    Device(contrast=1.1, blur=0.008, noise=0.8, marker="R", corner=(-0.86, -0.80), tubes=0.10, collimation=0.15),
    Device(contrast=0.85, blur=0.014, noise=1.3, marker="L", corner=(0.84, -0.86), tubes=0.60, collimation=0.7),
    Device(contrast=1.0, blur=0.010, noise=1.2, marker="R", corner=(-0.84, 0.10), tubes=0.20, collimation=0.4),
    Device(contrast=0.95, blur=0.006, noise=1.0, marker="L", corner=(0.82, -0.45), tubes=0.30, collimation=0.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What the images of one patient share.

    Attributes:
        width, height: of the chest, about 1.
        thickness: attenuation of soft tissue, about 1.
        heart: width of the heart, about 1.
        slope: how steeply the ribs fall.
        bones: attenuation of bone, about 1; lower with age.
        breasts: attenuation of breast tissue.
        bend: sideways curve of the spine.
        aorta: size of the aortic knob.
        shoulders: how far the arms are raised, in [0, 1].
        wobble: small random displacements of the lungs' outlines.
    """

    width: float
    height: float
    thickness: float
    heart: float
    slope: float
    bones: float
    breasts: float
    bend: float
    aorta: float
    shoulders: float
    wobble: Float[np.ndarray, "2 12 2"]


def draw_patient(rng: np.random.Generator, *, age: int, is_female: bool) -> Body:
    """Draw a patient's body."""
    return Body(
        width=float(rng.normal(0.98 if is_female else 1.03, 0.05)),
        height=float(rng.normal(1.0, 0.05)),
        thickness=float(np.clip(rng.normal(1.0, 0.13), 0.7, 1.4)),
        heart=float(np.clip(rng.normal(1.0, 0.06), 0.85, 1.15)),
        slope=float(rng.normal(0.30, 0.05)),
        bones=float(np.clip(rng.normal(1.1 - 0.003 * (age - 40), 0.12), 0.6, 1.5)),
        breasts=float(rng.uniform(0.1, 0.3)) if is_female else 0.0,
        bend=float(rng.normal(0.0, 0.02 + 0.0003 * age)),
        aorta=float(np.clip(rng.normal(0.07 + 0.0006 * (age - 40), 0.012), 0.04, 0.13)),
        shoulders=float(rng.uniform(0.0, 1.0)),
        wobble=rng.normal(0.0, 0.014, (2, 12, 2)),
    )


def render(
    *,
    size: int,
    patient: Body,
    findings: tuple[str, ...],
    view: str,
    device: int,
    difficulty: float,
    noise_level: float,
    streams: Callable[[int], np.random.Generator],
) -> Picture:
    """Render one radiograph with the masks of its findings.

    Args:
        size: pixels across.
        patient: from `draw_patient`.
        findings: names of `FINDINGS`; `NORMAL` adds nothing.
        view: "PA" or "AP"; the heart is larger on AP, and the patient breathes in less.
        device: index into `DEVICES`.
        difficulty: in [0, 1]; fainter and smaller findings.
        noise_level: standard deviation of the sensor noise, as a share of full scale.
        streams: random streams of this image by number: 0 scene, 2 sensor, 3 and up the findings.
    """
    scene, machine = streams(0), DEVICES[device]
    chest, total = _anatomy(size, patient, view, scene)
    total = blur(total, machine.blur)
    # The exposure is set by the body without findings.
    high = float(np.quantile(total, 0.97))
    masks: dict[str, Bool[np.ndarray, "S S"]] = {}
    strength = 1.25 - 0.6 * difficulty
    for name in findings:
        if name == NORMAL:
            continue
        finding = FINDINGS[name](chest, streams(3 + list(FINDINGS).index(name)), strength=strength)
        total = total + finding.attenuation
        masks[name] = finding.mask
    image = _expose(total, high, machine, scene)
    image = _overlay(image, machine, scene)
    return Picture(image=sensor(image, noise=noise_level * machine.noise, rng=streams(2)), masks=masks)


# Control points of the patient's right lung: apex, chest wall down to the costophrenic angle, diaphragm, mediastinum.
_LUNG = np.array(
    [
        (-0.24, -0.75), (-0.42, -0.66), (-0.58, -0.40), (-0.67, -0.05), (-0.715, 0.25), (-0.735, 0.50),
        (-0.58, 0.43), (-0.40, 0.37), (-0.22, 0.42), (-0.11, 0.42), (-0.11, 0.00), (-0.13, -0.45),
    ]
)  # fmt: skip
_HEART = np.array(
    [
        (-0.02, -0.16), (0.13, -0.12), (0.24, 0.06), (0.36, 0.27), (0.37, 0.42), (0.16, 0.49),
        (-0.08, 0.46), (-0.18, 0.32), (-0.17, 0.10), (-0.11, -0.08),
    ]
)  # fmt: skip
_TORSO = np.array(
    [
        (-0.21, -1.6), (-0.23, -0.98), (-0.42, -0.88), (-0.86, -0.76), (-1.25, -0.50), (-1.4, 0.6),
        (-1.07, 0.6), (-0.86, -0.22), (-0.84, 0.1), (-0.85, 0.6), (-0.83, 1.6),
    ]
)  # fmt: skip
_WALL = np.array([(-0.78, 0.20), (-0.62, 0.44), (-0.40, 0.61), (-0.05, 0.71), (0.25, 0.755), (0.5, 0.775), (1.2, 0.79)])
_MIRROR = np.array([-1.0, 1.0])


def _anatomy(size: int, patient: Body, view: str, rng: np.random.Generator) -> tuple[Chest, Float[np.ndarray, "S S"]]:
    """Lay out the body and add up its attenuation."""
    breath = float(rng.normal(0.02, 0.045)) - (0.05 if view == "AP" else 0.0)
    turn, zoom = float(rng.normal(0.0, 0.03)), float(rng.uniform(0.93, 1.15))
    shift = rng.normal(0.0, 0.035, 2) + np.array([0.0, 0.09])
    frame = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    frame = frame @ np.diag([patient.width, patient.height])

    def to_image(points: np.ndarray) -> np.ndarray:
        return points @ frame.T + shift

    image_x, image_y = grid(size)
    back = np.linalg.inv(frame)
    x = back[0, 0] * (image_x - shift[0]) + back[0, 1] * (image_y - shift[1])
    y = back[1, 0] * (image_x - shift[0]) + back[1, 1] * (image_y - shift[1])

    outlines = _lungs(patient, breath)
    lungs = tuple(blur(polygons([to_image(outline)], size), 0.012) for outline in outlines)
    torso = np.concatenate([_TORSO, _TORSO[::-1] * _MIRROR])
    torso[:, 1] += np.where(np.abs(torso[:, 0]) > 0.9, 0.35 * (0.5 - patient.shoulders), 0.0)
    skin = blur(polygons([to_image(curve(torso, count=90, closed=True))], size), 0.02)
    # A chest is an ellipse in cross-section: rays near its edge cross less tissue.
    depth = 0.35 + 0.65 * np.sqrt(np.clip(1.0 - (x / 0.97) ** 2, 0.0, 1.0))
    tissue = patient.thickness * skin * depth * (1.0 + 0.30 * step(y, 0.25, 0.75))
    both = np.maximum(lungs[0], lungs[1])
    air = 0.72 * patient.thickness * both * depth * (0.75 + 0.25 * blur(both, 0.07))
    vessels = 0.15 * _vessels(size, to_image, rng) * both
    heart = curve(_HEART, count=60, closed=True) * np.array([patient.heart * (1.12 if view == "AP" else 1.0), 1.0])
    heart = heart + np.array([0.01, 0.6 * breath])
    # The heart rests on the diaphragm: below it the abdomen hides it.
    heart_depth = 0.42 * patient.thickness * step(y, 0.52 + breath, 0.36 + breath)
    chest = Chest(
        size=size,
        x=x,
        y=y,
        to_image=to_image,
        outlines=outlines,
        lungs=(lungs[0], lungs[1]),
        air=air,
        vessels=vessels,
        heart=heart,
        heart_depth=heart_depth,
        base=0.46 + breath,
    )
    total = tissue - air + vessels
    total = total + heart_depth * blur(polygons([to_image(heart)], size), 0.016)
    total = total + _mediastinum(size, patient, x, y, to_image) + _skeleton(size, patient, x, y, to_image)
    if patient.breasts:
        for side in (-1, 1):
            away = np.hypot((x - 0.42 * side) / 0.33, (y - 0.33) / 0.27)
            total = total + patient.breasts * step(away, 1.1, 0.5) * step(y, 0.75, 0.5)
    gas = np.hypot((x - rng.uniform(0.3, 0.45)) / 0.16, (y - rng.uniform(0.62, 0.7)) / 0.07)
    total = total - rng.uniform(0.0, 0.35) * step(gas, 1.1, 0.6) * skin
    return chest, total + 0.02 * skin * noise(rng, size, 6, 14, 30)


def _lungs(patient: Body, breath: float) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    outlines = []
    for side in (0, 1):
        points = _LUNG * (_MIRROR if side else 1.0) + patient.wobble[side]
        points[5:10, 1] += breath + 0.045 * side
        outlines.append(curve(points, count=72, closed=True))
    return outlines[0], outlines[1]


def _vessels(
    size: int, to_image: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> Float[np.ndarray, "S S"]:
    """Draw the vessels that spread from both hila and taper."""
    lines = []
    fan = np.linspace(-1.2, 1.3, 5)
    sign = np.repeat([-1.0, 1.0], len(fan))
    heading = np.tile(fan, 2) + rng.normal(0.0, 0.12, len(sign))
    at = np.stack([0.12 * sign, np.zeros_like(sign)], 1)
    for width, length, value in ((0.042, 0.27, 0.8), (0.026, 0.20, 0.6), (0.015, 0.18, 0.45)):
        lengths = length * rng.uniform(0.75, 1.2, len(sign))[:, None]
        ends = at + lengths * np.stack([sign * np.cos(heading), np.sin(heading)], 1)
        middles = 0.5 * (at + ends) + rng.normal(0.0, 0.018, at.shape)
        wires = to_image(curve(np.stack([at, middles, ends], axis=1), count=5))
        lines.append(Stroke(points=wires, width=(width, width), value=value))
        # Every vessel ends in a fork.
        spread = rng.uniform(0.2, 0.6, (2, len(sign)))
        heading = np.concatenate([heading - spread[0], heading + spread[1]])
        at, sign = np.concatenate([ends, ends]), np.concatenate([sign, sign])
    hila = discs(to_image(np.array([(-0.15, 0.02), (0.16, -0.03)])), np.array([0.075, 0.07]), size)
    return blur(strokes(lines, size), 0.005) + 0.6 * blur(hila, 0.03)


def _mediastinum(
    size: int,
    patient: Body,
    x: Float[np.ndarray, "S S"],
    y: Float[np.ndarray, "S S"],
    to_image: Callable[[np.ndarray], np.ndarray],
) -> Float[np.ndarray, "S S"]:
    band = np.array([(-0.10, -1.2), (0.09, -1.2), (0.12, -0.35), (0.13, 0.1), (-0.13, 0.1), (-0.12, -0.35)])
    knob = np.array([(0.115, -0.26)])
    vessels = blur(
        np.maximum(polygons([to_image(band)], size), discs(to_image(knob), np.array([patient.aorta]), size)), 0.014
    )
    trachea = step(np.abs(x - 0.01), 0.065, 0.03) * step(y, -0.18, -0.26)
    # The vessels enter the heart, which would count twice where both are drawn.
    return 0.30 * vessels * step(y, 0.12, -0.2) - 0.17 * trachea


def _skeleton(
    size: int,
    patient: Body,
    x: Float[np.ndarray, "S S"],
    y: Float[np.ndarray, "S S"],
    to_image: Callable[[np.ndarray], np.ndarray],
) -> Float[np.ndarray, "S S"]:
    """Add spine, ribs, clavicles, scapulae and the heads of the humeri."""
    offset = x - patient.bend * np.sin(2.2 * y)
    wave = np.cos(2 * np.pi * y / 0.135)
    spine = step(np.abs(offset), 0.10, 0.07) * (0.20 + 0.05 * wave) + 0.06 * step(np.abs(offset), 0.025, 0.01) * step(
        wave, 0.2, 0.9
    )
    along, rib, sign = np.linspace(0.0, 1.0, 10), np.arange(10.0)[:, None], np.array([-1.0, 1.0])[:, None, None]
    start, fall = -0.74 + 0.135 * rib, patient.slope * (0.55 + 0.06 * rib)
    wall = np.interp(start + fall, _WALL[:, 0], _WALL[:, 1])
    sweep, turn = np.sin(0.5 * np.pi * along), 1.0 - np.cos(0.5 * np.pi * along)
    height = start + fall * along**1.8 - 0.05 * np.sin(np.pi * np.minimum(along * 1.6, 1.0))
    back = _both_sides(sign, 0.07 + (wall - 0.07) * sweep, height)
    # The front ends of the upper ribs run down and inwards from the side of the chest.
    low, inner = start + fall + (0.13 + 0.015 * rib) * sweep, wall - (wall - 0.22 - 0.02 * rib) * turn
    front = _both_sides(sign, inner[1:7], low[1:7])
    collar = np.array([(0.06, -0.52), (0.25, -0.56), (0.50, -0.70), (0.90, -0.74)])
    bars = curve(np.stack([collar * _MIRROR, collar]), count=10)
    blade = np.array([(0.66, -0.62), (0.98, -0.60), (0.80, 0.02), (0.74, 0.04)])
    blades = polygons([to_image(blade * _MIRROR), to_image(blade)], size)
    heads = discs(to_image(np.array([(-1.02, -0.62), (1.02, -0.62)])), np.array([0.14, 0.14]), size)
    ribs = 0.13 * _bones(to_image(back), 0.062, size) + 0.085 * _bones(to_image(front), 0.068, size)
    rest = 0.17 * _bones(to_image(bars), 0.065, size) + blur(0.10 * blades + 0.2 * heads, 0.01)
    return patient.bones * (spine + blur(ribs, 0.004) + rest)


def _both_sides(
    sign: Float[np.ndarray, "2 1 1"], away: Float[np.ndarray, "ribs n"], height: Float[np.ndarray, "ribs n"]
) -> Float[np.ndarray, "lines n 2"]:
    sides = np.stack([sign * away, np.broadcast_to(height, (2, *height.shape))], axis=-1)
    return sides.reshape(-1, *sides.shape[2:])


def _bones(lines: Float[np.ndarray, "lines n 2"], width: float, size: int) -> Float[np.ndarray, "S S"]:
    """Return bars that are denser at their edges: a tube of compact bone around a spongy core."""
    shell = Stroke(points=lines, width=(width, width))
    core = Stroke(points=lines, width=(0.6 * width, 0.6 * width), value=0.62)
    return strokes([shell, core], size)


def _expose(
    total: Float[np.ndarray, "S S"], high: float, machine: Device, rng: np.random.Generator
) -> Float[np.ndarray, "S S"]:
    """Turn attenuation into grey values: dense is white, and the curve flattens towards white."""
    bend = float(rng.uniform(1.5, 2.4))
    level, contrast = float(rng.normal(0.0, 0.03)), machine.contrast * float(rng.normal(1.0, 0.07))
    grey = (1.0 - np.exp(-bend * np.clip(total / high, 0.0, 2.0))) / (1.0 - np.exp(-bend))
    return np.clip(0.5 + level + contrast * (0.92 * grey - 0.5), 0.0, 1.0)


_LETTERS = {
    "R": [[(0, 1), (0, 0), (0.5, 0), (0.62, 0.25), (0.5, 0.5), (0, 0.5)], [(0.25, 0.5), (0.65, 1)]],
    "L": [[(0, 0), (0, 1), (0.6, 1)]],
}


def _overlay(image: Float[np.ndarray, "S S"], machine: Device, rng: np.random.Generator) -> Float[np.ndarray, "S S"]:
    """Add the side marker, leads and tubes, and the edge of the collimator."""
    size = image.shape[0]
    corner = np.array(machine.corner) + rng.normal(0.0, 0.03, 2)
    tall = float(rng.uniform(0.08, 0.12))
    letters = [
        Stroke(points=corner + tall * (np.array(line) - 0.5), width=(0.022, 0.022)) for line in _LETTERS[machine.marker]
    ]
    image = np.maximum(image, 0.95 * strokes(letters, size))
    if rng.random() < machine.tubes:
        wires, pads = _wires(rng)
        dots = discs(pads, np.full(len(pads), 0.028), size)
        image = image + np.maximum(0.35 * strokes(wires, size), 0.6 * dots) * (1 - image)
    x, y = grid(size)
    edges, tilt = rng.uniform(0.9, 1.04, 4), rng.normal(0.0, 0.01)
    if rng.random() < machine.collimation:
        inside = np.maximum(
            np.maximum(x / edges[0], -x / edges[1]), np.maximum((y + tilt * x) / edges[2], -(y - tilt * x) / edges[3])
        )
        image = image * (0.02 + 0.98 * step(inside, 1.012, 0.995))
    return image


def _wires(rng: np.random.Generator) -> tuple[list[Stroke], Float[np.ndarray, "n 2"]]:
    """Return a tube down the trachea and monitoring leads, with the pads that they end in."""
    tube = np.array([(0.03, -1.1), (0.0, -0.7), (0.01, rng.uniform(-0.4, -0.2))]) + np.array(
        [rng.normal(0.0, 0.02), 0.0]
    )
    lines = [Stroke(points=curve(tube, count=9), width=(0.03, 0.03))]
    pads = np.stack([rng.uniform(-0.7, 0.7, 3), rng.uniform(-0.6, 0.6, 3)], 1)
    for pad in pads:
        end = np.array([rng.uniform(-0.4, 0.4), 1.1])
        middle = 0.5 * (pad + end) + rng.normal(0.0, 0.15, 2)
        lines.append(Stroke(points=curve(np.stack([pad, middle, end]), count=13), width=(0.014, 0.014)))
    return lines, pads
