"""A `collate_fn` for `torch.utils.data.DataLoader`, which mixes each batch where it is made: in the workers."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import default_collate

from raremix.adapt.sample import Key, mix_sample
from raremix.adapt.streams import Streams
from raremix.core.protocols import Mixer


class MixCollate:
    """Collate samples, and mix the batch.

    Each worker draws from streams of its own. They follow from torch's seed (or the loader's `generator`): the same
    seed, the same mixes, for a fixed number of workers.

    Args:
        mixer: what mixes.
        images, targets: where they are in a sample: a position or a key.
        masks: where segmentation masks are, which are mixed with the images; None: there are none.
        seed: an integer >= 0, another one for every rank that was seeded alike; see `raremix.adapt.streams`.
        collate: makes a batch of samples. What it returns beside images, targets and masks stays with the own images.

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
        seed: int = 0,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        self.mixer = mixer
        self._places = {"images": images, "targets": targets, "masks": masks}
        self._streams = Streams(seed=seed)
        self._collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Collate and mix."""
        return mix_sample(self.mixer, self._collate(list(samples)), **self._places, rng=self._streams.next())
