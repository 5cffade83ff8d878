"""Draw what a discriminator sees of phantoms: as they are, changed at p = .2 and .8, and with careful changes alone.

python examples/10_look_at_augmentation.py docs/images/augmentation.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from raremix.data import Phantom
from raremix.generate.ada import draw_adaptation, kinds_of
from raremix.generate.ada_apply import adapt

SIDE, GAP, SEED = 96, 3, 12
out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("augmentation.png")

phantom = Phantom(modality="dermatoscopy", images=140, size=SIDE, seed=SEED, imbalance_ratio=1.0, difficulty=0.3)
cohort = phantom.draw_cohort()
rows = [int(np.flatnonzero(cohort.labels[:, k])[0]) for k in range(len(phantom.class_names))]
pictures = np.stack([phantom.render(row, cohort=cohort).image for row in rows])
images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1

EVERYTHING, CAREFUL = ("blit", "geometry", "color"), ("shift", "scale", "move", "intensity")
lines = [images]
for names, probability in ((EVERYTHING, 0.2), (EVERYTHING, 0.8), (CAREFUL, 0.8)):
    kinds, rng = kinds_of(names, channels=3), np.random.default_rng(SEED)
    drawn = draw_adaptation(len(images), side=SIDE, channels=3, kinds=kinds, probability=probability, rng=rng)
    lines.append(adapt(images, drawn))

sheet = Image.new("RGB", (len(rows) * (SIDE + GAP) - GAP, len(lines) * (SIDE + GAP) - GAP), "white")
for y, line in enumerate(lines):
    for x, tile in enumerate(line):
        array = ((tile.permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).round().byte().numpy()
        sheet.paste(Image.fromarray(array), (x * (SIDE + GAP), y * (SIDE + GAP)))
sheet.quantize(128).save(out, optimize=True)
print(f"{out}: {sheet.width} x {sheet.height} pixels, {out.stat().st_size / 1000:.0f} kB")
