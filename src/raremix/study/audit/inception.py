"""The Inception network of published Frechet and kernel distances, from a file of weights that runs no code."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import safetensors
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from raremix.core.errors import ConfigError, ReadError

OUTPUTS = 1008
"""Classes of the network of 2015 that published distances are measured with; torchvision's and timm's have 1000."""

DIMENSIONS = 2048


def is_inception(path: Path) -> bool:
    """Say whether a file of weights is that network's, by the names and the shape of what it holds."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            return {"Mixed_7c.branch_pool.conv.weight", "fc.weight"} <= names and file.get_slice(
                "fc.weight"
            ).get_shape()[0] == OUTPUTS
    except (OSError, safetensors.SafetensorError):
        return False


def inception_encoder(path: Path) -> Callable[[Float[Tensor, "B 3 H W"]], Float[Tensor, "B 2048"]]:
    """Return what turns images into the vectors of published distances.

    The network, and how it resizes images of any size to 299 pixels, are torch-fidelity's, which agree with the
    original of 2015 (https://github.com/toshas/torch-fidelity). Images are rounded to 8 bits, as it asks.

    Args:
        path: weights, as `docs/generate/quality.md` says how to get them. torch-fidelity's own loader is not used: it
            unpickles whatever it is given.

    Raises:
        ConfigError: if torch-fidelity is not installed.
        ReadError: if weights are missing, or of other shapes.
    """
    try:
        library = import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError:
        raise ConfigError("Inception's weights need torch-fidelity: pip install 'raremix[fidelity]'") from None
    weights = load_file(path)
    try:
        # Its constructor fetches weights, and knows no other way to be given some.
        with patch.object(library, "load_state_dict_from_url", return_value=weights):
            network = library.FeatureExtractorInceptionV3("published", [str(DIMENSIONS)])
    except RuntimeError as error:
        raise ReadError(path.name, f"expected the weights of torch-fidelity's Inception network: {error}") from None
    network.to(memory_format=torch.channels_last)

    def encode(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 2048"]:
        (vectors,) = network((images * 255).round().clamp(0, 255).to(torch.uint8))
        return vectors

    return encode
