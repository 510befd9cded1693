"""Texts about a published model: license, card, version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from MedGenLib.packages.hub.nv_generate import SOURCE, Published

VERSION = "1.0.0"


def license_text(model: Published, published: str = "") -> str:
    """License notice of a model: licensor, URL, and the text if found.

    Parameters
    ----------
    published: text of the license file beside the weights, "" without one.
    """
    use = (
        "The license allows commercial use on its conditions."
        if model.license.commercial_use
        else "The license allows research and evaluation only, no commercial use."
    )
    repositories = dict.fromkeys(file.repo for file in model.files.values())
    places = "\n".join(f"  https://huggingface.co/{repo}" for repo in repositories)
    notice = (
        f"The weights of '{model.name}' were made and published by NVIDIA:\n{places}\n"
        f"They are licensed under {model.license.spdx}, whose text is at\n"
        f"  {model.license_url}\n{use}\n"
        "You accept it towards NVIDIA; MedGen only downloads and converts the files.\n"
    )
    # Line ends and the byte order mark are not preserved when written and read.
    text = "\n".join(published.lstrip("\ufeff").splitlines()).strip()
    return f"{notice}\n{text}\n" if text else notice


def version_of(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`version` and `changelog` of the package."""
    flow = next(source for source in sources if source["role"] == "flow")
    commit = f", commit {flow['commit']}" if flow["commit"] else ""
    return {
        "version": VERSION,
        "changelog": {VERSION: f"Converted from {flow['repository']} ({flow['file']}{commit})."},
    }


def card(model: Published, sources: Sequence[Mapping[str, Any]]) -> str:
    """The model card, in Markdown."""
    rows = "\n".join(
        f"| {source['role']} | {source['repository']} | {source['file']} | `{source['sha256']}` |" for source in sources
    )
    use = (
        f"medgen generate MASK -o ct.nii.gz --model {model.name}"
        if model.has_mask
        else f"medgen generate -o mr.nii.gz --model {model.name} --size 256 256 128 --spacing 1 1 1"
    )
    commercial = "allowed on its conditions" if model.license.commercial_use else "not allowed"
    return f"""# {model.name}

{model.description} (upstream: `{model.variant}` of [NV-Generate-CTMR]({SOURCE})).

The weights are NVIDIA's. They were downloaded on this computer and converted from PyTorch
checkpoints to safetensors; no value was changed. MedGen has not trained, changed or validated
them, and ships none of them.

    {use}

| network | repository | file | SHA-256 of the published file |
|---|---|---|---|
{rows}

License: {model.license.spdx}, {model.license_url}; commercial use is {commercial}.

Intended for research and teaching. Synthetic images are never for diagnosis. The training data and the
accepted sizes and spacings are described in upstream's documentation and by
`medgen models info {model.name}`.
"""
