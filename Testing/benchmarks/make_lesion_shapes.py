"""Write Resources/SampleData/lesion_shapes.seg.nrrd: shapes of real lesions, without images.

    MEDGEN_DATA=<folder> python Testing/benchmarks/make_lesion_shapes.py

Six single lesions of the consensus masks of open_ms_data (CC-BY, Lesjak et al. 2017), side by side
in one small label volume, each with its original shape, size and orientation.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import read_label_map, write_volume

DATA = Path(os.environ["MEDGEN_DATA"]) / "mr_brain_labels"
OUT = Path(__file__).resolve().parents[2] / "Resources" / "SampleData" / "lesion_shapes.seg.nrrd"
CHOSEN = {
    "plaque-small": ("07", 67),
    "plaque-round": ("07", 209),
    "plaque-oval": ("26", 226),
    "plaque-long": ("26", 616),
    "plaque-large": ("26", 2724),
    "plaque-branched": ("26", 1319),
}
"""Name -> patient and number of voxels, which is unique within the patient."""


def pieces(patient: str) -> tuple[LabelMap, dict[int, np.ndarray]]:
    """Mask of a patient, and number of voxels -> cropped lesion."""
    from scipy.ndimage import find_objects, label

    mask = read_label_map(DATA / f"open_ms_patient{patient}" / "lesion.nii.gz")
    numbered, _ = label(mask.array > 0)
    found = {}
    for number, box in enumerate(find_objects(numbered), start=1):
        piece = numbered[box] == number
        found[int(piece.sum())] = piece
    return mask, found


def main() -> None:
    patients = {name: pieces(name) for name in ("07", "26")}
    parts = [patients[patient][1][voxels] for patient, voxels in CHOSEN.values()]
    shape = (sum(p.shape[0] + 1 for p in parts), *(max(p.shape[a] for p in parts) for a in (1, 2)))
    array, start = np.zeros(shape, np.uint8), 0
    for value, part in enumerate(parts, start=1):
        box = (slice(start, start + part.shape[0]), *(slice(0, n) for n in part.shape[1:]))
        array[box] = value * part
        start += part.shape[0] + 1
    affine = patients["07"][0].affine.copy()
    affine[:3, 3] = 0
    write_volume(LabelMap(array, affine, dict(enumerate(CHOSEN, start=1))), OUT)


if __name__ == "__main__":
    main()
