"""What the loop does in place of DistributedDataParallel for a trainable whose modules several ranks train."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.core.protocols import RankedTrainable, Trainable
from raremix.core.ranks import Ranks
from raremix.train.checkpoint import unwrap

BUCKET = 1 << 24
"""Numbers that are sent at once: as many as the copy may hold that they are sent from."""


def is_shared(task: Trainable, ranks: Ranks) -> bool:
    """Return whether the loop is to take means over the ranks for a trainable.

    Raises:
        ConfigError: if the trainable thinks that it is another rank: it would draw what another one draws too.
    """
    if not isinstance(task, RankedTrainable):
        return False
    if task.ranks != ranks:
        raise ConfigError(
            f"the trainable was built for rank {task.ranks.rank} of {task.ranks.count}, and the loop is rank "
            f"{ranks.rank} of {ranks.count}: build it with ranks = Ranks(rank=..., count=...) of its Fabric"
        )
    return ranks.count > 1


def placed(module: nn.Module, fabric: Fabric) -> nn.Module:
    """Return a module on Fabric's device and in its precision, with the first rank's values, and nothing around it."""
    module = fabric.strategy.precision.convert_module(module)
    fabric.strategy.module_to_device(module)
    for tensor in unwrap(module).state_dict().values():
        # A view of a weight in another memory format would not be sent; a copy in plain order is.
        sent = tensor.detach().contiguous()
        torch.distributed.broadcast(sent, src=0)
        tensor.detach().copy_(sent)
    return _FabricModule(module, fabric.strategy)


def average_gradients(parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """Give every rank the mean of all ranks' gradients.

    Where a parameter got a gradient on some ranks only, it counts as 0 on the others. Where it got none on any, it
    stays without one: its optimiser then leaves it, and its own moments, as they are.

    Args:
        parameters: of a phase's optimiser, in the same order on every rank.
        ranks: which rank of how many this is.
    """
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    found: list[Tensor] = []
    for parameter, count in zip(parameters, ranks.sum(has).tolist(), strict=True):
        if not count:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    for bucket in _buckets(found):
        _average(bucket, ranks, torch.float32)


@torch.no_grad()
def average_statistics(modules: Mapping[str, nn.Module], ranks: Ranks) -> None:
    """Give every rank the mean of all ranks' buffers: running statistics of batches, of which each saw its own share.

    Buffers that are alike on all ranks stay what they are to the last bit: in 64 bits the sum of so few equal numbers
    is exact. Whole numbers, which count steps or stand for tokens, are alike already.
    """
    found = [b for module in modules.values() for b in unwrap(module).buffers() if b.is_floating_point()]
    for bucket in _buckets(found):
        _average(bucket, ranks, torch.float64)


def mean_losses(losses: Mapping[str, Tensor], ranks: Ranks, device: torch.device) -> dict[str, Tensor]:
    """Return the mean of every loss over the ranks; one that is not finite on any rank is finite on none."""
    if ranks.count == 1 or not losses:
        return dict(losses)
    flat = ranks.mean(torch.stack([value.detach().to(device, torch.float64) for value in losses.values()]))
    return dict(zip(losses, flat.unbind(), strict=True))


def _average(tensors: Sequence[Tensor], ranks: Ranks, kind: torch.dtype) -> None:
    # In plain order, whatever the memory format: two ranks need not have the same one.
    flat = ranks.mean(torch.cat([tensor.reshape(-1).to(kind) for tensor in tensors]))
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors in bunches of at most `BUCKET` numbers, or of one that has more."""
    bunch: list[Tensor] = []
    held = 0
    for tensor in tensors:
        if bunch and held + tensor.numel() > BUCKET:
            yield bunch
            bunch, held = [], 0
        bunch.append(tensor)
        held += tensor.numel()
    if bunch:
        yield bunch
