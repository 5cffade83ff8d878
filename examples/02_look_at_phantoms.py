"""Draw a contact sheet of the phantoms: two images of each class, the second with the outline of its true lesion mask.

python examples/02_look_at_phantoms.py docs/images/phantoms.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation

from raremix.data import Phantom

SIDE, GAP, CAPTION, SEED = 100, 3, 16, 12
out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("phantoms.png")

pages = []
for modality in ("dermatoscopy", "chest_xray"):
    plain = {"imbalance_ratio": 1.0, "difficulty": 0.3, "noise": 0.0}
    phantom = Phantom(modality=modality, images=140, size=SIDE, seed=SEED, **plain)
    cohort = phantom.draw_cohort()
    page = Image.new("RGB", (7 * (SIDE + GAP) - GAP, 2 * (SIDE + GAP) + CAPTION), "white")
    pen = ImageDraw.Draw(page)
    for column, name in enumerate(phantom.class_names):
        x = column * (SIDE + GAP)
        pen.text((x, 2), name, fill="black")
        for line, row in enumerate(np.flatnonzero(cohort.labels[:, column])[:2]):
            picture = phantom.render(int(row), cohort=cohort)
            image = picture.image if picture.image.ndim == 3 else np.repeat(picture.image[..., None], 3, axis=2)
            for mask in picture.masks.values() if line else ():
                image = np.where((binary_dilation(mask) & ~mask)[..., None], np.uint8([255, 230, 0]), image)
            page.paste(Image.fromarray(image), (x, CAPTION + line * (SIDE + GAP)))
    pages.append(page)

sheet = Image.new("RGB", (pages[0].width, sum(page.height for page in pages)), "white")
for number, page in enumerate(pages):
    sheet.paste(page, (0, number * page.height))
sheet.save(out, optimize=True)
print(f"{out}: {sheet.width} x {sheet.height} pixels, {out.stat().st_size / 1000:.0f} kB")
