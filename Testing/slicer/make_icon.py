"""Draws Resources/Icons/MedGen.png: a slice of a body, half label mask, half CT.

python Testing/slicer/make_icon.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE, SCALE = 128, 4
ICON = Path(__file__).resolve().parents[2] / "Resources" / "Icons" / "MedGen.png"

#: Center, radii (parts of the size), color in the mask, gray value in the CT; later ones on top.
PARTS = (
    ((0.50, 0.52), (0.47, 0.38), (236, 205, 96), 58),  # fat
    ((0.50, 0.52), (0.42, 0.33), (201, 92, 74), 150),  # soft tissue
    ((0.29, 0.45), (0.14, 0.18), (92, 158, 214), 12),  # lung
    ((0.71, 0.45), (0.14, 0.18), (92, 158, 214), 12),
    ((0.50, 0.69), (0.09, 0.08), (246, 244, 232), 245),  # vertebra
    ((0.50, 0.45), (0.07, 0.10), (170, 52, 60), 178),  # heart
    ((0.21, 0.70), (0.055, 0.022), (246, 244, 232), 235),  # ribs
    ((0.79, 0.70), (0.055, 0.022), (246, 244, 232), 235),
    ((0.50, 0.23), (0.045, 0.022), (246, 244, 232), 235),  # breast bone
)


def draw() -> Image.Image:
    count = SIZE * SCALE
    y, x = np.mgrid[0:count, 0:count] / count
    noise = np.random.default_rng(7).normal(0, 1, (count // 8, count // 8))
    texture = np.asarray(Image.fromarray(noise).resize((count, count), Image.BICUBIC)) * 9
    picture = np.zeros((count, count, 4))
    for (centerX, centerY), (radiusX, radiusY), color, gray in PARTS:
        inside = ((x - centerX) / radiusX) ** 2 + ((y - centerY) / radiusY) ** 2 < 1
        picture[inside & (x < 0.5)] = (*color, 255)
        right = inside & (x >= 0.5)
        picture[right, :3] = np.clip(gray + texture, 0, 255)[right, None]
        picture[right, 3] = 255
    seam = (abs(x - 0.5) < 0.010) & (picture[..., 3] > 0)
    picture[seam, :3] = 255
    return Image.fromarray(picture.astype(np.uint8)).resize((SIZE, SIZE), Image.LANCZOS)


if __name__ == "__main__":
    ICON.parent.mkdir(parents=True, exist_ok=True)
    draw().save(ICON, optimize=True)
    print(ICON)
