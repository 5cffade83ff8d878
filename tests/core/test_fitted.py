from pathlib import Path

import numpy as np
import polars as pl
import pytest

from raremix.core.errors import CorruptError
from raremix.core.fitted import FITTED_ON, FittedOn, content_keys, fitted_on, read_fitted, write_fitted

HASHES = pl.Series([f"{i:015x}" + "0" * 49 for i in (7, 1, 3)])


def test_keys_are_the_first_sixty_bits() -> None:
    assert content_keys(HASHES).tolist() == [7, 1, 3]
    assert content_keys(pl.Series(["f" * 64])).tolist() == [2**60 - 1]
    assert content_keys(pl.Series([None, "ab" * 32], dtype=pl.Utf8))[0] == -1


def test_the_hash_depends_on_the_rows_and_not_on_their_order() -> None:
    rows = fitted_on(HASHES)
    assert rows.keys.tolist() == [1, 3, 7]
    assert rows.hash() == fitted_on(HASHES[[2, 0, 1, 1]]).hash()
    assert rows.hash() != fitted_on(HASHES[:2]).hash()
    assert rows.facts() == {"rows": 3, "hash": rows.hash()}


def test_rows_are_found_again() -> None:
    rows = fitted_on(HASHES)
    assert rows.holds(np.array([0, 1, 2, 3, 7, 8, -1])).tolist() == [False, True, False, True, True, False, False]
    # A file without a hash is nobody's.
    nobody = fitted_on(pl.Series([None, None], dtype=pl.Utf8))
    assert len(nobody) == 0
    assert not nobody.holds(np.array([-1, 5])).any()


def test_rows_travel_with_a_folder(tmp_path: Path) -> None:
    assert read_fitted(tmp_path) is None
    empty = FittedOn(keys=np.zeros(0, dtype=np.int64))
    write_fitted(tmp_path, {"train": fitted_on(HASHES[:2]), "validation": fitted_on(HASHES[2:]), "nothing": empty})
    back = read_fitted(tmp_path)
    assert back is not None
    assert {use: rows.keys.tolist() for use, rows in back.items()} == {"train": [1, 7], "validation": [3]}
    (tmp_path / FITTED_ON).write_bytes(b"rubbish")
    with pytest.raises(CorruptError, match="fit again"):
        read_fitted(tmp_path)
