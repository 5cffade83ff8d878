"""What a study asks of its own generators, found wrong before anything is fitted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.study.generators.generator_studies import DCGAN, DIFFERENCE, RARE, STARS, study

from raremix.config import write_toml
from raremix.core.errors import ConfigError, HeldOutError, UnknownNameError
from raremix.core.fitted import write_fitted
from raremix.generate import GENERATORS
from raremix.study import plan_study
from raremix.study.fitted import rows_of
from raremix.study.generators.asks import can_begin_with_images, can_begin_with_noise
from raremix.study.generators.use import fitting_drawing
from raremix.study.prepare import prepare

pytestmark = pytest.mark.usefixtures("no_fsync")

PIXELS = {"name": "pixels", "method": {"name": "diffusion", "width": 8}}
LATENT = {"name": "base", "method": {"name": "latent_diffusion", "width": 8, "text_width": 32, "autoencoder_width": 8}}
TOKEN = {"name": "token", "method": {"name": "textual_inversion", "weights": "base"}}


def adds(generator: str, **more: Any) -> dict[str, Any]:
    return {"name": "a", "images": {"generator": generator, **more}}


def mixes(translator: Any, **more: Any) -> dict[str, Any]:
    return {"name": "v", "mix": {"name": "varimix", "importance": {**DIFFERENCE, "translator": translator, **more}}}


def data(**more: Any) -> dict[str, Any]:
    return {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 3, "size": 32, "channels": 1, **more}


@pytest.mark.parametrize(
    ("generator", "arm", "words"),
    [
        (PIXELS, adds("pixels", draw={"strenght": 0.5}), r"arm\.a\.images\.draw 'strenght': did you mean 'strength'"),
        (PIXELS, adds("pixels", draw={"strength": 2.0}), r"arm\.a\.images\.draw: strength must be .* at most 1"),
        (PIXELS, adds("pixels", draw={"solver": "euler"}), r"arm\.a\.images\.draw\.solver = 'euler'"),
        (PIXELS, adds("pixels", draw={"num_inference_steps": "many"}), r"draw\.num_inference_steps = 'many'"),
        (
            PIXELS,
            adds("pixels", draw={"truncation": 0.5}),
            "known: guidance_scale, num_inference_steps, precision, solver, stren",
        ),
        (DCGAN, adds("dcgan", draw={"truncation": 0.5}), "known: none"),
        (DCGAN, adds("dcgan", begin="own"), r'arm\.a\.images\.begin = "own": dcgan is a dcgan.*diffusion, .*stargan'),
        (DCGAN, adds("dcgan", begin="others"), r"draws from noise alone"),
        (STARS, adds("stars", begin="noise"), r'arm\.a\.images\.begin = "noise": stars is a stargan.*dcgan'),
        (STARS, adds("stars", draw={"style": "baroque"}), r"draw\.style = 'baroque'"),
        (STARS, mixes({"name": "stars", "stile": "mean"}), r"arm\.v\.mix 'stile': did you mean 'style'"),
        (STARS, mixes({"name": "stars", "style": "baroque"}), r"arm\.v\.mix\.style = 'baroque'"),
        (STARS, mixes("stars", robust="perhaps"), r"difference\.robust = 'perhaps'"),
        (DCGAN, mixes("dcgan"), r"translator of arm\.v\.mix = 'dcgan' is a dcgan.*diffusion, .*stargan"),
    ],
)
def test_what_arms_ask_is_checked_when_the_file_is_read(
    generator: dict[str, Any], arm: dict[str, Any], words: str
) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        study(generator=[generator], arm=[arm])


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"data": data(bits=16)}, r"data\.bits = 16: generators draw 8-bit images: set data\.bits = 8"),
        ({"data": {"source": "table", "path": "x.csv", "label": "dx", "size": 600}}, "17 to 512 pixels a side, got 60"),
        ({"generator": [DCGAN, {**TOKEN, "method": {**TOKEN["method"], "weights": "dcgan"}}]},
         r"generator\.token: method\.weights = 'dcgan' is a dcgan, and textual_inversion begins with a latent"),
        ({"generator": [LATENT, {"name": "token", "method": {"name": "latent_diffusion", "weights": "base"}}]},
         "latent_diffusion begins with no generator of the study"),
    ],
)  # fmt: skip
def test_so_is_what_generators_are_fitted_with(tables: dict[str, Any], words: str) -> None:
    arms = [adds("token")] if "generator" in tables else [adds("dcgan")]
    with pytest.raises(ConfigError, match=words):
        study(**{"arm": arms, **tables})


def test_what_fits_passes() -> None:
    study(generator=[PIXELS], arm=[adds("pixels", begin="own", draw={"strength": 0.5, "num_inference_steps": 3})])
    study(generator=[STARS], arm=[adds("stars", begin="others", draw={"style": "mean"}), mixes({"name": "stars"})])
    study(generator=[DCGAN], arm=[adds("dcgan", begin="noise")])
    study(generator=[LATENT, TOKEN], arm=[adds("token", begin="own")])


def test_every_method_names_what_draws() -> None:
    both = [(name, can_begin_with_noise(made()), can_begin_with_images(made())) for name, made in GENERATORS.items()]
    assert both == [
        ("dcgan", True, False),
        ("diffusion", True, True),
        ("latent_diffusion", True, True),
        ("stargan", False, True),
        ("stylegan2", True, False),
        ("textual_inversion", True, True),
    ]
    assert fitting_drawing(GENERATORS["stylegan2"]().drawer_class, {"truncation": 1}) == {"truncation": 1.0}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"arm": [adds("dcgan", classes=["melanom"])]}, "unknown class of images 'melanom'"),
        ({"generator": [{**DCGAN, "without": ["x"]}], "arm": [adds("dcgan")]}, "unknown class to leave out 'x'"),
        ({"generator": [{**DCGAN, "force": ["x"]}], "arm": [adds("dcgan")]}, "unknown class to force 'x'"),
        ({"generator": [{**DCGAN, "without": [RARE]}], "arm": [adds("dcgan")]}, f"asks dcgan for {RARE}, which it is"),
        ({"generator": [LATENT, {**TOKEN, "method": {**TOKEN["method"], "learn": ["x"]}}], "arm": [adds("token")]},
         r"generator\.learn: 'x' is no class"),
        ({"generator": [{**LATENT, "method": {**LATENT["method"], "prior": "x"}}], "arm": [adds("base")]},
         r"generator\.prior = 'x'"),
        ({"generator": [{**LATENT, "method": {**LATENT["method"], "weights": "nowhere"}}], "arm": [adds("base")]},
         r"generator\.weights = '.*nowhere'"),
        ({"generator": [{**STARS, "method": {**STARS["method"], "classifier": 1.0}}], "arm": [adds("stars")]},
         "stars: method.classifier > 0 needs a trained classifier"),
        ({"data": data(multilabel=True, modality="chest_xray"), "generator": [STARS], "arm": [mixes("stars")]},
         "several findings per image"),
    ],
)  # fmt: skip
def test_what_the_data_refuse_is_found_when_a_study_is_planned(
    tmp_path: Path, tables: dict[str, Any], words: str
) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        plan_study(study(**tables), runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert not (tmp_path / "runs").exists()


def test_what_saw_held_out_rows_is_refused_before_the_first_fit(tmp_path: Path) -> None:
    plain = prepare(study(), cache=tmp_path / "cache")
    write_fitted(tmp_path / "judge", {"train": rows_of(plain.manifest, plain.manifest.rows("test"))})
    judged = {**STARS, "classifier": str(tmp_path / "judge")}
    with pytest.raises(HeldOutError, match=r"what stars begins with \(before/classifier\) was fitted on"):
        plan_study(
            study(generator=[DCGAN, judged], arm=[adds("dcgan"), mixes("stars")]),
            runs=tmp_path / "runs",
            cache=tmp_path / "cache",
        )


def test_a_dry_run_finds_it_too(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    table = {
        "data": data(),
        "generator": [PIXELS],
        "arm": [{"name": "plain"}, adds("pixels", draw={"strenght": 0.5})],
    }
    (tmp_path / "s.toml").write_text(write_toml(table))
    code, _, said = run("study", tmp_path / "s.toml", "--dry-run", "--runs", tmp_path / "runs")
    assert (code, "did you mean 'strength'" in " ".join(said.split())) == (2, True), said
