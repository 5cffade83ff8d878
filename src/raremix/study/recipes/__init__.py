"""Recipes against the long tail as one word of an arm: `recipe = "crt"`. Any mixer, sampler and loss goes with them."""

from collections.abc import Mapping

from raremix.config import Table, build_named
from raremix.study.recipes.class_thresholds import ClassThresholds
from raremix.study.recipes.crt import CRT
from raremix.study.recipes.deferred_mixing import DeferredMixing
from raremix.study.recipes.deferred_reweighting import DeferredReweighting
from raremix.study.recipes.kinds import PostHoc, Recipe, Rewriting, Trained, TwoStage
from raremix.study.recipes.logit_adjustment import LogitAdjustment
from raremix.study.recipes.tau_normalise import TauNormalise

RECIPES: Mapping[str, type[Recipe]] = {
    "crt": CRT,
    "tau_normalise": TauNormalise,
    "logit_adjustment": LogitAdjustment,
    "class_thresholds": ClassThresholds,
    "deferred_reweighting": DeferredReweighting,
    "deferred_mixing": DeferredMixing,
}
"""Every recipe, by the name that a study file gives it."""


def make_recipe(table: Table, *, where: str) -> Recipe | None:
    """Build an arm's recipe, if it has one.

    Raises:
        UnknownNameError: for a name or key that does not exist.
        ConfigError: for a value that does not fit.
    """
    return build_named(RECIPES, table, kind="recipe", where=where) if table else None


__all__ = [
    "CRT",
    "RECIPES",
    "ClassThresholds",
    "DeferredMixing",
    "DeferredReweighting",
    "LogitAdjustment",
    "PostHoc",
    "Recipe",
    "Rewriting",
    "TauNormalise",
    "Trained",
    "TwoStage",
    "make_recipe",
]
