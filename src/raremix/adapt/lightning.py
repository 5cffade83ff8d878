"""Lightning: a hook that mixes training batches on the device. Lightning itself is not needed to import this."""

from collections.abc import Callable, Iterable
from typing import Any

from raremix.adapt.loop import Partners
from raremix.adapt.sample import Key, PoolBatch, mix_sample
from raremix.core.protocols import Mixer
from raremix.core.random import rng


def mix_after_transfer(
    mixer: Mixer,
    *,
    images: Key = 0,
    targets: Key = 1,
    masks: Key | None = None,
    importance: Key | None = None,
    is_synthetic: Key | None = None,
    pool: Iterable[PoolBatch] | None = None,
    seed: int = 0,
) -> Callable[[Any, Any, int], Any]:
    """Make the hook `on_after_batch_transfer` of a LightningModule; a callback could not replace the batch.

    Batches of training are mixed, all others are left alone. The draws of a batch follow from the seed, the rank and
    the number of the batch since the start of the training, which a Lightning checkpoint keeps: a resumed run goes on
    with the draws of one that was never stopped. Schedules (`raremix.mix.Scheduled`) follow the optimiser's steps.

    Args:
        mixer: what mixes.
        images, targets: where they are in a batch: a position, from the end if it is negative, or a key.
        masks: where segmentation masks are, which are mixed with the images; None: there are none.
        importance: where maps (B, m, h, w) of what matters in each image are; None: the mixer draws its own.
        is_synthetic: where it says which images were generated; None: none of them.
        pool: what partners are drawn from, batch by batch, without end: yields (images, targets), (images, targets,
            is_synthetic) or `raremix.core.types.Batch`, as a DataLoader does. A checkpoint does not keep how far it was
            gone through.
        seed: an integer, the address of all draws.

    Returns:
        A function to be made an attribute of the class.

    Raises:
        ConfigError: if the mixer needs a pool and there is none.

    Example:
        In a LightningModule, with a loss that takes soft targets::

            class Model(lightning.LightningModule):
                on_after_batch_transfer = mix_after_transfer(CutMix(num_classes=7))
    """

    places = {"images": images, "targets": targets, "masks": masks}
    places |= {"importance": importance, "is_synthetic": is_synthetic}
    partners = Partners(mixer, pool)

    def on_after_batch_transfer(self: Any, batch: Any, dataloader_idx: int) -> Any:
        trainer = self.trainer
        if not trainer.training:
            return batch
        # The count is of batches that were begun before this one: -1 at the first.
        number = trainer.fit_loop.total_batch_idx + 1
        current = _in_force(mixer, trainer)
        stream = rng(seed, "mix", self.global_rank, number, dataloader_idx)
        return mix_sample(current, batch, **places, rng=stream, pool=partners.next())

    return on_after_batch_transfer


def _in_force(mixer: Mixer, trainer: Any) -> Mixer:
    """Return the mixer of the trainer's step; a training without an end has no schedule."""
    steps = trainer.estimated_stepping_batches
    return mixer if steps == float("inf") else mixer.at_step(trainer.global_step, steps=int(steps))
