"""Lesions inserted into the real CT of the sample data: intensities, and changes outside the halo.

    python Testing/benchmarks/lesion.py [--repeats 4] [--preset draft]

Each kind is inserted at random positions of its organ; generated lesions are removed again with their
mask. In range: share of the lesion's voxels with HU in the range of its label (after removal, of its
organ), by the thresholds of ct-tissue. Outside: largest difference beyond the reported halo.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from common import save, table

from MedGenLib.editing.lesions import Insertion, insert_lesion
from MedGenLib.editing.lesions.inputs import as_stored
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.io.samples import sample
from MedGenLib.labels.tissues import resegment
from MedGenLib.packages.catalogue import find

KINDS = {
    "nodule in lung or gas": ("lung or gas", 15.0, "spiculated", "soft tissue", None),
    "calcification in soft tissue": ("soft tissue", 15.0, "lobulated", "bone", None),
    "fat in soft tissue": ("soft tissue", 21.0, "plaque-large", "fat", None),
    "darker lesion in soft tissue": ("soft tissue", 24.0, "ellipsoid", None, -50.0),
}
"""Organ, size in mm, shape, label, contrast in HU."""
LABELS = {"fat": 1, "soft tissue": 2, "bone": 3, "lung or gas": 4}


def in_range(made: Insertion, label: str) -> float:
    spec = find("ct-tissue").statistics.resegment
    labels = resegment(made.volume.array, replace(spec, median=1))
    return float((labels[made.lesion.array > 0] == LABELS[label]).mean())


def outside(made: Insertion) -> float:
    return made.report.output_checks[0].figures["outside_difference"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--preset", default="draft")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    image = as_stored(read_volume(sample("ct_tissue_real.nii.gz"), modality="CT"))
    labels = read_label_map(sample("ct_tissue_mask.nii.gz"))
    common = {"labels": labels, "preset": arguments.preset, "device": "cpu"}
    rows = []
    for name, (organ, size, shape, label, contrast) in KINDS.items():
        figures = []
        for seed in range(arguments.repeats):
            start = time.perf_counter()
            made = insert_lesion(
                image, organ=organ, size_mm=size, shape=shape, label=label, contrast=contrast, seed=seed, **common
            )
            seconds = time.perf_counter() - start
            where = made.lesion.array > 0
            before, after = (v.array[where].astype(float) for v in (made.source, made.volume))
            again, back, gone = np.nan, np.nan, 0.0
            if label is not None:
                again = in_range(made, label)
                with_lesion = labels.with_array(np.where(where, LABELS[label], labels.array))
                removed = insert_lesion(
                    made.volume, lesion=made.lesion, label=organ, seed=seed, **{**common, "labels": with_lesion}
                )
                back, gone = in_range(removed, organ), outside(removed)
            figures.append([before.mean(), after.mean(), again, back, made.halo_mm, max(outside(made), gone), seconds])
        mean = np.mean(figures, 0)
        mean[5] = np.max(figures, 0)[5]
        rows.append([name, *map(float, mean)])
        print(rows[-1], flush=True)
    heads = [
        "lesion",
        "HU before",
        "HU after",
        "in range",
        "after removal: in range",
        "halo mm",
        "outside, largest",
        "seconds",
    ]
    print(table(heads, rows))
    save("lesion", {"heads": heads, "rows": rows})


if __name__ == "__main__":
    main()
