"""Where labelled images come from.

One source is one table of a study file: `source` picks the class, the other keys are its arguments.
"""

from collections.abc import Mapping

from raremix.data.sources.folder import Folder
from raremix.data.sources.medmnist import MedMNIST
from raremix.data.sources.phantom import Phantom
from raremix.data.sources.table import Table

SOURCES: Mapping[str, type[Folder] | type[Table] | type[MedMNIST] | type[Phantom]] = {
    "folder": Folder,
    "table": Table,
    "medmnist": MedMNIST,
    "phantom": Phantom,
}

__all__ = ["SOURCES", "Folder", "MedMNIST", "Phantom", "Table"]
