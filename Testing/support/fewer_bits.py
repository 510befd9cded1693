"""Stores the kernels of a network of an embedded package in 6 bits, and those that are differences from it again.

    python Testing/support/fewer_bits.py MODEL ROLE [--originals <folder>]

The weights are those of the package, or ROLE.safetensors of the folder of originals, where it has that file: the commit
6287d93 has some in half precision. Card, version and changelog are edited by hand; `Testing/benchmarks/compression.py`
measures the effect.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from MedGenLib.packages.catalogue import find
from MedGenLib.packages.compression import compress, expand
from MedGenLib.packages.export import seal
from MedGenLib.packages.weights import load_weights, stored_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("role")
    parser.add_argument("--originals", type=Path)
    chosen = parser.parse_args()
    manifest, role = find(chosen.model), chosen.role
    differences = [name for name, spec in manifest.networks.items() if spec.base == role]
    weights = {name: load_weights(manifest, name) for name in (role, *differences)}
    for name in weights:
        if chosen.originals and (path := chosen.originals / f"{name}.safetensors").is_file():
            weights[name] = load_file(path)
        elif name == role and any(t.dtype == torch.uint8 for t in stored_weights(manifest, name).values()):
            parser.exit(1, "The kernels are in 6 bits; a second rounding would only add errors.\n")
    stored = {role: compress(weights[role], bits=6)}
    stored |= {name: compress(weights[name], expand(stored[role])) for name in differences}
    for name, tensors in stored.items():
        path = manifest.weights_path(name)
        before = path.stat().st_size
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata={"format": "pt"})
        path.chmod(0o644)
        print(f"{chosen.model}, {name}: {before / 1e6:.2f} MB -> {path.stat().st_size / 1e6:.2f} MB")
    seal(manifest.folder)


if __name__ == "__main__":
    main()
