"""Draw phantoms with the importance maps that need no network below: fine-grained saliency, then spectral residual.

python examples/09_look_at_importance.py docs/images/importance.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from raremix.data import Phantom
from raremix.explain import FineGrained, SpectralResidual

SIDE, GAP, SEED = 100, 3, 12
out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("importance.png")

phantom = Phantom(modality="dermatoscopy", images=140, size=SIDE, seed=SEED, imbalance_ratio=1.0, difficulty=0.3)
cohort = phantom.draw_cohort()
rows = [int(np.flatnonzero(cohort.labels[:, k])[0]) for k in range(len(phantom.class_names))]
pictures = np.stack([phantom.render(row, cohort=cohort).image for row in rows])
images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
targets = torch.eye(len(rows))

lines = [images]
for importance in (FineGrained(), SpectralResidual()):
    maps = functional.interpolate(importance(images, targets), size=(SIDE, SIDE), mode="bilinear")
    lines.append(maps.expand(-1, 3, -1, -1))

sheet = Image.new("RGB", (len(rows) * (SIDE + GAP) - GAP, len(lines) * (SIDE + GAP) - GAP), "white")
for y, line in enumerate(lines):
    for x, tile in enumerate(line):
        array = (tile.permute(1, 2, 0) * 255).round().byte().numpy()
        sheet.paste(Image.fromarray(array), (x * (SIDE + GAP), y * (SIDE + GAP)))
sheet.quantize(128).save(out, optimize=True)
print(f"{out}: {sheet.width} x {sheet.height} pixels, {out.stat().st_size / 1000:.0f} kB")
