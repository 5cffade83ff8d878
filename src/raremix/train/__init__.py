"""The one training loop: budgets in steps, exact resume, checkpoints that are whole or not there."""

from raremix.train.automix import AutoMixing
from raremix.train.classification import Classification
from raremix.train.feed import Feed
from raremix.train.loop import FitResult, TrainSpec, fit

__all__ = ["AutoMixing", "Classification", "Feed", "FitResult", "TrainSpec", "fit"]
