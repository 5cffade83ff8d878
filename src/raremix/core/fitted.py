"""What a fitted thing says about the rows it was fitted on, so that nobody measures it on them.

A classifier, generator, temperature or importance cache carries a `FittedOn`. Rows are told by their files' contents,
not by their numbers or names, so that they are found again in another manifest, and no name of a file travels along.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from raremix.core import files
from raremix.core.errors import CorruptError, ReadError
from raremix.core.tables import read_parquet

FITTED_ON = "fitted_on.parquet"
"""The file in which a fitted thing's folder keeps the rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedOn:
    """The rows that something was fitted on.

    Attributes:
        keys: one number per image, sorted, each once; see `content_keys`.

    Example:
        >>> seen = FittedOn(keys=content_keys(pl.Series(["ab" * 32, "cd" * 32])))
        >>> seen.holds(content_keys(pl.Series(["cd" * 32, "ef" * 32]))).tolist()
        [True, False]
    """

    keys: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.keys)

    def hash(self) -> str:
        """Return a hash of the rows; it does not depend on their order."""
        return blake2b(self.keys.astype("<i8").tobytes(), digest_size=12).hexdigest()

    def facts(self) -> dict[str, str | int]:
        """Return how many rows there are, and their hash, for a record."""
        return {"rows": len(self), "hash": self.hash()}

    def holds(self, keys: Int[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
        """Return which of other keys are among the rows."""
        place = np.searchsorted(self.keys, keys).clip(max=max(len(self.keys) - 1, 0))
        return self.keys[place] == keys if len(self.keys) else np.zeros(len(keys), dtype=bool)


def content_keys(sha256: pl.Series) -> Int[np.ndarray, " m"]:
    """Return the first 60 bits of each hash as a number.

    That two of a million images agree by chance has a probability below one in a million.

    Args:
        sha256: hashes in hexadecimal; a row without one gets -1, which is never the same as another's.
    """
    return sha256.str.slice(0, 15).str.to_integer(base=16, strict=False, dtype=pl.Int64).fill_null(-1).to_numpy()


def fitted_on(sha256: pl.Series) -> FittedOn:
    """Return the record of rows by the hashes of their files; rows without a hash cannot be told again."""
    keys = np.unique(content_keys(sha256))
    return FittedOn(keys=keys[keys >= 0])


def write_fitted(folder: Path, seen: Mapping[str, FittedOn]) -> Path:
    """Write what was fitted on which rows into the folder of a fitted thing.

    Args:
        folder: the folder.
        seen: the rows by their use, such as "train" and "validation".
    """
    parts = [pl.DataFrame({"used_as": [use] * len(rows), "key": rows.keys}) for use, rows in seen.items()]
    return files.write_parquet(folder / FITTED_ON, pl.concat(parts))


def read_fitted(folder: Path) -> dict[str, FittedOn] | None:
    """Read which rows a fitted thing was fitted on; None where its folder does not say.

    Raises:
        CorruptError: if the file is damaged.
    """
    path = folder / FITTED_ON
    if not path.is_file():
        return None
    try:
        table = read_parquet(path, columns=["used_as", "key"]).sort("key")
        parts = table.partition_by("used_as", as_dict=True)
        return {str(use): FittedOn(keys=part["key"].cast(pl.Int64).to_numpy()) for (use,), part in parts.items()}
    except (ReadError, pl.exceptions.PolarsError) as error:
        raise CorruptError(f"{path} is damaged ({error}): restore it, or fit again") from None
