"""A folder with one folder per class, or with train, validation and test folders above these."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raremix.core.errors import ConfigError, ManifestError, UnknownNameError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.readers import has_image_suffix
from raremix.data.sources.assemble import SPLIT_NAMES, admit, assemble, one_hot, refuse_spellings
from raremix.data.sources.layout import data_folder, files_below, folders_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    r"""Images in one folder per class, as torchvision's ImageFolder has them.

    Where the folders at the top are called train, val (valid, validation) and test, the classes are the folders
    below, and the split is taken as given. Hidden files are skipped.

    Args:
        path: the folder.
        classes: class folders in order, the positive one last for a binary task; sorted names by default.
        group: regular expression on the file name whose first bracket (or whole match) is the patient or lesion, for
            example ``^(ISIC_\d+)``; every image is its own group by default.
        ignore: file endings that are no images and may lie among them.
        name: of the data set; the folder's name by default.
        modality, licence, source, citation, notes: see `raremix.data.manifest.Card`.

    Example:
        ``Folder(path="lesions", group=r"^(patient\d+)").load(cache=Path("cache")).class_counts()``
    """

    path: str | Path
    classes: Sequence[str] | None = None
    group: str | None = None
    ignore: Sequence[str] = (".txt", ".csv", ".tsv", ".md", ".json", ".xml", ".db", ".ini")
    name: str | None = None
    modality: str = "other"
    licence: str = ""
    source: str = ""
    citation: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        for key in ("classes", "ignore"):
            if isinstance(getattr(self, key), str):
                raise ConfigError(f"{key} must be a list, got the text {getattr(self, key)!r}: write [...]")
        if self.group is not None:
            try:
                re.compile(self.group)
            except re.error as error:
                raise ConfigError(f"group is not a regular expression ({error}): {self.group!r}") from None

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the folder.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: if there is no such folder, no class, an empty class, or a file that is no image.
            UnknownNameError: for a class folder that `classes` does not name.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="one with a folder per class")
        parts = self._parts(root)
        found = sorted({folder.name for _, top in parts for folder in folders_in(top)})
        if not found:
            raise ManifestError(f"{root} holds no class folders: expected <class>/<image>")
        if self.classes is None:
            refuse_spellings(found, what=f"the folders below {root}: give them one name")
        classes = tuple(found if self.classes is None else self.classes)
        for folder_name in found:
            if folder_name not in classes:
                raise UnknownNameError("class folder", folder_name, classes)
        paths, labels, splits = [], [], []
        for split, top in parts:
            for folder in folders_in(top):
                images = self._images(folder, root)
                paths += images
                labels += [classes.index(folder.name)] * len(images)
                splits += [split] * len(images)
            if split is not None and split not in splits:
                raise ManifestError(
                    f"the folder {top.name} of {root} holds no images: add some; or remove it, and a {split} split is "
                    "made of the others"
                )
        counts = np.bincount(np.array(labels, dtype=np.int64), minlength=len(classes))
        empty = [classes[k] for k in np.flatnonzero(counts == 0)]
        if empty:
            raise ManifestError(f"no images of class {listed(empty)} below {root}: add some, or remove the folder")
        if len(classes) == 1:
            raise ManifestError(
                f"{root} holds one class only ({classes[0]}): expected a folder for each of at least two"
            )
        manifest = assemble(
            card=Card(
                name=root.resolve().name if self.name is None else self.name,
                task="binary" if len(classes) == 2 else "multiclass",
                classes=classes,
                modality=self.modality,
                licence=self.licence,
                source=self.source,
                citation=self.citation,
                notes=self.notes,
            ),
            root=root,
            paths=paths,
            targets=one_hot(np.array(labels, dtype=np.int64), count=len(classes)),
            groups=self._groups(paths),
            splits=splits,
        )
        return admit(manifest, cache=cache, progress=progress)

    def _parts(self, root: Path) -> list[tuple[str | None, Path]]:
        tops = folders_in(root)
        names = [folder.name.lower() for folder in tops]
        if tops and all(name in SPLIT_NAMES for name in names) and any(SPLIT_NAMES[name] == "train" for name in names):
            return [(SPLIT_NAMES[folder.name.lower()], folder) for folder in tops]
        return [(None, root)]

    def _images(self, folder: Path, root: Path) -> list[str]:
        ignored = {ending.lower() for ending in self.ignore}
        kept = [path for path in files_below(folder, root=root) if Path(path).suffix.lower() not in ignored]
        foreign = [path for path in kept if not has_image_suffix(Path(path))]
        if foreign:
            kinds = Counter(Path(path).suffix.lower() or "no ending" for path in foreign)
            shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            raise ManifestError(
                f"{len(foreign)} files that are no PNG, JPEG, TIFF, BMP, DICOM or NIfTI ({shown}): "
                f"{listed(foreign)}: "
                "convert them, or name their ending in ignore"
            )
        return kept

    def _groups(self, paths: list[str]) -> list[str] | None:
        if self.group is None:
            return None
        matches = [re.search(self.group, path.rsplit("/", 1)[-1]) for path in paths]
        without = [path for path, match in zip(paths, matches, strict=True) if match is None]
        if without:
            raise ManifestError(f"{len(without)} file names do not match group = {self.group!r}: {listed(without)}")
        return [match[1] if match.re.groups else match[0] for match in matches if match is not None]
