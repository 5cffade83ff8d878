"""Images by their numbers: the same whichever are drawn beside them, and however many at once."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.generate.toys import FORM, METHODS

from raremix.core.memory import InParts
from raremix.core.random import rng
from raremix.generate.sampling import redraw, sample

TRANSLATORS = ("stargan", "diffusion", "latent_diffusion")


def drawer_of(name: str, **extras: Any) -> Any:
    method = METHODS[name]
    networks = method.networks(FORM, seed=0)
    return method.drawer({part: networks[part].eval() for part in method.kept}, FORM, extras=extras)


@pytest.mark.parametrize("name", [*TRANSLATORS, "stargan reference"])
def test_a_translation_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    styles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    drawer = drawer_of("stargan", styles=styles) if name == "stargan reference" else drawer_of(name)
    images = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    wanted, streams = torch.eye(2)[[0, 1, 1, 0, 1]], [(1, n) for n in range(5)]
    whole = redraw(drawer, images, wanted, streams, seed=3, parts=InParts())
    for i in range(5):
        one = slice(i, i + 1)
        alone = redraw(drawer, images[one], wanted[one], streams[one], seed=3, parts=InParts())
        assert torch.allclose(alone[0], whole[i], atol=1e-4)
        plain = drawer(images[one], wanted[one], rng=rng(3, "latent", 1, i))
        assert torch.allclose(plain[0], alone[0], atol=1e-4), "no draw that the rows' streams do not make"
    halved = redraw(drawer, images, wanted, streams, seed=3, parts=InParts(most=2))
    assert torch.allclose(halved, whole, atol=1e-4)
    other = redraw(drawer, images, wanted, [(1, n + 5) for n in range(5)], seed=3, parts=InParts())
    assert not torch.allclose(other, whole, atol=1e-4), "the stream matters"


def test_where_memory_runs_out_images_are_drawn_in_parts() -> None:
    class Tight:
        latent = 3

        def generate(self, targets: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            if len(latents) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return latents.abs()[:, :, None, None].expand(-1, -1, 2, 2)

    class Roomy(Tight):
        def generate(self, targets: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            return latents.abs()[:, :, None, None].expand(-1, -1, 2, 2)

    asked: dict[str, Any] = {"label": 0, "classes": 2, "numbers": np.arange(20), "seed": 1}
    tight, roomy = (np.concatenate([images for _, images in sample(one, **asked)]) for one in (Tight(), Roomy()))
    assert (tight == roomy).all()
    assert len(tight) == 20
