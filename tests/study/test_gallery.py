"""The gallery: a picture for every method, or in words why there is none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from raremix.cli import app
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.mix import LEARNED_MIXERS, MIXERS
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
    assert set(found) == {*MIXERS, *LEARNED_MIXERS}
    assert done[-1] == (len(found), len(found))
    without = [name for name, said in found.items() if not said.endswith(".png")]
    assert without == ["automix"], "all but the one that needs a trained network"
    assert "trained beside a classifier" in found["automix"]
    page, listing = (tmp_path / "gallery.html").read_text(), (tmp_path / "index.md").read_text()
    assert page.count("real images stand in") == listing.count("real images stand in") == 1, "for genmix's partners"
    for name in found:
        assert name in page
        assert name in listing
    assert "src='http" not in page
    assert page.count("data:image/png;base64,") == len(MIXERS)


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


def test_transmix_shows_the_map_of_the_mixed_image(shown: tuple[StudySpec, Prepared]) -> None:
    """It looks at nothing else."""
    guided, plain = (draw_method(*shown, name, pairs=1, seed=0) for name in ("transmix", "cutmix"))
    assert guided.shape[1] == plain.shape[1] + SIDE + 6


def test_other_images_stand_in_for_synthetic_ones(shown: tuple[StudySpec, Prepared], tmp_path: Path) -> None:
    draw_gallery(*shown, tmp_path, names=("genmix", "mixup"), pairs=1, made_by="raremix show mixes mine/")
    listing = (tmp_path / "index.md").read_text()
    assert listing.index("## genmix") < listing.index("stand in") < listing.index("## mixup")
    assert "Made by `raremix show mixes mine/`" in listing


def test_what_cannot_be_drawn_says_why(shown: tuple[StudySpec, Prepared], tmp_path: Path) -> None:
    found = draw_gallery(*shown, tmp_path, names=("automix", "one_of"))
    assert found["automix"].startswith("not shown: automix draws its masks by a network")
    assert "made of other mixers" in found["one_of"]
    with pytest.raises(ConfigError, match="trained beside a classifier"):
        draw_method(*shown, "automix", pairs=1, seed=0)
    with pytest.raises(UnknownNameError, match="automix"):
        draw_gallery(*shown, tmp_path, names=("automixx",))


def test_the_command_knows_every_mixer(tmp_path: Path) -> None:
    """Those too that it cannot draw: it then says why."""
    asked = ["show", "mixes", "phantom", "--dry-run", "-o", str(tmp_path)]
    for name in ("genmix", "automix", "one_of"):
        assert CliRunner().invoke(app, [*asked, "-m", name]).exit_code == 0
    unknown = CliRunner().invoke(app, [*asked, "-m", "automixx"])
    assert isinstance(unknown.exception, UnknownNameError)


def test_the_page_names_the_command_that_made_it(tmp_path: Path) -> None:
    settings = ["--set", "data.images=150", "--set", "data.classes=3", "--pairs", "1"]
    places = ["--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]
    asked = ["show", "mixes", "phantom", "-m", "mixup", *settings, *places]
    assert CliRunner().invoke(app, asked).exit_code == 0
    said = "raremix show mixes phantom --method mixup --set data.images=150 --set data.classes=3 --pairs 1 --output "
    assert f"Made by `{said}{tmp_path / 'out'}`" in (tmp_path / "out" / "index.md").read_text()


def test_pictures_can_be_opened(shown: tuple[StudySpec, Prepared], tmp_path: Path) -> None:
    found = draw_gallery(*shown, tmp_path, names=("mixup",), pairs=1)
    with Image.open(found["mixup"]) as picture:
        assert picture.size[0] > 4 * SIDE
