"""A fingerprint in words, one line per fact."""

from raremix.evaluate.metrics import METRICS
from raremix.study.recommend.fingerprint import Evidence, Fingerprint


def describe(f: Fingerprint) -> list[tuple[str, str]]:
    """Return what a fingerprint says, as pairs of a title and a text."""
    mean, most = f.images_per_group
    one_each = "named, with one image each" if f.named_groups else "NOT NAMED: each image by itself"
    lines = [
        ("groups", f"{f.groups:,}; {mean:.2f} images each, up to {most}" if f.grouped else one_each),
        ("imbalance", f"{f.ratio_images:.1f}:1 by image, {f.ratio_groups:.1f}:1 by group"),
        ("head / medium / tail", " / ".join(str(f.band.count(band)) for band in ("head", "medium", "tail"))),
        ("splits in the data", ", ".join(f.given_splits) or "none"),
    ]
    if f.task == "multilabel":
        lines.append(("labels per image", f"{f.cardinality:.2f}; {100 * f.without_label:.0f} % have none"))
        pairs = ", ".join(f"{a} + {b} {n} ({100 * share:.0f} %)" for a, b, n, share in f.cooccurrence)
        lines.append(("found together", pairs or "no two"))
    if f.missing:
        lines.append(("labels missing", f"{100 * f.missing:.1f} %"))
    for evidence in (f.holdout, f.pooled):
        if evidence is not None:
            lines.append((f"decidable, {evidence.design}", _decidable(evidence)))
    (low_w, low_h), (high_w, high_h) = f.smallest, f.largest
    lines += [
        ("native size", f"{f.side} px (from {low_w} x {low_h} to {high_w} x {high_h}; {f.looked_at} looked at)"),
        ("aspect, width : height", f"{f.aspect[1]:.2f} ({f.aspect[0]:.2f} to {f.aspect[2]:.2f})"),
        ("channels, bits", f"{'grey' if f.channels == 1 else 'colour'}, {f.bits} bit"),
        ("black border", f"{100 * f.border:.0f} % of the area"),
    ]
    if f.lesion_area is not None:
        lines.append(("lesion", f"{100 * f.lesion_area:.1f} % of the area, side {100 * f.lesion_area**0.5:.0f} %"))
    quality = f.quality
    lines.append(("identical images", f"{quality.duplicates} copies, {quality.conflicts} with different labels"))
    if f.unreadable:
        lines.append(("unreadable", f"{len(f.unreadable)} of those looked at: {f.unreadable[0]}"))
    for one in f.associations[:4]:
        about = f" about {one.label}" if one.label else " about the class"
        lines.append((f"{one.attribute} tells{about}", f"{one.information:.2f} (normalised mutual information)"))
    lines.append(("weights at hand", ", ".join(f"{w.name} ({w.path.name})" for w in f.weights) or "none"))
    times = ", ".join(f"{side} px {1000 * seconds:.1f} ms" for side, seconds in sorted(f.seconds_per_image.items()))
    lines.append(("training step, per image", times or "not timed"))
    return lines


def _decidable(evidence: Evidence) -> str:
    parts = [
        f"{METRICS[metric].title} {100 * difference:.1f} points"
        for metric, difference in evidence.decidable.items()
        if difference is not None
    ]
    return ", ".join(parts) or "nothing"
