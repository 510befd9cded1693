"""The published packages of NV-Generate-CTMR: files, networks, limits and licenses, as data only.

Source: github.com/NVIDIA-Medtech/NV-Generate-CTMR (Apache-2.0), commit da438fe, `configs/*.json`, `docs/inference.md`,
`docs/data.md`, `scripts/download_model_data.py`. The weights are under NVIDIA's licenses and not part of MedGen.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from MedGenLib.packages.hub import nv_generate_limits
from MedGenLib.packages.manifest import LicenseSpec

SOURCE = "https://github.com/NVIDIA-Medtech/NV-Generate-CTMR"
LATENT_CHANNELS, LATENT_STRIDE, LABEL_BITS = 4, 4, 8
"""Channels of a latent, image voxels per latent voxel, bits that encode a label."""

OPEN_MODEL = LicenseSpec("LicenseRef-NVIDIA-Open-Model", True, True)
NON_COMMERCIAL = LicenseSpec("LicenseRef-NVIDIA-OneWay-Noncommercial", False, True)
OPEN_MODEL_URL = "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/"
NON_COMMERCIAL_URL = "https://developer.download.nvidia.com/licenses/NVIDIA-OneWay-Noncommercial-License-22Mar2022.pdf"


@dataclass(frozen=True)
class HubFile:
    """One published file of weights.

    `state` is the key of the state dictionary inside the file; None if the file is one. The file of the velocity
    network also has the number "scale_factor".
    """

    repo: str
    path: str
    state: str | None = None


@dataclass(frozen=True)
class Published:
    """One published model: its files, and `configs/metadata.json` without weights.

    `files` has the roles "autoencoder", "flow" (the U-Net, also that of ddpm-ct) and, for models with a mask,
    "controlnet". Tensors missing in a ControlNet's file are those of the U-Net with the same name
    (`scripts/utils_infer.py`, load_image_models).
    """

    name: str
    variant: str
    title: str
    description: str
    license: LicenseSpec
    license_url: str
    files: Mapping[str, HubFile]
    networks: Mapping[str, Mapping[str, Any]]
    preprocessing: Mapping[str, Any]
    sampler: Mapping[str, Any]
    data: tuple[Mapping[str, Any], ...]
    limits: str = "CT"
    """Name of the limits in `MedGenLib.packages.hub.nv_generate_limits`."""
    field_of_view: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def has_mask(self) -> bool:
        return "controlnet" in self.files

    def metadata(self) -> dict[str, Any]:
        """`configs/metadata.json` without versions, checksums and the scale factor."""
        latent = {"latent_channels": LATENT_CHANNELS, "latent_stride": LATENT_STRIDE}
        preprocessing = {**getattr(nv_generate_limits, self.limits), **latent, **self.preprocessing}
        lowest, highest = preprocessing["spacing_min_mm"], preprocessing["spacing_max_mm"]
        medgen = {
            "schema": 1,
            "title": self.title,
            "task": "generate",
            "pipeline": "maisi",
            "input": self._input(),
            "output": CT_OUTPUT if self.has_mask else MR_OUTPUT,
            "spacing_mm": {"min": min(lowest), "max": max(highest), "native": 1.0},
            "field_of_view_mm": self.field_of_view,
            "networks": {
                role: {**network, "weights": f"models/{role}.safetensors"} for role, network in self.networks.items()
            },
            "preprocessing": preprocessing,
            "sampler": self.sampler,
            "performance": [],
            "statistics": _statistics() if self.has_mask else {},
            "training": {"data": list(self.data), "commands": [], "held_out": []},
            "license": vars(self.license),
            "citation": CITATION,
        }
        return copy.deepcopy(
            {
                "name": self.name,
                "task": "Mask-conditioned generation of CT" if self.has_mask else "Generation of MR",
                "description": self.description,
                "authors": "NVIDIA",
                "copyright": "Copyright (c) NVIDIA Corporation; converted by MedGen",
                "network_data_format": _data_format(self.has_mask),
                "medgen": medgen,
            }
        )

    def _input(self) -> dict[str, Any]:
        if not self.has_mask:
            return {"kind": "none"}
        from MedGenLib.packages.hub.nv_generate_labels import package_labels

        return {"kind": "labels", "labels": package_labels()}


CT_OUTPUT = {"modality": "CT", "unit": "HU", "range": [-1000, 1000], "background": -1000}
MR_OUTPUT = {"modality": "MR", "unit": "a.u.", "range": [0, 4000], "background": 0}
"""The networks' 1 is 1000; MR may be brighter (training clipped at the 99.5th percentile)."""

CITATION = (
    "Zhao C, Guo P, Yang D, et al. MAISI-v2: Accelerated 3D high-resolution medical image "
    "synthesis with rectified flow and region-specific contrastive loss. AAAI 2026.\n"
    "Guo P, Zhao C, Yang D, et al. MAISI: Medical AI for synthetic imaging. WACV 2025."
)

_SHARED = {
    "spatial_dims": 3,
    "in_channels": LATENT_CHANNELS,
    "num_channels": [64, 128, 256, 512],
    "attention_levels": [False, False, True, True],
    "num_head_channels": [0, 0, 32, 32],
    "num_res_blocks": 2,
}
_RFLOW = {"num_class_embeds": 128, "resblock_updown": True, "include_fc": True}
_DDPM = {"resblock_updown": False, "include_fc": False}
_CONTROL = {"conditioning_embedding_in_channels": LABEL_BITS, "conditioning_embedding_num_channels": [8, 32, 64]}


def _unet(version: Mapping[str, Any], regions: bool) -> dict[str, Any]:
    inputs = {
        "out_channels": LATENT_CHANNELS,
        "include_top_region_index_input": regions,
        "include_bottom_region_index_input": regions,
        "include_spacing_input": True,
    }
    return {"network": "MaisiUNet", "arguments": {**_SHARED, **inputs, **version}}


def _controlnet(version: Mapping[str, Any]) -> dict[str, Any]:
    return {"network": "MaisiControlNet", "arguments": {**_SHARED, **_CONTROL, **version}}


AUTOENCODER = {
    "network": "MaisiAutoencoder",
    "arguments": {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": LATENT_CHANNELS,
        "num_channels": [64, 128, 256],
        "num_res_blocks": [2, 2, 2],
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "attention_levels": [False, False, False],
        "with_encoder_nonlocal_attn": False,
        "with_decoder_nonlocal_attn": False,
        "use_convtranspose": False,
    },
}
"""`autoencoder_def`, without parameters of the computation: splits, number format."""

_CT, _MR, _BRAIN = (f"nvidia/NV-Generate-{part}" for part in ("CT", "MR", "MR-Brain"))
_AUTOENCODER_V1 = HubFile(_CT, "models/autoencoder_v1.pt")

_FLOW_STEPS = {"name": "euler", "presets": {"draft": {"steps": 10}, "normal": {"steps": 30}, "best": {"steps": 50}}}
_CLASSES = {"MR": 8, "T1w": 9, "T2w": 10, "FLAIR": 11}
_BRAIN_CLASSES = {
    **_CLASSES,
    "MRA": 16,
    "SWI": 20,
    "T1w skull-stripped": 29,
    "T2w skull-stripped": 30,
    "FLAIR skull-stripped": 31,
    "SWI skull-stripped": 32,
    "MRA skull-stripped": 33,
}
"""`configs/modality_mapping.json`: those in the training data. CT is 1."""


def _data(name: str, subjects: int) -> dict[str, Any]:
    return {
        "name": f"{name} (NV-Generate-CTMR, data/README.md)",
        "license": "of each data set",
        "url": f"{SOURCE}/blob/main/data/README.md",
        "subjects": subjects,
    }


_ALL = (
    Published(
        name="nv-generate-ct",
        variant="rflow-ct",
        title="CT of the whole body from 124 structures",
        description="CT of the whole body from a mask of 124 structures: NVIDIA's MAISI v2",
        license=OPEN_MODEL,
        license_url=OPEN_MODEL_URL,
        files={
            "autoencoder": _AUTOENCODER_V1,
            "flow": HubFile(_CT, "models/diff_unet_3d_rflow-ct.pt", "unet_state_dict"),
            "controlnet": HubFile(_CT, "models/controlnet_3d_rflow-ct.pt", "controlnet_state_dict"),
        },
        networks={"autoencoder": AUTOENCODER, "flow": _unet(_RFLOW, regions=False), "controlnet": _controlnet(_RFLOW)},
        preprocessing={"classes": {"CT": 1}, "class": "CT", "guidance": 1.0},
        sampler=_FLOW_STEPS,
        data=(_data("CT of 25 public data sets", 11502),),
        field_of_view={"min": [256, 256, 64], "max": [600, 600, 2000]},
    ),
    Published(
        name="nv-generate-ct-ddpm",
        variant="ddpm-ct",
        title="CT of the whole body from 124 structures, slow",
        description="CT of the whole body from a mask of 124 structures: NVIDIA's MAISI v1, slow",
        license=OPEN_MODEL,
        license_url=OPEN_MODEL_URL,
        files={
            "autoencoder": _AUTOENCODER_V1,
            "flow": HubFile(_CT, "models/diff_unet_3d_ddpm-ct.pt", "unet_state_dict"),
            "controlnet": HubFile(_CT, "models/controlnet_3d_ddpm-ct.pt", "controlnet_state_dict"),
        },
        networks={"autoencoder": AUTOENCODER, "flow": _unet(_DDPM, regions=True), "controlnet": _controlnet(_DDPM)},
        preprocessing={"regions": True, "guidance": 1.0},
        sampler={"name": "ddpm", "prediction": "noise", "presets": {"normal": {"steps": 1000}}},
        data=(_data("CT of 24 public data sets", 10277),),
        field_of_view={"min": [256, 256, 64], "max": [600, 600, 2000]},
    ),
    Published(
        name="nv-generate-mr",
        variant="rflow-mr",
        title="MR of brain, prostate, breast or abdomen",
        description="MR of brain, prostate, breast or abdomen without a mask: NVIDIA's MAISI v2",
        license=NON_COMMERCIAL,
        license_url=NON_COMMERCIAL_URL,
        files={
            "autoencoder": HubFile(_MR, "models/autoencoder_v2.pt"),
            "flow": HubFile(_MR, "models/diff_unet_3d_rflow-mr.pt", "unet_state_dict"),
        },
        networks={"autoencoder": AUTOENCODER, "flow": _unet(_RFLOW, regions=False)},
        preprocessing={"classes": _CLASSES, "class": "T1w", "guidance": 15.0},
        sampler=_FLOW_STEPS,
        data=(_data("MR of 17 public data sets", 16291),),
        limits="MR",
        field_of_view={"min": [160, 170, 90], "max": [380, 350, 288]},
    ),
    Published(
        name="nv-generate-mr-brain",
        variant="rflow-mr-brain",
        title="MR of the brain in five contrasts",
        description="MR of the brain in five contrasts without a mask: NVIDIA's MAISI v2",
        license=OPEN_MODEL,
        license_url=OPEN_MODEL_URL,
        files={
            "autoencoder": _AUTOENCODER_V1,
            "flow": HubFile(_BRAIN, "models/diff_unet_3d_rflow-mr-brain_v1.pt", "unet_state_dict"),
        },
        networks={"autoencoder": AUTOENCODER, "flow": _unet(_RFLOW, regions=False)},
        preprocessing={"classes": _BRAIN_CLASSES, "class": "T1w", "guidance": 2.0},
        sampler=_FLOW_STEPS,
        data=(_data("MR-RATE, brain MR", 73516),),
        limits="MR",
        field_of_view={"min": [140, 155, 145], "max": [250, 250, 250]},
    ),
)

PUBLISHED: dict[str, Published] = {model.name: model for model in _ALL}

_MEDIANS = {
    "liver": ([1], -22, 162),
    "spleen": ([3], -43, 184),
    "pancreas": ([4], -57, 150),
    "kidney": ([5, 14], -131, 267),
    "lung": ([28, 29, 30, 31, 32], -1000, -367),
    "brain": ([22], -951, 370),
    "bone": ([*range(33, 57), *range(63, 98), 120, 122, 127], 71, 1000),
}
"""Labels and range of the median HU in the training images: `image_median_statistics_ct.json`, the wider one of the
0.5th to 99.5th percentile and of six standard deviations."""


def _statistics() -> dict[str, Any]:
    tissues = {
        str(label): {"name": name, "low": low, "high": high}
        for name, (labels, low, high) in _MEDIANS.items()
        for label in labels
    }
    return {"tissues": tissues, "background": {"low": -1000, "high": -1000}}


def _data_format(has_mask: bool) -> dict[str, Any]:
    image = {"type": "image", "num_channels": 1, "spatial_shape": ["*", "*", "*"]}
    made = "hounsfield" if has_mask else "magnitude"
    inputs = {"image": {**image, "format": "segmentation"}} if has_mask else {}
    return {"inputs": inputs, "outputs": {"pred": {**image, "format": made}}}
