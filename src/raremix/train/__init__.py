"""The one training loop: budgets in steps, exact resume, checkpoints that are whole or not there."""

from raremix.train.automix import AutoMixing
from raremix.train.classification import Classification
from raremix.train.feed import Feed
from raremix.train.loop import FitResult, fit
from raremix.train.spec import TrainSpec

__all__ = ["AutoMixing", "Classification", "Feed", "FitResult", "TrainSpec", "fit"]
