"""A data set in nnU-Net's layout from a cohort: images, labels, dataset.json, and a datasheet on what is synthetic."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from MedGenLib.cohort.case import IMAGE, LESION
from MedGenLib.cohort.manifest import CohortManifest
from MedGenLib.cohort.records import Record, case_folder
from MedGenLib.cohort.verbs import VERBS
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.atomic import hidden_folder, replace_folder, write_json
from MedGenLib.io.files import read_label_map, write_volume
from MedGenLib.io.provenance import NOTE, Provenance
from MedGenLib.io.recorded import read
from MedGenLib.packages.catalogue import find

DATASET, DESCRIPTION, DATASHEET = "dataset", "dataset.json", "DATASHEET.md"
IMAGES, LABELS = "imagesTr", "labelsTr"


def write_dataset(cohort: CohortManifest, records: Sequence[Record], out: Path) -> Path | None:
    """Write the data set of all cases that passed their checks, as a whole; None if none did.

    It is left as it is while the same outputs are in it.
    """
    used = [record for record in records if record.passed]
    if not used:
        return None
    folder = out / DATASET
    digest = sha256(json.dumps([[r.id, r.outputs[IMAGE]] for r in used], sort_keys=True).encode()).hexdigest()
    try:
        if json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["medgen"] == digest:
            return folder
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with hidden_folder(out) as hidden:
        new = hidden / DATASET
        for name in (IMAGES, LABELS):
            (new / name).mkdir(parents=True)
        masks = {record.id: _labels_of(record, out) for record in used}
        numbers = _numbers(sorted(set(masks.values())), _names(used[0]))
        facts = [_copy(record, masks[record.id], numbers, out, new) for record in used]
        channel = Counter(fact.modality or "image" for fact in facts).most_common(1)[0][0]
        description = {
            "name": cohort.name,
            "channel_names": {"0": channel},
            "labels": {"background": 0, **{name: number for number, name in numbers.values()}},
            "numTraining": len(used),
            "file_ending": ".nii.gz",
            "medgen": digest,
        }
        write_json(new / DESCRIPTION, description)
        (new / DATASHEET).write_text(_datasheet(cohort, records, used, facts), encoding="utf-8")
        replace_folder(new, folder)
    return folder


def _labels_of(record: Record, out: Path) -> Path:
    """The file with the labels of a case's image."""
    if LESION in record.outputs:
        return case_folder(out, record.id) / LESION
    return Path(record.inputs[VERBS[record.verb].labels]["path"])


def _names(record: Record) -> dict[int, str]:
    """Names of the model's labels, where the numbers of the masks are its own."""
    if record.verb == "insert-lesion":
        return {1: "lesion"}
    options = VERBS[record.verb].checked(record.parameters, {}, None)
    if options["mapping"] is not None:
        return {}
    return {value: label.name for value, label in find(options["model"]).input.labels.items()}


def _numbers(paths: Sequence[Path], known: Mapping[int, str]) -> dict[int, tuple[int, str]]:
    """Number of a label -> its consecutive number, which nnU-Net wants, and its name."""
    found: dict[int, str] = {}
    for path in paths:
        mask = read_label_map(path)
        for value in mask.values():
            found.setdefault(int(value), mask.names.get(value) or known.get(value) or f"label {value}")
    names: Counter[str] = Counter()
    numbers = {}
    for number, value in enumerate(sorted(found), 1):
        names[found[value]] += 1
        numbers[value] = number, found[value] if names[found[value]] == 1 else f"{found[value]} ({value})"
    return numbers


def _copy(record: Record, labels: Path, numbers: dict[int, tuple[int, str]], out: Path, new: Path) -> Provenance:
    """Put the image and its labels into the data set; returns how the image was made."""
    image = case_folder(out, record.id) / IMAGE
    target = new / IMAGES / f"{record.id}_0000.nii.gz"
    try:
        os.link(image, target)
    except OSError:  # a file system without links
        shutil.copyfile(image, target)
    mask = read_label_map(labels)
    table = np.zeros(int(mask.array.max()) + 1, np.uint16)
    for value, (number, _) in numbers.items():
        if value < len(table):
            table[value] = number
    write_volume(LabelMap(table[mask.array], mask.affine), new / LABELS / f"{record.id}.nii.gz")
    return read(image) or Provenance()


def _datasheet(
    cohort: CohortManifest, records: Sequence[Record], used: Sequence[Record], facts: Sequence[Provenance]
) -> str:
    sources = {record.inputs[VERBS[record.verb].first]["path"] for record in used if record.inputs}
    models = sorted({f"{fact.model} {fact.version} (SHA-256 {fact.package_sha256[:16]})" for fact in facts})
    edited = any(record.verb == "insert-lesion" for record in used)
    what = (
        "Each image is the named source image with one synthetic lesion; voxels outside the region of the lesion are "
        "those of the source. The labels are the synthetic lesion."
        if edited
        else "Every voxel of every image is synthetic. The labels are the masks that the images were generated from; "
        "whether those are synthetic is not known here."
    )
    rows = "\n".join(
        f"| {record.id} | {Path(record.inputs[VERBS[record.verb].first]['path']).name if record.inputs else '-'} "
        f"| {record.seed} | {fact.output_sha256[:16]} |"
        for record, fact in zip(used, facts, strict=True)
    )
    return f"""# Datasheet of {cohort.name}

{NOTE.capitalize()}.

- What is synthetic: {what}
- Images: {len(used)}, made from {len(sources)} files. Samples of one file are not independent: keep them on one side
  of a split.
- Left out: {len(records) - len(used)} cases that failed their checks.
- Models: {", ".join(models)}; their cards (`medgen models info NAME`) state license and training data.
- Each case's record.json holds its parameters, its seed and the hashes of what was read and written.

| image | made from | seed | SHA-256 of the voxels |
| --- | --- | --- | --- |
{rows}
"""
