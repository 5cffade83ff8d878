"""Images of several cache entries under one set of ids."""

from pathlib import Path

import numpy as np
import pytest

from raremix.core.errors import ManifestError
from raremix.data import Manifest, Phantom, build_cache
from raremix.data.cache import ImageCache
from raremix.data.joined import JoinedImages


def entry(place: Path, *, seed: int, size: int = 16) -> ImageCache:
    manifest: Manifest = Phantom(images=40, size=28, classes=2, imbalance_ratio=2.0, seed=seed).load(cache=place)
    return build_cache(manifest, size=size, channels=1, root=place)


def test_every_id_gives_the_image_it_stands_for(tmp_path: Path) -> None:
    a, b = entry(tmp_path, seed=0), entry(tmp_path, seed=1)
    ids, part, source = np.array([2, 5, 9, 40]), np.array([0, 1, 0, 1]), np.array([2, 5, 2, 0])
    joined = JoinedImages(parts=(a, b), ids=ids, part=part, source=source)
    found = joined.take(np.array([40, 2, 9, 5, 40]))
    expected = [b.take(np.array([0])), a.take(np.array([2])), a.take(np.array([2])), b.take(np.array([5]))]
    assert np.array_equal(found, np.concatenate([*expected, expected[0]]))
    assert joined.shape == (4, 1, 16, 16)
    assert joined.key != JoinedImages(parts=(a, b), ids=ids, part=part, source=source[::-1].copy()).key
    for missing in (3, 0, 41, -1):
        with pytest.raises(ManifestError, match="no image with id"):
            joined.take(np.array([2, missing]))


def test_entries_of_other_forms_and_unordered_ids_are_refused(tmp_path: Path) -> None:
    a, b = entry(tmp_path, seed=0), entry(tmp_path, seed=1, size=8)
    one = np.array([1])
    with pytest.raises(ManifestError, match="one form"):
        JoinedImages(parts=(a, b), ids=one, part=np.array([0]), source=one)
    with pytest.raises(ManifestError, match="ascending"):
        JoinedImages(parts=(a,), ids=np.array([2, 1]), part=np.array([0, 0]), source=np.array([0, 1]))
