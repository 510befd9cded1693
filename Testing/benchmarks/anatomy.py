"""False alarms and detections of the anatomical check of head CT.

    MEDGEN_DATA=<folder> python Testing/benchmarks/anatomy.py [--every 1]

Real slices of SynthRAD2023, of which the limits were chosen on those that are not held out; held-out slices spoiled in
one way at a time; translations of the held-out MR slices. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from checks import wilson
from common import data_folder, save, table
from numpy.typing import NDArray
from scipy import ndimage

from MedGenLib import translate
from MedGenLib.checks.anatomy import check_head
from MedGenLib.findings import OutputCheck
from MedGenLib.imaging.volume import Volume
from MedGenLib.packages.catalogue import find
from MedGenLib.training.data.slices import PLANES, SlicePair, read_pairs

AXIS = (2, 1, 0)
"""Axis normal to axial, coronal and sagittal slices."""
ARC = np.deg2rad(60)


def as_volume(image: NDArray, plane: int, modality: str) -> Volume:
    return Volume(np.expand_dims(image, AXIS[plane]).astype(np.float32), np.diag([-1.0, -1, 1, 1]), modality)


def fails(ct: NDArray, plane: int) -> bool:
    check = OutputCheck()
    check_head(check, as_volume(ct, plane, "CT"))
    return not check.passed


def spoiled(ct: NDArray, plane: int, generator: np.random.Generator) -> Iterator[tuple[str, NDArray]]:
    """One fault at a time: discs in the brain, and arcs of 60 degrees without skull, scalp, or both."""
    depth = ndimage.distance_transform_edt((ct > 0) & (ct < 100))
    pieces, _ = ndimage.label(depth > 4)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    core = pieces == sizes.argmax()
    grid = np.indices(ct.shape)
    for name, radius, hu in (("bone, 10 mm", 10, 700), ("bone, 15 mm", 15, 700), ("air, 10 mm", 10, -950)):
        places = np.argwhere(core & (depth > radius + 3))
        if len(places):
            offset = grid - places[generator.integers(len(places))][:, None, None]
            yield name, np.where(np.hypot(*offset) < radius, hu, ct)
    middle = np.argwhere(core).mean(0)
    # Storage order: rows to the left, columns to the back or up; the face is spared.
    angle = generator.uniform(-0.15, 1.15) * np.pi if plane == 0 else np.pi / 2 + generator.uniform(-0.6, 0.6)
    turn = np.arctan2(grid[1] - middle[1], grid[0] - middle[0]) - angle
    arc = (np.abs((turn + np.pi) % (2 * np.pi) - np.pi) < ARC / 2) & ~ndimage.binary_dilation(core, iterations=4)
    far = arc & (np.hypot(grid[0] - middle[0], grid[1] - middle[1]) > 40)
    yield "no skull", np.where(arc & (ct > 150), 40, ct)
    yield "no skull, no scalp", np.where(far, -1000, ct)
    enclosed = ndimage.binary_fill_holes(ndimage.binary_closing(ct > 250, iterations=3))
    yield "no scalp", np.where(far & ~enclosed & (ct < 250), -1000, ct)


def translated(pair: SlicePair) -> NDArray:
    mr = as_volume(1000 * pair.mr, pair.plane, "T1w")
    return np.squeeze(translate(mr, "CT", model="head-mr-to-ct", accept_license=True).volume.array)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="use every n-th slice")
    chosen = parser.parse_args()
    held = set(find("head-mr-to-ct").training.held_out)
    found: dict[str, list[bool]] = defaultdict(list)
    generator = np.random.default_rng(0)
    for pair in read_pairs(data_folder() / "pairs_ct_mr" / "synthrad2023_brain_slices")[:: chosen.every]:
        ct = np.where(pair.mask, pair.ct, -1000)
        if pair.subject not in held:
            found[f"real {PLANES[pair.plane]}, seen"].append(fails(ct, pair.plane))
            continue
        found[f"real {PLANES[pair.plane]}, held out"].append(fails(ct, pair.plane))
        found["translated MR, held out"].append(fails(translated(pair), pair.plane))
        for name, image in spoiled(ct, pair.plane, generator):
            found[f"spoiled: {name}"].append(fails(image, pair.plane))
    rows = [[name, len(a), sum(a), *wilson(sum(a), len(a))] for name, a in sorted(found.items())]
    print(table(["images", "number", "failed", "low", "high"], rows))
    save("anatomy", {row[0]: row[1:] for row in rows})


if __name__ == "__main__":
    main()
