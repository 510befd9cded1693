"""Heterogeneity of real sarcomas and of inserted lesions in the same people, in CT and T1w MR.

    MEDGEN_DATA=<folder> python Testing/benchmarks/lesion_texture.py

Coarse deviation: half the distance of the percentiles 16 and 84 inside, 4 mm from the border, after smoothing over
3 mm, which removes most of the noise; in HU, or in % of the brightness of the soft tissue. The inserted lesions lie in
soft tissue of the same person where it is thickest. Medians over people, with 95 % intervals of the bootstrap.
"""

from __future__ import annotations

import numpy as np
from common import data_folder, save, table
from scipy.ndimage import distance_transform_edt, gaussian_filter

from MedGenLib.editing.lesions import insert_lesion
from MedGenLib.imaging.volume import LabelMap, Volume, as_stored
from MedGenLib.io.files import read_label_map, read_volume

SOFT, TUMOR = 2, 6
KINDS = {"ct": ("CT", "ct-tissue", -16.0, {SOFT: 2}), "mr_t1": ("T1w", "mr-brain", 0.0, {SOFT: 2})}
"""File -> modality, model, contrast of the inserted lesions, mapping of the labels."""


def coarse(image: Volume, where: np.ndarray, unit: float) -> float:
    inner = distance_transform_edt(where, image.spacing) > 4
    inner &= (image.array > 0) | (image.modality == "CT")
    if inner.sum() < 150:
        return np.nan
    width = np.divide(3, image.spacing)
    share = gaussian_filter(inner.astype(float), width)
    values = (gaussian_filter(np.where(inner, image.array, 0.0), width) / np.maximum(share, 1e-6))[inner]
    return float(np.subtract(*np.percentile(values, [84, 16])) / 2 / unit)


def of_person(folder) -> dict[str, float]:
    labels, found = read_label_map(folder / "labels.nii.gz"), {}
    tumor, soft = labels.array == TUMOR, labels.array == SOFT
    for file, (modality, model, contrast, mapping) in KINDS.items():
        image = as_stored(read_volume(folder / f"{file}.nii.gz", modality=modality))
        seen = soft & (image.array > 0) if modality != "CT" else soft
        depth = distance_transform_edt(seen, image.spacing)
        index = np.unravel_index(depth.argmax(), depth.shape)
        unit = 1.0 if modality == "CT" else float(np.median(image.array[seen])) / 100
        found[f"{modality}, real tumor"] = coarse(image, tumor, unit)
        tissues = LabelMap(seen.astype(np.uint8) * SOFT, labels.affine)
        for name, texture in (("even", None), ("solid", "solid")):
            made = insert_lesion(
                image,
                at=labels.affine[:3, :3] @ index + labels.affine[:3, 3],
                labels=tissues,
                mapping=mapping,
                size_mm=min(1.9 * depth.max(), 60),
                contrast=contrast or 10 * unit,
                texture=texture,
                model=model,
                seed=1,
                device="cpu",
            )
            found[f"{modality}, inserted {name}"] = coarse(made.volume, made.lesion.array > 0, unit)
    return found


def main() -> None:
    people = sorted((data_folder() / "pairs_ct_mr" / "sts_sarcoma").glob("STS_*"))
    found = [of_person(folder) for folder in people]
    generator, rows = np.random.default_rng(0), []
    for name in found[0]:
        values = np.array([one[name] for one in found])
        values = values[np.isfinite(values)]
        low, high = np.percentile(np.median(generator.choice(values, (2000, len(values))), axis=1), [2.5, 97.5])
        quarters = np.percentile(values, [25, 75])
        rows.append(
            [
                name,
                len(values),
                float(np.median(values)),
                f"{low:.1f} to {high:.1f}",
                "{:.1f} to {:.1f}".format(*quarters),
            ]
        )
    print(table(["lesion", "people", "coarse deviation, HU or %", "95 % interval", "quartiles"], rows))
    save("lesion_texture", {"rows": rows})


if __name__ == "__main__":
    main()
