"""What each rule decides for a fingerprint, in words and as settings of a study file. Pure functions, one per rule."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raremix.study.recommend.fingerprint import Fingerprint
from raremix.study.recommend.rules import Kind, Rules
from raremix.study.recommend.shape import Shape, evidence_of, rarest_in_training, repeats, scored_classes

Loud = bool

NO_PATIENTS = "NO PATIENTS ARE NAMED: every image counts as a patient of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What one rule decided.

    Attributes:
        id, name, kind, strength: of the rule.
        what: what was decided, with the numbers that led to it.
        why: the rule's reason.
        source: who found it.
        settings: keys of the study file that carry it out, as "table.key".
        is_loud: whether it must not be overlooked.
    """

    id: str
    name: str
    kind: Kind
    strength: str
    what: str
    why: str
    source: str
    settings: dict[str, Any]
    is_loud: bool = False


Found = tuple[str, dict[str, Any], Loud]


def decide_all(f: Fingerprint, shape: Shape, rules: Rules, *, left_out: dict[str, str]) -> tuple[Decision, ...]:
    """Apply every rule of the table, in its order.

    Args:
        f: the fingerprint.
        shape: the plan's numbers, after any cuts.
        rules: the table.
        left_out: arms that are not in the plan, with the reason.
    """
    decisions = []
    for rule in rules.rules.values():
        what, settings, is_loud = _DECIDE[rule.id](f, shape, rules, left_out)
        decisions.append(
            Decision(
                id=rule.id,
                name=rule.name,
                kind=rule.kind,
                strength=rule.strength,
                what=what,
                why=rule.reason,
                source=rules.cite(rule.sources),
                settings=settings,
                is_loud=is_loud,
            )
        )
    return tuple(decisions)


def _one_budget(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    shown = "" if f.aspect[0] > 0.99 and f.aspect[2] < 1.01 else f" (aspect {f.aspect[0]:.2f} to {f.aspect[2]:.2f})"
    return f"whole images padded to a square{shown}; one optimiser for all arms", {"data.resize": "pad"}, False


def _validation_chooses(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    rule = rules["F2"]
    settings: dict[str, Any] = {"train.validations": shape.validations, "split.validation": rule["validation"]}
    return "moment, thresholds and temperature are chosen on validation images", settings, False


def _time_limit(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    share = 100 * rules["F3"]["margin"]
    return f"a limit is kept with {share:.0f} % to spare, by seconds measured on this machine", {}, False


def _evaluation(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    rule = rules["R1"]
    evidence = evidence_of(f, shape.folds)
    scored = scored_classes(f, rules)
    unscored = [f"{name} ({f.class_groups[k]})" for k, name in enumerate(f.classes) if k not in scored]
    unit = "groups" if f.grouped else "images"
    described = f"; fewer than {rule['pooled']} {unit}, so described and not scored: {', '.join(unscored)}"
    tail = described if unscored else ""
    settings: dict[str, Any] = {"split.test": rules["F2"]["test"]}
    if not scored:
        return f"no class has {rule['pooled']} {unit}: nothing can be scored, only described{tail}", settings, True
    rarest = min(scored, key=lambda k: evidence.test[k])
    n, name = evidence.test[rarest], f.classes[rarest]
    if shape.folds is not None:
        what = (
            f"{shape.folds} folds by group, out-of-fold predictions pooled and repeated by seed: one split would test "
            f"too few {unit} of {name}, folds test {n}"
        )
        if "test" in f.given_splits:
            what += "; the data's own test split is not used (remove folds to keep it)"
        settings = {"study.folds": shape.folds}
    elif n >= rule["one_split"]:
        what = f"one split: {n} test {unit} of the rarest class, {name}"
    elif n >= rule["with_intervals"]:
        what = f"one split: {n} test {unit} of the rarest class, {name}; read tail figures with their intervals only"
    else:
        what = f"one split, and only {n} test {unit} of {name}: its figures are described, not compared"
    half = evidence.half_widths[rarest]
    if half is not None:
        what += f"; a sensitivity of .8 is known to +- {100 * half:.0f} points"
    return what + tail, settings, bool(unscored) or (shape.folds is None and n < rule["with_intervals"])


def _split(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    settings: dict[str, Any] = {"split.seed": 0}
    if f.named_groups and f.grouped:
        mean, most = f.images_per_group
        return f"by group: {f.groups:,} groups of {mean:.1f} images (up to {most})", settings, False
    if f.named_groups:
        return "by group: every group has one image", settings, False
    if f.proposed_group is not None:
        what = (
            f"{NO_PATIENTS}. If several are of one patient, every figure is too good. File names look as if they named "
            f"patients: check the pattern {f.proposed_group} and set it as [data] group"
        )
        return what, settings, True
    return f"{NO_PATIENTS}. If several images are of one patient, every figure is too good", settings, True


def _metric(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    rule = rules["R3"]
    if f.task == "multilabel":
        evidence = evidence_of(f, shape.folds)
        few = [
            name
            for k, name in enumerate(f.classes)
            if k in scored_classes(f, rules) and evidence.validation[k] < rule["threshold_positives"]
        ]
        what = "macro average precision decides, with macro AUROC beside it"
        if few:
            names = ", ".join(few[:4]) + (" and others" if len(few) > 4 else "")
            what += f"; one threshold of .5, since {names} have fewer than {rule['threshold_positives']} validation "
            what += "positives for one of their own"
        else:
            what += "; a threshold per label from validation"
        threshold = "half" if few else "youden"
        return what, {"study.metric": "average_precision", "study.threshold": threshold}, False
    if f.imbalance >= rule["ratio"]:
        what = f"balanced accuracy decides, classes differ by {f.imbalance:.0f}:1; AUROC and tail recall beside it"
        return what, {"study.metric": "balanced_accuracy"}, False
    metric = "auroc" if f.task == "binary" else "balanced_accuracy"
    what = f"classes differ by {f.imbalance:.1f}:1 only: the task's usual metric decides"
    return what, {"study.metric": metric}, False


def _size(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    how = "pretrained weights" if shape.weights else "a network from scratch"
    what = f"{shape.size} px for {how}; the images are {f.side} px"
    lesion = "" if f.lesion_area is None else f", lesions cover {100 * f.lesion_area:.0f} % of the image"
    if shape.second is not None:
        what += f"{lesion}; a second configuration at {shape.second} px is written beside this file"
    elif lesion:
        what += lesion
    return what, {"data.size": shape.size, "data.channels": f.channels}, False


def _model(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    rule = rules["R5"]
    if shape.weights is not None:
        table = shape.weights.table(channels=f.channels)
        millions = shape.weights.parameters / 1e6
        what = f"{shape.weights.name} from {shape.weights.path.name} ({millions:.1f} million parameters)"
        return what, {f"model.{key}": value for key, value in table.items()}, False
    what = f"{rule['network']} from scratch: no pretrained weights at hand"
    if f.weights:
        most = rule["parameters"] // 1_000_000
        what = f"{rule['network']} from scratch: with {f.images:,} images nothing above {most} million parameters"
    else:
        what += " (give some with --weights FILE.safetensors; they help most where images are few)"
    present = [count for count in f.class_images if count]
    few = bool(present) and min(present) <= rule["images_per_class"]
    if few:
        what += f"; a class with {min(present)} images cannot be learnt from scratch"
    return what, {"model.name": rule["network"]}, few


def _batch(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    train = evidence_of(f, shape.folds).images[0]
    share = 100 * shape.batch_size / max(train, 1)
    what = f"{shape.batch_size} of {train:,} training images, {share:.1f} %"
    return what, {"train.batch_size": shape.batch_size}, False


def _steps(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    train = evidence_of(f, shape.folds).images[0]
    often, limit = repeats(f, shape), rules["R7"]["repeats"]
    what = f"{shape.steps} steps for every arm, {shape.steps * shape.batch_size / max(train, 1):.0f} epochs; "
    what += f"balanced sampling would show each rare image {often:.0f} times"
    what += f", more than {limit}: one arm defers rebalancing" if often > limit else ""
    is_short = shape.steps * shape.batch_size < train
    what += "; NOT EVERY IMAGE IS SHOWN ONCE, so that this is a rehearsal and no result" if is_short else ""
    return what, {"train.steps": shape.steps}, is_short


def _loss(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    mild, strong = rules["R8"]["mild"], rules["R8"]["strong"]
    ratio = f.imbalance
    band = f"below {mild}" if ratio < mild else f"{mild} to {strong}" if ratio < strong else f"{strong} or more"
    return f"the imbalance is {ratio:.1f}:1 ({band}): {_arms_of('R8', shape, rules, left_out)}", {}, False


def _probabilities(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    what = (
        "a temperature from validation for every arm, and one shift per class where training images were sampled, "
        "weighed or mixed; Brier score, slope and intercept shown; state the prevalence where it will be used"
    )
    return what, {"evaluate.shifts": "auto"}, False


def _tuning(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    rates = ", ".join(f"{rate:g}" for rate in shape.rates)
    trials = len(shape.arms) * len(shape.rates)
    what = f"learning rates {rates} for every arm: {trials} trials"
    return what, {"train.learning_rate": shape.rates[0]}, False


def _augmentation(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    return f"the classical set for {f.modality}, in every arm", {"augment.name": "classical"}, False


def _mixing(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    rule = rules["R12"]
    if f.imbalance < rule["ratio"]:
        return f"no mixing arms: the imbalance is {f.imbalance:.1f}:1, below {rule['ratio']}", {}, False
    return f"{_arms_of('R12', shape, rules, left_out)}; off in the last {100 * (1 - rule['stop']):.0f} %", {}, False


def _synthesis_whether(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    return "nothing says that shift or fairness is the goal: synthesis would be the last arm", {}, False


def _synthesis_amount(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    what = _arms_of("R14", shape, rules, left_out)
    if f.imbalance >= rules["R8"]["strong"]:
        what += (
            "; generated images come into a study through its data: raremix generator fit, raremix synthesize, and a "
            "study of the manifest that this writes, beside one with real images repeated at the same counts"
        )
    return what, {}, False


def _synthesis_which(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    rule = rules["R15"]
    rare = rarest_in_training(f)
    if rare >= rule["scratch"]:
        how = "a generator from scratch would do"
    elif rare >= rule["adapt"]:
        how = "adapt a pretrained generator or translate from other classes, behind a memorisation gate"
    else:
        how = "too few to generate from"
    return f"about {rare} training images of the rarest class: {how}", {}, False


def _claims(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    claim = rules["R16"]["claim"]
    words = "enough to claim" if shape.seeds >= claim else f"enough to screen; a claim needs {claim}"
    return f"{shape.seeds} seeds: {words}", {"study.seeds": list(range(shape.seeds))}, shape.seeds < claim


def _quality(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    found = f.quality
    if not found.duplicates and not found.conflicts:
        return "no two images are identical (near-copies: raremix audit)", {}, False
    what = f"{found.duplicates} images are copies of another, {found.conflicts} identical ones have different labels"
    return what, {}, is_poor(f, rules)


def is_poor(f: Fingerprint, rules: Rules) -> bool:
    """Return whether copies or contradicting labels are so many that a person must look first (R17)."""
    most = rules["R17"]["share"] * f.images
    return f.quality.duplicates > most or f.quality.conflicts > most


def _shortcut(f: Fingerprint, shape: Shape, rules: Rules, left_out: dict[str, str]) -> Found:
    rule = rules["R18"]
    sites = [a for a in f.associations if a.is_any_of(tuple(rule["columns"]))]
    telling = [a for a in sites if a.information > rule["information"]]
    if telling:
        one = telling[0]
        what = (
            f"{one.attribute} TELLS THE CLASS (normalised mutual information {one.information:.2f}): hold out by "
            f"{one.attribute}. A study file cannot rotate over sites; it can hold out one: see the lines in [data]"
        )
        return what, {}, True
    others = [a for a in f.associations if a.information > rule["information"]]
    if others:
        names = ", ".join(f"{a.attribute} ({a.information:.2f})" for a in others)
        return f"no site tells the class, but look at {names}", {}, False
    if not sites:
        return "no column names device or site, so this cannot be judged", {}, False
    return f"{sites[0].attribute} tells little about the class ({sites[0].information:.2f})", {}, False


def _arms_of(rule: str, shape: Shape, rules: Rules, left_out: dict[str, str]) -> str:
    mine = [arm.name for arm in rules.arms if arm.rule == rule]
    run = [name for name in mine if name in shape.arms]
    out = [name for name in mine if name in left_out]
    words = f"arms {', '.join(run)}" if run else "no arms"
    return words + (f"; left out: {', '.join(out)}" if out else "")


_DECIDE: dict[str, Callable[[Fingerprint, Shape, Rules, dict[str, str]], Found]] = {
    "F1": _one_budget,
    "F2": _validation_chooses,
    "F3": _time_limit,
    "R1": _evaluation,
    "R2": _split,
    "R3": _metric,
    "R4": _size,
    "R5": _model,
    "R6": _batch,
    "R7": _steps,
    "R8": _loss,
    "R9": _probabilities,
    "R10": _tuning,
    "R11": _augmentation,
    "R12": _mixing,
    "R13": _synthesis_whether,
    "R14": _synthesis_amount,
    "R15": _synthesis_which,
    "R16": _claims,
    "R17": _quality,
    "R18": _shortcut,
}
