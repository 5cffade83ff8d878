"""Whether a generator collapses: how far apart its images lie, and how many kinds of real ones they come near."""

from math import prod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.evaluate.generative.neighbourhoods import NEIGHBOURS, between, neighbourhoods, radii

SIDE = 16
"""Side in pixels of what is compared. On 64 real X-rays of 32 pixels the figures are much the same at 8 and at 32."""

COLLAPSED, COVERED, FALLEN = 0.25, 1 / 3, 0.5
"""Below which share of what real images reach drawn ones are called alike, or said to cover little; below which share
of the best during the fit coverage is said to have fallen.

Measured on 64 images of real children's chest X-rays: of three generators coverage was 0.61 to 1.01 and the distance of
neighbours 0.73 to 1.0, of two of their images again and again at most 0.22 and 0, of ten 0.22 to 0.66 and 0."""

LEAST = NEIGHBOURS + 1
"""Images that a neighbourhood needs."""


def figures_of(drawn: Float[Tensor, "m C H W"], real: Float[Tensor, "n C H W"]) -> dict[str, float]:
    """Compare drawn images of a class with real ones, in small pixels.

    Args:
        drawn, real: values in [0, 1].

    Returns:
        By name, where there are images enough; NaN where drawn images are not finite:
        diversity: mean difference of two drawn images, as a share of that of two real ones. It does not see that there
        are but a few images, if these differ;
        apart: median distance of a drawn image to the one most like it, as a share of that of as many real ones;
        coverage: share of the real images in whose neighbourhood a drawn one lies (`neighbourhoods`), as a share of
        what as many images of the same distribution would reach.

    Example:
        >>> real = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> found = figures_of(real[:2].repeat(32, 1, 1, 1), real)
        >>> round(found["diversity"], 2), round(found["apart"], 2), found["coverage"] < 0.2
        (0.53, 0.0, True)
    """
    if not bool(torch.isfinite(drawn).all()):
        return {"diversity": float("nan")}
    found, usual = {}, spread(real)
    if usual > 0:
        found["diversity"] = spread(drawn) / usual
    many = min(len(drawn), len(real))
    if many < LEAST:
        return found
    ours, theirs = (functional.adaptive_avg_pool2d(images, SIDE).flatten(1).numpy() for images in (drawn, real))
    near, usual = _nearest(ours[:many]), _nearest(theirs[:many])
    if usual > 1e-6:  # less is rounding
        found["apart"] = near / usual
        found["coverage"] = neighbourhoods(theirs, ours).coverage / expected_coverage(len(theirs), len(ours))
    return found


def expected_coverage(real: int, drawn: int, *, neighbours: int = NEIGHBOURS) -> float:
    """Return the coverage of as many images of one distribution.

    1 - (n - 1) ... (n - k) / ((m + n - 1) ... (m + n - k)): Naeem et al. 2020, https://arxiv.org/abs/2002.09797.

    Args:
        real, drawn: n and m.
        neighbours: k.

    Example:
        >>> round(expected_coverage(64, 64), 3), round(expected_coverage(64, 8), 3)
        (0.972, 0.46)
    """
    return 1 - prod((real - i) / (drawn + real - i) for i in range(1, neighbours + 1))


def notes_of(name: str, last: dict[str, float], best: float) -> list[str]:
    """Say in words what the figures of a class show to be wrong.

    Args:
        name: of the class.
        last: its figures at the end, as `figures_of` names them.
        best: its best coverage during the fit.
    """
    if min(last.get("diversity", 1.0), last.get("apart", 1.0)) < COLLAPSED:
        alike = f", and from the one most like it by {last['apart']:.0%}" if "apart" in last else ""
        return [
            f"{name}: a drawn image differs from another by {last.get('diversity', 1.0):.0%} of what real ones "
            f"do{alike}: collapsed"
        ]
    covered = last.get("coverage", 1.0)
    if covered < COVERED:
        return [
            f"{name}: drawn images come near {covered:.0%} of the real ones that others would: they show few of their "
            "kinds, or none as they look"
        ]
    if covered < FALLEN * best:
        return [
            f"{name}: drawn images came near {best:.0%} of the real ones that others would, and at the end "
            f"{covered:.0%}: collapsing; the grids in samples/ show when, and fewer steps end before"
        ]
    return []


def spread(images: Float[Tensor, "B C H W"]) -> float:
    """Return the mean absolute difference of all pairs of images."""
    flat = images.flatten(1)
    if len(flat) < 2:
        return 0.0
    return float(torch.cdist(flat, flat, p=1).sum() / (len(flat) * (len(flat) - 1) * flat.shape[1]))


def _nearest(rows: Float[np.ndarray, "n d"]) -> float:
    """Return the median distance of a row to the one nearest to it."""
    return float(np.sqrt(np.median(radii(between(rows, rows), 1))))
