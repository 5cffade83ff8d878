"""Mix inside torchvision's v2.Compose, with masks and named labels: python examples/04_torchvision_compose.py.

A batch is a dictionary here: 8-bit images, class numbers under a name of their own, lesion masks, and patients' names.
The transform is told where the labels are, mixes images and labels, and the masks by the same boxes.
"""

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from raremix.adapt.torchvision import Mix
from raremix.mix import CutMix

stream = np.random.default_rng(0)
lesions = torch.zeros(6, 32, 32, dtype=torch.bool)
for row, (y, x) in enumerate(stream.integers(4, 20, size=(6, 2))):
    lesions[row, y : y + 8, x : x + 8] = True
noise = torch.from_numpy(stream.integers(0, 60, size=(6, 3, 32, 32), dtype=np.uint8))

batch = {
    "image": tv_tensors.Image(noise + 150 * lesions[:, None].to(torch.uint8)),
    "diagnosis": torch.tensor([0, 1, 2, 0, 1, 2]),
    "lesion": tv_tensors.Mask(lesions),
    "patient": ["Ada", "Ben", "Cem", "Dov", "Eva", "Fay"],
}

transform = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        Mix(CutMix(num_classes=3), labels_getter=lambda sample: sample["diagnosis"]),
        v2.Normalize(mean=[0.5] * 3, std=[0.25] * 3),  # after mixing: guided mixers look at images in [0, 1]
    ]
)
mixed = transform(batch)

for name, label, lesion in zip(mixed["patient"], mixed["diagnosis"], mixed["lesion"], strict=True):
    shares = ", ".join(f"{share:.2f}" for share in label)
    print(f"{name}: label ({shares}), {int(lesion.sum())} pixels of lesion in the mixed mask")
