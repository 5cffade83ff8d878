"""Studies: arms x seeds (x folds), keyed and resumable, and what comes of them."""

from raremix.study.apply import evaluate_classifier, predict_images
from raremix.study.defaults import study_of
from raremix.study.run import StudyResult, plan_study, run_study
from raremix.study.spec import StudySpec, parse_study, read_study

__all__ = [
    "StudyResult",
    "StudySpec",
    "evaluate_classifier",
    "parse_study",
    "plan_study",
    "predict_images",
    "read_study",
    "run_study",
    "study_of",
]
