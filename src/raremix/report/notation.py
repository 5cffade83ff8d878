"""How numbers and names are written: points, p-values, counts, metrics as a reader would call them."""

LOWER_IS_BETTER = frozenset(
    {"ece", "mce", "ace", "brier", "brier_score", "log_loss", "nll", "loss", "cross_entropy", "error_rate", "mae"}
)

_METRICS = {
    "auroc": "AUROC",
    "auc": "AUROC",
    "ap": "average precision",
    "brier": "Brier score",
    "brier_score": "Brier score",
    "cohen_kappa": "Cohen's kappa",
    "ece": "expected calibration error",
    "f1": "F1",
    "g_mean": "G-mean",
    "kappa": "Cohen's kappa",
    "mcc": "Matthews correlation",
    "nll": "log loss",
    "npv": "negative predictive value",
    "ppv": "positive predictive value",
    "youden": "Youden's J",
    "youden_j": "Youden's J",
}


def metric_name(metric: str, *, capital: bool = False) -> str:
    """Name a metric as a reader would.

    Args:
        metric: its name in the record, with "macro", "micro" or "weighted" in front or behind.
        capital: whether it starts a sentence.

    Example:
        >>> metric_name("balanced_accuracy", capital=True), metric_name("auroc_macro"), metric_name("g_mean")
        ('Balanced accuracy', 'macro AUROC', 'G-mean')
    """
    average, base = _parts(metric)
    name = f"{average} {_METRICS.get(base.lower(), base.replace('_', ' '))}".strip()
    return capitalised(name) if capital else name


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of this metric is the better one.

    Example:
        >>> is_lower_better("ece_macro"), is_lower_better("auroc")
        (True, False)
    """
    return _parts(metric)[1].lower() in LOWER_IS_BETTER


def points(difference: float, *, sign: bool = True) -> str:
    """Write a difference in points (hundredths), with a true minus sign.

    Example:
        >>> points(0.0412), points(-0.003), points(0.05, sign=False)
        ('+4.1', '−0.3', '5')
    """
    value = round(difference * 100, 1)
    text = f"{abs(value):.1f}"
    if not sign:
        return ("−" if value < 0 else "") + text.removesuffix(".0")
    return ("−" if value < 0 else "+" if value > 0 else "") + text


def points_between(low: float, high: float) -> str:
    """Write an interval of a difference in points.

    Example:
        >>> points_between(-0.012, 0.071)
        '−1.2 to +7.1'
    """
    return f"{points(low)} to {points(high)}"


def decimal(value: float | None, *, digits: int = 3) -> str:
    """Write a metric's value, with a true minus sign; a dash where it is unknown.

    Example:
        >>> decimal(0.8123), decimal(-0.1), decimal(None)
        ('0.812', '−0.100', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def grouped(count: int) -> str:
    """Write a count with its thousands parted by a narrow no-break space (ISO 80000-1).

    Example:
        >>> grouped(10015)
        '10\u202f015'
    """
    return f"{count:,}".replace(",", "\u202f")


def probability(p: float | None) -> str:
    """Write a probability; what a finite number of resamples cannot tell from certainty becomes a bound.

    Example:
        >>> probability(0.9993), probability(0.57), probability(0.0), probability(None)
        ('> 0.99', '0.57', '< 0.01', '–')
    """
    if p is None:
        return "–"
    return "> 0.99" if p > 0.99 else "< 0.01" if p < 0.01 else f"{p:.2f}"


def p_value(p: float | None) -> str:
    """Write a p-value, small ones as a bound; never so few digits that .0496 would read as .050.

    Example:
        >>> p_value(0.0004), p_value(0.0321), p_value(0.0496), p_value(0.6), p_value(None)
        ('< 0.001', '0.032', '0.0496', '0.60', '–')
    """
    if p is None:
        return "–"
    if p < 0.001:
        return "< 0.001"
    if p >= 0.1:
        return f"{p:.2f}"
    return f"{p:.4f}" if 0.0495 <= p < 0.0505 else f"{p:.3f}"


def enumerate_names(names: list[str]) -> str:
    """Join names as a sentence does.

    Example:
        >>> enumerate_names(["mixup", "cutmix", "spmix"])
        'mixup, cutmix and spmix'
    """
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def capitalised(text: str) -> str:
    """Write the first letter large and leave the rest as it is.

    Example:
        >>> capitalised("macro AUROC")
        'Macro AUROC'
    """
    return text[:1].upper() + text[1:]


def _parts(metric: str) -> tuple[str, str]:
    for average in ("macro", "micro", "weighted"):
        if metric.lower().endswith(f"_{average}"):
            return average, metric[: -len(average) - 1]
        if metric.lower().startswith(f"{average}_"):
            return average, metric[len(average) + 1 :]
    return "", metric
