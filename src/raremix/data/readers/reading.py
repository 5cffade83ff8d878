"""How files that hold more than a picture are turned into one: which frame or slice, and which range of values."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from raremix.core.errors import ConfigError, ReadError

Frames = Literal["refuse", "first", "middle", "max"]
Window = Literal["file", "stored", "range"]
Plane = Literal["axial", "coronal", "sagittal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How one picture is made of a file; part of every cache key.

    Args:
        frames: which frame of a multi-frame DICOM file, or slice of a NIfTI volume, is the picture. "refuse" makes
            such a file an error, "first" and "middle" take one (of 10, number 0 and number 5), "max" takes the largest
            value along them (a maximum intensity projection), and a number takes that frame, counted from 0.
        window: which values become black and white in grey DICOM and NIfTI files. "file" takes what the file says (its
            VOI table or first window; the display range of a NIfTI file). Where it says nothing, a DICOM file of up to
            8 stored bits is shown as "stored", one of more as "range", and a NIfTI slice by the range of its volume.
            "stored" takes all values that the stored bits can hold, "range" the smallest and largest value of the
            picture. A pair takes (centre, width) in the file's own unit, for example Hounsfield, by DICOM's linear
            function.
        plane: along which direction slices of a NIfTI volume are counted: "axial" from the feet, "coronal" from the
            back, "sagittal" from the left.
        draft: decode JPEG files of at least four times the wanted size at 1/2, 1/4 or 1/8 of theirs, which leaves at
            least twice the wanted size to average over; and take their brightness as it is stored where grey is wanted.

    Raises:
        ConfigError: for another policy, a negative frame, or a window without width.

    Example:
        >>> Reading(frames="middle", window=(40.0, 400.0)).frames
        'middle'
    """

    frames: Frames | int = "refuse"
    window: Window | tuple[float, float] = "file"
    plane: Plane = "axial"
    draft: bool = True

    def __post_init__(self) -> None:
        is_number = isinstance(self.frames, int) and not isinstance(self.frames, bool) and self.frames >= 0
        if self.frames not in get_args(Frames) and not is_number:
            raise ConfigError(
                f"frames = {self.frames!r}: expected {', '.join(get_args(Frames))}, or a frame's number from 0"
            )
        if isinstance(self.window, str):
            if self.window not in get_args(Window):
                raise ConfigError(
                    f"window = {self.window!r}: expected {', '.join(get_args(Window))}, or [centre, width]"
                )
        else:
            pair = tuple(float(value) for value in self.window)
            if len(pair) != 2 or not 1 <= pair[1] < float("inf") or not abs(pair[0]) < float("inf"):
                raise ConfigError(f"window = {list(self.window)}: expected [centre, width] with a width of at least 1")
            object.__setattr__(self, "window", pair)
        if self.plane not in get_args(Plane):
            raise ConfigError(f"plane = {self.plane!r}: expected {', '.join(get_args(Plane))}")

    def key(self) -> dict[str, Any]:
        """Return what differs from the defaults, for cache keys and records."""
        plain = Reading()
        values = {name: getattr(self, name) for name in ("frames", "window", "plane", "draft")}
        return {name: value for name, value in values.items() if value != getattr(plain, name)}

    def number(self, count: int, *, name: str) -> int | None:
        """Return the frame to take of several, or None for all of them together.

        Args:
            count: how many there are; at least 1.
            name: what to call the file in errors.

        Raises:
            ReadError: if several are refused, or there is no such frame.
        """
        if count == 1 and not isinstance(self.frames, int):
            return 0
        if self.frames == "refuse":
            raise ReadError(
                name,
                f"holds {count} frames, expected one: choose with reading = {{ frames = ... }}: "
                '"first", "middle", "max" or a number',
            )
        if self.frames == "max":
            return None
        number = {"first": 0, "middle": count // 2}.get(str(self.frames), self.frames)
        if int(number) >= count:
            raise ReadError(name, f"holds {count} frames, expected number {number} among them: choose a smaller one")
        return int(number)
