"""What a result is worth: metrics, intervals and comparisons that hold for few patients.

Everything takes targets (N, K) with NaN for "not labelled", probabilities (N, K) or, per seed, (S, N, K), and the
patient of each row. Nothing here trains, reads or writes a file.
"""

from raremix.evaluate.bands import BANDS, Band, bands, explain_bands
from raremix.evaluate.calibration import Reliability, fit_temperature, reliability, scores_from_logits
from raremix.evaluate.classical import (
    CorrectedT,
    McNemar,
    benjamini_hochberg,
    cochran_q,
    holm,
    mcnemar,
    nadeau_bengio,
    probability_false_claim,
)
from raremix.evaluate.compare import MIN_POSITIVES, MIN_SEEDS, Claim, Comparison, compare
from raremix.evaluate.curves import Curve, confusion, pr_curve, roc_curve
from raremix.evaluate.decide import Rule, ValidationRows, choose_thresholds, decide
from raremix.evaluate.intervals import (
    DeLong,
    Interval,
    auroc_interval,
    clopper_pearson,
    delong,
    newcombe5,
    wilson,
)
from raremix.evaluate.metrics import METRICS, Metric
from raremix.evaluate.power import SEEDS_AVERAGED, SINGLE_RUNS, Decidable, decidable_difference, half_width
from raremix.evaluate.prior import adjust_logits, correct_prior, prior_of
from raremix.evaluate.score import score
from raremix.evaluate.summary import SCHEMA, measure

__all__ = [
    "BANDS",
    "METRICS",
    "MIN_POSITIVES",
    "MIN_SEEDS",
    "SCHEMA",
    "SEEDS_AVERAGED",
    "SINGLE_RUNS",
    "Band",
    "Claim",
    "Comparison",
    "CorrectedT",
    "Curve",
    "DeLong",
    "Decidable",
    "Interval",
    "McNemar",
    "Metric",
    "Reliability",
    "Rule",
    "ValidationRows",
    "adjust_logits",
    "auroc_interval",
    "bands",
    "benjamini_hochberg",
    "choose_thresholds",
    "clopper_pearson",
    "cochran_q",
    "compare",
    "confusion",
    "correct_prior",
    "decidable_difference",
    "decide",
    "delong",
    "explain_bands",
    "fit_temperature",
    "half_width",
    "holm",
    "mcnemar",
    "measure",
    "nadeau_bengio",
    "newcombe5",
    "pr_curve",
    "prior_of",
    "probability_false_claim",
    "reliability",
    "roc_curve",
    "score",
    "scores_from_logits",
    "wilson",
]
