"""Images without labels on one grid, prepared once in a cache on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedGenLib.imaging.normalization import bright_end
from MedGenLib.io.atomic import replacing
from MedGenLib.io.files import read_frames, read_volume
from MedGenLib.packages.typed import read
from MedGenLib.pipelines.fixed_grid import FixedGrid


class Images:
    """The images of a configuration; ``cases`` is their key in its section ``data``: name, file, number of a class."""

    def __init__(self, config: dict[str, Any], cases: str) -> None:
        data = config["data"]
        self.grid = read(FixedGrid, data["grid"], "grid")
        self.kinds = [int(kind) for _, _, kind in data[cases]]
        self.values = [self._cached(data, file) for _, file, _ in data[cases]]

    def _cached(self, data: dict[str, Any], file: str) -> np.ndarray:
        """The network values of an image (float16), mapped into memory."""
        facts = Path(file).stat()
        key = json.dumps([data["grid"], file, facts.st_size, facts.st_mtime_ns], sort_keys=True)
        path = Path(data["cache"], f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npy")
        if not path.is_file():
            values = self.prepared(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                np.save(temporary, values.astype(np.float16))
        return np.load(path, mmap_mode="r")

    def prepared(self, file: str) -> np.ndarray:
        """The network values of a file."""
        return self.grid.encoded(read_volume(file, modality=self.grid.modality))

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, Tensor]:
        """``image`` (b, 1, i, j, k) and ``kind`` (b,); no image twice where there are enough."""
        chosen = generator.choice(len(self.values), batch, replace=batch > len(self.values))
        images = np.stack([self.values[n] for n in chosen])[:, None].astype(np.float32)
        return {"image": torch.from_numpy(images), "kind": torch.tensor([self.kinds[n] for n in chosen])}

    def statistics(self) -> dict[str, Any]:
        """Mean of the images, whose range allows for what few of them show."""
        found = np.array([self.grid.decoded(values).array.mean(dtype=np.float64) for values in self.values])
        mean, spread = found.mean(), found.std()
        reach = max(4 * spread, 0.25 * abs(mean - self.grid.background))
        numbers = {"mean": mean, "sd": spread, "low": mean - reach, "high": mean + reach}
        return {"name": "image", **{key: round(float(value), 1) for key, value in numbers.items()}}


class ImageSeries(Images):
    """Series of images; a sample is (b, 1, frames, i, j, k)."""

    def prepared(self, file: str) -> np.ndarray:
        """All frames (frames, i, j, k), those of MR relative to the bright end of the first one."""
        frames = read_frames(file, self.grid.modality)
        bright = bright_end(frames[0].array)
        return np.stack([self.grid.encoded(frame, bright) for frame in frames])
