"""Dermatoscopy-like phantoms: skin, a lesion, hairs, gel, the dermatoscope and its camera.

Skin is a layer of pigment and blood whose colour is exp(-optical density) per channel, as in Tsumura et al.,
"Independent-component analysis of skin color image", JOSA A 1999, https://doi.org/10.1364/JOSAA.16.002169.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from raremix.data.phantoms.canvas import Picture, Stroke, blur, curve, discs, grid, noise, sensor, step, strokes
from raremix.data.phantoms.skin_lesions import LESIONS, Frame, Lesion

CLASSES = tuple(LESIONS)
VIEWS = ("trunk", "back", "arm", "leg", "face")
MEAN_AGES = (42, 63, 60, 67, 66, 50, 48)

# Optical density per unit of pigment and of blood in red, green and blue, chosen by eye from photographs.
MELANIN = (0.50, 0.86, 1.10)
BLOOD = (0.07, 0.62, 0.46)
DERMIS = (0.97, 0.86, 0.81)
DEEP_BLUE = (0.36, 0.40, 0.50)
HAIR = (1.00, 0.82, 0.68)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A dermatoscope: gains of the camera, how dark the edge of its field is, and what it puts into the picture."""

    gains: tuple[float, float, float]
    contrast: float
    vignette: float
    field: float
    ruler: float
    gel: float


DEVICES = (
    Device(gains=(1.04, 0.96, 0.95), contrast=1.10, vignette=0.10, field=0.0, ruler=0.05, gel=0.5),
    Device(gains=(0.93, 0.93, 1.06), contrast=0.95, vignette=0.28, field=0.7, ruler=0.0, gel=0.1),
    Device(gains=(1.00, 0.99, 0.92), contrast=1.02, vignette=0.16, field=0.1, ruler=0.7, gel=0.3),
    Device(gains=(0.92, 0.98, 1.00), contrast=0.82, vignette=0.04, field=0.0, ruler=0.1, gel=0.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skin:
    """What the images of one patient share."""

    melanin: float
    blood: float
    mottle: float
    furrows: float
    freckles: int
    hairs: float
    hair_shade: float


def draw_patient(rng: np.random.Generator, *, age: int, is_female: bool) -> Skin:
    """Draw a patient's skin: mostly fair, as in the published collections, one in eight dark."""
    dark = rng.random() < 0.125
    return Skin(
        melanin=float(rng.uniform(0.45, 1.0) if dark else rng.beta(1.3, 3.0) * 0.45),
        blood=float(rng.uniform(0.08, 0.5)),
        mottle=float(rng.uniform(0.5, 1.0 + age / 90)),
        furrows=float(rng.uniform(0.2, 1.0)),
        freckles=int(rng.poisson(1.0 + age / 25)),
        hairs=float(rng.gamma(1.0, 2.0 if is_female else 4.0)),
        hair_shade=float(rng.uniform(0.08, 0.5)),
    )


def render(
    *,
    size: int,
    patient: Skin,
    findings: tuple[str, ...],
    view: str,
    device: int,
    difficulty: float,
    noise_level: float,
    streams: Callable[[int], np.random.Generator],
) -> Picture:
    """Render one image with the masks of its lesions.

    Args:
        size: pixels across.
        patient: from `draw_patient`.
        findings: lesion names; at most one here. Without any, the same scene is bare skin.
        view: body site.
        device: index into `DEVICES`.
        difficulty: in [0, 1]; fainter, smaller and less typical lesions, more hair.
        noise_level: standard deviation of the sensor noise, as a share of full scale.
        streams: random streams of this image by number: scene, lesion, sensor.
    """
    scene, sight = streams(0), DEVICES[device]
    focus = float(scene.uniform(0.004, 0.016))
    melanin, blood = _skin(patient, view, size, scene)
    colour = _shade(melanin, blood)
    masks: dict[str, Bool[np.ndarray, "S S"]] = {}
    for name in findings:
        lesion = _lesion(name, size, difficulty, focus, streams(1))
        colour = _put(colour, melanin, blood, lesion)
        masks[name] = lesion.alpha > 0.0
    colour = _artefacts(colour, patient, sight, difficulty, scene)
    seen = sensor(_camera(colour, sight, scene), noise=noise_level, rng=streams(2))
    return Picture(image=np.ascontiguousarray(seen.transpose(1, 2, 0)), masks=masks)


def _skin(
    patient: Skin, view: str, size: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, "S S"]]:
    mottle, fine, flush = noise(rng, size, 5, 13), noise(rng, size, 30), noise(rng, size, 4, 11, 23)
    furrows = np.exp(-((noise(rng, size, 23) / 0.3) ** 2)) + np.exp(-((noise(rng, size, 34) / 0.3) ** 2))
    places, radii = rng.uniform(-1, 1, (patient.freckles, 2)), rng.uniform(0.015, 0.06, patient.freckles)
    spots = blur(discs(places, radii, size, values=rng.uniform(0.2, 0.7, patient.freckles)), 0.02)
    redness = 0.15 if view == "face" else 0.0
    melanin = patient.melanin + patient.mottle * (0.025 * mottle + 0.02 * fine) + 0.07 * patient.furrows * furrows
    blood = patient.blood + redness + patient.mottle * 0.045 * flush - 0.03 * patient.furrows * furrows
    return np.maximum(melanin + 0.45 * spots, 0.0), np.maximum(blood, 0.0)


def _shade(melanin: Float[np.ndarray, "S S"], blood: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "3 S S"]:
    return _rgb(DERMIS) * np.exp(-(melanin * _rgb(MELANIN) + blood * _rgb(BLOOD)))


def _rgb(values: Sequence[float] | Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 1 1"]:
    return np.array(values)[:, None, None]


def _lesion(name: str, size: int, difficulty: float, focus: float, rng: np.random.Generator) -> Lesion:
    """Draw where a lesion lies and how plain it is, draw it, and bring it to the focus of the optics."""
    radius = float(np.exp(rng.uniform(np.log(0.30), np.log(0.62)))) * (1.08 - 0.16 * difficulty)
    angle, aspect = rng.uniform(0, 2 * np.pi), float(np.exp(rng.normal(0.0, 0.13)))
    centre = rng.uniform(-1, 1, 2) * min(0.22, 0.8 - radius)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(
        [radius * aspect, radius / aspect]
    )
    x, y = grid(size)
    back = np.linalg.inv(turn)
    bend_x, bend_y = 0.06 * noise(rng, size, 4, 10, 21), 0.06 * noise(rng, size, 4, 10, 21)
    dx, dy = x - centre[0] + radius * bend_x, y - centre[1] + radius * bend_y
    frame = Frame(
        size=size,
        centre=centre,
        radius=radius,
        turn=turn,
        u=back[0, 0] * dx + back[0, 1] * dy,
        v=back[1, 0] * dx + back[1, 1] * dy,
        typical=float(np.clip(1.0 - difficulty * rng.uniform(0.1, 1.1), 0.0, 1.0)),
    )
    strength = float(rng.uniform(0.75, 1.2)) * (1.1 - 0.45 * difficulty)
    raw = LESIONS[name](frame, rng)
    return Lesion(
        # What is fainter than the eye can see counts as outside, so that the mask fits what is seen.
        alpha=np.maximum(raw.alpha - 0.08, 0.0) / 0.92,
        melanin=strength * blur(raw.melanin, focus),
        blood=strength * blur(raw.blood, focus),
        blue=np.clip(strength * blur(raw.blue, focus), 0.0, 1.0),
        white=np.clip(strength * blur(raw.white, focus), 0.0, 1.0),
        tint=raw.tint,
    )


def _put(
    colour: Float[np.ndarray, "3 S S"],
    melanin: Float[np.ndarray, "S S"],
    blood: Float[np.ndarray, "S S"],
    lesion: Lesion,
) -> Float[np.ndarray, "3 S S"]:
    alpha = lesion.alpha
    inside = _shade(np.maximum(melanin + alpha * lesion.melanin, 0.0), np.maximum(blood + alpha * lesion.blood, 0.0))
    for cover, tint in ((lesion.blue, DEEP_BLUE), (lesion.white, lesion.tint)):
        share = alpha * cover
        # A cover takes the tone of the skin it lies in, or it would glow on dark skin.
        inside = inside * (1 - share) + _rgb(tint) * (share * (0.35 + 0.65 * colour[0]))
    return inside


def _artefacts(
    colour: Float[np.ndarray, "3 S S"], patient: Skin, sight: Device, difficulty: float, rng: np.random.Generator
) -> Float[np.ndarray, "3 S S"]:
    """Lay hairs, gel bubbles, glints and the marks of a ruler over the skin."""
    size = colour.shape[1]
    count = min(int(rng.poisson(patient.hairs * (0.4 + 1.2 * difficulty))), 40)
    if count:
        cover = strokes(_hairs(count, rng), size)
        colour = colour * (1 - cover) + cover * _rgb(HAIR) * patient.hair_shade
    shine = np.zeros(colour.shape[1:])
    if rng.random() < sight.gel:
        number = int(rng.integers(1, 7))
        places, radii = rng.uniform(-1, 1, (number, 2)), rng.uniform(0.02, 0.09, number)
        rim = np.maximum(discs(places, radii, size) - discs(places, radii * 0.8, size), 0.0)
        glint = discs(places - 0.35 * radii[:, None], radii * 0.22, size)
        shine = 0.13 * blur(rim, 0.006) + 0.6 * blur(glint, 0.006)
    glints = rng.uniform(-1, 1, (int(rng.poisson(4)), 2))
    shine = np.maximum(shine, 0.5 * discs(glints, rng.uniform(0.006, 0.016, len(glints)), size))
    colour = colour + shine * (1 - colour)
    if rng.random() < sight.ruler:
        colour = colour * (1 - 0.85 * strokes(_ruler(rng), size))
    return colour


def _hairs(count: int, rng: np.random.Generator) -> list[Stroke]:
    start, heading = rng.uniform(-1.1, 1.1, (count, 1, 2)), rng.uniform(0, 2 * np.pi, (count, 1))
    headings = heading + np.cumsum(rng.normal(0.0, 0.18, (count, 6)), axis=1)
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=-1) * rng.uniform(0.08, 0.36, (count, 1, 1))
    lines = curve(np.concatenate([start, start + np.cumsum(steps, axis=1)], axis=1), count=25)
    widths, values = rng.uniform(0.008, 0.02, count).tolist(), rng.uniform(0.45, 0.9, count).tolist()
    return [
        Stroke(points=points, width=(width, width * 0.5), value=value)
        for points, width, value in zip(lines, widths, values, strict=True)
    ]


def _ruler(rng: np.random.Generator) -> list[Stroke]:
    """Return millimetre ticks along one edge of the field, every fifth one longer."""
    turn = 0.5 * np.pi * int(rng.integers(4)) + float(rng.normal(0.0, 0.04))
    frame = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    x = np.arange(-1.2 + rng.uniform(0, 0.2), 1.2, rng.uniform(0.11, 0.17))
    tops = np.where(np.arange(len(x)) % 5 == 0, 0.83, 0.89)
    ticks = np.stack([np.stack([x, tops], axis=1), np.stack([x, np.full_like(x, 0.97)], axis=1)], axis=1) @ frame.T
    return [Stroke(points=ticks, width=(0.016, 0.016))]


def _camera(colour: Float[np.ndarray, "3 S S"], sight: Device, rng: np.random.Generator) -> Float[np.ndarray, "3 S S"]:
    """Light the scene and take the picture: gradient, vignette, dark edge of the field, white balance, contrast."""
    x, y = grid(colour.shape[1])
    tilt, offset = rng.normal(0.0, 0.05, 2), rng.normal(0.0, 0.06, 2)
    away = np.hypot(x - offset[0], y - offset[1])
    light = float(rng.uniform(0.90, 1.10)) * (1 + tilt[0] * x + tilt[1] * y - sight.vignette * 0.5 * away**2)
    edge, has_edge = float(rng.uniform(1.0, 1.38)), rng.random() < sight.field
    if has_edge:
        light = light * (0.03 + 0.97 * step(away, edge + 0.03, edge - 0.03))
    gains = _rgb(sight.gains * rng.normal(1.0, 0.035, 3))
    contrast = sight.contrast * float(rng.normal(1.0, 0.06))
    return np.clip(colour * gains * light, 0.0, 1.0) ** contrast
