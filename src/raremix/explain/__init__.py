"""Which pixels matter: importance maps, which explain a classifier to people and guide mixers alike."""

from raremix.core.protocols import ImportanceMap

IMPORTANCE_MAPS: dict[str, type[ImportanceMap]] = {}
"""Every importance map, by the name that a study file gives it."""

__all__ = ["IMPORTANCE_MAPS"]
