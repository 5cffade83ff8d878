"""Run a trained classifier over images."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from raremix.core.types import Progress
from raremix.train.feed import Images, to_float


def predict_logits(
    model: nn.Module,
    images: Images,
    ids: Int[np.ndarray, " N"],
    *,
    num_classes: int,
    batch_size: int = 256,
    device: torch.device | None = None,
    channels_last: bool = True,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    progress: Progress | None = None,
) -> Float[np.ndarray, "N K"]:
    """Return the logits of images, in order, in float64.

    Args:
        model: images in [0, 1] -> logits; it is put into evaluation mode for the while.
        images: decoded images.
        ids: which of them.
        num_classes: K, for the shape of an empty result.
        batch_size: images at a time; does not change the result beyond rounding.
        device: where the model is; the CPU by default.
        channels_last: memory format of the images.
        autocast: the precision that the model was trained in.
        progress: called after every batch.
    """
    device = device or torch.device("cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits = np.empty((len(ids), num_classes))
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast():
        for start in range(0, len(ids), batch_size):
            batch = to_float(images.take(ids[start : start + batch_size])).to(device, memory_format=layout)
            logits[start : start + len(batch)] = model(batch).cpu().double().numpy()
            if progress is not None:
                progress("predicting", min(start + batch_size, len(ids)), len(ids))
    model.train(was_training)
    return logits
