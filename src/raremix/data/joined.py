"""Decoded images of several cache entries under one set of ids: real ones, generated ones, and repeats."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8, UInt16

from raremix.core import files
from raremix.core.errors import ManifestError
from raremix.data.cache import ImageCache
from raremix.data.manifest import NAMED


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JoinedImages:
    """Images that are read from whichever cache entry holds them.

    Attributes:
        parts: the entries; all of one form.
        ids: manifest ids, ascending.
        part: which entry holds the image of each id.
        source: its id there; one image may stand under several ids.

    Raises:
        ManifestError: if the entries differ in form, or the ids do not ascend.
    """

    parts: tuple[ImageCache, ...]
    ids: Int[np.ndarray, " n"]
    part: Int[np.ndarray, " n"] = field(repr=False)
    source: Int[np.ndarray, " n"] = field(repr=False)

    def __post_init__(self) -> None:
        if len({(part.shape[1:], part.bits) for part in self.parts}) != 1:
            forms = [f"{part.shape[1:]} in {part.bits} bits" for part in self.parts]
            raise ManifestError(f"cache entries of one form can be joined, got {', '.join(forms)}")
        if not len(self.ids) or (np.diff(self.ids) <= 0).any():
            raise ManifestError("joined images need ascending ids, each once, and at least one")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, C, H, W)."""
        return len(self.ids), *self.parts[0].shape[1:]

    @property
    def bits(self) -> int:
        """8 or 16."""
        return self.parts[0].bits

    @property
    def folder(self) -> Path:
        """The first cache entry's folder."""
        return self.parts[0].folder

    @property
    def key(self) -> str:
        """Hash of which images stand under which ids."""
        return files.hash_value(
            [[part.key for part in self.parts], self.ids.tolist(), self.part.tolist(), self.source.tolist()]
        )

    def take(self, ids: Int[np.ndarray, " B"]) -> UInt8[np.ndarray, "B C H W"] | UInt16[np.ndarray, "B C H W"]:
        """Return copies of the images with these ids, in this order.

        Args:
            ids: repeats are allowed.

        Raises:
            ManifestError: naming ids that there are not.
        """
        place = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        wrong = ids[self.ids[place] != ids]
        if len(wrong):
            raise ManifestError(f"no image with id {wrong[:NAMED].tolist()} among the joined ones")
        part, source = self.part[place], self.source[place]
        images = np.empty((len(ids), *self.shape[1:]), dtype=np.uint8 if self.bits == 8 else np.uint16)
        for number, entry in enumerate(self.parts):
            mine = np.flatnonzero(part == number)
            if len(mine):
                images[mine] = entry.take(source[mine])
        return images
