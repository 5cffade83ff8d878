"""Textual inversion: only the rows of the new tokens are trained, and diffusers loads them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.generate.test_latent_diffusion import batch, drawn_by, pipeline_at, state
from tests.generate.toys import FORM, SPEC, run, same, write_tiny_pipeline
from torch import nn

from raremix.core.errors import ConfigError
from raremix.core.protocols import Trainable
from raremix.generate import Form, GeneratorMethod, TextualInversion, WordedMethod, export
from raremix.generate.latent_diffusion import parts_of
from raremix.generate.latent_weights import read_parts
from raremix.generate.tokens import Rows, check_tokens, embeddings_of, spelled

pytestmark = pytest.mark.usefixtures("no_fsync")

WORDS = {"modality": "medical", "data": "toy"}
CLASSES = ("common", "Rare_lesion")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Stable Diffusion's format, as diffusers wrote it."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")


def method(base: Path, **changes: Any) -> TextualInversion:
    few: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 3.0, "vectors": 3, **changes}
    return TextualInversion(weights=str(base), **few).told(WORDS, CLASSES)


def test_rows_by_hand() -> None:
    words = nn.Embedding.from_pretrained(torch.tensor([[1.0], [2.0]]))
    rows = Rows(words, torch.tensor([[10.0], [20.0]]), first=2)
    found = rows(torch.tensor([[0, 3], [2, 1]]))
    assert found.flatten().tolist() == [1, 20, 10, 2]
    found.sum().backward()
    assert rows.rows.grad is not None
    assert rows.rows.grad.flatten().tolist() == [1, 1]


def test_tokens_and_prompts(base: Path) -> None:
    made = method(base)
    assert made.table == {"common": "<common>", "Rare_lesion": "<rare-lesion>"}
    assert made.prompts == ("a medical image of <common>", "a medical image of <rare-lesion>")
    assert spelled(made.prompts[0], made.table, vectors=3) == "a medical image of <common> <common>_1 <common>_2"
    one = method(base, learn=("Rare_lesion",))
    assert one.prompts == ("a medical image of common", "a medical image of <rare-lesion>")
    assert one.table == {"Rare_lesion": "<rare-lesion>"}
    assert isinstance(made, GeneratorMethod)
    assert isinstance(made, WordedMethod)


def test_vectors_begin_as_the_words_of_the_class(base: Path) -> None:
    parts = read_parts(base)
    numbers = parts.tokenizer("common", add_special_tokens=False).input_ids
    assert len(numbers) == 1
    expected = parts.text.get_input_embeddings().weight[numbers]
    made = method(base, learn=("common",))
    rows = embeddings_of(parts_of(made.networks(FORM, seed=0)))["<common>"]
    assert torch.equal(rows, expected.expand(3, -1))
    other = method(base, learn=("common",), initial="lesion image")
    numbers = parts.tokenizer("lesion image", add_special_tokens=False).input_ids
    rows = embeddings_of(parts_of(other.networks(FORM, seed=0)))["<common>"]
    assert torch.equal(rows, parts.text.get_input_embeddings().weight[[numbers[0], numbers[1], numbers[0]]])


def test_only_the_rows_are_trained(base: Path) -> None:
    made = method(base)
    networks = made.networks(FORM, seed=0)
    assert list(networks["network"].state_dict()) == ["text/embeddings/token_embedding/rows"]
    before = state(parts_of(networks))
    training = made.training(networks, FORM, seed=0)
    assert isinstance(training, Trainable)
    for step in range(2):
        training.optimizers["network"].zero_grad()
        training.loss("network", batch(), step=step)["loss"].backward()
        training.optimizers["network"].step()
    after = state(parts_of(networks))
    changed = {
        f"{part}.{key}"
        for part in before
        for key in before[part]
        if not torch.equal(before[part][key], after[part][key])
    }
    assert changed == {"text.embeddings.token_embedding.rows"}
    moved = before["text"]["embeddings.token_embedding.rows"] != after["text"]["embeddings.token_embedding.rows"]
    assert bool(moved.any(dim=1).all()), "every vector of every token"


def test_one_class_moves_one_token(base: Path) -> None:
    made = method(base)
    networks = made.networks(FORM, seed=0)
    before = embeddings_of(parts_of(networks))
    before = {token: rows.clone() for token, rows in before.items()}
    training = made.training(networks, FORM, seed=0)
    given = batch(2)
    given = replace(given, targets=torch.eye(2)[[1, 1]])
    training.loss("network", given, step=0)["loss"].backward()
    training.optimizers["network"].step()
    after = embeddings_of(parts_of(networks))
    assert torch.equal(before["<common>"], after["<common>"])
    assert not torch.equal(before["<rare-lesion>"], after["<rare-lesion>"])


def test_resumed_to_the_same_bits(base: Path, tmp_path: Path) -> None:
    spec = replace(SPEC, steps=4, checkpoints=4)
    whole = run(method(base), tmp_path / "whole", spec=spec)
    assert run(method(base), tmp_path / "cut", stop_at=2, spec=spec) is None
    rest = run(method(base), tmp_path / "cut", spec=spec)
    assert whole is not None
    assert rest is not None
    assert same(rest.weights, whole.weights)
    assert sum(tensor.numel() for tensor in rest.weights["network"].values()) == 2 * 3 * 32


def test_diffusers_loads_the_tokens_and_draws_the_same(base: Path, tmp_path: Path) -> None:
    made, rgb = method(base, solver="ddim"), Form(size=32, channels=3, classes=2)
    networks = made.networks(rgb, seed=0)
    with torch.no_grad():
        next(networks["network"].parameters()).add_(torch.randn(6, 32, generator=torch.Generator().manual_seed(0)))
    drawer = replace(made.drawer(networks, rgb), precision="32")
    folder = export(drawer, made, tmp_path / "tokens")
    assert folder is not None
    assert json.loads((folder / "tokens.json").read_text()) == made.table
    assert load_file(folder / "common.safetensors")["<common>"].shape == (3, 32)
    pipeline = pipeline_at(base)
    for name in ("common", "rare-lesion"):
        pipeline.load_textual_inversion(folder, weight_name=f"{name}.safetensors", use_safetensors=True)
    latents = torch.randn(2, drawer.latent, generator=torch.Generator().manual_seed(3))
    ours = drawer.generate(torch.eye(2), latents)
    assert torch.allclose(drawn_by(pipeline, drawer, latents, list(made.prompts)), ours, atol=1e-3)
    plain = drawn_by(pipeline_at(base), drawer, latents, ["a medical image of common"] * 2)
    assert not torch.allclose(plain, ours, atol=1e-2)


# What is refused


def test_settings_that_do_not_fit(base: Path) -> None:
    for settings, words in (
        ({"vectors": 0}, "vectors must be at least 1"),
        ({"prompt": "an image of {class}"}, r"the field \{class\} is not known; there are \{token\}"),
        ({"prompt": "an image"}, "nothing is learnt without"),
        ({"strength": 2.0}, "at most 1"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ):
        with pytest.raises(ConfigError, match=words):
            TextualInversion(**settings)  # type: ignore[arg-type]
    for settings, words in (
        ({"learn": ("melanoma",)}, "is no class; there are common"),
        ({"table": {"common": "<x>", "Rare_lesion": "<x>"}}, "no two alike"),
        ({"table": {"other": "<x>"}}, "expected one token for each"),
        ({"prompts": ("a <common>", "a rare lesion")}, "without its token <rare-lesion>"),
    ):
        with pytest.raises(ConfigError, match=words):
            method(base, **settings)
    with pytest.raises(ConfigError, match=r"needs a model: --set generator\.weights=FOLDER"):
        TextualInversion().told(WORDS, CLASSES)
    with pytest.raises(ConfigError, match="a token or a prompt for every class"):
        TextualInversion(weights=str(base)).networks(FORM, seed=0)


def test_tokens_are_checked_before_anything_is_drawn(base: Path, tmp_path: Path) -> None:
    made = method(base)
    networks = made.networks(FORM, seed=0)
    lacking = replace(made, table={**(made.table or {}), "common": "<commun>"}, prompts=("a <commun>", made.prompts[1]))
    with pytest.raises(ConfigError, match="the tokenizer does not know <commun>, the token of 'common'"):
        lacking.drawer(networks, FORM)
    check_tokens({"common": "<x>"}, {"common": "an <x>"})
    with pytest.raises(ConfigError, match="without its token"):
        check_tokens({"common": "<x>"}, {"common": "an image"})


@pytest.mark.parametrize(
    "token", ["sks", "<sks", "sks>", "<a/b>", "<../a>", "<>", "<A>", "<a b>", "<a_b>", "<a><b>", " <a>"]
)
def test_tokens_whose_end_cannot_be_told_or_that_are_paths(base: Path, token: str) -> None:
    with pytest.raises(ConfigError, match=r"the token of 'common' is .* such as <[a-z-]+>: --set 'generator.table="):
        method(base, table={"common": token, "Rare_lesion": "<x>"})


def test_a_token_that_begins_as_another_has_vectors_of_its_own(base: Path, tmp_path: Path) -> None:
    made = method(base, table={"common": "<sks>", "Rare_lesion": "<sks-b>"}, vectors=2)
    assert spelled(made.prompts[1], made.table or {}, vectors=2) == "a medical image of <sks-b> <sks-b>_1"
    networks = made.networks(FORM, seed=0)
    learnt = embeddings_of(parts_of(networks))
    assert {token: len(vectors) for token, vectors in learnt.items()} == {"<sks>": 2, "<sks-b>": 2}
    folder = export(made.drawer(networks, FORM), made, tmp_path / "tokens")
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["sks-b.safetensors", "sks.safetensors", "tokens.json"]


def test_a_name_without_latin_letters_needs_a_token_by_name(base: Path) -> None:
    with pytest.raises(ConfigError, match="the token of '母斑' is '<>'"):
        TextualInversion(weights=str(base)).told(WORDS, ("common", "母斑"))


def test_tokens_that_the_model_has_already(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(base, folder)
    tokenizer = read_parts(folder).tokenizer
    tokenizer.add_tokens(["<common>"])
    tokenizer.save_pretrained(folder / "tokenizer")
    with pytest.raises(ConfigError, match="knows <common> already: choose other tokens"):
        method(folder).networks(FORM, seed=0)
    shutil.rmtree(folder)
    shutil.copytree(base, folder)
    made = method(folder)
    path = folder / "vae" / "config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ConfigError, match="other weights than this was fitted with"):
        made.networks(FORM, seed=0)
