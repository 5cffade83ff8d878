"""GradCAM and its family: where the features that speak for a class lie."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.features import find_module
from raremix.explain.network import as_map, images_for, inner_network, logits_of, undisturbed
from raremix.explain.scale import over_peak, working_type


@dataclass(frozen=True, kw_only=True)
class GradCAM:
    """Class activation maps of any network, by the gradient of the asked classes' logits [1] to [5].

    s = sum_k target_k logit_k; A: a layer's output; G = ds/dA; the map is the positive part of

    - gradcam [1]: sum_c mean(G_c) A_c
    - gradcam++ [2]: sum_c w_c A_c, w_c = sum a_c max(G_c, 0), a_c = G_c^2 / (2 G_c^2 + sum(A_c) G_c^3)
    - layercam [3]: sum_c max(G_c, 0) A_c
    - eigencam [4]: sum_c v_c A_c, v the first principal direction of A, not centred; knows neither class nor gradient
    - hirescam [5]: sum_c G_c A_c

    divided by its largest value; an image with no evidence for what was asked has a map of zeros.

    [1] Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391
    [2] Chattopadhay et al., WACV 2018, https://arxiv.org/abs/1710.11063
    [3] Jiang et al., IEEE TIP 2021, https://doi.org/10.1109/TIP.2021.3089943
    [4] Muhammad & Yeasin, IJCNN 2020, https://arxiv.org/abs/2008.00299
    [5] Draelos & Carin, 2020, https://arxiv.org/abs/2011.08891

    Departures: several classes are asked about at once, weighted by the targets (missing ones do not count), instead of
    one; the principal direction's sign, which is arbitrary, is the one that makes the map's sum positive.

    The network is run for evaluation and left as it was: modes, statistics, gradients and hooks. No tensor outlives the
    call. Only the layers after the one that is looked at keep what a gradient needs.

    Args:
        model: images in [0, 1] -> logits.
        kind: which of the family: "gradcam", "gradcam++", "layercam", "eigencam" or "hirescam".
        layer: name of the module whose output is looked at: a dotted name, or "stem", "stage1" ... as timm counts the
            stages. None: a timm network's last stage; of a transformer with class tokens the first norm of its last
            block, since beyond it only the class token counts.

    Raises:
        ConfigError: if the layer cannot be told, or its output is no map.
        UnknownNameError: if there is no such kind or layer.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> GradCAM(model=net, layer="0")(torch.rand(5, 3, 8, 8), torch.eye(2)[[0, 1, 1, 0, 1]]).shape
        torch.Size([5, 1, 8, 8])
    """

    model: nn.Module = field(repr=False)
    kind: str = "gradcam"
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of class activation map", self.kind, KINDS)
        self._module()

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
        """Return where the evidence for the targets' classes lies, in the layer's resolution."""
        compute, needs_gradient = KINDS[self.kind]
        with undisturbed(self.model):
            inputs = images_for(self.model, images)
            features, gradient = _look(self.model, self._module(), inputs, targets if needs_gradient else None)
            dtype = working_type(images)
            features, gradient = (as_map(one, self.model, inputs).to(dtype) for one in (features, gradient))
            with torch.autocast(images.device.type, enabled=False):
                return over_peak(compute(features, gradient))

    def _module(self) -> nn.Module:
        return last_stage(self.model) if self.layer is None else find_module(self.model, self.layer)


def last_stage(model: nn.Module) -> nn.Module:
    """Return the last module of a timm network whose output is a map that its logits depend on.

    Raises:
        ConfigError: if the network does not say what its stages are.
    """
    network = inner_network(model)
    modules = dict(network.named_modules())
    names = [entry["module"] for entry in getattr(network, "feature_info", ()) if isinstance(entry, dict)]
    found = [modules[name] for name in names if name in modules]
    if not found:
        raise ConfigError('this network does not tell its stages: pass layer=, the name of a module such as "layer4"')
    norm = getattr(found[-1], "norm1", None)
    has_class_token = bool(getattr(network, "num_prefix_tokens", 0))
    return norm if has_class_token and isinstance(norm, nn.Module) else found[-1]


def _look(
    model: nn.Module, module: nn.Module, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"] | None
) -> list[Tensor]:
    """Return a module's output, and the gradient of the targets' logits by it (without targets: the output again)."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise ConfigError(f"the layer puts out {type(output).__name__}, not one tensor: name another")
        seen[:] = [output.detach().requires_grad_(targets is not None)]
        if targets is None:
            return None
        torch.set_grad_enabled(True)  # from here on; `undisturbed` sets it back
        return seen[0].clone()  # what follows may write into it

    handle = module.register_forward_hook(keep)
    try:
        logits = model(images) if targets is None else logits_of(model, images, targets)
    finally:
        handle.remove()
    if not seen:
        raise ConfigError("the layer was not run: name one that the network's forward pass goes through")
    if targets is None:
        return [seen[0], seen[0]]
    score = (logits * targets.nan_to_num(0).to(logits)).sum()
    gradient = torch.autograd.grad(score, seen[0], allow_unused=True)[0] if score.requires_grad else None
    if gradient is None:
        raise ConfigError("the logits do not depend on the layer: name another")
    return [seen[0].detach(), gradient]


def _weighted(features: Tensor, weights: Tensor) -> Float[Tensor, "B 1 h w"]:
    return (features * weights).sum(dim=1, keepdim=True)


def gradcam(features: Float[Tensor, "B D h w"], gradient: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 1 h w"]:
    """Weigh each feature by the mean of its gradient."""
    return _weighted(features, gradient.mean(dim=(2, 3), keepdim=True))


def gradcam_plus_plus(
    features: Float[Tensor, "B D h w"], gradient: Float[Tensor, "B D h w"]
) -> Float[Tensor, "B 1 h w"]:
    """Weigh each feature by its positive gradients, so that several small places count as much as one large place."""
    square = gradient.square()
    bottom = 2 * square + features.sum(dim=(2, 3), keepdim=True) * square * gradient
    share = torch.where(bottom == 0, 0, square / torch.where(bottom == 0, 1, bottom))
    return _weighted(features, (share * gradient.clamp(min=0)).sum(dim=(2, 3), keepdim=True))


def layercam(features: Float[Tensor, "B D h w"], gradient: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 1 h w"]:
    """Weigh each place of each feature by its positive gradient."""
    return _weighted(features, gradient.clamp(min=0))


def hirescam(features: Float[Tensor, "B D h w"], gradient: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 1 h w"]:
    """Weigh each place of each feature by its gradient: exactly what each place adds to a linear logit."""
    return _weighted(features, gradient)


def eigencam(features: Float[Tensor, "B D h w"], gradient: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 1 h w"]:
    """Project the features of each place on their first principal direction."""
    B, D, h, w = features.shape
    places = features.flatten(2)
    if h * w >= D:
        direction = torch.linalg.eigh(places @ places.mT).eigenvectors[:, :, -1:]
        projected = (direction.mT @ places)[:, 0]
    else:
        values, vectors = torch.linalg.eigh(places.mT @ places)
        projected = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    projected = torch.where(projected.sum(dim=1, keepdim=True) < 0, -projected, projected)
    return projected.reshape(B, 1, h, w)


KINDS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "gradcam": (gradcam, True),
    "gradcam++": (gradcam_plus_plus, True),
    "layercam": (layercam, True),
    "eigencam": (eigencam, False),
    "hirescam": (hirescam, True),
}
"""What makes a map of features and their gradient, by name, and whether it looks at the gradient."""
