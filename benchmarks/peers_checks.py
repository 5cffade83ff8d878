"""The checks that `peers.py` does: each asks a mixing library, and raremix, the same question."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from openmixup_files import openmixup

ROWS = 4


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of a check, in words, and whether it is what was expected."""

    came: str
    is_expected: bool


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question to a peer and to raremix."""

    peer: str
    done: str
    expected: str
    theirs: Callable[[], Outcome]
    ours: Callable[[], Outcome]


def attempt(check: Callable[[], Outcome]) -> Outcome:
    """Do a check; an error, whichever it is, is an outcome."""
    import numpy as np
    import torch

    np.random.seed(0)  # noqa: NPY002 the peers draw from it
    torch.manual_seed(0)
    try:
        return check()
    except Exception as error:  # noqa: BLE001 what a peer raises is what is measured
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Outcome(came=f"{type(error).__name__}: {(lines or [''])[0][:90]}", is_expected=False)


# --- what the checks are made of -----------------------------------------------------------------------------------


def coded(size: int = 64) -> Any:
    """Return images of which image i is 1 in channel i alone: channel means are shares of pixels."""
    import torch

    return torch.eye(ROWS)[:, :, None, None].expand(ROWS, ROWS, size, size).contiguous()


def largest_gap(mix: Callable[[Any, Any], Any]) -> Outcome:
    """Compare labels with counted pixels in 20 batches."""
    import torch

    gap = 0.0
    for _ in range(20):
        images, targets = mix(coded(), torch.eye(ROWS))
        gap = max(gap, float((images.mean(dim=(2, 3)) - targets).abs().max()))
    return Outcome(came=f"they differ by up to {gap:.2f}", is_expected=gap < 0.01)


def takes(mix: Callable[[], Any], shape: tuple[int, ...]) -> Outcome:
    """Ask for targets of a shape."""
    _, targets = mix()
    came = tuple(targets.shape)
    return Outcome(came=f"targets of shape {came}", is_expected=came == shape)


def is_left_alone(mix: Callable[[Any, Any], Any]) -> Outcome:
    """Say how many of 20 batches were changed by mixing."""
    import torch

    changed = 0
    for _ in range(20):
        images = torch.rand(ROWS, 3, 32, 32)
        before = images.clone()
        mix(images, torch.arange(ROWS))
        changed += not torch.equal(images, before)
    return Outcome(came=f"{changed} of 20 batches were changed", is_expected=changed == 0)


def mixers(**settings: Any) -> dict[str, Any]:
    """Return raremix's mixers by name, those that are registered."""
    from raremix.mix import MIXERS

    return {name: kind(**settings) for name, kind in MIXERS.items()}


def ours(name: str, **settings: Any) -> Callable[..., Any]:
    """Return a mixer of raremix by its name, with a stream of its own."""
    from raremix.core.random import rng
    from raremix.mix import MIXERS

    mixer, stream = MIXERS[name](**settings), rng(0, "mix")
    return lambda images, targets: mixer(images, targets, rng=stream)


# --- do labels belong to pixels? -----------------------------------------------------------------------------------


def label_checks() -> Iterator[Check]:
    """Yield checks of labels against pixels."""
    import torch

    multi_hot = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    images = torch.rand(ROWS, 3, 16, 16)

    def monai_mixer(name: str) -> Callable[[Any, Any], Any]:
        import monai.transforms

        return getattr(monai.transforms, name)(ROWS).set_random_state(0)

    def kornia_mixer(name: str, **settings: Any) -> Callable[[Any, Any], Any]:
        import kornia.augmentation

        return getattr(kornia.augmentation, name)(p=1.0, data_keys=["input", "class"], **settings)

    yield Check(
        peer="monai",
        done="`CutMix` with one-hot labels (B, K), 20 batches: share of pixels against share of label",
        expected="both are the same",
        theirs=lambda: largest_gap(monai_mixer("CutMix")),
        ours=lambda: largest_gap(ours("cutmix")),
    )
    yield Check(
        peer="monai",
        done="`MixUp` with labels (B, K)",
        expected="mixed labels (B, K)",
        theirs=lambda: takes(lambda: monai_mixer("MixUp")(images, multi_hot), (ROWS, 3)),
        ours=lambda: takes(lambda: ours("mixup")(images, multi_hot), (ROWS, 3)),
    )

    def kornia_meanings() -> Outcome:
        found = {
            "MixUp": meaning(kornia_mixer("RandomMixUpV2")),
            "CutMix": meaning(kornia_mixer("RandomCutMixV2")),
            "CutMix with use_correct_lambda": meaning(kornia_mixer("RandomCutMixV2", use_correct_lambda=True)),
        }
        text = ", ".join(f"{name}: {what}" for name, what in found.items())
        return Outcome(came=text, is_expected=len(set(found.values())) == 1)

    yield Check(
        peer="kornia",
        done="which image's share of pixels is the weight that comes with the labels?",
        expected="the same in MixUp and CutMix, whatever the settings",
        theirs=kornia_meanings,
        ours=our_meanings,
    )
    for name, own in (("RandomMixUpV2", "mixup"), ("RandomCutMixV2", "cutmix")):
        yield Check(
            peer="kornia",
            done=f"`{name}` with multi-hot labels (B, K)",
            expected="mixed labels (B, K)",
            theirs=lambda name=name: takes(lambda: kornia_mixer(name)(images, multi_hot), (ROWS, 3)),
            ours=lambda own=own: takes(lambda: ours(own)(images, multi_hot), (ROWS, 3)),
        )


def meaning(mix: Callable[[Any, Any], Any]) -> str:
    """Say whether kornia's weight is the share of an image's own pixels or of the other's, from 20 batches."""
    import torch

    gaps = {"own": 0.0, "the other's": 0.0}
    for _ in range(20):
        images, labels = mix(coded(), torch.arange(ROWS))
        shares = images.mean(dim=(2, 3))
        for row, (own, other, weight) in enumerate(labels.reshape(ROWS, 3).tolist()):
            if own != other:
                gaps["own"] = max(gaps["own"], abs(weight - float(shares[row, int(own)])))
                gaps["the other's"] = max(gaps["the other's"], abs(weight - float(shares[row, int(other)])))
    best = min(gaps, key=lambda name: gaps[name])
    return best if gaps[best] < 0.01 else "neither"


def our_meanings() -> Outcome:
    """Say what `weight` is in raremix, likewise."""
    import torch

    from raremix.core.random import rng
    from raremix.core.types import Batch

    found = set()
    for name in ("mixup", "cutmix"):
        batch = Batch(images=coded(), targets=torch.eye(ROWS))
        gap = 0.0
        for seed in range(20):
            plan = mixers()[name].plan(batch, batch, rng=rng(seed, "mix"))
            shares = plan.apply(batch).images.mean(dim=(2, 3)).diagonal()
            is_apart = plan.partner != plan.own
            gap = max([gap, *(shares - plan.weight).abs()[is_apart].tolist()])
        found.add("own" if gap < 0.01 else "neither")
    return Outcome(came=f"MixUp and CutMix: {', '.join(found)}", is_expected=found == {"own"})


# --- do inputs stay whole? -----------------------------------------------------------------------------------------


def input_checks() -> Iterator[Check]:
    """Yield checks of what mixing does to what it is given."""

    def timm_mixer(mode: str) -> Callable[[Any, Any], Any]:
        import timm.data

        return timm.data.Mixup(mixup_alpha=1.0, mode=mode, num_classes=ROWS)

    def our_timm() -> Callable[[Any, Any], Any]:
        from raremix.adapt.timm import Mixup
        from raremix.mix import MixUp

        return Mixup(MixUp(alpha=1.0, num_classes=ROWS))

    yield Check(
        peer="timm",
        done="`Mixup` in its modes batch, pair and elem, 20 batches: is the batch that was given still the same?",
        expected="0 of 20 batches changed",
        theirs=lambda: worst([is_left_alone(timm_mixer(mode)) for mode in ("batch", "pair", "elem")]),
        ours=lambda: is_left_alone(our_timm()),
    )
    for mode in ("pair", "half"):
        yield Check(
            peer="timm",
            done=f'`FastCollateMixup(mode="{mode}")`, CutMix, on arrays that a data set keeps in memory, 20 batches',
            expected="0 of 20 batches changed",
            theirs=lambda mode=mode: arrays_left_alone(_timm_collate(mode=mode, mixup_alpha=0.0, cutmix_alpha=1.0)),
            ours=lambda: arrays_left_alone(_our_collate("cutmix", num_classes=ROWS)),
        )
    yield Check(
        peer="timm",
        done="`create_loader` with `FastCollateMixup` and 1 worker: mixing switched off after the first epoch by "
        "`loader.mixup_enabled = False`, as timm's script does; labels mixed in the second epoch",
        expected="0 of 16",
        theirs=lambda: mixed_when_off(_timm_collate(mode="batch", num_classes=16, label_smoothing=0.0)),
        ours=lambda: mixed_when_off(_our_collate("mixup", num_classes=16, alpha=1.0)),
    )
    for name in ("cutmix", "saliencymix", "resizemix"):
        yield Check(
            peer="openmixup",
            done=f"`{name}`, 20 batches (`.cuda()` made to do nothing): is the batch that was given still the same?",
            expected="0 of 20 batches changed",
            theirs=lambda name=name: is_left_alone(openmixup(name)),
            ours=lambda name=name: is_left_alone(ours(name, num_classes=ROWS)),
        )


def worst(outcomes: list[Outcome]) -> Outcome:
    """Return the first outcome that is not as expected, if there is one."""
    return next((outcome for outcome in outcomes if not outcome.is_expected), outcomes[0])


def arrays_left_alone(collate: Callable[[Any], Any]) -> Outcome:
    """Say in how many of 20 batches arrays of the data set were written to."""
    import numpy as np

    changed = 0
    for seed in range(20):
        cache = [np.random.default_rng(seed + i).integers(0, 256, (3, 16, 16), dtype=np.uint8) for i in range(ROWS)]
        before = [array.copy() for array in cache]
        collate([(array, i) for i, array in enumerate(cache)])
        changed += any(not np.array_equal(one, two) for one, two in zip(cache, before, strict=True))
    return Outcome(came=f"{changed} of 20 batches were changed", is_expected=changed == 0)


def mixed_when_off(collate: Any) -> Outcome:
    """Count rows whose label belongs to more than one class after mixing was switched off."""
    import numpy as np
    import timm.data
    import torch
    from PIL import Image

    class Pictures(torch.utils.data.Dataset):
        transform: Any = None

        def __len__(self) -> int:
            return 16

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.transform(Image.fromarray(np.full((8, 8, 3), index, dtype=np.uint8))), index

    loader = timm.data.create_loader(
        Pictures(),
        input_size=(3, 8, 8),
        batch_size=4,
        is_training=True,
        no_aug=True,
        use_prefetcher=True,
        num_workers=1,
        collate_fn=collate,
        device=torch.device("cpu"),
        pin_memory=False,
    )
    sum(1 for _ in loader)
    loader.mixup_enabled = False
    rows = sum(int(((targets > 0).sum(dim=1) > 1).sum()) for _, targets in loader)
    return Outcome(came=f"{rows} of 16", is_expected=rows == 0)


def _timm_collate(**settings: Any) -> Any:
    import timm.data

    return timm.data.FastCollateMixup(**{"num_classes": ROWS, **settings})


def _our_collate(name: str, **settings: Any) -> Any:
    from raremix.adapt.timm import FastCollateMixup
    from raremix.mix import MIXERS

    return FastCollateMixup(MIXERS[name](**settings))


# --- do batches pass? ----------------------------------------------------------------------------------------------


def batch_checks() -> Iterator[Check]:
    """Yield checks of batches that somebody has: odd, 8-bit, grouped by class, on the CPU, of 28 pixels."""
    import torch

    odd = torch.rand(3, 3, 8, 8), torch.arange(3)
    bytes_ = torch.zeros(ROWS, 3, 8, 8, dtype=torch.uint8)

    def timm_odd() -> Outcome:
        import timm.data

        return takes(lambda: timm.data.Mixup(num_classes=3)(*odd), (3, 3))

    def our_odd() -> Outcome:
        from raremix.adapt.timm import Mixup

        return takes(lambda: Mixup(mixers(num_classes=3)["mixup"])(*odd), (3, 3))

    yield Check(
        peer="timm",
        done="`Mixup` on a batch of 3",
        expected="mixed labels (3, K)",
        theirs=timm_odd,
        ours=our_odd,
    )

    def kinds(make: Callable[[str], Callable[..., Any]]) -> Outcome:
        found = {}
        for name in ("MixUp", "CutMix"):
            try:
                mixed, _ = make(name)(bytes_, torch.arange(ROWS))
                found[name] = f"{mixed.dtype}".removeprefix("torch.")
            except Exception as error:  # noqa: BLE001 what a peer raises is what is measured
                found[name] = f"{type(error).__name__}"
        text = ", ".join(f"{name}: {what}" for name, what in found.items())
        return Outcome(came=text, is_expected=set(found.values()) == {"uint8"})

    def our_transform(name: str, **settings: Any) -> Callable[..., Any]:
        from raremix.adapt.torchvision import Mix

        return Mix(mixers(num_classes=ROWS)[name.lower()], **settings)

    def their_transform(name: str, **settings: Any) -> Callable[..., Any]:
        from torchvision.transforms import v2

        return getattr(v2, name)(**{"num_classes": ROWS, **settings})

    yield Check(
        peer="torchvision",
        done="`v2.MixUp` and `v2.CutMix` on 8-bit images",
        expected="both the same: uint8",
        theirs=lambda: kinds(their_transform),
        ours=lambda: kinds(our_transform),
    )
    yield Check(
        peer="torchvision",
        done="`v2.CutMix` on a batch with a `tv_tensors.Mask`, mask i holding the number i",
        expected="the mask says which image each pixel is from",
        theirs=lambda: masks_follow(their_transform("CutMix")),
        ours=lambda: masks_follow(our_transform("CutMix")),
    )
    yield Check(
        peer="torchvision",
        done="`v2.MixUp` on batches with four images of a class in a row (64 images, 16 classes), 20 batches: share of "
        "pairs of one class",
        expected="about 4/64, as in a shuffled pairing",
        theirs=lambda: same_class(their_transform("MixUp", num_classes=16)),
        ours=lambda: same_class(ours("mixup", alpha=1.0, num_classes=16)),
    )
    yield from openmixup_checks()


def masks_follow(transform: Callable[[Any], Any]) -> Outcome:
    """Say whether integer masks come from the image that gives the pixel."""
    import torch
    from torchvision import tv_tensors

    numbers = torch.arange(ROWS)[:, None, None].expand(ROWS, 64, 64)
    sample = {"image": tv_tensors.Image(coded()), "labels": torch.arange(ROWS), "mask": tv_tensors.Mask(numbers)}
    mixed = transform(sample)
    agree = float((mixed["mask"] == mixed["image"].argmax(dim=1)).float().mean())
    return Outcome(came=f"{100 * agree:.0f} % of the pixels agree", is_expected=agree == 1)


def same_class(mix: Callable[[Any, Any], Any]) -> Outcome:
    """Return the share of rows that stay of one class."""
    import torch

    classes = torch.arange(16).repeat_interleave(4)
    rows = [(mix(torch.rand(64, 1, 2, 2), classes)[1] > 0).sum(dim=1) == 1 for _ in range(20)]
    share = float(torch.cat(rows).float().mean())
    return Outcome(came=f"{100 * share:.0f} % of the pairs", is_expected=share < 0.12)


def openmixup_checks() -> Iterator[Check]:
    """Yield checks of OpenMixup's functions."""
    import torch

    def our_cpu() -> Outcome:
        images, targets = torch.rand(ROWS, 3, 32, 32), torch.eye(ROWS)
        for mixer in mixers().values():
            mixer(images, targets)
        return Outcome(came=f"{len(mixers())} of {len(mixers())} mixers ran", is_expected=True)

    names = ["cutmix", "fmix", "gridmix", "mixup", "resizemix", "saliencymix", "smoothmix"]

    def their_cpu() -> Outcome:
        failed = []
        for name in names:
            try:
                openmixup(name, is_patched=False)(torch.rand(ROWS, 3, 32, 32), torch.arange(ROWS))
            except Exception as error:  # noqa: BLE001 what a peer raises is what is measured
                failed.append((name, type(error).__name__))
        kinds = ", ".join(sorted({kind for _, kind in failed}))
        text = f"{len(names) - len(failed)} of {len(names)} functions ran" + (
            f"; the others: {kinds}" if failed else ""
        )
        return Outcome(came=text, is_expected=not failed)

    yield Check(
        peer="openmixup",
        done=f"functions that need no features ({', '.join(names)}) on CPU tensors, on a machine "
        f"{'with' if torch.cuda.is_available() else 'without'} a GPU",
        expected="all run",
        theirs=their_cpu,
        ours=our_cpu,
    )
    yield Check(
        peer="openmixup",
        done="`saliencymix` (`.cuda()` made to do nothing) on six images with a bright square in six places: number "
        "of different boxes",
        expected="a box per image: 6",
        theirs=lambda: boxes_of(_their_boxes),
        ours=lambda: boxes_of(_our_boxes),
    )
    for size in (28, 32):
        yield Check(
            peer="openmixup",
            done=f"`puzzlemix` (`.cuda()` made to do nothing; block_num=5, else defaults) on {size} x {size} "
            "images, 20 batches",
            expected="20 of 20 mixed",
            theirs=lambda size=size: _puzzles(size, _their_puzzle),
            ours=lambda size=size: _puzzles(size, _our_puzzle),
        )


def squares() -> Any:
    """Return six dark images with a bright square, each elsewhere on the diagonal."""
    import torch

    images = torch.zeros(6, 3, 64, 64)
    for i in range(6):
        images[i, :, 5 + 9 * i : 10 + 9 * i, 5 + 9 * i : 10 + 9 * i] = 1.0
    return images


def boxes_of(masks: Callable[[], Any]) -> Outcome:
    """Count the different masks of a batch."""
    count = len({tuple(mask.flatten().tolist()) for mask in masks()})
    return Outcome(came=str(count), is_expected=count == 6)


def _their_boxes() -> Any:
    import torch

    (_, mask), _ = openmixup("saliencymix")(squares(), torch.arange(6), lam=0.75, return_mask=True)
    return mask


def _our_boxes() -> Any:
    import torch

    from raremix.core.random import rng
    from raremix.core.types import Batch, Boxes

    batch = Batch(images=squares(), targets=torch.eye(6))
    mask = mixers()["saliencymix"].plan(batch, batch, rng=rng(0, "mix")).mask
    return mask.to_mask() if isinstance(mask, Boxes) else mask


def _puzzles(size: int, mix: Callable[[int], Any]) -> Outcome:
    failed: dict[str, int] = {}
    for _ in range(20):
        try:
            mix(size)
        except Exception as error:  # noqa: BLE001 what a peer raises is what is measured
            failed[type(error).__name__] = failed.get(type(error).__name__, 0) + 1
    count = 20 - sum(failed.values())
    text = "".join(f", {times} times {name}" for name, times in failed.items())
    return Outcome(came=f"{count} of 20 mixed{text}", is_expected=not failed)


def _their_puzzle(size: int) -> Any:
    import torch

    images = torch.rand(ROWS, 3, size, size)
    return openmixup("puzzlemix")(images, torch.arange(ROWS), features=torch.rand(ROWS, size, size), block_num=5)


def _our_puzzle(size: int) -> Any:
    import torch

    return ours("puzzlemix")(torch.rand(ROWS, 3, size, size), torch.eye(ROWS))
