"""Export of a trained network as a model package."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from MedGenLib import __version__
from MedGenLib.networks import NETWORKS
from MedGenLib.packages.compression import compress
from MedGenLib.packages.export import write_package
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.settings import pipeline_name
from MedGenLib.packages.weights import load_weights, stored_weights
from MedGenLib.training.loop import VALIDATION

UNMEASURED = "Nothing else was measured. Evaluate the model on held-out data with `medgen evaluate` before you use it."
"""Last line of a card without a measurement."""
FEDERATED = "The data named here are those of one site; the metadata has the cases of each."


def export_package(
    config: dict[str, Any],
    networks: dict[str, nn.Module],
    step: int,
    held_out: list[str],
    statistics: dict[str, Any],
    out: Path,
    preprocessing: dict[str, Any] | None = None,
) -> Path:
    """Write ``<out>/package/<name>`` from the configuration's section ``package``.

    The section has the fixed parts of the manifest; networks, statistics, held-out subjects and preprocessing come from
    training unless the section has them. The model card is the file ``card`` beside the configuration; without one, it
    holds what this run did and measured. The license text is ``license_text`` or the file ``license_file``. What is
    ``federated`` names no case.
    """
    section = config["package"]
    folder = Path(config["folder"])
    medgen = {
        "performance": [],
        "citation": "not stated",
        "pipeline": pipeline_name(section["medgen"]),
        **section["medgen"],
        "networks": {role: _network(net, config, role) for role, net in networks.items()},
        "preprocessing": {**(preprocessing or {}), **section["medgen"]["preprocessing"]},
        "statistics": _merge(statistics, section["medgen"].get("statistics", {})),
    }
    medgen["training"] = {**medgen["training"], "held_out": [] if section.get("federated") else held_out}
    unknown = {"authors": "not stated", "copyright": "not stated"}
    metadata = {**unknown, **section["metadata"], "medgen": medgen}
    weights = {role: compress(net.state_dict()) for role, net in networks.items()}
    target = out / "package" / metadata["name"]
    write_package(
        target,
        metadata,
        weights,
        _card(section, folder, metadata, networks, step, out),
        section.get("license_text") or (folder / section["license_file"]).read_text(encoding="utf-8"),
    )
    return target


def _card(
    section: dict[str, Any],
    folder: Path,
    metadata: dict[str, Any],
    networks: dict[str, nn.Module],
    step: int,
    out: Path,
) -> str:
    """The card of the configuration, or one that states what this run did and measured."""
    if "card" in section:
        return (folder / section["card"]).read_text(encoding="utf-8").replace("{steps}", str(step))
    medgen, training = metadata["medgen"], metadata["medgen"]["training"]
    millions = ", ".join(
        f"{role} with {sum(p.numel() for p in net.parameters()) / 1e6:.2f} million parameters"
        for role, net in networks.items()
    )
    held_out = f"{len(training['held_out'])} entries, listed in the metadata."
    lines = [
        f"# {metadata['name']}\n",
        f"{metadata['description']}.\n",
        "**Not for diagnosis.**" + " The images do not show real patients." * ("modality" in medgen["output"]) + "\n",
        "## Training\n",
        f"{step:,} steps with MedGen {__version__}; networks: {millions}.\n",
        "Data of the configuration:\n",
        *(f"- {item['name']} ({item['license']}), subjects: {item['subjects']}" for item in training["data"]),
        "\n" + (FEDERATED if section.get("federated") else f"Held out of training: {held_out}") + "\n",
        "## Measured in this run\n",
        *_validation(out),
        UNMEASURED,
    ]
    return "\n".join(lines) + "\n"


def _validation(out: Path) -> Iterator[str]:
    """The last validation of the run as lines of a list."""
    path = out / VALIDATION
    values = json.loads(path.read_text(encoding="utf-8").splitlines()[-1]) if path.exists() else {}
    if values:
        yield f"Validation after {values.pop('step'):,} steps:\n"
        yield from (f"- {name}: {value:.4g}" for name, value in values.items())
        yield ""


def extend_package(
    package: Manifest, config: dict[str, Any], role: str, network: nn.Module, step: int, out: Path, base: str = ""
) -> Path:
    """Write ``<out>/package/<name>``: an installed package with one more network.

    The section ``package`` of the configuration gives the new ``version``, its line ``changelog``, the ``presets`` that
    use the network, the ``command`` that trained it and the file ``card`` with the section to add to the model card.
    `base` is the role of the network that this one started from; its weights are stored as differences from it.
    """
    section = config["package"]
    metadata = copy.deepcopy(dict(package.metadata))
    metadata["version"] = section["version"]
    metadata["changelog"][section["version"]] = section["changelog"]
    medgen = metadata["medgen"]
    medgen["networks"][role] = _network(network, config, role) | ({"base": base} if base else {})
    medgen["sampler"]["presets"].update(section["presets"])
    if section["command"] not in medgen["training"]["commands"]:
        medgen["training"]["commands"].append(section["command"])
    weights = {name: stored_weights(package, name) for name in package.networks if name != role}
    weights[role] = compress(network.state_dict(), load_weights(package, base) if base else None)
    added = (Path(config["folder"]) / section["card"]).read_text(encoding="utf-8")
    card = with_section(package.card, added.replace("{steps}", str(step)))
    target = out / "package" / metadata["name"]
    write_package(target, metadata, weights, card, package.license_text)
    return target


def with_section(card: str, section: str) -> str:
    """The card with a section appended, or replacing one with the same heading."""
    heading = section.splitlines()[0]
    parts = card.split("\n## ")
    kept = [part for part in parts if f"## {part.splitlines()[0]}" != heading]
    return "\n## ".join([*kept, section.removeprefix("## ")]).rstrip() + "\n"


def _network(net: nn.Module, config: dict[str, Any], role: str) -> dict[str, Any]:
    names = {cls: name for name, cls in NETWORKS.items()}
    return {"network": names[type(net)], "arguments": net.arguments}


def _merge(measured: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    """Fixed entries complete or override measured ones, tissue by tissue."""
    merged = {**measured, **fixed}
    if "tissues" in measured and "tissues" in fixed:
        merged["tissues"] = {
            value: {**measured["tissues"].get(value, {}), **limits} for value, limits in fixed["tissues"].items()
        }
    return merged
