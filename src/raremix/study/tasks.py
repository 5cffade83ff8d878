"""What a study trains: a classifier, alone, beside a network that learns to mix, or beside features that it keeps."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.config import build
from raremix.core.errors import ConfigError, TargetError
from raremix.core.features import output_of
from raremix.core.protocols import FeatureLoss, HeadLoss, Loss, Prototypes, Trainable
from raremix.core.random import torch_seed
from raremix.core.types import Task
from raremix.data.manifest import Manifest, listed
from raremix.evaluate.probability import shares_of
from raremix.losses import SOFTMAX_LOSSES
from raremix.mix import LEARNED_MIXERS, MixBlock
from raremix.models.head import PROTOTYPES
from raremix.models.label_embedding import label_vectors
from raremix.models.prototype import centre_and_directions
from raremix.study.arm_images import check_extra
from raremix.study.arm_table import ArmSpec
from raremix.study.mixers import learning_keys, make_mixer
from raremix.study.prepare import Prepared, of_arm
from raremix.study.probabilities import deployed
from raremix.study.recipes import PostHoc, TwoStage, make_recipe
from raremix.study.spec import StudySpec, loss_of, sampler_of
from raremix.train import AutoMixing, Classification, Feed, TrainSpec
from raremix.train.contrast import Contrast, Projection, feature_width, make_contrast
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

    Raises:
        ConfigError: if the loss does not go with the classifier, the mixer, or the number of images.
    """
    has_prototypes = any(isinstance(module, Prototypes) for module in model.modules())
    check_loss(criterion, arm, has_prototypes=has_prototypes, class_counts=class_counts, rows=len(feed.ids))
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
    where = f"arm.{arm.name}.loss"
    contrast = _contrast(criterion, model, modules, feed=feed, num_classes=len(class_counts), where=where)
    if contrast is not None:
        optimizers["classifier"] = make_optimizer(nn.ModuleDict(dict(modules)), train)
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
        contrast=contrast,
    )


def losses_in(criterion: Loss) -> Iterator[Loss]:
    """Yield a loss, and those that it is made of."""
    yield criterion
    if is_dataclass(criterion):
        for entry in fields(criterion):
            value: Any = getattr(criterion, entry.name)
            if isinstance(value, Loss):
                yield from losses_in(value)


def label_counts(manifest: Manifest) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return how many training images show each class, and in how many it is known."""
    known = ~np.isnan(manifest.targets(manifest.rows("train")))
    return (
        tuple(float(n) for n in manifest.class_counts("train")),
        tuple(float(n) for n in known.sum(axis=0)),
    )


def check_recipe(spec: StudySpec, arm: ArmSpec, prepared: Prepared, *, cache: Path) -> None:
    """Refuse an arm whose parts do not go with each other, its task or its training images, before any work.

    Label vectors are read, or encoded and kept in the cache: an encoder that cannot be had is found here.

    Raises:
        ConfigError: naming the key, what was found, and what to do.
        TargetError: naming the training images or classes from which nothing can be learned.
    """
    manifest, model = of_arm(prepared, arm).manifest, spec.model_of(arm)
    check_labels(manifest)
    check_extra(arm, prepared, generators=spec.generators)
    counts, known = label_counts(manifest)
    vectors = label_vectors(model.head, manifest.card.classes, cache=cache)
    if vectors is not None:
        centre_and_directions(torch.from_numpy(vectors), names=manifest.card.classes)
    criterion = loss_of(arm, task=manifest.card.task, class_counts=counts, labelled_counts=known, head=model.head.name)
    check_task(criterion, arm, task=manifest.card.task)
    check_loss(
        criterion,
        arm,
        has_prototypes=model.head.name in PROTOTYPES,
        class_counts=counts,
        labelled_counts=known,
        rows=len(manifest.rows("train")),
    )
    _check_stages(spec, arm, task=manifest.card.task)
    deployed(spec, manifest, shares_of(manifest.targets(manifest.rows("validation"))))


def check_labels(manifest: Manifest) -> None:
    """Refuse training images of which nothing is known, and classes that no training image shows.

    Raises:
        TargetError: naming the rows, or the classes.
    """
    ids = manifest.rows("train")
    targets = manifest.targets(ids)
    known, names = ~np.isnan(targets), manifest.card.classes
    blank = ids[~known.any(axis=1)]
    if len(blank):
        raise TargetError(
            f"{len(blank)} of {len(ids)} training images have no label at all (row {listed(blank.tolist())}): nothing "
            "can be learned from them; leave these rows out, or fill their labels in"
        )
    unknown = [name for name, any_known in zip(names, np.asarray(known.any(axis=0)), strict=True) if not any_known]
    if unknown:
        raise TargetError(
            f"{', '.join(unknown)}: not known for any training image: leave it out of the labels, or fill it in"
        )
    absent = [name for name, shown in zip(names, np.asarray((targets == 1).any(axis=0)), strict=True) if not shown]
    if absent:
        raise TargetError(
            f"{', '.join(absent)}: no training image shows it, so that no classifier can learn it: leave it out of the "
            "classes, or give train some of its groups"
        )


def check_task(criterion: Loss, arm: ArmSpec, *, task: Task) -> None:
    """Refuse a loss of classes of which one is true where an image may have several labels.

    Raises:
        ConfigError: naming a loss that asks for each label by itself.
    """
    for loss in losses_in(criterion):
        other = SOFTMAX_LOSSES.get(type(loss))
        if task == "multilabel" and other is not None:
            raise ConfigError(
                f"arm.{arm.name}.loss: {type(loss).__name__} shares one probability out among the classes, and these "
                f"images may show several labels at once or none: take {other}"
            )


def _check_stages(spec: StudySpec, arm: ArmSpec, *, task: Task) -> None:
    """Refuse a recipe that does not go with the last layer, the task, or the budget."""
    recipe, head = make_recipe(arm.recipe, where=f"arm.{arm.name}.recipe"), spec.model_of(arm).head.name
    where = f"arm.{arm.name}.recipe = {arm.recipe.get('name')!r}"
    if isinstance(recipe, TwoStage):
        if spec.model_of(arm).frozen:
            raise ConfigError(
                f"{where} trains the network, then a new last layer, and [model] frozen = true the latter alone"
            )
        if head in PROTOTYPES:
            raise ConfigError(f'{where} trains a new last layer, and [model] head = "{head}" has none of its own')
        if spec.train_of(arm).steps < 2:
            raise ConfigError(f"{where} has two stages: set [train] steps to 2 or more")
        sampler = recipe.second({}, task=task)["sampler"]
        sampler_of(replace(arm, sampler=sampler), targets=np.eye(2), seed=0)
    if isinstance(recipe, PostHoc):
        recipe.check(task=task, where=where)
        if head != "linear":
            raise ConfigError(f'{where} changes a linear last layer, and [model] head = "{head}" is none')


def check_loss(
    criterion: Loss,
    arm: ArmSpec,
    *,
    has_prototypes: bool,
    class_counts: tuple[float, ...],
    labelled_counts: tuple[float, ...] | None = None,
    rows: int,
) -> None:
    """Refuse a loss that does not go with the classifier, the mixer, or the training images.

    Args:
        criterion: the arm's loss.
        arm: the recipe.
        has_prototypes: whether the classifier's last layer measures distances to prototypes.
        class_counts: training images per class.
        labelled_counts: training images in which each class is known; None: not compared.
        rows: number of training images.

    Raises:
        ConfigError: if it asks for prototypes and there are none, counts other images than these, would keep more of
            them than there are, or looks further than the logits where a mixer learns.
    """
    where = f"arm.{arm.name}.loss"
    for loss in losses_in(criterion):
        for key, counted in (("class_counts", class_counts), ("labelled_counts", labelled_counts)):
            counts = getattr(loss, key, None)
            if isinstance(counts, tuple) and counted is not None and counts != counted:
                raise ConfigError(
                    f"{where}.{key} is {list(counts)}, and of the training images it is {list(counted)}: leave it out, "
                    "and the study counts them"
                )
        if isinstance(loss, HeadLoss) and not has_prototypes:
            raise ConfigError(
                f'{where}: this loss measures distances to prototypes; set [model] head = {{ name = "text", ... }}, or '
                'name = "learnable" or "one_hot" where there are no label vectors'
            )
        if isinstance(loss, FeatureLoss) and loss.queue > rows:
            raise ConfigError(
                f"{where}.queue = {loss.queue}, and there are {rows} training images: it would hold images more than "
                f"once; set queue = {rows // 2} or less"
            )
        if isinstance(loss, FeatureLoss | HeadLoss) and arm.mix.get("name") in LEARNED_MIXERS:
            raise ConfigError(f"{where}: a mixer that learns goes with losses of logits alone; take another of the two")


def _contrast(
    criterion: Loss, model: nn.Module, modules: dict[str, nn.Module], *, feed: Feed, num_classes: int, where: str
) -> Contrast | None:
    """Add a projection to the modules, and build the queue, if a loss compares features."""
    found = [loss for loss in losses_in(criterion) if isinstance(loss, FeatureLoss)]
    if not found:
        return None
    loss = found[0]
    if any((other.width, other.queue, other.momentum) != (loss.width, loss.queue, loss.momentum) for other in found):
        raise ConfigError(f"{where}: losses of one arm share their features; give them the same width, queue, momentum")
    width = feature_width(model, feed.batch(0).images[:2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(feed.seed, "init", 2))
        projection = Projection(width, loss.width)
    modules["projection"] = projection
    return make_contrast(loss, model, projection, num_classes=num_classes)


def _mask_network(model: nn.Module, at: str, images: Float[Tensor, "B C H W"], *, seed: int) -> MixBlock:
    """Build a mask network for the features of a module, from the initial weights of a seed."""
    was_training = model.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        channels = output_of(model.eval(), at, images).shape[1]
        torch.manual_seed(torch_seed(seed, "init", 1))
        mask = MixBlock(channels)
    model.train(was_training)
    return mask
