"""Six chest findings as maps of added attenuation, each confined to its true mask.

Terms follow the Fleischner Society glossary (Hansell et al., Radiology 2008, https://doi.org/10.1148/radiol.2462070712).
Shapes follow the terms; amounts are made up, and carry no clinical meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from raremix.data.phantoms.canvas import Stroke, blur, curve, noise, polygons, step, strokes

Map = Float[np.ndarray, "S S"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """The anatomy that findings lie in. Sides are 0, the patient's right (left in the image), and 1.

    Attributes:
        size: pixels across the image.
        x, y: body coordinates of every pixel: the lungs span about -0.75 .. 0.75, y runs down.
        to_image: brings (n, 2) points from body to image coordinates.
        outlines: the lungs' outlines in body coordinates.
        lungs: their coverage in each pixel.
        air: attenuation that the lungs' air takes away.
        vessels: attenuation of the lungs' vessels.
        heart: outline of the heart in body coordinates.
        heart_depth: its attenuation, which fades where the abdomen hides it.
        base: body y of the lungs' lower end.
    """

    size: int
    x: Map
    y: Map
    to_image: Callable[[np.ndarray], np.ndarray]
    outlines: tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]
    lungs: tuple[Map, Map]
    air: Map
    vessels: Map
    heart: Float[np.ndarray, "m 2"]
    heart_depth: Map
    base: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a finding adds.

    Attributes:
        attenuation: added along the ray, exactly 0 outside the mask.
        mask: where the finding is.
    """

    attenuation: Map
    mask: Bool[np.ndarray, "S S"]


class Draw(Protocol):
    """Draw a finding into a chest; `strength` is about 1."""

    def __call__(self, chest: Chest, rng: np.random.Generator, *, strength: float) -> Finding: ...


def pneumonia(chest: Chest, rng: np.random.Generator, *, strength: float) -> Finding:
    """Draw consolidations: patchy opacities with fuzzy borders and air bronchograms, in one or two lobes."""
    share, dark = np.zeros_like(chest.x), np.zeros_like(chest.x)
    for side in rng.permutation(2)[: 1 + int(rng.random() < 0.3)]:
        sign = 2.0 * side - 1.0
        at = np.array(
            [sign * rng.uniform(0.28, 0.5), rng.uniform(0.02, 0.3) if rng.random() < 0.65 else rng.uniform(-0.5, -0.1)]
        )
        radius = rng.uniform(0.15, 0.29)
        away = np.hypot((chest.x - at[0]) / radius, (chest.y - at[1]) / (radius * rng.uniform(0.8, 1.3)))
        cloud = step(1.0 - away + 0.32 * noise(rng, chest.size, 5, 11, 22), -0.15, 0.55)
        share = np.maximum(share, cloud * step(chest.lungs[side], 0.05, 0.3))
        tree = [_twig(at, sign, rng) for _ in range(3)]
        dark = dark + blur(
            strokes([Stroke(points=chest.to_image(p), width=(0.035, 0.02)) for p in tree], chest.size), 0.01
        )
    fill = rng.uniform(0.45, 0.8) * strength
    texture = np.clip(1.0 + 0.18 * noise(rng, chest.size, 12, 26) - 0.5 * dark, 0.2, 1.4)
    return _confine(share, fill * chest.air * texture)


def effusion(chest: Chest, rng: np.random.Generator, *, strength: float) -> Finding:
    """Draw fluid at the base of a lung: a homogeneous opacity whose upper border rises towards the chest wall."""
    share = np.zeros_like(chest.x)
    for side in rng.permutation(2)[: 1 + int(rng.random() < 0.25)]:
        level = chest.base - rng.uniform(0.12, 0.34) * (0.7 + 0.3 * strength)
        rise = rng.uniform(0.2, 0.36) * step(np.abs(chest.x), 0.25, 0.72) ** 1.5
        top = level + 0.12 - rise + 0.012 * noise(rng, chest.size, 6)
        share = np.maximum(share, step(chest.y - top, -0.05, 0.05) * step(chest.lungs[side], 0.05, 0.3))
    return _confine(share, rng.uniform(0.85, 1.05) * min(strength, 1.1) * chest.air)


def cardiomegaly(chest: Chest, rng: np.random.Generator, *, strength: float) -> Finding:
    """Draw an enlarged heart: wider, mostly to the left, and deeper along the ray; the mask is the whole heart."""
    grow = 1.0 + rng.uniform(0.26, 0.46) * strength
    centre = np.array([0.03, chest.heart[:, 1].max()])
    large = (chest.heart - centre) * np.array([grow, 1.0 + 0.3 * (grow - 1.0)]) + centre
    before = blur(polygons([chest.to_image(chest.heart)], chest.size), 0.016)
    after = blur(polygons([chest.to_image(large)], chest.size), 0.016)
    deeper = 0.16 * strength * chest.heart_depth / chest.heart_depth.max()
    return _confine(after, chest.heart_depth * np.maximum(1.0 - before, 0.0) + deeper)


def nodule(chest: Chest, rng: np.random.Generator, *, strength: float) -> Finding:
    """Draw a rounded opacity in one lung."""
    sign, y = float(rng.choice([-1.0, 1.0])), rng.uniform(-0.5, 0.25)
    radius = float(np.exp(rng.uniform(np.log(0.075), np.log(0.15))))
    # The lungs are narrow at the top.
    x = sign * rng.uniform(0.26, np.interp(y, (-0.6, 0.0), (0.36, 0.56)))
    away = np.hypot(chest.x - x, (chest.y - y) * rng.uniform(0.9, 1.1)) / radius
    share = step(away + 0.08 * noise(rng, chest.size, 12, 26), 1.2, 0.75)
    return _confine(share, (0.65 + 0.35 * step(away, 1.2, 0.0)) * rng.uniform(0.42, 0.7) * strength)


def pneumothorax(chest: Chest, rng: np.random.Generator, *, strength: float) -> Finding:
    """Draw air around a collapsed lung: no vessels beyond a thin pleural line, at the apex and along the wall."""
    side = int(rng.integers(2))
    sign = 2.0 * side - 1.0
    pivot = np.array([sign * 0.12, chest.base])
    kept = 1.0 - rng.uniform(0.22, 0.48) * (0.55 + 0.45 * strength)
    edge = (chest.outlines[side] - pivot) * np.array([kept, 0.5 + 0.5 * kept]) + pivot
    collapsed = blur(polygons([chest.to_image(edge)], chest.size), 0.008)
    line = blur(strokes([Stroke(points=chest.to_image(edge), width=(0.022, 0.022))], chest.size), 0.006)
    # Air rises: none is left along the mediastinum and on the diaphragm.
    free = step(sign * chest.x, 0.13, 0.2) * np.maximum(
        step(chest.y, chest.base - 0.06, chest.base - 0.14), step(sign * chest.x, 0.52, 0.58)
    )
    share = np.maximum(1.0 - collapsed, step(line, 0.1, 0.5)) * chest.lungs[side] * free
    return _confine(share, 0.26 * strength * line - chest.vessels - 0.22 * strength * chest.air)


def hernia(chest: Chest, rng: np.random.Generator, *, strength: float) -> Finding:
    """Draw a hiatal hernia: a round mass behind the heart with gas above a level of fluid."""
    x, y = rng.uniform(-0.06, 0.14), chest.base - rng.uniform(0.08, 0.2)
    radius = rng.uniform(0.18, 0.27)
    away = np.hypot(chest.x - x, (chest.y - y) * rng.uniform(0.85, 1.1)) / radius
    away = away + 0.05 * noise(rng, chest.size, 6, 13)
    wall = step(away, 0.5, 0.95)
    fluid = step(chest.y - y, rng.uniform(-0.04, 0.05), rng.uniform(0.06, 0.08))
    inside = np.where(wall > 0, 0.28 * wall, 0.0) + (1 - wall) * (0.36 * fluid - 0.55 * (1 - fluid))
    return _confine(step(away, 1.12, 0.85), strength * inside)


FINDINGS: dict[str, Draw] = {
    "pneumonia": pneumonia,
    "effusion": effusion,
    "cardiomegaly": cardiomegaly,
    "nodule": nodule,
    "pneumothorax": pneumothorax,
    "hernia": hernia,
}


def _confine(share: Map, attenuation: Map) -> Finding:
    # What is fainter than the eye can see counts as outside, so that the mask fits what is seen.
    seen = np.maximum(share - 0.1, 0.0) / 0.9
    return Finding(attenuation=seen * attenuation, mask=seen > 0.0)


def _twig(at: Float[np.ndarray, "2"], sign: float, rng: np.random.Generator) -> Float[np.ndarray, "n 2"]:
    """Return a bronchus from the hilum into an opacity."""
    hilum = np.array([sign * 0.16, 0.02])
    end = at + rng.normal(0.0, 0.1, 2)
    return curve(np.stack([hilum, 0.5 * (hilum + end) + rng.normal(0.0, 0.03, 2), end]), count=9)
