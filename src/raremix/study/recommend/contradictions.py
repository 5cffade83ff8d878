"""Stop where the files themselves would mislead, and ask."""

from raremix.core.errors import GuardError
from raremix.study.recommend.fingerprint import Fingerprint
from raremix.study.recommend.rules import Rules


def refuse_poor_quality(
    f: Fingerprint,
    rules: Rules,
    *,
    accept_duplicates: bool = False,
    accept_conflicts: bool = False,
    place: str = "DATA",
) -> None:
    """Refuse data of which too many images are copies or contradict each other (R17), unless that is accepted by name.

    Args:
        f: the fingerprint.
        rules: the table.
        accept_duplicates: go on in spite of copies.
        accept_conflicts: go on in spite of identical images with different labels.
        place: the data, as typed, for what to do next.

    Raises:
        GuardError: saying how many, which, and what to do.
    """
    rule = rules["R17"]
    most = rule["share"] * f.images
    found = []
    if f.quality.conflicts > most and not accept_conflicts:
        found.append((f.quality.conflicts, "images are identical to one with another label", "--accept-conflicts"))
    if f.quality.duplicates > most and not accept_duplicates:
        found.append((f.quality.duplicates, "images are copies of another", "--accept-duplicates"))
    if not found:
        return
    said = "; ".join(f"{count:,} {what} ({100 * count / f.images:.1f} %)" for count, what, _ in found)
    options = " ".join(option for *_, option in found)
    raise GuardError(
        f"{said}, expected at most {100 * rule['share']:g} %, for example {'; '.join(f.quality.examples)}. "
        f"{rule.reason} "
        f"Look at them (raremix audit {place}) and correct the data, or go on with {options}"
    )
