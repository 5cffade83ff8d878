"""torchvision: a transform of batches that stands in a `v2.Compose`, where `v2.MixUp` and `v2.CutMix` stand."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import convert_bounding_box_format

from raremix.adapt.loop import Loop
from raremix.adapt.sample import PoolBatch, as_floats, as_given, follow_own, mix, mix_masks, rebuilt, rebuilt_mapping
from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import Mixer
from raremix.core.types import Batch, MixPlan
from raremix.mix.boxes import VisibleBoxes, mix_boxes

LabelsGetter = Callable[[Any], Any]
XYXY = tv_tensors.BoundingBoxFormat.XYXY


class Mix(v2.Transform):
    """Mix a batch by any mixer: labels, and by the same plan segmentation masks and boxes.

    In a sample, which may be nested:

    * images are every `tv_tensors.Image` of shape (B, C, H, W), or else the first plain tensor that is not the labels;
      8-bit ones come back as such;
    * labels, (B) or (B, K), become floats (B, K);
    * `tv_tensors.Mask` of shape (B, H, W) or (B, M, H, W): integers and booleans come from whichever image gives most
      to the pixel, floats are mixed;
    * boxes are given as torchvision's detectors take them: a list with a dictionary for each image, which holds one
      `tv_tensors.BoundingBoxes`. A row then has the boxes of all its images, and "visible", the share of each that can
      be seen; tensors beside them that have an entry per box, such as their labels, are gathered likewise;
    * all else stays with the own images, a list with a dictionary for each image but without boxes too.

    Args:
        mixer: what mixes; with `num_classes` where labels are class numbers.
        labels_getter: returns the labels of a sample, one of its tensors. "default": the second part of the sample if
            it is a tensor, else what that part (or the sample) has under "labels", or the first key that contains
            "label". None: there are none, and images are mixed alone.
        importance_getter: returns maps (B, m, h, w) of what matters in each image of a sample; None: the mixer draws
            its own.
        is_synthetic_getter: returns which images of a sample were generated, (B); None: none of them.
        seed: an integer >= 0; see `raremix.adapt.streams`.
        steps: calls of the whole training, `epochs * len(loader)`, for a mixer that follows a schedule.
        first_step: calls before the first one, of a training that is resumed.
        pool: what partners are drawn from, batch by batch, without end: yields (images, targets), (images, targets,
            is_synthetic) or `raremix.core.types.Batch`, as a DataLoader does. Further images, masks and boxes cannot
            ride along with them.

    Raises:
        ConfigError: if labels_getter is neither, the mixer follows a schedule and steps is missing, or it needs a pool
            and there is none.

    Example:
        >>> from raremix.mix import CutMix
        >>> transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), Mix(CutMix(num_classes=2))])
        >>> images = tv_tensors.Image(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
        >>> images, labels = transform(images, torch.tensor([0, 1, 1, 0]))
        >>> type(images).__name__, labels.shape
        ('Image', torch.Size([4, 2]))
    """

    def __init__(
        self,
        mixer: Mixer,
        *,
        labels_getter: LabelsGetter | str | None = "default",
        importance_getter: Callable[[Any], Tensor] | None = None,
        is_synthetic_getter: Callable[[Any], Any] | None = None,
        seed: int = 0,
        steps: int | None = None,
        first_step: int = 0,
        pool: Iterable[PoolBatch] | None = None,
    ) -> None:
        super().__init__()
        if labels_getter is not None and labels_getter != "default" and not callable(labels_getter):
            raise ConfigError(f'labels_getter must be "default", a function or None, got {labels_getter!r}')
        self.mixer = mixer
        self._labels_getter = labels_getter
        self._importance_getter, self._is_synthetic_getter = importance_getter, is_synthetic_getter
        self._loop = Loop(mixer, seed=seed, steps=steps, first_step=first_step, pool=pool)

    def forward(self, *inputs: Any) -> Any:
        """Return the sample, mixed.

        Raises:
            DataError: if it has no images, or parts that cannot be mixed.
            TargetError: if the labels do not fit.
        """
        sample: Any = inputs if len(inputs) > 1 else next(iter(inputs))
        labels = self._find_labels(sample)
        tensors = _tensors(sample)
        if labels is not None and not any(value is labels for value in tensors):
            raise DataError("labels_getter must return one of the sample's tensors itself, not a new one made from it")
        importance = None if self._importance_getter is None else self._importance_getter(sample)
        is_synthetic = None if self._is_synthetic_getter is None else self._is_synthetic_getter(sample)
        images = _find_images(tensors, labels, importance, is_synthetic)
        no_labels = torch.zeros(len(images), self.mixer.num_classes or 1, device=images.device)
        targets = no_labels if labels is None else _plain(labels)
        turn = self._loop.next()
        mixed = mix(
            turn.mixer,
            _plain(images),
            targets,
            rng=turn.rng,
            pool=turn.pool,
            importance=None if importance is None else _plain(importance),
            is_synthetic=is_synthetic,
        )

        def leaf(value: Any) -> Any:
            if value is images:
                return _wrapped(mixed.images, images)
            if value is labels and labels is not None:
                return mixed.targets
            if value is importance:
                return follow_own(value, mixed.plan, rows=len(images))
            if isinstance(value, tv_tensors.Image):
                mixed.check_rides("further images")
                return _wrapped(_mix_more(mixed.plan, _plain(value)), value)
            if isinstance(value, tv_tensors.Mask):
                mixed.check_rides("masks")
                return _wrapped(mix_masks(mixed.plan, _plain(value)), value)
            if isinstance(value, tv_tensors.TVTensor):
                raise DataError(
                    f"{type(value).__name__} cannot be mixed here: pass images and masks as batches, and boxes as a "
                    'list with a dictionary for each image, [{"boxes": BoundingBoxes, "labels": ...}, ...]'
                )
            return follow_own(value, mixed.plan, rows=len(images))

        def boxes(dictionaries: Sequence[Mapping[str, Any]]) -> Any:
            if not _hold_tv_tensors(dictionaries):
                return follow_own(dictionaries, mixed.plan, rows=len(images))
            mixed.check_rides("boxes")
            return rebuilt(dictionaries, _mix_dictionaries(mixed.plan, dictionaries, size=tuple(images.shape[-2:])))

        return _mapped(sample, leaf, boxes)

    def _find_labels(self, sample: Any) -> Tensor | None:
        if self._labels_getter is None:
            return None
        labels = self._labels_getter(sample) if callable(self._labels_getter) else _default_labels(sample)
        if not isinstance(labels, Tensor):
            raise DataError(
                f"labels must be a tensor, got {type(labels).__name__}: pass labels_getter=, or None for none"
            )
        return labels


def _default_labels(sample: Any) -> Any:
    part = sample[1] if isinstance(sample, (list, tuple)) and len(sample) > 1 else sample
    if not isinstance(part, Mapping):
        return part
    names = [name for name in part if isinstance(name, str)]
    exact = [name for name in names if name.lower() == "labels"]
    found = exact or [name for name in names if "label" in name.lower()]
    return part[found[0]] if found else None


def _tensors(sample: Any) -> list[Tensor]:
    tensors: list[Tensor] = []

    def collect(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
        return value

    _mapped(sample, collect, lambda dictionaries: dictionaries)
    return tensors


def _find_images(tensors: list[Tensor], *others: Any) -> Tensor:
    """Return the images among tensors of which some are known to be something else."""
    named = [value for value in tensors if isinstance(value, tv_tensors.Image)]
    plain = [value for value in tensors if not isinstance(value, tv_tensors.TVTensor)]
    plain = [value for value in plain if not any(value is other for other in others)]
    found = next(iter(named or plain), None)
    if found is None or found.ndim != 4:
        shape = "none" if found is None else f"a tensor of shape {tuple(found.shape)}"
        raise DataError(
            f"mixing needs a batch of images (B, C, H, W), got {shape}: mix after the DataLoader, or in collate_fn"
        )
    return found


def _mapped(node: Any, leaf: Callable[[Any], Any], boxes: Callable[[Any], Any]) -> Any:
    """Rebuild a nested sample with every leaf replaced, and every list of dictionaries as a whole."""
    if isinstance(node, Mapping):
        return rebuilt_mapping(node, {key: _mapped(value, leaf, boxes) for key, value in node.items()})
    if isinstance(node, (list, tuple)):
        if node and all(isinstance(entry, Mapping) for entry in node):
            return boxes(node)
        if any(isinstance(entry, (Tensor, Mapping, list, tuple)) for entry in node):
            return rebuilt(node, [_mapped(entry, leaf, boxes) for entry in node])
    return leaf(node)


def _mix_more(plan: MixPlan, images: Tensor) -> Tensor:
    """Mix further images of the same sample."""
    batch = Batch(images=as_floats(images), targets=torch.zeros(len(images), 1, device=images.device))
    return as_given(plan.apply(batch).images, images)


def _hold_tv_tensors(dictionaries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether dictionaries hold what has to be mixed; without it they are metadata."""
    return any(isinstance(value, tv_tensors.TVTensor) for entry in dictionaries for value in entry.values())


def _mix_dictionaries(
    plan: MixPlan, dictionaries: Sequence[Mapping[str, Any]], *, size: tuple[int, ...]
) -> list[dict[str, Any]]:
    names = [name for name, value in dictionaries[0].items() if isinstance(value, tv_tensors.BoundingBoxes)]
    if len(names) != 1:
        raise DataError(f"the dictionary of each image needs one entry of BoundingBoxes, got {names or 'none'}")
    (name,) = names
    given = [dictionary[name] for dictionary in dictionaries]
    sizes = {tuple(boxes.canvas_size) for boxes in given}
    if sizes != {size}:
        raise DataError(f"boxes belong to canvases of {sorted(sizes)}, the images are {size}: resize both together")
    corners = [_plain(convert_bounding_box_format(boxes, new_format=XYXY)) for boxes in given]
    rows = mix_boxes(plan, corners, height=size[0], width=size[1])
    per_box = {key for key in dictionaries[0] if key != name and _is_per_box(key, dictionaries, given)}
    return [
        _gathered(dictionaries, int(own), row, name=name, per_box=per_box)
        for own, row in zip(plan.own, rows, strict=True)
    ]


def _is_per_box(key: str, dictionaries: Sequence[Mapping[str, Any]], boxes: Sequence[Tensor]) -> bool:
    values = [dictionary.get(key) for dictionary in dictionaries]
    return all(
        isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(own)
        for value, own in zip(values, boxes, strict=True)
    )


def _gathered(
    dictionaries: Sequence[Mapping[str, Any]], own: int, row: VisibleBoxes, *, name: str, per_box: set[str]
) -> dict[str, Any]:
    like = dictionaries[own][name]
    mixed: dict[str, Any] = {}
    for key, value in dictionaries[own].items():
        if isinstance(value, tv_tensors.Mask):
            raise DataError(
                f"{key!r}: masks of single objects cannot ride along: pass one mask for each batch of images"
            )
        mixed[key] = _entries(dictionaries, row, key) if key in per_box else value
    corners = tv_tensors.BoundingBoxes(row.edges, format=XYXY, canvas_size=like.canvas_size)  # type: ignore[call-overload]
    mixed[name] = convert_bounding_box_format(corners, new_format=like.format).to(like.device, like.dtype)
    mixed["visible"] = row.visible.to(like.device)
    return mixed


def _entries(dictionaries: Sequence[Mapping[str, Any]], row: VisibleBoxes, key: str) -> Tensor:
    """Return what each box of a row has under a key in the dictionary of the image that it comes from."""
    pairs = zip(row.image.tolist(), row.number.tolist(), strict=True)
    found = [_plain(dictionaries[image][key])[number] for image, number in pairs]
    return torch.stack(found) if found else _plain(dictionaries[0][key])[:0]


def _plain(value: Tensor) -> Tensor:
    return value.as_subclass(Tensor)


def _wrapped(value: Tensor, like: Tensor) -> Tensor:
    return value.as_subclass(type(like))
