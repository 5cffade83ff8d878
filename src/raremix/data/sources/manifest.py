"""A manifest that raremix wrote: real rows, and synthetic ones beside them."""

from dataclasses import dataclass
from pathlib import Path

from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.data.sources.assemble import admit


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Images as a written manifest lists them, with their splits, origins, parents and recipes.

    Args:
        path: the table, .parquet or .csv, or the folder in which it is called manifest.parquet; card.json lies beside.
        root: the folder that image paths start from; the card's by default.

    Example:
        ``Written(path="runs/synthetic/lesions").load(cache=Path("cache")).class_counts()``
    """

    path: str | Path
    root: str | Path | None = None

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if the table or its card is missing, or files are.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        table = Path(self.path)
        table = table / "manifest.parquet" if table.is_dir() else table
        root = None if self.root is None else Path(self.root)
        return admit(Manifest.read(table, root=root), cache=cache, progress=progress)
