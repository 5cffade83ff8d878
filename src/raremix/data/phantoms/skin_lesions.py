"""Seven kinds of skin lesion as maps of pigment, blood and cover, drawn by their dermatoscopic criteria.

The criteria are those of pattern analysis (Kittler et al., "Standardization of terminology in dermoscopy", JAAD 2016,
https://doi.org/10.1016/j.jaad.2015.12.038): pigment network, milia-like cysts, blue-white veil, arborising vessels,
rosettes, lacunae, central white patch. Shapes follow the criteria; amounts are made up, and carry no clinical meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from raremix.data.phantoms.canvas import Stroke, blur, curve, noise, step, strokes

Map = Float[np.ndarray, "S S"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where a lesion lies: its own coordinates, in which its outline is about the unit circle.

    Attributes:
        size: pixels across the image.
        centre: x, y in image coordinates.
        radius: geometric mean of the half axes.
        turn: (2, 2) matrix from lesion to image coordinates, about the centre.
        u, v: lesion coordinates of every pixel.
        typical: in [0, 1], how plainly the criteria show.
    """

    size: int
    centre: Float[np.ndarray, "2"]
    radius: float
    turn: Float[np.ndarray, "2 2"]
    u: Map
    v: Map
    typical: float

    def to_image(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Bring points from lesion to image coordinates."""
        return points @ self.turn.T + self.centre


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """What a lesion adds to the skin.

    Attributes:
        alpha: share of the lesion in each pixel, exactly 0 outside.
        melanin: added pigment; about 0.5 is light brown, 2.5 black.
        blood: added haemoglobin; about 0.5 is pink, 2 deep red.
        blue: cover by the blue-grey of deep pigment, in [0, 1].
        white: cover by keratin or scar, in [0, 1].
        tint: colour of the white cover.
    """

    alpha: Map
    melanin: Map
    blood: Map
    blue: Map
    white: Map
    tint: tuple[float, float, float] = (0.93, 0.88, 0.84)


def nevus(frame: Frame, rng: np.random.Generator) -> Lesion:
    """Draw a symmetric mole: even border, one or two browns, a regular network or globules that fade outwards."""
    depth = _depth(frame, rng, harmonics=(2, 3, 4), amount=0.045, rough=0.03)
    melanin, blood = _between(rng, 0.4, 1.5), _between(rng, 0.0, 0.75)
    cells = _between(rng, 7.5, 11.0)
    pattern = _network(frame, rng, cells=cells, warp=0.7)
    pattern = pattern if rng.random() < 0.65 else 1.0 - pattern
    rise, mottle = _between(rng, 0.4, 1.0), noise(rng, frame.size, 7, 15)
    body = 0.45 + 0.55 * step(depth, 0.0, rise) + 0.09 * mottle
    contrast = (0.08 + 0.55 * frame.typical) * (0.6 + 0.4 * step(noise(rng, frame.size, 5), -1.0, 0.6))
    return Lesion(
        alpha=step(depth, 0.0, _between(rng, 0.2, 0.5)),
        melanin=melanin * (0.95 * body + contrast * (pattern - 0.4)),
        blood=np.full_like(body, blood),
        blue=_between(rng, 0.0, 0.2) * step(depth, 0.2, 0.9),
        white=np.zeros_like(body),
    )


def keratosis(frame: Frame, rng: np.random.Generator) -> Lesion:
    """Draw a stuck-on warty plaque: sharp uneven border, fissures, milia-like cysts and comedo-like openings."""
    depth = _depth(frame, rng, harmonics=(2, 3, 5, 7, 9), amount=0.05, rough=0.07)
    melanin, blood = _between(rng, 0.3, 1.5), _between(rng, 0.0, 0.5)
    fissures = np.exp(-((noise(rng, frame.size, 9) / 0.25) ** 2)) + np.exp(-((noise(rng, frame.size, 14) / 0.25) ** 2))
    mottle = noise(rng, frame.size, 6, 13, 28)
    cysts = _spots(frame, rng, count=int(rng.integers(6, 15)), radius=(0.05, 0.10))
    openings = _spots(frame, rng, count=int(rng.integers(4, 10)), radius=(0.06, 0.13))
    shown = 0.3 + 0.7 * frame.typical
    return Lesion(
        alpha=step(depth, 0.0, _between(rng, 0.08, 0.2)),
        melanin=melanin * (0.75 + 0.45 * shown * (fissures - 0.4) + 0.16 * mottle) + 1.1 * shown * openings,
        blood=np.full_like(depth, blood),
        blue=np.clip(_between(rng, -0.15, 0.3) + 0.08 * mottle, 0.0, 1.0) * (1.0 - cysts),
        white=np.clip(0.10 + 0.05 * mottle + 0.75 * shown * cysts - 0.4 * openings, 0.0, 1.0),
        tint=(0.93, 0.84, 0.64),
    )


def melanoma(frame: Frame, rng: np.random.Generator) -> Lesion:
    """Draw an asymmetric lesion: irregular border, several colours, blotches, streaks, a blue-white veil."""
    wobble, rough = 0.07 + 0.07 * frame.typical, 0.06 + 0.07 * frame.typical
    depth = _depth(frame, rng, harmonics=(2, 3, 4, 5, 6), amount=wobble, rough=rough)
    for _ in range(int(rng.integers(1, 3))):
        lobe = rng.uniform(0.3, 0.7) * _direction(rng.uniform(0, 2 * np.pi))
        other = _depth(frame, rng, harmonics=(2, 3, 4, 5), amount=wobble, rough=rough, shift=lobe)
        depth = np.maximum(depth * rng.uniform(0.8, 1.0), 0.75 * other)
    blotches, veil, fade = noise(rng, frame.size, 4, 10), noise(rng, frame.size, 3, 8), noise(rng, frame.size, 3, 9)
    axis = _direction(rng.uniform(0, 2 * np.pi))
    slope = axis[0] * frame.u + axis[1] * frame.v
    net = _network(frame, rng, cells=_between(rng, 5.0, 7.0), warp=1.5)
    dark, light, blood = _between(rng, 0.7, 2.0), _between(rng, 0.25, 0.9), _between(rng, 0.0, 0.8)
    shown = 0.3 + 0.7 * frame.typical
    blotch = step(blotches + 0.8 * slope, -0.2, 1.1)
    streaks = _streaks(frame, rng) * step(depth, -0.35, 0.0)
    grain = noise(rng, frame.size, 17, 30)
    return Lesion(
        alpha=np.maximum(step(depth, 0.0, _between(rng, 0.12, 0.3)), 0.8 * streaks),
        melanin=light
        + dark * shown * blotch
        + (0.6 * (net - 0.4) * (1 - blotch) + 0.8 * streaks) * shown
        + 0.14 * grain,
        blood=blood * step(fade, -0.6, 1.2),
        blue=_between(rng, 0.2, 0.9) * shown * step(veil - 0.5 * slope, 0.0, 1.3) * step(depth, 0.0, 0.4),
        white=_between(rng, 0.0, 0.6) * shown * step(fade - 0.8 * slope, 0.5, 1.7),
        tint=(0.90, 0.80, 0.82),
    )


def carcinoma(frame: Frame, rng: np.random.Generator) -> Lesion:
    """Draw a pale pearly lesion with arborising vessels, blue-grey ovoid nests and, at times, a small ulcer."""
    depth = _depth(frame, rng, harmonics=(2, 3, 4, 5), amount=0.07, rough=0.09)
    shown = 0.4 + 0.6 * frame.typical
    vessels = strokes(_trees(frame, rng, trunks=int(rng.integers(3, 6))), frame.size)
    nests = _spots(frame, rng, count=int(rng.integers(0, 7)), radius=(0.12, 0.30), ring=(0.25, 0.9), soft=0.6)
    ulcer = _spots(frame, rng, count=int(rng.random() < 0.4), radius=(0.12, 0.28), ring=(0.0, 0.5), soft=0.5)
    pearl, patch = noise(rng, frame.size, 5, 12), noise(rng, frame.size, 5, 11)
    pigment = _between(rng, 0.0, 0.6) * step(patch, -0.2, 1.4)
    blood = _between(rng, 0.1, 0.7)
    return Lesion(
        alpha=step(depth, 0.0, _between(rng, 0.25, 0.5)),
        melanin=pigment + 1.1 * ulcer + 0.3 * nests,
        blood=blood * (1.0 + 0.25 * pearl) + 1.6 * shown * vessels + 0.9 * ulcer,
        blue=_between(rng, 0.4, 0.85) * shown * nests,
        white=np.clip((0.14 + 0.15 * pearl) * (1 - vessels) * (1 - nests), 0.0, 0.6),
        tint=(0.95, 0.86, 0.86),
    )


def actinic(frame: Frame, rng: np.random.Generator) -> Lesion:
    """Draw a scaly pink patch without a clear border: red pseudo-network around pale follicles, and flakes."""
    depth = _depth(frame, rng, harmonics=(2, 3, 4, 5, 6), amount=0.09, rough=0.16)
    shown = 0.35 + 0.65 * frame.typical
    follicles = step(1.0 - _network(frame, rng, cells=_between(rng, 6.0, 8.5), warp=1.2), 0.35, 1.0)
    patch, pigment = noise(rng, frame.size, 5, 11), noise(rng, frame.size, 4, 9)
    blood = _between(rng, 0.35, 1.1)
    flakes = step(noise(rng, frame.size, 20) + 0.6 * patch, 0.6, 1.7)
    return Lesion(
        alpha=step(depth, -0.1, _between(rng, 0.3, 0.55)),
        melanin=_between(rng, 0.0, 1.0) * step(pigment, -0.2, 1.5) * (1 - 0.5 * follicles),
        blood=np.maximum(blood * (1.0 - 0.5 * shown * follicles + 0.3 * patch), 0.0),
        blue=np.zeros_like(depth),
        white=np.clip(0.27 * shown * follicles + 0.65 * shown * flakes, 0.0, 0.8),
        tint=(0.94, 0.87, 0.74),
    )


def vascular(frame: Frame, rng: np.random.Generator) -> Lesion:
    """Draw a cluster of well-defined red to maroon lagoons with pale septa between them."""
    depth = _depth(frame, rng, harmonics=(2, 3, 5), amount=0.06, rough=0.05)
    count = int(rng.integers(7, 17))
    turn, spread = rng.uniform(0, 2 * np.pi), np.sqrt((np.arange(count) + 0.5) / count)
    angle = turn + 2.399963 * np.arange(count) + rng.uniform(-0.35, 0.35, count)  # golden angle: even packing
    points = 0.84 * spread[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    near = _near(frame, points, rng.uniform(0.8, 1.2, count) * 1.05 / np.sqrt(count), soft=0.35)
    shades = rng.uniform(0.1, 1.0, count)
    lagoons, shade = near.max(axis=0), shades[near.argmax(axis=0)]
    shown = 0.45 + 0.55 * frame.typical
    deep, blood, mottle = _between(rng, 0.0, 0.6), _between(rng, 1.1, 2.6), noise(rng, frame.size, 8, 18)
    return Lesion(
        alpha=step(depth, 0.0, _between(rng, 0.12, 0.3)),
        melanin=deep * shade * lagoons,
        blood=0.35 + blood * (0.45 * (1 - shown) + shown * lagoons * (0.65 + 0.35 * shade)) + 0.08 * mottle,
        blue=_between(rng, 0.0, 0.6) * lagoons * shade,
        white=0.35 * shown * (1 - lagoons),
        tint=(0.88, 0.72, 0.76),
    )


def fibroma(frame: Frame, rng: np.random.Generator) -> Lesion:
    """Draw a firm nodule: a central white scar-like patch inside a ring of delicate light-brown network."""
    depth = _depth(frame, rng, harmonics=(2, 3, 4), amount=0.05, rough=0.05)
    net = _network(frame, rng, cells=_between(rng, 9.0, 11.0), warp=0.8)
    shown = 0.4 + 0.6 * frame.typical
    core, scar, patchy = _between(rng, 0.4, 0.62), noise(rng, frame.size, 7, 16), noise(rng, frame.size, 5, 12)
    ring = step(depth, 0.0, 0.3) * step(depth, core + 0.3, core - 0.25) * (1.0 + 0.25 * patchy)
    patch = step(depth + 0.13 * scar, core - 0.15, core + 0.45)
    melanin, blood = _between(rng, 0.5, 1.2), _between(rng, 0.1, 0.7)
    return Lesion(
        alpha=step(depth, 0.0, _between(rng, 0.3, 0.6)),
        melanin=melanin * (ring * (0.8 + 0.6 * shown * (net - 0.4)) + 0.5 * (1 - shown)),
        blood=blood * (0.6 + 0.4 * step(depth, 0.0, 0.6) + 0.1 * patchy),
        blue=np.zeros_like(depth),
        white=np.clip(_between(rng, 0.6, 0.9) * shown * patch * (0.85 + 0.25 * scar), 0.0, 0.9),
        tint=(0.95, 0.85, 0.87),
    )


LESIONS: dict[str, Callable[[Frame, np.random.Generator], Lesion]] = {
    "nevus": nevus,
    "keratosis": keratosis,
    "melanoma": melanoma,
    "carcinoma": carcinoma,
    "actinic": actinic,
    "vascular": vascular,
    "fibroma": fibroma,
}


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _direction(angle: float) -> Float[np.ndarray, "2"]:
    return np.array([np.cos(angle), np.sin(angle)])


def _depth(
    frame: Frame,
    rng: np.random.Generator,
    *,
    harmonics: tuple[int, ...],
    amount: float,
    rough: float,
    shift: Float[np.ndarray, "2"] | None = None,
) -> Map:
    """Return how deep a pixel lies inside an outline: 1 at the centre, 0 at the border, negative outside.

    Args:
        frame: where the lesion lies.
        rng: the stream.
        harmonics: waves around the outline.
        amount: their amplitude, as a share of the radius.
        rough: amplitude of the fine unevenness of the border.
        shift: where the centre lies instead, in lesion coordinates.
    """
    u, v = (frame.u, frame.v) if shift is None else (frame.u - shift[0], frame.v - shift[1])
    away = np.hypot(u, v)
    # Powers of the unit direction are the waves around the outline, at a tenth of the cost of cosines.
    direction = (u + 1j * v) / np.maximum(away, 1e-9)
    wave, border = direction, np.ones_like(away)
    for order in range(2, max(harmonics) + 1):
        wave = wave * direction
        if order in harmonics:
            size = amount * rng.normal(1.0, 0.35) / order**0.35
            border += (size * np.exp(1j * rng.uniform(0, 2 * np.pi)) * wave).real
    return 1.0 - away / np.maximum(border, 0.2) + rough * noise(rng, frame.size, 9, 19)


def _network(frame: Frame, rng: np.random.Generator, *, cells: float, warp: float) -> Map:
    """Return a honeycomb of lines, 1 on a line and 0 in a hole, with about `cells` holes across the lesion."""
    turn = rng.uniform(0, np.pi / 3)
    bend_u, bend_v = warp * noise(rng, frame.size, 5, 12), warp * noise(rng, frame.size, 5, 12)
    wave = np.zeros_like(frame.u)
    for arm in range(3):
        along = _direction(turn + arm * np.pi / 3)
        wave += np.cos(
            np.pi * cells * (along[0] * frame.u + along[1] * frame.v) + along[0] * bend_u + along[1] * bend_v
        )
    return 1.0 - step(wave, -1.1, 1.3)


def _near(
    frame: Frame, points: Float[np.ndarray, "n 2"], radii: Float[np.ndarray, " n"], *, soft: float
) -> Float[np.ndarray, "n S S"]:
    """Return for each point of the lesion a spot of that radius, with the share `soft` of it as a soft rim."""
    away = np.hypot(frame.u - points[:, 0, None, None], frame.v - points[:, 1, None, None]) / radii[:, None, None]
    return step(away, 1.0 + soft / 2, 1.0 - soft / 2)


def _spots(
    frame: Frame,
    rng: np.random.Generator,
    *,
    count: int,
    radius: tuple[float, float],
    ring: tuple[float, float] = (0.0, 0.85),
    soft: float = 0.7,
) -> Map:
    """Return soft spots at random places between two relative distances from the centre."""
    angle = rng.uniform(0, 2 * np.pi, count)
    away = np.sqrt(rng.uniform(ring[0] ** 2, ring[1] ** 2, count))
    points = away[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return _near(frame, points, rng.uniform(*radius, count), soft=soft).max(axis=0, initial=0.0)


def _streaks(frame: Frame, rng: np.random.Generator) -> Map:
    """Return radial streaks over a sector of the border."""
    middle, count = rng.uniform(0, 2 * np.pi), int(rng.integers(6, 14))
    lines = []
    for angle in middle + rng.uniform(-1.1, 1.1, count):
        ends = np.array([rng.uniform(0.5, 0.8), rng.uniform(0.95, 1.3)])
        lean = _direction(angle + np.pi / 2) * rng.normal(0.0, 0.08)
        points = frame.to_image(ends[:, None] * _direction(angle) + np.array([[0.0], [1.0]]) * lean)
        wide = frame.radius * rng.uniform(0.07, 0.14)
        lines.append(Stroke(points=points, width=(wide, 0.4 * wide), value=rng.uniform(0.5, 1.0)))
    return blur(strokes(lines, frame.size), 0.016)


def _trees(frame: Frame, rng: np.random.Generator, *, trunks: int) -> list[Stroke]:
    """Return vessels that enter at the border, wind inwards, branch and taper."""
    lines = []
    start = rng.uniform(0, 2 * np.pi)
    for trunk in range(trunks):
        angle = start + 2 * np.pi * trunk / trunks + rng.uniform(-0.4, 0.4)
        stack = [(1.05 * _direction(angle), angle + np.pi + rng.uniform(-0.5, 0.5), rng.uniform(0.05, 0.085), 0)]
        while stack:
            at, heading, width, level = stack.pop()
            length = rng.uniform(0.55, 1.0) / (1 + 0.5 * level)
            headings = heading + np.cumsum(rng.normal(0.0, 0.38, 5))
            moves = np.cumsum(np.stack([np.cos(headings), np.sin(headings)], 1) * length / 5, axis=0)
            points = curve(np.concatenate([at[None], at + moves]), count=13)
            widths = (frame.radius * width, frame.radius * width * 0.5)
            lines.append(Stroke(points=frame.to_image(points), width=widths, value=1.0 - 0.15 * level))
            if level < 2:
                for fork in (-1, 1):
                    where = points[int(rng.integers(5, 12))]
                    stack.append((where, headings[-1] + fork * rng.uniform(0.4, 1.0), width * 0.62, level + 1))
    return lines
