"""T1-weighted brains with labels: random patches at several spacings.

The configuration lists scans, and a folder of people with one image and one label map each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from MedGenLib.errors import InputError
from MedGenLib.imaging import shading
from MedGenLib.imaging.noise import noise_level
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.mapping import map_labels
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenLib.packages.settings import ContrastSettings
from MedGenLib.packages.typed import read
from MedGenLib.pipelines.contrast import adapted, distribution, levels
from MedGenLib.training.config import resolve
from MedGenLib.training.data import reader
from MedGenLib.training.data.patches import Scan, ScanPatches

SHELL_MM = 2.5
"""FreeSurfer does not label the fluid around the brain: dark voxels within this distance (mm) are taken as fluid."""
SHELL_ABOVE, SHELL_BELOW = 1.0, 75.0
"""Range of its values: lower values are skull-stripped; higher ones are fat, marrow or a large vein."""
FLIPS = (0.5, 0.2, 0.2)
"""Probability of mirroring along right-left, posterior-anterior and inferior-superior."""
SMOOTHED, NOISIER = 0.15, 0.15
"""Share of patches that are smoothed, and that get more noise."""
WITHOUT_SHELL = 0.35
"""Share of patches whose mask ends at the cortex, as in FreeSurfer's masks."""


@dataclass(frozen=True)
class Landmarks:
    """Values of tissues, such as fluid, cortex and white matter, on the common scale (Nyul & Udupa 1999).

    A scan is mapped piecewise linearly so that the medians of these labels equal ``values``. With one label it is
    multiplied by a number, and keeps its contrast.
    """

    labels: tuple[int, ...]
    values: tuple[float, ...]

    def standardize(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(i, j, k) values in any unit and labels -> float32 on the common scale, 0 stays 0."""
        medians = [float(np.median(values[labels == label])) for label in self.labels]
        known, target = [0.0, *medians], [0.0, *self.values]
        if not all(a < b for a, b in zip(known, known[1:], strict=False)):
            raise InputError(
                "The landmarks of a scan are not in ascending order (medians "
                f"{', '.join(f'{m:.0f}' for m in medians)}); check that it is T1-weighted and its mask is correct."
            )
        slope = (target[-1] - target[-2]) / (known[-1] - known[-2])
        above = np.maximum(values - known[-1], 0) * slope
        return (np.interp(values, known, target) + above).astype(np.float32)


@reader("brain-scans")
class BrainScans(ScanPatches):
    """Scans of the configuration in RAS orientation, on the common scale, resampled to each training spacing."""

    shift = 0.25

    def __init__(self, config: dict[str, Any], patch: int) -> None:
        data = config["data"]
        self.vocabulary = Vocabulary.from_dict(config["package"]["medgen"]["input"]["labels"])
        self.fluid = int(self.vocabulary.value_of(data["fluid"]))
        self.white = int(data["landmarks"]["labels"][-1])
        self.levels: dict[str, np.ndarray] = {}
        self.shading: dict[str, tuple[float, ...]] = {}
        people, left_out = _people(config)
        scans = [scan for item in (*data["scans"], *people) for scan in self._read(config, item)]
        self.contrast = self._contrast(data, people, scans)
        if self.contrast is not None:
            known = read(ContrastSettings, self.contrast, "contrast")
            codec = read(TissueStandard, data["codec"], "data.codec")
            scans = [replace(scan, codec=adapted(codec, known, self.levels[scan.subject])) for scan in scans]
        super().__init__(config, patch, max(label.value for label in self.vocabulary.labels), scans)
        if (share := data.get("people", {}).get("share")) is not None:
            theirs = np.isin([scan.subject for scan in scans], [item["subject"] for item in people])
            for part, of_all in ((theirs, share), (~theirs, 1 - share)):
                self.weights[part] *= of_all / self.weights[part].sum()
        self.held_out = [
            f"{i['subject']}, slices {i['held_out'][0]} to {i['held_out'][1] - 1}"
            for i in data["scans"]
            if "held_out" in i
        ] + left_out

    def flips(self, generator: np.random.Generator) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if generator.random() < FLIPS[axis])

    def vary(
        self, values: np.ndarray, labels: np.ndarray, noise: float, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, float]:
        values, noise = _vary(values, labels == self.white, noise, generator)
        if generator.random() < WITHOUT_SHELL:
            labels = np.where(labels == self.fluid, 0, labels)
        return values, labels, noise

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Statistics of each label over the scans at the finest spacing, for the output check."""
        finest = min(s.spacing for s in self.scans)
        tissues = {}
        for label in self.vocabulary.labels:
            parts = [s.values[s.labels == label.value] for s in self.scans if s.spacing == finest]
            parts = [p for p in parts if p.size >= 50]
            if parts:
                voxels = np.concatenate(parts)
                tissues[str(label.value)] = {
                    "name": label.name,
                    "mean": round(float(voxels.mean()), 1),
                    "sd": round(float(voxels.std()), 1),
                    "means": [round(float(p.mean()), 1) for p in parts],
                }
        return tissues

    def preprocessing(self) -> dict[str, Any]:
        more = {} if self.contrast is None else {"contrast": self.contrast}
        return {**super().preprocessing(), "limit": self.codec.limit, **more}

    def _contrast(self, data: dict, people: list[dict], scans: list[Scan]) -> dict[str, Any] | None:
        """Distribution of the contrast of the people; their levels are completed by the noise.

        The noise is that at the finest spacing, relative to its median.
        """
        if "contrast" not in data:
            return None
        finest = min(data["spacings_mm"])
        noise = {s.subject: s.noise for s in scans if s.spacing == finest}
        usual = np.median([noise[item["subject"]] for item in people])
        self.levels = {name: np.append(found, np.log2(noise[name] / usual)) for name, found in self.levels.items()}
        found = np.array([[*self.levels[item["subject"]], *self.shading[item["subject"]]] for item in people])
        if (missing := np.isnan(found).any(0)).any():
            label = self.vocabulary.names[data["contrast"][int(missing.argmax())]]
            raise InputError(f"A person of data.people lacks {label}; leave it out of data.contrast.")
        known = {"labels": list(data["contrast"]), "reference": self.white, "shading": bool(data.get("shading"))}
        return {**known, **distribution(found)}

    def _read(self, config: dict, item: dict) -> Iterator[Scan]:
        data = config["data"]
        volume = read_volume(resolve(config, item["image"]), modality="T1w")
        label_map = read_label_map(resolve(config, item["label"]))
        label_map, _ = map_labels(label_map, self.vocabulary, item.get("mapping", data["table"]), strict=False)
        marks = Landmarks(**{k: tuple(v) for k, v in data["landmarks"].items()})
        values = marks.standardize(volume.array.astype(np.float32), label_map.array)
        labels = label_map.array
        if "unlabeled" in item:
            rest = int(self.vocabulary.value_of(item["unlabeled"]))
            labels = np.where((labels == 0) & (values > 0), rest, labels).astype(np.uint8)
        else:
            labels = with_shell(values, labels, label_map.spacing, self.fluid)
        label_map = label_map.with_array(labels)
        values = marks.standardize(self._even(data, item["subject"], values, label_map), labels)
        volume = volume.with_array(values)
        self.levels[item["subject"]] = levels(values, labels, data.get("contrast", ()), self.white)
        for part in _parts(item.get("held_out"), volume.shape[2]):
            for spacing in data["spacings_mm"]:
                yield self._at_spacing(item["subject"], volume, label_map, part, spacing)

    def _even(self, data: dict, subject: str, values: np.ndarray, labels: LabelMap) -> np.ndarray:
        """The values without their shading, which is kept in `shading`, if the model draws one."""
        self.shading[subject] = ()
        if not data.get("shading"):
            return values
        found = shading.measured(values, labels, self.white, [v for v in data["contrast"] if v != self.fluid])
        if found is None:
            raise InputError(f"The scan {subject} has too little tissue to measure its shading; remove it.")
        self.shading[subject] = found.coefficients
        return values / found.over(labels)

    def _at_spacing(self, subject: str, volume: Volume, label_map: LabelMap, part: slice, spacing: float) -> Scan:
        low = (0, 0, part.start)
        high = (*volume.shape[:2], part.stop)
        finer = max(volume.spacing) > 1.01 * spacing
        volume = resample(crop(volume, low, high), (spacing,) * 3, order=3 if finer else 1)
        label_map = resample(crop(label_map, low, high), (spacing,) * 3)
        reorientation = Reorientation.to(volume.geometry, "RAS")
        values, labels = reorientation.apply(volume.array), reorientation.apply(label_map.array).astype(np.uint8)
        box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(labels))
        values, labels = np.maximum(values[box], 0), labels[box]
        noise = noise_level(values, labels == self.white)
        if noise is None:
            raise InputError(
                f"The scan {subject} has too little white matter to measure its noise; remove it from data.scans."
            )
        return Scan(subject, spacing, values, labels, noise)


def with_shell(values: np.ndarray, labels: np.ndarray, spacing: tuple[float, ...], fluid: int) -> np.ndarray:
    """Labels with dark unlabeled voxels within `SHELL_MM` of the brain set to ``fluid``."""
    near = ndimage.distance_transform_edt(labels == 0, spacing) <= SHELL_MM
    dark = (values > SHELL_ABOVE) & (values < SHELL_BELOW)
    return np.where((labels == 0) & near & dark, fluid, labels).astype(np.uint8)


def _people(config: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Scans of the configuration's folder ``data.people``, and the people left out.

    Of the people, sorted by name, ``held_out`` [n, k] leaves out every n-th one, from the k-th one (from 0), and
    ``validation`` those of the rest. ``share`` of the patches shows them; without it, a scan is drawn by its volume.
    """
    section = config["data"].get("people")
    if section is None:
        return [], []
    folder, ending = resolve(config, section["folder"]), section["image"].removeprefix("{}")
    names = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    left_out = []
    for key, purpose in (("held_out", "held out"), ("validation", "for validation")):
        every, first = section[key]
        chosen = names[first::every]
        left_out += [f"{name}, {purpose}" for name in chosen]
        names = [name for name in names if name not in chosen]
    files = {key: str(folder / section[key]) for key in ("image", "label")}
    mapping = {int(value): name for value, name in section["mapping"].items()}
    return [
        {"subject": name, **{k: v.format(name) for k, v in files.items()}}
        | {"mapping": mapping, "unlabeled": section["unlabeled"]}
        for name in names
    ], left_out


def _parts(held_out: list[int] | None, length: int) -> list[slice]:
    """Slices before and after the held-out ones."""
    first, last = held_out or (length, length)
    return [part for part in (slice(0, first), slice(last, length)) if part.stop > part.start]


def _vary(
    values: np.ndarray, white: np.ndarray, noise: float, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    """A smoothed or noisier version of a patch, and its noise level."""
    chance = generator.random()
    if chance < SMOOTHED:
        sigma = generator.uniform(0.3, 0.8)
        varied, guess = ndimage.gaussian_filter(values, sigma), noise * np.exp(-1.2 * sigma)
    elif chance < SMOOTHED + NOISIER:
        added = generator.uniform(1.0, 6.0)
        # Outside the brain the scan may be 0; noise is added only inside.
        varied = values + added * generator.standard_normal(values.shape, np.float32)
        guess = float(np.hypot(noise, 0.9 * added))
    else:
        return values, noise
    before, after = noise_level(values, white), noise_level(varied, white)
    return varied, noise * after / before if before and after else guess
