"""Mixing in a DataLoader: per worker, reproducibly, and never the same twice."""

import pytest
import torch
from tests.adapt.toys import coded
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from raremix.adapt.collate import MixCollate
from raremix.mix import CutMix, MixUp


class Same(Dataset):
    """The same four coded images in every batch, so that only the draws differ between batches."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": coded(4)[index % 4], "label": torch.tensor(index % 4), "index": torch.tensor(index)}


def loader(*, workers: int, seed: int, persistent: bool = False) -> DataLoader:
    collate = MixCollate(MixUp(alpha=1.0, num_classes=4), images="image", targets="label")
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        Same(),
        batch_size=4,
        num_workers=workers,
        collate_fn=collate,
        generator=generator,
        persistent_workers=persistent,
        multiprocessing_context="fork" if workers else None,
    )


def labels(batches: DataLoader) -> list[Tensor]:
    return [batch["label"] for batch in batches]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_apart_and_reproducibly(persistent: bool) -> None:
    """Eight batches of the same images by two workers, in two epochs: all mixed differently; and again as before."""
    batches = loader(workers=2, seed=0, persistent=persistent)
    first = [*labels(batches), *labels(batches)]
    assert len({tuple(label.flatten().tolist()) for label in first}) == 16
    batches = loader(workers=2, seed=0, persistent=persistent)
    again = [*labels(batches), *labels(batches)]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    other = labels(loader(workers=2, seed=1, persistent=persistent))
    assert not torch.equal(first[0], other[0])


def test_the_main_process_draws_likewise() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = labels(loader(workers=0, seed=0))
        again = labels(loader(workers=0, seed=0))
    assert len({tuple(label.flatten().tolist()) for label in first}) == 8
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


def test_what_else_is_in_a_sample_stays() -> None:
    batch = next(iter(loader(workers=0, seed=0)))
    assert batch["index"].tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(batch["image"].mean(dim=(2, 3)), batch["label"])


def test_tuples_and_a_last_odd_batch() -> None:
    data = TensorDataset(torch.rand(7, 3, 8, 8), torch.arange(7))
    shapes = [
        (images.shape[0], targets.shape)
        for images, targets in DataLoader(data, batch_size=4, collate_fn=MixCollate(CutMix(num_classes=7)))
    ]
    assert shapes == [(4, (4, 7)), (3, (3, 7))]


def test_another_collate_can_make_the_batch() -> None:
    def collate(samples: list[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.stack(samples), torch.eye(len(samples))

    images, targets = MixCollate(MixUp(), collate=collate)([coded(2)[0], coded(2)[1]])
    torch.testing.assert_close(images.mean(dim=(2, 3)), targets)
