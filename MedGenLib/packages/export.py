"""Writing of packages, at the end of a training."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedGenLib.errors import PackageError
from MedGenLib.io.atomic import hidden_beside, replace_folder, write_json
from MedGenLib.packages import rules
from MedGenLib.packages.inspection import require_sound
from MedGenLib.packages.manifest import Manifest, load_manifest
from MedGenLib.packages.weights import sha256

COMMANDS = {
    "generate": "medgen generate MASK -o OUT --model {name}",
    "translate": "medgen translate IMAGE -o OUT --to {modality} --model {name}",
    "segment": "medgen evaluate IMAGE --labels LABELS --segmenter {name}",
    "features": "medgen evaluate distribution SYNTHETIC --reference REAL --features {name}",
    "enhance": "medgen enhance IMAGE -o OUT --model {name}",
    "classify": "medgen classify IMAGE --model {name}",
    "sequence": "medgen translate IMAGE -o OUT.seq.nrrd --model {name}",
    "detect": "medgen detect IMAGE -o OUT.seg.nrrd --model {name}",
}
COMMAND_WITHOUT_MASK = "medgen generate -o OUT --model {name} --size X Y Z --spacing X Y Z"


def write_package(
    folder: str | Path,
    metadata: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, Any]],
    card: str,
    license_text: str,
) -> Manifest:
    """Write and verify a model package, then replace an older one at the same path.

    Parameters
    ----------
    folder: path of the package, usually `.../<name>`.
    metadata: `configs/metadata.json` by `schema.json`. The versions of MONAI, PyTorch and NumPy, the paths of the
        weights and the checksums are filled in.
    weights: role (as in `medgen.networks`) -> tensor name -> torch tensor or NumPy array, stored with its dtype.
    card, license_text: contents of docs/README.md and LICENSE.

    Raises
    ------
    PackageError: the result is not a valid package, or cannot be written; an existing package at `folder` is kept.
    """
    folder = Path(folder).absolute()
    _refuse_other_contents(folder)
    temporary = hidden_beside(folder)
    try:
        metadata = _completed(metadata, weights)
        _write_files(temporary, metadata, weights, card, license_text)
        require_sound(temporary, called=folder)
        replace_folder(temporary, folder)
    except OSError as error:
        raise PackageError(f"The package {folder} cannot be written: {error.strerror or error}.") from error
    except KeyError as error:
        raise PackageError(f"The metadata for the package {folder} lack {error}.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise PackageError(f"The package {folder} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load_manifest(folder)


def seal(folder: str | Path) -> Manifest:
    """Update the checksums of a package after its card, license or weights were edited, and verify it.

    Raises PackageError if the package is invalid apart from its checksums.
    """
    folder = Path(folder)
    _write_metadata(folder, rules.read_json(folder / rules.METADATA, rules.METADATA))
    return require_sound(folder)


def add_statistics(folder: str | Path, **sections: Mapping[str, Any]) -> Manifest:
    """Add or replace sections of a package's statistics (`MedGenLib.packages.sections.Statistics`), and verify it."""
    folder = Path(folder)
    metadata = rules.read_json(folder / rules.METADATA, rules.METADATA)
    metadata["medgen"]["statistics"].update(sections)
    _write_metadata(folder, metadata)
    return require_sound(folder)


def _write_metadata(folder: Path, metadata: dict[str, Any]) -> None:
    """Write metadata.json, last, with the checksums of all other files."""
    names = [name for name in rules.list_files(folder) if name != rules.METADATA]
    metadata["medgen"]["checksums"] = {name: sha256(folder / name) for name in names}
    write_json(folder / rules.METADATA, metadata)


def _refuse_other_contents(folder: Path) -> None:
    """Raise PackageError for a folder that is not a package and would be overwritten."""
    if not folder.exists() or (folder / rules.METADATA).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise PackageError(f"{folder} exists and is not a model package; choose another folder for the export.")


def _completed(metadata: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    data = copy.deepcopy(dict(metadata))
    for key, distribution in (("monai_version", "monai"), ("pytorch_version", "torch"), ("numpy_version", "numpy")):
        data.setdefault(key, _version(distribution))
    networks = data["medgen"]["networks"]
    if set(networks) != set(weights):
        raise PackageError(
            f"The metadata name the networks {sorted(networks)}, but the weights are for {sorted(weights)}."
        )
    for role, network in networks.items():
        network.setdefault("weights", f"models/{role}.safetensors")
    return data


def _version(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _write_files(
    folder: Path, metadata: dict[str, Any], weights: Mapping[str, Mapping[str, Any]], card: str, license_text: str
) -> None:
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True)
    for role, tensors in weights.items():
        _save_tensors(tensors, folder / metadata["medgen"]["networks"][role]["weights"])
    write_json(folder / rules.INFERENCE, _inference(metadata))
    (folder / rules.CARD).write_text(card, encoding="utf-8", newline="\n")
    (folder / rules.LICENSE).write_text(license_text, encoding="utf-8", newline="\n")
    _write_metadata(folder, metadata)


def _inference(metadata: dict[str, Any]) -> dict[str, Any]:
    """inference.json: how to run the package; the parameters are in metadata.json."""
    medgen = metadata["medgen"]
    command = COMMANDS.get(medgen["task"], "")
    if medgen["input"]["kind"] == "none":  # a model of one grid needs no size
        command = command.replace(" MASK", "") if "grid" in medgen["preprocessing"] else COMMAND_WITHOUT_MASK
    modality = medgen["output"].get("modality")
    return {
        "engine": "MedGenLib",
        "command": command.format(name=metadata["name"], modality=modality),
        "parameters": f"{rules.METADATA}, section medgen",
    }


def _save_tensors(tensors: Mapping[str, Any], path: Path) -> None:
    arrays = {name: _array(value) for name, value in tensors.items()}
    if all(hasattr(array, "is_contiguous") for array in arrays.values()):
        from safetensors.torch import save_file
    else:
        from safetensors.numpy import save_file
    save_file(arrays, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes it readable for the owner only


def _array(value: Any) -> Any:
    """A contiguous copy on the CPU: safetensors refuses views and shared storage."""
    if hasattr(value, "detach"):
        return value.detach().cpu().clone().contiguous()
    import numpy as np

    return np.ascontiguousarray(value)
