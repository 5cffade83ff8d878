"""Which pixels matter: importance maps, which explain a classifier to people and guide mixers alike."""

from raremix.core.protocols import ImportanceMap
from raremix.explain.class_attention import ClassAttention
from raremix.explain.difference import DifferenceMap
from raremix.explain.fine_grained import FineGrained
from raremix.explain.function import FunctionMap
from raremix.explain.gradcam import GradCAM
from raremix.explain.hyperplane import ClassPath, HyperplaneMaps, hyperplane_maps, signed_distance
from raremix.explain.input_gradient import InputGradient
from raremix.explain.insertion import InsertionDeletion, insertion_deletion
from raremix.explain.integrated_gradients import IntegratedGradients
from raremix.explain.occlusion import Occlusion
from raremix.explain.spectral_residual import SpectralResidual

IMPORTANCE_MAPS: dict[str, type[ImportanceMap]] = {
    "fine_grained": FineGrained,
    "spectral_residual": SpectralResidual,
    "gradcam": GradCAM,
    "class_attention": ClassAttention,
    "input_gradient": InputGradient,
    "integrated_gradients": IntegratedGradients,
    "occlusion": Occlusion,
    "difference": DifferenceMap,
    "function": FunctionMap,
}
"""Every importance map, by the name that a study file gives it."""

__all__ = [
    "IMPORTANCE_MAPS",
    "ClassAttention",
    "ClassPath",
    "DifferenceMap",
    "FineGrained",
    "FunctionMap",
    "GradCAM",
    "HyperplaneMaps",
    "InputGradient",
    "InsertionDeletion",
    "IntegratedGradients",
    "Occlusion",
    "SpectralResidual",
    "hyperplane_maps",
    "insertion_deletion",
    "signed_distance",
]
