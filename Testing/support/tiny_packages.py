"""Packages of each task with placeholder metadata and weights."""

from __future__ import annotations

import numpy as np

from MedGenLib.packages.export import write_package

WEIGHTS = {
    "autoencoder": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "flow": {"weight": np.ones((4,), np.float16), "bias": np.zeros((1,), np.float32)},
}


def generator_metadata(name="tiny-ct"):
    return {
        "version": "1.2.0",
        "changelog": {"1.2.0": "first"},
        "monai_version": "1.6.0",
        "pytorch_version": "2.13.0",
        "numpy_version": "2.3.0",
        "name": name,
        "task": "Labels to CT",
        "description": "A package for tests.",
        "authors": "MedGen contributors",
        "copyright": "MedGen contributors",
        "network_data_format": {"inputs": {}, "outputs": {}},
        "medgen": {
            "schema": 1,
            "task": "generate",
            "input": {
                "kind": "labels",
                "labels": {"2": {"name": "soft tissue"}, "1": {"name": "fat", "aliases": ["a"]}},
            },
            "output": {"modality": "CT", "unit": "HU", "range": [-1024, 2000], "background": -1000},
            "spacing_mm": {"min": 1.5, "max": 3.0, "native": 2.0},
            "field_of_view_mm": {"min": [64, 64, 64], "max": [512, 512, 512]},
            "networks": {
                "autoencoder": {"network": "Autoencoder", "arguments": {"channels": 8}},
                "flow": {"network": "FlowUNet", "arguments": {}},
            },
            "preprocessing": {"name": "affine", "mean": 40, "sd": 200, "outside": "background"},
            "sampler": {"name": "euler", "presets": {"draft": {"steps": 4}, "normal": {"steps": 12, "most_steps": 48}}},
            "performance": [
                {"size": [96, 96, 96], "preset": "normal", "seconds": 1.5, "peak_mib": 900, "device": "CPU, 2 threads"}
            ],
            "statistics": {"tissues": {"1": {"name": "fat", "mean": -100.0}}},
            "training": {
                "data": [{"name": "set", "license": "CC-BY-4.0", "url": "https://x.org", "subjects": 2}],
                "commands": ["medgen train autoencoder --data c.json --out d"],
                "held_out": ["s1"],
            },
            "license": {"spdx": "CC-BY-4.0", "commercial_use": True, "acceptance_required": False},
            "checksums": {},
            "citation": "Nobody 2025",
        },
    }


def translator_metadata(name, source, target):
    metadata = generator_metadata(name)
    medgen = metadata["medgen"]
    medgen["task"] = "translate"
    medgen["input"] = {"kind": "image", "modality": source}
    medgen["output"] |= {"modality": target}
    medgen["networks"] = {"translator": {"network": "SliceTranslator", "arguments": {}}}
    medgen["preprocessing"] = {"name": "head-slices"}
    medgen["license"] = {"spdx": "CC-BY-NC-4.0", "commercial_use": False, "acceptance_required": True}
    del medgen["sampler"]
    return metadata


def segmenter_metadata(name="tiny-segmenter"):
    metadata = translator_metadata(name, "T1w", "none")
    medgen = metadata["medgen"]
    medgen["task"] = "segment"
    medgen["output"] = {"labels": {"7": {"name": "liver"}, "2": {"name": "lung", "aliases": ["l"]}}}
    medgen["networks"] = {"segmenter": {"network": "Segmenter", "arguments": {"labels": 2}}}
    medgen["preprocessing"] = {"name": "z-score", "low": -3, "high": 5}
    return metadata


def features_metadata(name="tiny-features"):
    metadata = translator_metadata(name, "any", "none")
    medgen = metadata["medgen"]
    medgen["task"], medgen["output"] = "features", {"features": 96}
    medgen["networks"] = {"encoder": {"network": "FeatureEncoder", "arguments": {}}}
    medgen["preprocessing"] = {"name": "slices"}
    return metadata


def write_judge(folder, metadata):
    weights = {role: WEIGHTS["flow"] for role in metadata["medgen"]["networks"]}
    return write_package(folder / metadata["name"], metadata, weights, "# Card", "License")


def write_generator(folder, name="tiny-ct"):
    return write_package(folder / name, generator_metadata(name), WEIGHTS, "# Card", "License")


def write_translator(folder, name="tiny-mr-to-ct", source="T1w", target="CT"):
    metadata = translator_metadata(name, source, target)
    weights = {"translator": WEIGHTS["flow"]}
    return write_package(folder / name, metadata, weights, "# Card", "Non-commercial")


def write_detector(folder, name="tiny-detector"):
    """A detector whose probability is high where a CT has more than 140 HU."""
    import torch

    from MedGenLib.networks import build

    arguments = {"labels": 1, "widths": [8, 8], "blocks": [1, 1], "stem": 4}
    metadata = generator_metadata(name)
    medgen = metadata["medgen"]
    del medgen["sampler"]
    medgen |= {"task": "detect", "input": {"kind": "image", "modality": "CT"}, "statistics": {}, "performance": []}
    medgen["output"] = {"labels": {"1": {"name": "lesion"}}}
    medgen["networks"] = {"segmenter": {"network": "Segmenter", "arguments": arguments}}
    medgen["preprocessing"] = {"name": "window", "low": -160, "high": 240}
    medgen["spacing_mm"] = {"min": 0.5, "max": 4, "native": 2}
    medgen["field_of_view_mm"] = {"min": [30, 30, 30], "max": [300, 300, 300]}
    net = build("Segmenter", arguments)
    with torch.no_grad():
        for values in net.parameters():
            values.zero_()
        net.stem.weight[0, 0, 1, 1, 1] = net.head[0].weight[0, 0, 1, 1, 1] = 1
        net.head[2].weight[1, 0], net.head[2].bias[1] = 20, -20 * 0.948  # silu(silu(1.5)), of 140 HU
    return write_package(folder / name, metadata, {"segmenter": net.state_dict()}, "# Card", "CC-BY-4.0")


def write_noise_model(folder, name="tiny-noise", classes=()):
    """A generator without a mask that runs, with random weights."""
    from MedGenLib.networks import VolumeGenerator

    grid, metadata = [16, 16, 24], generator_metadata(name)
    network = VolumeGenerator(grid, [8, 8], [1, 0], latent=8, classes=len(classes))
    medgen = metadata["medgen"]
    medgen["pipeline"], medgen["input"] = "volume-gan", {"kind": "none"}
    medgen["output"] = {"modality": "T1w", "unit": "a.u.", "range": [0, 1500], "background": 0}
    medgen["networks"] = {"generator": {"network": "VolumeGenerator", "arguments": network.arguments}}
    medgen["preprocessing"] = {"name": "fixed-grid", "grid": grid, "center": 500, "scale": 500}
    medgen["preprocessing"] |= {"classes": list(classes)} if classes else {}
    medgen["sampler"], medgen["statistics"] = {"name": "generator", "presets": {"normal": {}}}, {}
    weights = {"generator": {key: value.contiguous() for key, value in network.state_dict().items()}}
    return write_package(folder / name, metadata, weights, "# Card", "License")
