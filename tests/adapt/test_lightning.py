"""The Lightning hook, through the signature by which Lightning calls it."""

import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.adapt.toys import coded
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from raremix.adapt.lightning import mix_after_transfer
from raremix.mix import CutMix, MixUp, Scheduled


class Module:
    """What the hook uses of a LightningModule."""

    on_after_batch_transfer = mix_after_transfer(MixUp(alpha=1.0, num_classes=4), seed=1)

    def __init__(self, *, batch: int = -1, training: bool = True, rank: int = 0, steps: float = 10) -> None:
        self.global_rank = rank
        self.trainer = SimpleNamespace(
            training=training,
            global_step=max(batch, 0),
            estimated_stepping_batches=steps,
            fit_loop=SimpleNamespace(total_batch_idx=batch),
        )


BATCH = [coded(4), torch.arange(4)]


def test_training_batches_are_mixed() -> None:
    images, targets = Module().on_after_batch_transfer(BATCH, 0)
    assert targets.shape == (4, 4)
    torch.testing.assert_close(images.mean(dim=(2, 3)), targets)
    assert not torch.equal(targets, torch.eye(4))


def test_other_batches_are_left_alone() -> None:
    assert Module(training=False).on_after_batch_transfer(BATCH, 0) is BATCH


def test_draws_follow_from_the_number_of_the_batch_and_the_rank() -> None:
    """What a checkpoint keeps: the draws of batch 5 are the same whatever was drawn before."""
    first, again, later, other_rank = (
        tuple(module.on_after_batch_transfer(BATCH, 0)[1].flatten().tolist())
        for module in (Module(batch=5), Module(batch=5), Module(batch=6), Module(batch=5, rank=1))
    )
    assert first == again
    assert len({first, later, other_rank}) == 3


@pytest.mark.parametrize(("batch", "steps", "is_mixed"), [(0, 10, True), (7, 10, False), (7, float("inf"), True)])
def test_schedules_follow_the_optimisers_steps(batch: int, steps: float, is_mixed: bool) -> None:
    mixer = Scheduled(mixer=CutMix(num_classes=4), stop=0.5, num_classes=4)
    hook = mix_after_transfer(mixer)
    _, targets = hook(Module(batch=batch, steps=steps), BATCH, 0)
    assert bool((targets.max(dim=1).values < 1).any()) == is_mixed


def test_dictionaries_have_keys() -> None:
    hook = mix_after_transfer(CutMix(num_classes=4), images="image", targets="label", masks="mask")
    batch = {"image": coded(4), "label": torch.arange(4), "mask": torch.arange(4)[:, None, None].expand(4, 8, 8)}
    mixed = hook(Module(), batch, 0)
    assert torch.equal(mixed["mask"], mixed["image"].argmax(dim=1))


def test_in_lightning_itself() -> None:
    """Training batches are mixed, those of validation are not; a run that goes on draws what the whole one drew."""
    lightning = pytest.importorskip("lightning")

    class Model(lightning.LightningModule):
        on_after_batch_transfer = mix_after_transfer(MixUp(alpha=1.0, num_classes=4))

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)
            self.seen: list[Tensor] = []

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            images, targets = batch
            self.seen.append(targets)
            torch.testing.assert_close(images.mean(dim=(2, 3)), targets)
            return torch.nn.functional.cross_entropy(self.layer(images.mean(dim=(2, 3))), targets)

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            assert batch[1].dtype == torch.long

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(epochs: int, folder: Path, resumed: Path | None = None) -> tuple[list[Tensor], Path]:
        data = DataLoader(TensorDataset(coded(4).repeat(3, 1, 1, 1), torch.arange(4).repeat(3)), batch_size=4)
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        model = Model()
        trainer.fit(model, data, data, ckpt_path=resumed, weights_only=False)
        trainer.save_checkpoint(folder / f"{epochs}.ckpt")
        return model.seen, folder / f"{epochs}.ckpt"

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few workers, small loaders: Lightning's advice
        whole, _ = fit(2, Path(name))
        first, checkpoint = fit(1, Path(name))
        second, _ = fit(2, Path(name), checkpoint)
    assert len({tuple(targets.flatten().tolist()) for targets in whole}) == 6
    assert all(torch.equal(one, two) for one, two in zip(whole, [*first, *second], strict=True))
