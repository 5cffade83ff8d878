"""A `collate_fn` for `torch.utils.data.DataLoader`, which mixes each batch where it is made: in the workers."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch.utils.data import default_collate

from raremix.adapt.loop import Loop
from raremix.adapt.sample import Key, PoolBatch, mix_sample
from raremix.core.protocols import Mixer


class MixCollate:
    """Collate samples, and mix the batch.

    Each worker draws from streams of its own. They follow from torch's seed (or the loader's `generator`): the same
    seed, the same mixes, for a fixed number of workers.

    Args:
        mixer: what mixes.
        images, targets: where they are in a sample: a position, from the end if it is negative, or a key.
        masks: where segmentation masks are, which are mixed with the images; None: there are none.
        importance: where maps (m, h, w) of what matters in each image are; None: the mixer draws its own.
        is_synthetic: where it says which images were generated; None: none of them.
        seed: an integer >= 0, another one for every rank that was seeded alike; see `raremix.adapt.streams`.
        steps: batches of the whole training, for a mixer that follows a schedule. All workers count together, and
            make batches ahead: where a schedule starts and ends may differ by a few batches from run to run.
        first_step: batches before the first one, of a training that is resumed.
        pool: what partners are drawn from, batch by batch, without end: yields (images, targets), (images, targets,
            is_synthetic) or `raremix.core.types.Batch`, as a DataLoader without workers does. Each worker goes through
            it by itself.
        collate: makes a batch of samples. What it returns beside images, targets and masks stays with the own images.

    Raises:
        ConfigError: if the mixer follows a schedule and steps is missing, or needs a pool and there is none.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from raremix.mix import CutMix
        >>> data = TensorDataset(torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 0, 1, 0, 1]))
        >>> images, targets = next(iter(DataLoader(data, batch_size=6, collate_fn=MixCollate(CutMix(num_classes=2)))))
        >>> images.shape, targets.shape
        (torch.Size([6, 1, 8, 8]), torch.Size([6, 2]))
    """

    def __init__(
        self,
        mixer: Mixer,
        *,
        images: Key = 0,
        targets: Key = 1,
        masks: Key | None = None,
        importance: Key | None = None,
        is_synthetic: Key | None = None,
        seed: int = 0,
        steps: int | None = None,
        first_step: int = 0,
        pool: Iterable[PoolBatch] | None = None,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        self.mixer = mixer
        self._places = {"images": images, "targets": targets, "masks": masks}
        self._places |= {"importance": importance, "is_synthetic": is_synthetic}
        self._loop = Loop(mixer, seed=seed, steps=steps, first_step=first_step, pool=pool)
        self._collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Collate and mix."""
        turn = self._loop.next()
        return mix_sample(turn.mixer, self._collate(list(samples)), **self._places, rng=turn.rng, pool=turn.pool)
