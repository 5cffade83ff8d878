"""Inception's vectors are torch-fidelity's, from a file that runs no code."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.study.generators.synthetic_sets import prepared, synthetic_set
from torch.nn import functional

from raremix.core import files
from raremix.core.errors import ConfigError, ReadError
from raremix.data import Phantom
from raremix.evaluate.generative import frechet_distance
from raremix.study.audit.inception import inception_encoder, is_inception
from raremix.study.audit.representation import representation_of
from raremix.study.generators.quality import judge as quality
from raremix.study.generators.quality.judge import judge_synthetic

library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")


class Drawn(library.FeatureExtractorInceptionV3):
    """Their network with weights drawn at random."""

    def load_state_dict(self, *_: Any, **__: Any) -> None:
        """Keep what was drawn."""


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Their network with weights drawn at random."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "load_state_dict_from_url", lambda *_, **__: {})
        torch.manual_seed(0)
        return Drawn("theirs", ["2048"])


@pytest.fixture(scope="module")
def weights(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of them."""
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    files.write_tensors(path, theirs.state_dict())
    return path


def test_vectors_are_those_of_torch_fidelity(theirs: Any, weights: Path) -> None:
    levels = torch.randint(256, (3, 3, 24, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(inception_encoder(weights)(levels / 255), theirs(levels)[0], rtol=1e-4, atol=1e-5)


def test_distances_are_of_images_as_they_are_and_vectors_as_they_are(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No resizing, no scaling to length one; the look for copies still scales."""
    data = prepared(synthetic_set(tmp_path / "set", honest=8, copies=2, images=40), tmp_path / "cache")
    asked = []

    def levels(images: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(images.shape[1:]))
        return functional.adaptive_avg_pool2d(images, 2).flatten(1) * 100

    found = representation_of(weights, data.manifest, cache=tmp_path / "cache")
    assert found.is_published
    cheap = replace(found, encode=levels)
    monkeypatch.setattr(quality, "representation_of", lambda *_, **__: cheap)
    judged = judge_synthetic(data, weights=weights, cache=tmp_path / "cache")
    assert set(asked) == {(3, 32, 32)}
    real, made = (
        levels(torch.from_numpy(data.cache.take(judged.ids[kind])).float().div(255)).double().numpy()
        for kind in ("real", "made")
    )
    figures = judged.classes[0].figures
    assert figures is not None
    assert figures["frechet"].value == pytest.approx(frechet_distance(real, made), rel=1e-3)
    np.testing.assert_allclose(np.linalg.norm(judged.vectors["real"], axis=1), 1, rtol=1e-5)


def test_other_weights_are_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "inception_v3.safetensors"
    files.write_tensors(
        path, {"fc.weight": torch.zeros(1000, 2048), "Mixed_7c.branch_pool.conv.weight": torch.zeros(1)}
    )
    assert not is_inception(path)
    path.write_bytes(b"no weights")
    assert not is_inception(path)


def test_a_damaged_file_and_a_missing_library_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "part.safetensors"
    files.write_tensors(
        path, {"fc.weight": torch.zeros(1008, 2048), "Mixed_7c.branch_pool.conv.weight": torch.zeros(1)}
    )
    data = Phantom(images=40, size=28, classes=2, imbalance_ratio=2.0).load(cache=tmp_path)
    with pytest.raises(ReadError, match=r"part\.safetensors: expected the weights of torch-fidelity's Inception"):
        representation_of(path, data, cache=tmp_path)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ConfigError, match=r"pip install 'raremix\[fidelity\]'"):
        representation_of(path, data, cache=tmp_path)
