"""The gallery: a picture for every method, or in words why there is none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raremix.core.errors import ConfigError
from raremix.mix import MIXERS
from raremix.study.defaults import study_of
from raremix.study.gallery import BATCH, SIDE, draw_gallery, draw_method
from raremix.study.prepare import Prepared, prepare
from raremix.study.spec import StudySpec


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudySpec, Prepared]:
    spec = study_of("phantom", settings=["data.images=150", "data.classes=3", "data.imbalance_ratio=5", "data.size=32"])
    return spec, prepare(spec, cache=tmp_path_factory.mktemp("cache"))


def test_every_method_has_its_picture(shown: tuple[StudySpec, Prepared], tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    found = draw_gallery(*shown, tmp_path, progress=lambda what, at, total: done.append((at, total)))
    assert set(found) == set(MIXERS)
    assert done[-1] == (len(MIXERS), len(MIXERS))
    without = [name for name, said in found.items() if not said.endswith(".png")]
    assert without == ["genmix"], "all but the one that needs synthetic images"
    assert "synthetic" in found["genmix"]
    page, listing = (tmp_path / "gallery.html").read_text(), (tmp_path / "index.md").read_text()
    for name in MIXERS:
        assert name in page
        assert name in listing
    assert "src='http" not in page
    assert page.count("data:image/png;base64,") == len(MIXERS) - 1


def test_a_row_shows_own_partner_mask_and_result(shown: tuple[StudySpec, Prepared]) -> None:
    """The pixels of the result are those of own where the mask is white, and of the partner where it is black."""
    sheet = draw_method(*shown, "cutmix", pairs=2, seed=0)
    cells = [sheet[18 : 18 + SIDE, 6 + i * (SIDE + 6) : 6 + i * (SIDE + 6) + SIDE].astype(int) for i in range(4)]
    own, partner, mask, result = cells
    white, black = (mask == 255).all(axis=2), (mask == 0).all(axis=2)
    assert 0.05 < white.mean() < 0.95
    assert (white | black).all()
    assert np.array_equal(result[white], own[white])
    assert np.array_equal(result[black], partner[black])


def test_guided_methods_show_their_maps(shown: tuple[StudySpec, Prepared]) -> None:
    guided, plain = (draw_method(*shown, name, pairs=1, seed=0) for name in ("saliencymix", "cutmix"))
    assert guided.shape[1] == plain.shape[1] + 2 * (SIDE + 6)
    assert BATCH >= 1


def test_a_method_without_images_says_what_it_needs(shown: tuple[StudySpec, Prepared]) -> None:
    with pytest.raises(ConfigError, match="synthetic"):
        draw_method(*shown, "genmix", pairs=1, seed=0)


def test_pictures_can_be_opened(shown: tuple[StudySpec, Prepared], tmp_path: Path) -> None:
    found = draw_gallery(*shown, tmp_path, names=("mixup",), pairs=1)
    with Image.open(found["mixup"]) as picture:
        assert picture.size[0] > 4 * SIDE
