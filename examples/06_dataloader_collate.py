"""Mix in a DataLoader's workers: python examples/06_dataloader_collate.py.

Samples are dictionaries. Each worker draws from streams of its own, which follow from the loader's generator: the same
seed gives the same mixes again.
"""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raremix.adapt.collate import MixCollate
from raremix.mix import MixUp


class Findings(Dataset):
    """Images with up to three findings, and the number of each image."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        findings = torch.tensor([index % 2, index // 2 % 2, index // 4 % 2], dtype=torch.float32)
        return {"xray": findings[:, None, None].expand(3, 16, 16), "findings": findings, "row": torch.tensor(index)}


def loader(seed: int) -> DataLoader:
    """Make a loader whose shuffling and mixing follow from a seed."""
    collate = MixCollate(MixUp(alpha=1.0, multilabel="interpolate"), images="xray", targets="findings")
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        Findings(),
        batch_size=5,  # the last batch has two images: any number will do
        shuffle=True,
        num_workers=2,
        collate_fn=collate,
        generator=generator,
    )


def main() -> None:
    """Print an epoch, and draw it again."""
    first = list(loader(seed=0))
    for batch in first:
        labels = "; ".join(" ".join(f"{share:.2f}" for share in row) for row in batch["findings"])
        print(f"rows {batch['row'].tolist()}: {labels}")
    again = list(loader(seed=0))
    same = all(torch.equal(one["xray"], two["xray"]) for one, two in zip(first, again, strict=True))
    print(f"the same seed gives the same mixes: {same}")


if __name__ == "__main__":
    main()
