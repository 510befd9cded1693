"""Images with labels of any modality, prepared once in a cache on disk; patches are read from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import CODECS, Affine
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.texture import texture
from MedGenLib.io.atomic import replacing, write_json
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.packages.settings import TEXTURE, Distribution
from MedGenLib.packages.typed import read
from MedGenLib.pipelines.conditioning import COORDINATES, coordinates_about, label_channels
from MedGenLib.pipelines.contrast import distribution, standard_scores
from MedGenLib.pipelines.working_grid import SAME_SPACING
from MedGenLib.training.data import reader
from MedGenLib.training.data.ablation import Ablation
from MedGenLib.training.data.patches import PatchReader, moved_window, random_window

VERSION = 2
"""Version of the prepared volumes; others in a cache are prepared again."""
PLACES = 500
"""Voxels of each label of a case about which patches may lie."""


@dataclass(frozen=True)
class Prepared:
    """A case in the cache: network values (float16) and labels (uint8), mapped into memory, in RAS.

    ``statistics`` has number, mean and standard deviation of the voxels of each label, in network values for MR and in
    HU for CT; ``places`` are flat indices of some voxels of each; ``center`` is the center of the labels in voxels;
    ``texture`` is that of the image, see `imaging.texture`.
    """

    values: np.ndarray
    labels: np.ndarray
    center: tuple[float, float, float]
    statistics: Mapping[int, tuple[int, float, float]]
    places: Mapping[int, list[int]]
    texture: np.ndarray


@reader("volumes")
class Volumes(PatchReader):
    """The cases of a configuration, resampled to one spacing, without any limit on their size or number.

    Half of the patches lie about a voxel of a random label. The networks get the labels and the position relative to
    their center, and the texture of the image if ``data.texture`` is true.
    """

    def __init__(self, config: dict[str, Any], patch: int | list[int]) -> None:
        data = config["data"]
        self.names = {int(value): name for value, name in data["labels"].items()}
        self.count = max(self.names)
        self.maps = self.count + 1 + COORDINATES
        self.spacing = float(data["spacing_mm"])
        self.outside = data["outside"]
        self.size = tuple(patch) if isinstance(patch, list) else (patch,) * 3
        self.held_out = list(data["held_out"])
        parameters = {key: value for key, value in data["codec"].items() if key != "name"}
        self.codec = CODECS[data["codec"]["name"]](**parameters)
        self.ablation = Ablation.of(config, self.count)
        self.cases = [_cached(data, case, self.codec) for case in data["cases"]]
        self.texture = distribution(np.array([case.texture for case in self.cases])) if data.get("texture") else None
        self.scalars = len(TEXTURE) if self.texture else 0

    def patch(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        case = self.cases[generator.integers(len(self.cases))]
        box, margins = self._window(case, generator)
        x, labels = case.values[box].astype(np.float32), np.asarray(case.labels[box])
        given = self.ablation.apply(labels, generator) if self.ablation else labels
        center = [c - (part.start or 0) for c, part in zip(case.center, box, strict=True)]
        maps = np.concatenate(
            [label_channels(given, self.count), coordinates_about(center, labels.shape, (self.spacing,) * 3)]
        )
        valid = (labels > 0 if self.outside == "background" else np.ones_like(labels)).astype(np.float32)
        stack = np.pad(np.concatenate([x[None], valid[None], maps]), [(0, 0), *margins])
        found = {"x": stack[:1], "valid": stack[1:2], "maps": stack[2:]}
        if self.texture:
            scores = standard_scores(read(Distribution, self.texture, "texture"), case.texture)
            found["scalars"] = scores.astype(np.float32)
        return found

    def _window(self, case: Prepared, generator: np.random.Generator) -> tuple[tuple[slice, ...], list]:
        shape = case.labels.shape
        box, margins = random_window(shape, self.size, generator)
        if generator.random() < 0.5 and any(n > size for n, size in zip(shape, self.size, strict=True)):
            places = case.places[int(generator.choice(list(case.places)))]
            place = np.unravel_index(places[generator.integers(len(places))], shape)
            box = moved_window(box, np.subtract(place, np.array(self.size) // 2), shape, self.size)
        return box, margins

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Statistics of each label, in the unit of the images; the range of means allows for what few cases show."""
        tissues = {}
        for value, name in self.names.items():
            found = np.array([case.statistics[value][1:] for case in self.cases if value in case.statistics])
            if len(found):
                mean, spread, within = found[:, 0].mean(), found[:, 0].std(), found[:, 1].mean()
                reach = max(3 * spread, 0.5 * within)
                numbers = {"mean": mean, "sd": spread, "low": mean - reach, "high": mean + reach}
                if isinstance(self.codec, Affine):
                    numbers = {k: v * self._spread + (k != "sd") * self.codec.mean for k, v in numbers.items()}
                tissues[str(value)] = {"name": name, **{k: round(float(v), 1) for k, v in numbers.items()}}
        return tissues

    @property
    def _spread(self) -> float:
        """Usual standard deviation of an output."""
        return self.codec.mean * self.texture["means"][TEXTURE.index("contrast")] if self.texture else self.codec.sd

    def preprocessing(self) -> dict[str, Any]:
        """The parameters of the codec, and the texture of the images."""
        codec = {key: list(v) if isinstance(v, tuple | list) else v for key, v in vars(self.codec).items()}
        return {**codec, "texture": self.texture} if self.texture else codec


def _cached(data: Mapping[str, Any], case: list[str], codec: Any) -> Prepared:
    """The prepared case, from the cache if it is there."""
    name, image, labels = case
    rule = {key: data[key] for key in ("spacing_mm", "codec", "numbers", "outside", "modality")} | {"version": VERSION}
    files = [(path, Path(path).stat().st_size, Path(path).stat().st_mtime_ns) for path in (image, labels)]
    key = hashlib.sha256(json.dumps([rule, files], sort_keys=True).encode()).hexdigest()[:20]
    folder = Path(data["cache"])
    facts = folder / f"{key}.json"
    if not facts.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _prepare(data, image, labels, codec, folder / key)
    known = json.loads(facts.read_text(encoding="utf-8"))
    x, numbers = (np.load(folder / f"{key}.{part}.npy", mmap_mode="r") for part in ("values", "labels"))
    statistics = {int(value): tuple(entry) for value, entry in known["statistics"].items()}
    places = {int(value): found for value, found in known["places"].items()}
    return Prepared(x, numbers, tuple(known["center"]), statistics, places, np.array(known["texture"], float))


def _prepare(data: Mapping[str, Any], image: str, labels: str, codec: Any, base: Path) -> None:
    """Resample, reorient and encode a case; its facts are written last."""
    volume = read_volume(image, modality=data["modality"])
    mask = read_label_map(labels, Path(image))
    if not np.allclose(volume.spacing, data["spacing_mm"], rtol=SAME_SPACING, atol=0):
        volume, mask = (resample(item, (data["spacing_mm"],) * 3) for item in (volume, mask))
    order = Reorientation.to(volume.geometry, "RAS")
    values, given = order.apply(volume.array), order.apply(mask.array)
    numbers = np.zeros(given.shape, np.uint8)
    for old, new in data["numbers"].items():
        numbers[given == int(old)] = new
    if not numbers.any():
        raise InputError(f"The labels of {labels} vanish at {data['spacing_mm']:g} mm; leave the case out.")
    inside = numbers > 0 if data["outside"] == "background" else np.ones(numbers.shape, bool)
    x = np.zeros(values.shape, np.float32)
    x[inside] = codec.encode(values[inside], numbers[inside])
    measured = x if isinstance(codec, Affine) else values
    statistics = {
        int(value): [
            int((numbers == value).sum()),
            float(part.mean(dtype=np.float64)),
            float(part.std(dtype=np.float64)),
        ]
        for value in np.unique(numbers)
        if value
        for part in [measured[numbers == value]]
    }
    for part, array in (("values", np.clip(x, -6, 6).astype(np.float16)), ("labels", numbers)):
        with replacing(base.with_name(f"{base.name}.{part}.npy")) as temporary:
            np.save(temporary, array)
    center = [float(index.mean()) for index in np.nonzero(numbers)]
    generator = np.random.default_rng(0)
    places = {value: np.flatnonzero(numbers == value) for value in statistics}
    some = {value: np.sort(generator.permutation(found)[:PLACES]) for value, found in places.items()}
    facts = {
        "center": center,
        "statistics": statistics,
        "places": some,
        "texture": [float(v) if np.isfinite(v) else None for v in texture(values)],
    }
    write_json(base.with_name(f"{base.name}.json"), facts)
