"""Write Resources/SampleData from the public scans in the folder MEDGEN_DATA.

MEDGEN_DATA=<folder> python Testing/benchmarks/make_sample_data.py
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.volume import LabelMap, crop, occupied
from MedGenLib.io.atomic import write_json
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.training.data.alignment import field_of_view
from MedGenLib.training.data.tissue import TISSUES, tissue_labels
from MedGenLib.training.splits import hold_out

DATA = Path(os.environ["MEDGEN_DATA"])
OUT = Path(__file__).resolve().parents[2] / "Resources" / "SampleData"
CROPS = 6
THIGH_SLICES = 30


def abdomen() -> None:
    """CT held out from all training, and its tissue mask."""
    path = DATA / "ct_torso_with_masks" / "totalseg_abdomen" / "ct_full.nii.gz"
    ct = read_volume(path, modality="CT")
    body = body_envelope_from_image(ct).array > 0
    hu = np.clip(ct.array, -1024, 3071)
    labels = tissue_labels(hu.astype(np.float32), body)
    mask = LabelMap(labels, ct.affine, dict(enumerate(TISSUES, start=1)))
    write_volume(mask, OUT / "ct_tissue_mask.nii.gz")
    write_volume(ct.with_array(hu.round().astype(np.int16)), OUT / "ct_tissue_real.nii.gz")


def head() -> None:
    """T1w head, cropped below the skull base, 8 bits."""
    mr = read_volume(DATA / "mr_head" / "hanke_t1_1mm.nii.gz", modality="T1w")
    inside = np.nonzero(body_envelope_from_image(mr).array)
    low = [max(0, int(i.min()) - 6) for i in inside]
    high = [min(n, int(i.max()) + 7) for i, n in zip(inside, mr.shape, strict=True)]
    low[2] = max(low[2], high[2] - 190)
    part = crop(mr, low, high)
    top = np.percentile(part.array, 99.9)
    scaled = np.clip(part.array / top * 255, 0, 255).round().astype(np.uint8)
    write_volume(part.with_array(scaled), OUT / "head_t1.nii.gz")


def thigh() -> None:
    """T1w slices of a thigh around the middle of a person kept out of the training, in the field of view of the MR."""
    mr = read_volume(DATA / "pairs_ct_mr" / "sts_sarcoma" / "STS_031" / "mr_t1.nii.gz", modality="T1w")
    known = occupied(field_of_view(mr.array))
    middle = sum(known[2]) // 2
    low, high = zip(*known[:2], (middle - THIGH_SLICES // 2, middle + THIGH_SLICES // 2), strict=True)
    part = crop(mr, low, high)
    write_volume(part.with_array(part.array.astype(np.uint8)), OUT / "thigh_t1.nii.gz")


def hippocampus() -> None:
    """Held-out hippocampus crop and its labels."""
    from MedGenLib.io.files import read_label_map

    folder = DATA / "mr_hippocampus_msd"
    held = hold_out((p.name for p in (folder / "labels").glob("*.nii.gz")), 40, 0)
    labels = read_label_map(folder / "labels" / held[0])
    real = read_volume(folder / "images" / held[0], modality="T1w")
    write_volume(real.with_array(real.array.astype(np.int16)), OUT / "hippocampus_real.nii.gz")
    names = {1: "anterior hippocampus", 2: "posterior hippocampus"}
    write_volume(LabelMap(labels.array.astype(np.uint8), labels.affine, names), OUT / "hippocampus_mask.nii.gz")


def hippocampi() -> None:
    """A tiny data set in the layout of the Decathlon: the smallest files of held-out crops, as they are."""
    source, target = DATA / "mr_hippocampus_msd", OUT / "hippocampi"
    held = hold_out((p.name for p in (source / "labels").glob("*.nii.gz")), 40, 0)
    chosen = sorted(held[1:], key=lambda name: (source / "images" / name).stat().st_size)[:CROPS]
    for kind in ("images", "labels"):
        folder = target / f"{kind}Tr"
        folder.mkdir(parents=True, exist_ok=True)
        for name in chosen:
            shutil.copyfile(source / kind / name, folder / name)
    facts = {
        "name": "Hippocampi",
        "license": "CC-BY-SA-4.0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "anterior hippocampus", "2": "posterior hippocampus"},
    }
    write_json(target / "dataset.json", facts)


def brain() -> None:
    """Brain labels with FreeSurfer's label values, without the rest of the head."""
    from MedGenLib.io.files import read_label_map
    from MedGenLib.labels.vocabulary import table

    labels = read_label_map(DATA / "label_maps" / "synthseg" / "training_seg_09.nii.gz")
    array = np.where(labels.array < 256, labels.array, 0).astype(np.uint8)
    inside = np.nonzero(array)
    low = [max(0, int(i.min()) - 2) for i in inside]
    high = [min(n, int(i.max()) + 3) for i, n in zip(inside, array.shape, strict=True)]
    known = table("freesurfer").names
    names = {int(value): known[int(value)] for value in np.unique(array) if value}
    write_volume(crop(LabelMap(array, labels.affine, names), low, high), OUT / "brain_labels.seg.nrrd")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    abdomen()
    head()
    thigh()
    hippocampus()
    hippocampi()
    brain()
