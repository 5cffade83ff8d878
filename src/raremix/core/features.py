"""Mixing inside a network: run it on the images as they are, and mix what a named module puts out."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.masks import token_grid
from raremix.core.types import Batch, MixPlan

STEMS = ("patch_embed", "stem", "maxpool", "bn1", "act1", "conv_stem")
"""What timm's networks call the end of their stem; the first that a network has is its "stem"."""


def forward_mixed(
    model: nn.Module, batch: Batch, plan: MixPlan, pool: Batch | None = None, *, network: nn.Module | None = None
) -> tuple[Tensor, Float[Tensor, "R K"]]:
    """Run a network on a mixed batch, wherever the plan says that it is mixed.

    Args:
        model: images -> logits.
        batch: where the plan's `own` points.
        plan: with `at` None the images are mixed; else the output of that module.
        pool: where `partner` points; the batch itself by default.
        network: where the module is looked for, if `model` is a wrapper around it.

    Returns:
        The network's output and the mixed targets, R rows each.

    Raises:
        UnknownNameError: if the network has no module of that name.

    Example:
        >>> from raremix.core.random import rng
        >>> from raremix.mix import ManifoldMixUp
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
        >>> batch = Batch(images=torch.rand(6, 3, 8, 8), targets=torch.eye(2).repeat(3, 1))
        >>> plan = ManifoldMixUp(layers=("0",)).plan(batch, batch, rng=rng(0, "mix"))
        >>> logits, targets = forward_mixed(net, batch, plan)
        >>> logits.shape, targets.shape
        (torch.Size([6, 2]), torch.Size([6, 2]))
    """
    if plan.at is None:
        mixed = plan.apply(batch, pool)
        return model(mixed.images), mixed.targets
    targets = plan.apply_targets(batch.targets, None if pool is None else pool.targets)
    images = batch.images if pool is None or pool is batch else torch.cat([batch.images, pool.images])
    with mixed_inside(model if network is None else network, plan, rows=len(batch.images)):
        return model(images), targets


@contextmanager
def mixed_inside(model: nn.Module, plan: MixPlan, *, rows: int) -> Iterator[None]:
    """Mix the output of the module that a plan names, as long as the context lasts.

    Args:
        model: holds the module.
        plan: its `at` names the module: a dotted name, or "stem", or "stage1" ... as timm counts the stages.
        rows: number of rows of the batch; where the network is run on more, the rest is the pool.
    """
    module = find_module(model, plan.at or "")
    is_last = _is_channels_last(module, _owner(model))

    def mix(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        is_map = output.ndim == 4 and is_last
        output = output.permute(0, 3, 1, 2) if is_map else output
        mixed = plan.apply_features(output[:rows], output[rows:] if len(output) > rows else None)
        return mixed.permute(0, 2, 3, 1) if is_map else mixed

    handle = module.register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()


class _Reached(Exception):  # noqa: N818 - nothing went wrong
    """Ends a forward pass at the module that was asked for."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def output_of(model: nn.Module, name: str, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
    """Run a network no further than to the module of a name, and return what that puts out, as maps.

    Args:
        model: images -> logits.
        name: a dotted name, or "stem", or "stage1" ... as `find_module` knows them. Tokens become maps:
            see `raremix.core.masks.token_grid`.
        images: what it is run on.

    Raises:
        UnknownNameError: if the network has no module of that name.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
        >>> output_of(net, "0", torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 4, 6, 6])
    """
    module = find_module(model, name)
    is_last = _is_channels_last(module, _owner(model))

    def reach(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        raise _Reached(output)

    handle = module.register_forward_hook(reach)
    try:
        model(images)
    except _Reached as reached:
        output = reached.output
    else:
        raise ConfigError(f"{name} is not used when the network runs: name another module")
    finally:
        handle.remove()
    if output.ndim == 3:
        grid = token_grid(output.shape[1], height=images.shape[-2], width=images.shape[-1])
        return output[:, -math.prod(grid) :].mT.unflatten(2, grid)
    if output.ndim != 4:
        raise ConfigError(f"{name} puts out {tuple(output.shape)}, which is no map: name an earlier module")
    return output.permute(0, 3, 1, 2) if is_last else output


def head_of(model: nn.Module) -> nn.Module:
    """Return a network's last layer, which turns features into logits: timm's classifier, or the last linear layer.

    Raises:
        ConfigError: if there is none, or more than one.

    Example:
        >>> head_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
        Linear(in_features=12, out_features=2, bias=True)
    """
    owner = _owner(model)
    named = getattr(owner, "get_classifier", None)
    found = named() if callable(named) else None
    if found is None:
        linear = [module for module in owner.modules() if isinstance(module, nn.Linear)]
        found = linear[-1] if linear else None
    if not isinstance(found, nn.Module) or isinstance(found, nn.Identity):
        raise ConfigError("this network has no single last layer that turns features into logits: choose another one")
    return found


@contextmanager
def features_seen(model: nn.Module) -> Iterator[list[Float[Tensor, "B D"]]]:
    """Note down what goes into a network's last layer, as long as the context lasts.

    Yields:
        A list, to which every run of the network adds the features that its last layer was given.

    Raises:
        ConfigError: if the network has no single last layer.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> with features_seen(net) as seen:
        ...     logits = net(torch.rand(5, 3, 2, 2))
        >>> seen[0].shape
        torch.Size([5, 12])
    """
    seen: list[Tensor] = []
    handle = head_of(model).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return a module by its dotted name, or by "stem", "stage1", "stage2" ... of a timm network.

    Raises:
        UnknownNameError: if there is none of that name.

    Example:
        >>> find_module(nn.Sequential(nn.ReLU(), nn.Flatten()), "1")
        Flatten(start_dim=1, end_dim=-1)
    """
    owner = _owner(model)
    modules = dict(owner.named_modules())
    if name == "stem":
        found = next((stem for stem in STEMS if stem in modules), None)
        if found is None:
            raise ConfigError(f'this network has no part called "stem": name a module, such as {_some(modules)}')
        return modules[found]
    if name.startswith("stage") and name[5:].isdigit() and name not in modules:
        stages = _stages(owner)
        if not 1 <= int(name[5:]) <= len(stages):
            raise ConfigError(f"{name}: this network has {len(stages)} stages")
        return modules[stages[int(name[5:]) - 1]]
    if name not in modules or not name:
        raise UnknownNameError("module", name, [known for known in modules if known])
    return modules[name]


def _stages(owner: nn.Module) -> list[str]:
    """Return the names of the modules that end a stage, from `feature_info`, without what belongs to the stem."""
    modules = dict(owner.named_modules())
    names = [entry["module"] for entry in getattr(owner, "feature_info", ()) if isinstance(entry, dict)]
    return [name for name in names if name in modules and name not in STEMS]


def _is_channels_last(module: nn.Module, owner: nn.Module) -> bool:
    """Say whether a module puts out (B, H, W, C), as Swin's blocks and their kin in timm do, whose network says so."""
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
        return False
    return str(getattr(module, "output_fmt", getattr(owner, "output_fmt", ""))).endswith("NHWC")


def _owner(model: nn.Module) -> nn.Module:
    """Return timm's network inside whatever wraps it."""
    return next((m for m in model.modules() if hasattr(m, "feature_info")), model)


def _some(modules: dict[str, nn.Module]) -> str:
    return ", ".join([name for name in modules if name][:6])
