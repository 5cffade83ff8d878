"""The errors of raremix, as a tree whose branches are the command line's exit codes.

::

    RaremixError                 exit code
    |-- RunError                     1       something failed while it ran
    |   |-- StorageError                     disk full, read-only folder, input/output error
    |   |-- BusyError                        another process is doing the same job
    |   |-- CorruptError                     a file is not what its hash says
    |   |-- ResumeError                      a checkpoint belongs to another run
    |   `-- StoppedError                     asked to stop; a checkpoint was written
    |-- UsageError                   2       what was typed or written in a study file
    |   |-- ConfigError                      a key or value that does not fit
    |   `-- UnknownNameError                 a name that no registry holds ("did you mean ...")
    |-- DataError                    2       what was given as data
    |   |-- ReadError                        one file cannot be read
    |   |-- ManifestError                    a table or folder does not hold what it should
    |   `-- TargetError                      labels that do not fit the task
    `-- GuardError                   3       refused, because the result would mislead
        |-- LeakageError                     the same patient, file or parent on both sides of a split
        `-- HeldOutError                     held-out rows used for a choice

Every message says what was expected, what came, and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RaremixError(Exception):
    """Base of all errors that raremix raises on purpose."""

    exit_code = 1


class RunError(RaremixError):
    """Something failed while it ran; running the command again resumes it."""


class StorageError(RunError):
    """A file could not be written or read: disk full, read-only folder, input/output error."""


class BusyError(RunError):
    """Another process is doing the same job."""


class CorruptError(RunError):
    """A file is not what its recorded hash says."""


class ResumeError(RunError):
    """A checkpoint belongs to another run (other data, other configuration)."""


class StoppedError(RunError):
    """The run was asked to stop, and wrote a checkpoint first."""


class UsageError(RaremixError):
    """What was typed, or written in a study file, cannot be understood."""

    exit_code = 2


class ConfigError(UsageError):
    """A key or value of a study file does not fit."""


class UnknownNameError(UsageError):
    """A name that no registry holds.

    Args:
        kind: what was looked for, for example "mixer".
        name: the name that came.
        known: the names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        guess = closest(name, names)
        hint = f"did you mean {guess!r}? " if guess else ""
        shown = names if len(names) <= 20 else get_close_matches(name, names, n=8, cutoff=0.0)
        more = f", and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known: {', '.join(shown) or 'none'}{more}")
        self.guess = guess


class DataError(RaremixError):
    """The data that was given cannot be used."""

    exit_code = 2


class ReadError(DataError):
    """One file cannot be read.

    Args:
        path_id: the file's name relative to the data set, or its manifest row.
        reason: what is wrong, and what to do.
    """

    def __init__(self, path_id: str, reason: str) -> None:
        super().__init__(f"{path_id}: {reason}")
        self.path_id = path_id
        self.reason = reason


class ManifestError(DataError):
    """A table or folder does not hold what it should."""


class TargetError(DataError):
    """Labels do not fit the task."""


class GuardError(RaremixError):
    """Refused, because the result would mislead."""

    exit_code = 3


class LeakageError(GuardError):
    """The same patient, file or parent is on both sides of a split."""


class HeldOutError(GuardError):
    """Held-out rows were about to be used for a choice."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to `name`, or None where none is near.

    Example:
        >>> closest("mixpu", ["mixup", "cutmix"])
        'mixup'
    """
    found = get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None
