"""A generator's folder: written, read to the same images, refused when damaged or foreign."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from raremix.core import files
from raremix.core.errors import CorruptError, ManifestError
from raremix.core.fitted import fitted_on, read_fitted
from raremix.core.random import rng
from raremix.generate import (
    DCGAN,
    Form,
    GeneratorCard,
    ImageGenerator,
    StarGAN,
    StarTranslator,
    generator_hash,
    load_generator,
    read_card,
    save_generator,
)
from raremix.generate.folder import PARTS

FORM = Form(size=28, channels=1, classes=2)
METHODS: dict[str, Any] = {
    "dcgan": DCGAN(width=2, latent=3),
    "stargan": StarGAN(width=2, widest=4, hidden=8, latent=3, style=4),
}
ROWS = fitted_on(pl.Series(["ab" * 32, "cd" * 32]))


def save(folder: Path, name: str) -> tuple[Path, Any]:
    method = METHODS[name]
    networks = method.networks(FORM, seed=3)
    extras = {"styles": torch.randn(2, 5, 4)} if name == "stargan" else {}
    card = GeneratorCard(
        method=name,
        settings={key: getattr(method, key) for key in method.__dataclass_fields__},
        form=FORM,
        classes=("well", "sick"),
        task="binary",
        modality="other",
        data="toy",
        bits=8,
        resize="pad",
        fitted_on=ROWS.hash(),
        held_out="0",
        images=(7, 3),
        seed=3,
        steps=10,
        batch_size=4,
        notes=("sick: collapsed",),
        measured={"diversity_sick": 0.1},
    )
    weights = {kept: networks[kept].state_dict() for kept in method.kept}
    save_generator(folder, card=card, weights=weights, rows=ROWS, extras=extras)
    return folder, method.drawer({kept: networks[kept] for kept in method.kept}, FORM, extras=extras)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_read_draws_the_same(name: str, tmp_path: Path) -> None:
    folder, before = save(tmp_path / "g", name)
    after, card = load_generator(folder)
    assert card == read_card(folder)
    assert (card.method, card.form, card.classes, card.images) == (name, FORM, ("well", "sick"), (7, 3))
    images, targets = torch.rand(2, 1, 28, 28), torch.eye(2)
    if isinstance(after, ImageGenerator):
        noise = torch.randn(2, 3)
        assert torch.equal(before.generate(targets, noise), after.generate(targets, noise))
    else:
        assert isinstance(after, StarTranslator)
        assert after.styles is not None
        assert torch.equal(before(images, targets, rng=rng(0, "mask")), after(images, targets, rng=rng(0, "mask")))
    seen = read_fitted(folder)
    assert seen is not None
    assert seen["train"].hash() == card.fitted_on
    said = (folder / "README.md").read_text()
    assert all(word in said for word in (card.fitted_on, "| sick | 3 |", "sick: collapsed", "10 steps of 4 images"))


def test_a_hash_tells_generators_apart(tmp_path: Path) -> None:
    one, _ = save(tmp_path / "one", "dcgan")
    same, _ = save(tmp_path / "same", "dcgan")
    other, _ = save(tmp_path / "other", "stargan")
    assert generator_hash(one) == generator_hash(same) != generator_hash(other)


@pytest.mark.parametrize("part", PARTS)
def test_damaged_files_are_refused(part: str, tmp_path: Path) -> None:
    folder, _ = save(tmp_path, "dcgan")
    whole = (folder / part).read_bytes()
    (folder / part).write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(CorruptError, match=r"fit the generator again|is not JSON"):
        load_generator(folder)
    (folder / part).unlink()
    with pytest.raises(ManifestError, match=f"no generator folder: {part} missing"):
        load_generator(folder)


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is no generator folder"):
        load_generator(tmp_path / "nothing")
    folder, _ = save(tmp_path, "dcgan")
    facts = json.loads((folder / "config.json").read_text())
    for change, error, words in (
        ({"format": "timm"}, ManifestError, "holds no generator of raremix"),
        ({"version": 9}, ManifestError, "format 1"),
        ({"method": "biggan"}, ManifestError, "'biggan' is unknown here"),
        ({"settings": {"wide": 3}}, CorruptError, "cannot be read"),
        ({"settings": {**facts["settings"], "width": 4}}, CorruptError, "cannot be read"),
        ({"surprise": 1}, CorruptError, "cannot be read"),
    ):
        files.write_json(folder / "config.json", {**facts, **change})
        files.seal(folder, PARTS)
        with pytest.raises(error, match=words):
            load_generator(folder)
    files.write_json(folder / "config.json", facts)
    files.seal(folder, PARTS[:1])
    with pytest.raises(CorruptError, match="does not vouch"):
        load_generator(folder)
