"""The audit: what is in a data set, what is wrong with it, and what that costs."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from raremix.core.types import Progress
from raremix.data.audit.census import Census, border_shares, names_groups, take_census
from raremix.data.audit.copies import Copies, find_copies
from raremix.data.audit.look import Look, correlation, look_at, picture
from raremix.data.audit.looks import Looks, look_at_all
from raremix.data.audit.near import near_pairs, perceptual_hashes
from raremix.data.audit.problems import Level, Problem, row_problems
from raremix.data.audit.quality import class_problems, file_problems, picture_problems
from raremix.data.manifest import Manifest
from raremix.data.readers import Reading

__all__ = [
    "Audit",
    "Census",
    "Copies",
    "Level",
    "Look",
    "Looks",
    "Problem",
    "audit",
    "border_shares",
    "correlation",
    "find_copies",
    "look_at",
    "look_at_all",
    "names_groups",
    "near_pairs",
    "perceptual_hashes",
    "picture",
    "take_census",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        manifest: the data set, which no guard has seen.
        looks: what was seen in its files.
        copies: which images are copies.
        census: what is in the data set.
        problems: what nobody can know first, then leaks, then what harms, then what is good to know.
    """

    manifest: Manifest
    looks: Looks
    copies: Copies
    census: Census
    problems: tuple[Problem, ...]


def audit(
    manifest: Manifest,
    *,
    cache: Path,
    reading: Reading | None = None,
    allow_synthetic: Collection[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Look at every file of a data set and say what is in it, what is wrong, and what that costs.

    Args:
        manifest: the data set; load it while `raremix.data.guards.suspended`, so that nothing is refused.
        cache: folder in which what was seen in each file is kept, so that an audit resumes and repeats quickly.
        reading: which frame and range of values of DICOM and NIfTI files.
        allow_synthetic: splits beside train that may hold synthetic rows.
        workers: threads that read and decode; one per processor by default.
        progress: called as files are done.

    Raises:
        StorageError: if the cache cannot be written.

    Example:
        ``audit(Phantom(images=60).load(cache=Path("cache")), cache=Path("cache")).problems``
    """
    looks = look_at_all(manifest, cache=cache, reading=reading, workers=workers, progress=progress)
    copies = find_copies(manifest, looks, reading=reading, workers=workers, progress=progress)
    census = take_census(manifest, looks)
    problems = [
        *row_problems(manifest, copies, allow_synthetic=allow_synthetic),
        *file_problems(manifest, looks),
        *picture_problems(manifest, looks, census),
        *class_problems(manifest, census),
    ]
    order = ("unknown", "leak", "harm", "note")
    found = tuple(sorted(problems, key=lambda problem: order.index(problem.level)))
    return Audit(manifest=manifest, looks=looks, copies=copies, census=census, problems=found)
