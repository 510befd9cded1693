"""Published data sets that are known by the names of their files.

| data set  | files                                                                                           |
|-----------|-------------------------------------------------------------------------------------------------|
| IXI       | IXI012-HH-1211-T1.nii.gz, -T2, -PD and -MRA, in one folder or in IXI-T1, IXI-T2 ...              |
| SynthRAD  | Task1/brain/1BA001/mr.nii.gz, ct.nii.gz, mask.nii.gz (2023), Task1/AB/1ABA001/mr.mha ... (2025), |
|           | and the same with cbct in Task2; also one folder of them                                        |
| LIDC-IDRI | LIDC-IDRI-0001/**/*.dcm, and XML files beside the slices or elsewhere in the data set            |

The images of IXI lie as the scanners stored them, T1 in sagittal slices; those of one person are not registered. The
digit, letters and number of SynthRAD are the task, the region, the center and the patient. LIDC-IDRI has several CTs
of some people, radiographs, and XML files for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from MedGenLib.io.dicom.headers import read_tags, text
from MedGenLib.trainer.datasets import LabeledImage, Problem

IXI = re.compile(r"(IXI\d{3}-(?:Guys|HH|IOP)-\d{4})-(T1|T2|PD|MRA)\.nii(?:\.gz)?")
SYNTHRAD = re.compile(r"[12](?:B|P|HN|TH|AB)[A-E]\d{3}")
SYNTHRAD_IMAGES = re.compile(r"(mr|ct|cbct)\.(?:nii\.gz|mha)")
LIDC = re.compile(r"LIDC-IDRI-\d{4}")
LICENSES = {"IXI": "CC-BY-SA-3.0", "SynthRAD": "CC-BY-NC-4.0", "LIDC-IDRI": "CC-BY-3.0"}
_READINGS = re.compile(r"<LidcReadMessage.*?<SeriesInstanceUid>\s*([\d.]+)", re.DOTALL)
_HEAD = 4096
"""Characters of an XML file within which its series is named."""


def published_images(path: Path) -> tuple[str, dict[str, dict[str, Path]]]:
    """Name of the data set, and kind of image -> case -> file: T1, T2, PD and MRA, or mr, cbct and ct."""
    known = {"IXI": _ixi, "SynthRAD": _synthrad}
    return next(((name, found) for name, read in known.items() if (found := read(path))), ("", {}))


def _ixi(path: Path) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for file in sorted([*path.glob("*.nii*"), *path.glob("*/*.nii*")]):
        if named := IXI.fullmatch(file.name):
            found.setdefault(named[2], {})[named[1]] = file
    return found


def _synthrad(path: Path) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for below in ("*", "*/*", "*/*/*", "*/*/*/*"):
        for file in sorted(path.glob(f"{below}/*")):
            named = SYNTHRAD_IMAGES.fullmatch(file.name)
            if named and SYNTHRAD.fullmatch(file.parent.name):
                found.setdefault(named[1], {})[file.parent.name] = file
        if found:  # all lie at one depth
            break
    return found


def lidc_scans(path: Path) -> tuple[list[LabeledImage], list[Problem]] | None:
    """The CTs with their readings, and those without; None for other folders."""
    people = [p for below in ("*", "*/*") for p in sorted(path.glob(below)) if LIDC.fullmatch(p.name) and p.is_dir()]
    if not people:
        return None
    readings = _readings(path)
    cases, problems = [], []
    for person in people:
        for number, series in enumerate(sorted({file.parent for file in person.rglob("*.dcm")}), start=1):
            header = read_tags(next(iter(sorted(series.glob("*.dcm")))), ["Modality", "SeriesInstanceUID"])
            if header is None or text(header, "Modality") != "CT":
                continue
            name = f"{person.name}-{number}"
            outlines = readings.get(text(header, "SeriesInstanceUID"))
            if outlines is None:
                problems.append(Problem(name, f"No XML file in {path} has readings of the series in {series}."))
            else:
                cases.append(LabeledImage(name, person.name, series, outlines))
    return cases, problems


def _readings(path: Path) -> Mapping[str, Path]:
    """Series -> XML file with the readings of a CT."""
    found = {}
    for file in sorted(path.rglob("*.xml")):
        with file.open(encoding="utf-8", errors="replace") as stream:
            if named := _READINGS.search(stream.read(_HEAD)):
                found[named[1]] = file
    return found
