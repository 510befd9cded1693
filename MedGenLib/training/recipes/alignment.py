"""Recipe `alignment`: a first translator by mean absolute error, onto whose translations the targets are warped.

It trains as `regression` does, on the pairs as they are, and writes the warped target of each training pair for the
recipe that follows. The idea is that of joint synthesis and registration, such as Kong et al. 2021 (RegGAN); here the
registration is a classical one, so that its displacements stay smooth and invertible.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.imaging.boxes import wider
from MedGenLib.pipelines.slice_sampling import SLICE_AXIS, pad
from MedGenLib.training.data.alignment import NEAR_MM, align, background, box_of, field_of_view
from MedGenLib.training.data.pairs import loaded
from MedGenLib.training.recipes import recipe
from MedGenLib.training.recipes.pix2pix import Regression

FIGURES = "alignment.json"
"""Case -> movement and least Jacobian, in the folder of the warped targets."""
BATCH = 8


@recipe("alignment")
class Alignment(Regression):
    """Recipe of the module. The configuration is that of `Regression`; ``data.moved`` is the folder to write."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.folder = Path(config["data"]["moved"])
        super().__init__({**config, "data": {**config["data"], "moved": None}, "loss": {"l1": 1.0}}, out)

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        """Warp the targets; the folder appears when it is complete."""
        partial = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        data, figures = self.config["data"], {}
        for case in data["cases"]:
            images = loaded(data, case)
            source, target = images.values["source"], images.values["target"]
            known = field_of_view(source if data["source"] != "CT" else target)
            shown = np.where(known, source, background(data["source"]))
            made = self._volume(networks["translator"], shown, images.axes)
            box = wider(box_of(known), round(NEAR_MM / min(images.spacing)), known.shape)
            found = align(made[box], target[box], known[box], images.spacing)
            target[box] = found.target
            np.save(partial / f"{case[0]}.npy", target.astype(np.float16))
            figures[case[0]] = {"moved_mm": round(found.moved_mm, 2), "least_jacobian": round(found.squeezed, 3)}
        (partial / FIGURES).write_text(json.dumps(figures, indent=2), encoding="utf-8")
        partial.rename(self.folder)
        return self.folder

    @torch.no_grad()
    def _volume(self, network: nn.Module, source: np.ndarray, axes: list[int]) -> np.ndarray:
        """The mean over the planes, in the unit of the target."""
        device, codecs = next(network.parameters()).device, self.data.codecs
        total = np.zeros(source.shape, np.float32)
        for axis in axes:
            slices = np.moveaxis(source, axis, 0)
            made = np.moveaxis(total, axis, 0)
            for start in range(0, len(slices), BATCH):
                part = slice(start, start + BATCH)
                x = torch.from_numpy(codecs["source"].as_input(slices[part])[:, : self.channels].copy()).to(device)
                padded, cut = pad(x, network.stride)
                plane = torch.full((len(x),), SLICE_AXIS[axis], device=device)
                y: Tensor = network(padded.contiguous(memory_format=torch.channels_last), plane)
                made[part] += y[(slice(None), 0, *cut)].float().cpu().numpy() / len(axes)
        return codecs["target"].from_target(total)
