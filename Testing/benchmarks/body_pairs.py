"""Training pairs of body-mr-to-ct: the real ones, and CTs with an MR that body-ct-to-mr makes of them.

    MEDGEN_DATA=DATA python Testing/benchmarks/body_pairs.py FOLDER

A made MR lies exactly where its CT lies, and shows parts of the body of which the real pairs have few (back-translation
of Sennrich et al. 2016). It gets the noise of real MR and a random shading, so that a network cannot read the CT from
its fine detail. People that are held out get none. `medgen train FOLDER` then learns from both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import data_folder
from scipy import ndimage

from MedGenLib import translate
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.files import read_volume, write_volume

TORSOS = (
    "ct_torso_open/acrin_flt_breast_001/ct.nii.gz",
    "ct_torso_open/cmb_crc_01068/ct.nii.gz",
    "ct_torso_open/cptac_c3l_00189/ct.nii.gz",
    "ct_torso_open/lidc_idri_0001/ct.nii.gz",
    "ct_torso_open/lung_fused_ct_path_0001/ct.nii.gz",
    "ct_torso_open/lung_pet_ct_dx_a0001/ct.nii.gz",
    "ct_torso_with_masks/lidc_idri_0314/ct.nii.gz",
    "ct_torso_with_masks/totalseg_abdomen/ct_full.nii.gz",
)
NOISE = 0.010, 0.025
"""Of the bright end of an MR, which is 1000: 10 and 90 % of the people have 0.011 and 0.023 in soft tissue."""
SHADING = 0.1
"""Standard deviation of the logarithm of a smooth field."""


def scanned(mr: Volume, generator: np.random.Generator) -> Volume:
    """The MR with a shading and Rician noise where it shows something."""
    shape = np.array(mr.shape)
    field = ndimage.zoom(generator.normal(0, SHADING, (4, 4, 4)), shape / 4, order=1)
    noise = 1000 * np.exp(generator.uniform(*np.log(NOISE)))
    real, imaginary = generator.normal(0, noise, (2, *shape))
    values = np.hypot(mr.array * np.exp(field) + real, imaginary)
    return mr.with_array(np.where(mr.array > 20, values, 0).round().clip(0, 2000).astype(np.int16))


def main() -> None:
    folder = Path(sys.argv[1])
    people = sorted((data_folder() / "pairs_ct_mr" / "sts_sarcoma").glob("STS_*"))
    for person in people:
        (folder / person.name).mkdir(parents=True)
        for name in ("mr_t1.nii.gz", "ct.nii.gz"):
            (folder / person.name / name).symlink_to(person / name)
    held_out = people[4::5]
    scans = [person / "ct.nii.gz" for person in people if person not in held_out]
    for number, path in enumerate(scans + [data_folder() / torso for torso in TORSOS]):
        ct = read_volume(path, modality="CT")
        mr = translate(ct, "T1w", model="body-ct-to-mr", device="cpu").volume
        case = folder / f"{path.parent.name}-made"
        case.mkdir()
        # One slice less than the scan: `medgen train` refuses two cases with the same image.
        start, stop = (0, 0, 1), ct.shape
        write_volume(crop(scanned(mr, np.random.default_rng([11, number])), start, stop), case / "mr_t1.nii.gz")
        write_volume(crop(ct, start, stop), case / "ct.nii.gz")
        print(case.name, flush=True)


if __name__ == "__main__":
    main()
