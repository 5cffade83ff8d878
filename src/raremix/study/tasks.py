"""What a study trains: a classifier, alone or beside a network that learns to mix."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.config import build
from raremix.core.features import output_of
from raremix.core.protocols import Loss, Trainable
from raremix.core.random import torch_seed
from raremix.mix import LEARNED_MIXERS, MixBlock
from raremix.study.mixers import learning_keys, make_mixer
from raremix.study.spec import ArmSpec
from raremix.train import AutoMixing, Classification, Feed, TrainSpec
from raremix.train.guide import Guide
from raremix.train.optimizer import make_optimizer


def make_task(
    arm: ArmSpec,
    model: nn.Module,
    *,
    train: TrainSpec,
    criterion: Loss,
    class_counts: tuple[float, ...],
    feed: Feed,
    guide: Guide | None = None,
) -> Trainable:
    """Build what an arm trains.

    Args:
        arm: the recipe.
        model: the classifier.
        train: its budget and optimiser.
        criterion: its loss.
        class_counts: training images per class.
        feed: makes its batches.
        guide: keeps importance maps for its mixer.
    """
    mixer = make_mixer(arm.mix, where=f"arm.{arm.name}.mix", class_counts=class_counts)
    modules, optimizers = {"classifier": model}, {"classifier": make_optimizer(model, train)}
    if arm.mix.get("name") in LEARNED_MIXERS:
        learning = learning_keys(arm.mix)
        at = str(learning.get("at", AutoMixing.__dataclass_fields__["at"].default))
        mask = _mask_network(model, at, feed.batch(0).images[:2], seed=feed.seed)
        modules["mask"], optimizers["mask"] = mask, make_optimizer(mask, train)
        return build(
            AutoMixing,
            learning,
            where=f"arm.{arm.name}.mix",
            modules=modules,
            optimizers=optimizers,
            criterion=criterion,
            mixer=mixer,
            seed=feed.seed,
            steps=train.steps,
            rank=feed.rank,
        )
    return Classification(
        modules=modules,
        optimizers=optimizers,
        criterion=criterion,
        mixer=mixer,
        seed=feed.seed,
        steps=train.steps,
        rank=feed.rank,
        guide=guide,
        repeat=feed.repeat,
    )


def _mask_network(model: nn.Module, at: str, images: Float[Tensor, "B C H W"], *, seed: int) -> MixBlock:
    """Build a mask network for the features of a module, from the initial weights of a seed."""
    was_training = model.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        channels = output_of(model.eval(), at, images).shape[1]
        torch.manual_seed(torch_seed(seed, "init", 1))
        mask = MixBlock(channels)
    model.train(was_training)
    return mask
