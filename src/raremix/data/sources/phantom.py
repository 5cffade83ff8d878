"""Phantoms: images that are drawn, with the truth about what is in them. The data set that comes with the package."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import polars as pl

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError, StorageError
from raremix.core.random import rng
from raremix.core.registry import look_up
from raremix.core.types import SPLITS, Progress, Task
from raremix.data.guards import check
from raremix.data.manifest import Card, Manifest
from raremix.data.phantoms import chest, dermatoscopy
from raremix.data.phantoms.canvas import Picture
from raremix.data.phantoms.cohort import Cohort, draw_multilabel, draw_single_label, single_label_counts
from raremix.data.sources.assemble import assemble

# Raise when the images, masks or tables that are drawn would change.
CODE_VERSION = 2
MODALITIES: Mapping[str, ModuleType] = {"dermatoscopy": dermatoscopy, "chest_xray": chest}
DIGESTS = "digests.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A long-tailed data set of drawn images, each with the true mask of its lesion.

    The same arguments give the same images, in any order; a scene does not depend on `size`. The masks are in the
    manifest's column `mask`: 0 outside; 255 inside, or for `multilabel` the sum of 2^k over the findings k there. The
    pictures look like medical images and carry no clinical meaning.

    Args:
        modality: "dermatoscopy" (RGB, one lesion in every image) or "chest_xray" (grey).
        images: number of images.
        size: pixels across, 28 to 512.
        classes: how many of the modality's classes (findings, for `multilabel`), the commonest first; all by default.
        imbalance_ratio: images of the first class over images of the last one, with exponential steps between.
        images_per_group: mean number of images per patient, 1 to 3.
        devices: number of devices, 1 to 4.
        device_shift: in [0, 1], share of the patients whose device is decided by their class; 0 means independent.
        difficulty: in [0, 1]; fainter, smaller and less typical lesions.
        noise: standard deviation of the sensor noise, as a share of full scale.
        multilabel: chest only: none to three findings per image, one column per finding.
        validation, test: shares of the images in these splits; patients are never divided.
        test_imbalance: "natural" like the rest, or "balanced": as many test images of each class.
        seed: of everything that is drawn.

    Raises:
        ConfigError: if a value is out of its range, or a class would be missing in a split.

    Example:
        ``Phantom(images=300, size=64).load(cache=Path("cache")).class_counts("train")``
    """

    modality: Literal["dermatoscopy", "chest_xray"] = "dermatoscopy"
    images: int = 1200
    size: int = 64
    classes: int | None = None
    imbalance_ratio: float = 50.0
    images_per_group: float = 1.5
    devices: int = 2
    device_shift: float = 0.0
    difficulty: float = 0.5
    noise: float = 0.02
    multilabel: bool = False
    validation: float = 0.15
    test: float = 0.25
    test_imbalance: Literal["natural", "balanced"] = "natural"
    seed: int = 0

    def __post_init__(self) -> None:
        known = look_up(MODALITIES, self.modality, kind="phantom modality")
        if self.multilabel and self.modality != "chest_xray":
            raise ConfigError('multilabel phantoms need modality = "chest_xray": a skin image shows one lesion')
        least, most = (1, len(known.CLASSES) - 1) if self.multilabel else (2, len(known.CLASSES))
        ranges: dict[str, tuple[float, float]] = {
            "images": (1, 1_000_000),
            "size": (28, 512),
            "classes": (least, most),
            "imbalance_ratio": (1, 100_000),
            "images_per_group": (1, 3),
            "devices": (1, len(known.DEVICES)),
            "device_shift": (0, 1),
            "difficulty": (0, 1),
            "noise": (0, 0.5),
            "validation": (0, 0.9),
            "test": (0, 0.9),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"phantom: {name} must lie between {low:g} and {high:g}, got {value}")
        if self.validation + self.test > 0.95:
            raise ConfigError(
                f"phantom: validation {self.validation} and test {self.test} leave no images for training"
            )
        if self.test_imbalance not in {"natural", "balanced"}:
            raise ConfigError(f'phantom: test_imbalance must be "natural" or "balanced", got {self.test_imbalance!r}')
        self.draw_cohort()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the target columns, the commonest first."""
        names = MODALITIES[self.modality].CLASSES[int(self.multilabel) :]
        return names[: self.classes]

    @property
    def task(self) -> Task:
        """What the targets are."""
        if self.multilabel:
            return "multilabel"
        return "binary" if len(self.class_names) == 2 else "multiclass"

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest; the images and masks are drawn as PNG files into the cache, unless they are there.

        Args:
            cache: folder for what is drawn; one folder in it per set of arguments.
            progress: called while images are drawn.

        Raises:
            StorageError: if the files cannot be written.
        """
        cohort = self.draw_cohort()
        root = cache / "phantoms" / files.hash_value({**asdict(self), "code_version": CODE_VERSION})
        digests = _read_whole(root, self.images)
        if digests is None:
            # A folder that lacks files was damaged from outside, since folders are committed whole.
            files.remove_folder(root)
            files.sweep(files.folder(root.parent))
            digests = self._draw(root, cohort, progress)
        rows = range(self.images)
        manifest = assemble(
            card=self._card(),
            root=root,
            paths=[_name("images", row) for row in rows],
            targets=cohort.labels.astype(np.float64),
            groups=[f"patient-{number:05d}" for number in cohort.patient],
            splits=[SPLITS[part] for part in cohort.split],
            attributes=pl.DataFrame(
                {
                    "device": [f"device-{'ABCD'[number]}" for number in cohort.device],
                    "sex": ["female" if is_female else "male" for is_female in cohort.is_female],
                    "age": cohort.age,
                    "view": [self._view(cohort, row) for row in rows],
                }
            ),
        )
        truth = [pl.Series("mask", [_name("masks", row) for row in rows]), pl.Series("sha256", digests)]
        manifest = replace(manifest, frame=manifest.frame.with_columns(truth))
        check(manifest, check_files=False)
        return manifest

    def render(self, row: int, *, cohort: Cohort | None = None, with_lesion: bool = True) -> Picture:
        """Draw one image with the masks of what is in it.

        Args:
            row: its number, 0 to images - 1.
            cohort: from `draw_cohort`, where many images are drawn.
            with_lesion: False draws the same scene, of the same patient and with the same noise, without any finding.

        Example:
            >>> phantom = Phantom(images=60, imbalance_ratio=2, size=28)
            >>> sick, well = phantom.render(0), phantom.render(0, with_lesion=False)
            >>> bool((sick.image != well.image).any())
            True
        """
        cohort = self.draw_cohort() if cohort is None else cohort
        modality, patient = MODALITIES[self.modality], int(cohort.patient[row])
        findings = tuple(name for name, shown in zip(self.class_names, cohort.labels[row], strict=True) if shown)
        body = modality.draw_patient(
            rng(self.seed, "phantom", 1, patient), age=int(cohort.age[row]), is_female=bool(cohort.is_female[row])
        )
        return modality.render(
            size=self.size,
            patient=body,
            findings=findings if with_lesion else (),
            view=self._view(cohort, row),
            device=int(cohort.device[row]),
            difficulty=self.difficulty,
            noise_level=self.noise,
            streams=lambda number: rng(self.seed, "phantom", 2 + number, row),
        )

    def draw_cohort(self) -> Cohort:
        """Draw who the patients are, what they have, and which split they are in."""
        stream, count = rng(self.seed, "phantom", 0), len(self.class_names)
        is_test_balanced = self.test_imbalance == "balanced"
        if self.multilabel:
            return draw_multilabel(
                self.images,
                findings=count,
                imbalance_ratio=self.imbalance_ratio,
                validation=self.validation,
                test=self.test,
                is_test_balanced=is_test_balanced,
                images_per_group=self.images_per_group,
                devices=self.devices,
                device_shift=self.device_shift,
                rng=stream,
            )
        counts = single_label_counts(
            self.images,
            classes=count,
            imbalance_ratio=self.imbalance_ratio,
            validation=self.validation,
            test=self.test,
            is_test_balanced=is_test_balanced,
        )
        return draw_single_label(
            counts,
            images_per_group=self.images_per_group,
            devices=self.devices,
            device_shift=self.device_shift,
            mean_ages=MODALITIES[self.modality].MEAN_AGES[:count],
            rng=stream,
        )

    def _view(self, cohort: Cohort, row: int) -> str:
        views = MODALITIES[self.modality].VIEWS
        return views[int(cohort.view[row] * len(views))]

    def _card(self) -> Card:
        return Card(
            name=f"phantom-{self.modality.replace('_', '-')}",
            task=self.task,
            classes=self.class_names,
            modality=self.modality,
            licence="Apache-2.0",
            source="drawn by raremix",
            notes="Drawn phantoms without clinical meaning; the column mask holds the true place of every lesion.",
        )

    def _draw(self, root: Path, cohort: Cohort, progress: Progress | None) -> list[str]:
        digests = []
        with files.atomic_folder(root) as draft, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            draw = partial(self._draw_row, draft, cohort)
            for done, digest in enumerate(pool.map(draw, range(self.images)), start=1):
                digests.append(digest)
                if progress is not None and (done % 64 == 0 or done == self.images):
                    progress("draw phantoms", done, self.images)
            files.write_json(draft / DIGESTS, digests)
        return digests

    def _draw_row(self, draft: Path, cohort: Cohort, row: int) -> str:
        picture = self.render(row, cohort=cohort)
        mask = np.zeros((self.size, self.size), dtype=np.uint8)
        for name, where in picture.masks.items():
            mask[where] += 1 << self.class_names.index(name) if self.multilabel else 255
        files.write_image(draft / _name("masks", row), mask)
        return files.hash_file(files.write_image(draft / _name("images", row), picture.image))


def _name(folder: str, row: int) -> str:
    return f"{folder}/{row:06d}.png"


def _read_whole(root: Path, count: int) -> list[str] | None:
    """Return the hashes of the images in a folder, or None unless every image and mask is there."""
    try:
        digests = files.read_json(root / DIGESTS)
        found = {f"{part}/{path.name}" for part in ("images", "masks") for path in (root / part).iterdir()}
    except (StorageError, CorruptError, OSError):
        return None
    wanted = {_name(part, row) for part in ("images", "masks") for row in range(count)}
    whole = isinstance(digests, list) and len(digests) == count and wanted <= found
    return digests if whole else None
