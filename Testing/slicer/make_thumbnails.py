"""Draws the thumbnails of the sample data from what the models make of them.

    python Testing/slicer/make_thumbnails.py

Left of the diagonal the input, right of it the result; seed 7, preset "best".
"""

from pathlib import Path

import numpy as np
from PIL import Image

import MedGenLib
from MedGenLib.io.files import read_label_map, read_volume

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, ICONS = ROOT / "Resources" / "SampleData", ROOT / "Resources" / "Icons"
WIDTH, HEIGHT = 280, 260

TISSUES = ((230, 219, 130), (181, 102, 84), (242, 242, 224), (112, 173, 219))
HIPPOCAMPUS = ((237, 153, 51), (64, 140, 204))


def window(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Gray values as (..., 3) bytes."""
    gray = np.clip((image - low) / (high - low), 0, 1) * 255
    return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=-1)


def painted(labels: np.ndarray, colors, background: np.ndarray) -> np.ndarray:
    picture = background.copy()
    for value, color in enumerate(colors, 1):
        picture[labels == value] = color
    return picture


def upright(plane: np.ndarray) -> np.ndarray:
    """(right or left, up) to rows from above and columns from left."""
    return np.flip(np.swapaxes(plane, 0, 1), 0)


def enlarged(picture: np.ndarray, smooth: bool) -> np.ndarray:
    """The middle of ``picture``, as large as the thumbnail."""
    height, width = picture.shape[:2]
    scale = max(WIDTH / width, HEIGHT / height)
    size = max(WIDTH, round(width * scale)), max(HEIGHT, round(height * scale))
    image = Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.BICUBIC if smooth else Image.NEAREST)
    left, top = (size[0] - WIDTH) // 2, (size[1] - HEIGHT) // 2
    return np.asarray(image.crop((left, top, left + WIDTH, top + HEIGHT)))


def split(name: str, before: np.ndarray, after: np.ndarray) -> None:
    """Save ``before`` left of the diagonal and ``after`` right of it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    distance = x - WIDTH * (0.62 - 0.24 * y / HEIGHT)
    picture = np.where((distance > 0)[..., None], after, before)
    picture[abs(distance) < 1.5] = 255
    ICONS.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).convert("P", palette=Image.ADAPTIVE, colors=128).save(ICONS / f"{name}.png", optimize=True)
    print(ICONS / f"{name}.png")


def abdomen() -> None:
    mask = read_label_map(SAMPLES / "ct_tissue_mask.nii.gz")
    made = MedGenLib.generate(mask, model="ct-tissue", seed=7, preset="best").volume
    index = 40  # kidneys, spine and pelvis
    labels, plane = upright(mask.array[::-1, index]), upright(made.array[::-1, index])
    before = painted(labels, TISSUES, np.zeros((*labels.shape, 3), np.uint8))
    split("MedGenAbdomen", enlarged(before, False), enlarged(window(plane, -160, 240), True))


def hippocampus() -> None:
    mask = read_label_map(SAMPLES / "hippocampus_mask.nii.gz")
    made = MedGenLib.generate(mask, model="mr-hippocampus", seed=7, preset="best").volume
    index = int(np.argmax(np.minimum(*((mask.array == value).sum((1, 2)) for value in (1, 2)))))
    labels, plane = upright(mask.array[index, ::-1]), upright(made.array[index, ::-1])
    image = window(plane, *np.percentile(made.array, (1, 99.5)))
    split("MedGenHippocampus", enlarged(painted(labels, HIPPOCAMPUS, image // 3), False), enlarged(image, True))


def head() -> None:
    scan = read_volume(SAMPLES / "head_t1.nii.gz")
    made = MedGenLib.translate(scan, "CT", preset="best", accept_license=True).volume
    index = scan.array.shape[2] // 2 + 12
    before = window(scan.array[:, :, index], *np.percentile(scan.array, (5, 99.7)))
    after = window(made.array[:, :, index], -200, 900)
    # the array runs right to left and front to back already: columns are i, rows are j
    split("MedGenHead", enlarged(np.swapaxes(before, 0, 1), True), enlarged(np.swapaxes(after, 0, 1), True))


def thigh() -> None:
    scan = read_volume(SAMPLES / "thigh_t1.nii.gz")
    made = MedGenLib.translate(scan, "CT", model="body-mr-to-ct", preset="best").volume
    index = scan.array.shape[2] // 2
    # the femur moves to the half that shows the CT
    mr, ct = (np.pad(v.array[:-14, :, index], ((14, 0), (0, 0)), constant_values=v.array.min()) for v in (scan, made))
    before = window(mr, *np.percentile(scan.array, (5, 99.7)))
    after = window(ct, -160, 240)
    split("MedGenThigh", enlarged(np.swapaxes(before, 0, 1), True), enlarged(np.swapaxes(after, 0, 1), True))


if __name__ == "__main__":
    for make in (abdomen, hippocampus, head, thigh):
        make()
