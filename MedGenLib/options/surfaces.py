"""The surfaces (ways to call MedGen): options, names and defaults of each.

"python" is `MedGenLib.generate`, "cli" the command `medgen generate`, "worker" its method "generate", "client"
`Worker.generate`, "slicer" `MedGenLogic.generate`, "canvas" `Canvas.generate` and `Canvas.of_image`; the other commands
likewise. Anything not listed here is the same on all surfaces.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from MedGenLib.options.declarations import COMMANDS
from MedGenLib.options.option import REQUIRED, Option

SURFACES = ("python", "cli", "worker", "client", "slicer", "canvas")
RENAMED: Mapping[str, Mapping[str, str]] = {
    surface: {"spread": "uncertainty"} for surface in ("worker", "client", "slicer")
}
"""Surface -> old name -> current name. The old name is accepted with a warning for one version."""
ACRONYMS = {"hu": "HU"}
"""Words that camelCase leaves in capitals."""
ALL = "*"
BY_CALL = "Worker.call takes this method"
MODALITY = "a volume carries its modality"
IN_HU = "read_volume and Slicer's own tools change the values of a volume"
STATED = {MODALITY: "modality", IN_HU: "hu_offset"}
EACH_EDIT = "given with each edit of the open canvas"
CLI_ONLY = "the caller reads and writes the files"
LACKS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "generate": {
        "canvas": {
            "a canvas holds one volume": "samples uncertainty",
            "a model for few sizes, or without a mask, redraws no region": "any_grid size spacing label modality",
            "edits keep the model's own intensities; open the styled volume with Canvas.of_image": "style",
        }
    },
    "translate": {
        "worker": {"the description of the image has it": "series"},
        "slicer": {"a node holds one series": "series"},
        "canvas": {"a translation changes the whole image": ALL},
    },
    "edit": {
        "worker": {EACH_EDIT: "new_mask preset"},
        "canvas": {EACH_EDIT: "new_mask preset"},
        "client": {BY_CALL: ALL},
    },
    "redraw": dict.fromkeys(("python", "cli", "slicer"), {"part of edit": ALL}) | {"client": {BY_CALL: ALL}},
    "live_edit": dict.fromkeys(
        ("python", "cli", "worker", "client", "canvas"), {"Slicer's events of a segmentation are needed": ALL}
    ),
    "insert_lesion": {
        "slicer": {"place is coordinates, a point list or a painted segmentation": "at lesion"},
        "client": {BY_CALL: ALL},
        "canvas": {"an insertion opens a canvas of its own": ALL},
    },
    "breathe": {
        "slicer": {"places are a point list": "points"},
        "client": {BY_CALL: ALL},
        "canvas": {"breathing moves the whole image": ALL},
    },
    "enhance": {"canvas": {"an enhancement changes the whole image": ALL}},
    "classify": {"client": {BY_CALL: ALL}, "canvas": {"a canvas measures nothing": ALL}},
    "detect": {"client": {BY_CALL: ALL}, "canvas": {"a canvas measures nothing": ALL}},
    "evaluate": {
        "python": {
            MODALITY: "modality",
            IN_HU: "hu_offset",
            "MedGenLib.evaluation.report writes the result": "report overwrite",
        },
        "worker": STATED,
        "client": STATED,
        "slicer": {
            MODALITY: "modality",
            IN_HU: "hu_offset",
            "nodes seldom share a grid, so that it always resamples": "resample",
        },
        "canvas": {"a canvas measures nothing": ALL},
    },
}
"""Command -> surface -> reason -> the options it lacks."""
NAMES: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("generate", "worker"): {"mask": "input"},
    ("generate", "slicer"): {"style": "style"},
    ("translate", "worker"): {"image": "input"},
    ("translate", "slicer"): {"image": "volumeNode"},
    ("edit", "worker"): {"volume": "image", "mask": "input"},
    ("insert_lesion", "worker"): {"lesion": "mask"},
    ("insert_lesion", "slicer"): {"image": "volumeNode"},
    ("breathe", "slicer"): {"image": "volumeNode"},
    ("enhance", "slicer"): {"image": "volumeNode"},
    ("classify", "slicer"): {"image": "volumeNode"},
    ("detect", "slicer"): {"image": "volumeNode"},
    ("evaluate", "slicer"): {"report": "reportFolder"},
}
"""Names that follow no rule, kept for existing scripts."""
OF_VOLUME = {"model": (None, "None takes the model that made the volume, else one of its modality")}
DEFAULTS: Mapping[tuple[str, str], Mapping[str, tuple[Any, str]]] = {
    ("generate", "canvas"): {"mask": (REQUIRED, "a canvas follows the changes of its mask")},
    ("translate", "slicer"): {"to": (REQUIRED, "a node has one image, so that no series is made")},
    ("edit", "slicer"): OF_VOLUME,
    ("insert_lesion", "slicer"): OF_VOLUME,
    ("live_edit", "slicer"): OF_VOLUME | {"preset": ("draft", "the volume has to follow the brush")},
}
"""Different defaults, with the reason."""
MODEL_OF_VOLUME = "model package; by default the one that made the volume, else one of its modality"
HELPS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("generate", "slicer"): {
        "mask": "segmentation or label map node, or a scalar volume node of whole numbers; models without a mask take "
        "its grid, or a size instead",
        "mapping": "names of segments or values of labels to labels of the model (name or number, 0 drops it), or the "
        "name of a table with the mask's numbers, such as totalsegmentator",
    },
    ("translate", "slicer"): {"image": "scalar volume node of a head"},
    ("edit", "slicer"): {
        "volume": "scalar volume node, real or synthetic",
        "mask": "segmentation or label map node of the image as it is",
        "new_mask": "segmentation or label map node of the image as it is to become",
        "model": MODEL_OF_VOLUME,
    },
    ("live_edit", "slicer"): {
        "volume": "scalar volume node; one that MedGen made is changed in place, of any other a copy is made first",
        "segmentation": "segmentation node that says what the volume shows; it is only read",
        "model": MODEL_OF_VOLUME,
    },
    ("insert_lesion", "slicer"): {
        "image": "scalar volume node, real or synthetic; it stays as it is",
        "model": MODEL_OF_VOLUME,
        "labels": "segmentation or label map node with tissues or organs; by default the model's labels are found in "
        "the image",
    },
    ("breathe", "slicer"): {
        "image": "scalar volume node of a CT; it stays as it is",
        "labels": "segmentation or label map node of lungs, organs or lesions, which move along; by default the lungs "
        "are found by their HU",
    },
    ("enhance", "slicer"): {
        "image": "scalar volume node of a CT or an MR image; it stays as it is",
        "second": "scalar volume node of the same part of the patient, with slices in another direction",
        "third": "one more such node",
    },
    ("classify", "slicer"): {"image": "scalar volume node; it stays as it is"},
    ("detect", "slicer"): {"image": "scalar volume node of a CT or an MR image; it stays as it is"},
    **dict.fromkeys(
        (("evaluate", surface) for surface in ("python", "worker", "client")),
        {"image": "image on whose grid everything is measured", "reference": "real image of the same patient"},
    ),
    ("evaluate", "slicer"): {
        "image": "scalar volume node",
        "reference": "scalar volume node, the real image of the same patient; resampled where its grid is another one",
        "report": "new folder for the report with its tables and pictures",
    },
}
"""Help for nodes, where other surfaces take files."""


def camel(name: str) -> str:
    """A name as Slicer spells it: noise_hu -> noiseHU, size_mm -> sizeMm."""
    first, *others = name.split("_")
    return first + "".join(ACRONYMS.get(word, word.capitalize()) for word in others)


def snake(name: str) -> str:
    """The inverse of `camel`: noiseHU -> noise_hu."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@functools.cache
def of(command: str, surface: str = "python") -> Mapping[str, Option]:
    """Options of a surface by their names there, with its defaults and help; empty if it lacks the command.

    In Slicer a name is in camelCase, with "Node" appended if the value is an image.
    """
    lacking, found = missing(command, surface), {}
    for name, option in COMMANDS[command].items():
        if name not in lacking:
            ruled = camel(name) + "Node" * bool(option.image) if surface == "slicer" else name
            default, _ = DEFAULTS.get((command, surface), {}).get(name, (option.default, ""))
            text = HELPS.get((command, surface), {}).get(name, option.help)
            found[NAMES.get((command, surface), {}).get(name, ruled)] = replace(option, default=default, help=text)
    return found


@functools.cache
def missing(command: str, surface: str) -> Mapping[str, str]:
    """The options that a surface lacks, Python name -> reason."""
    known = COMMANDS[command]
    lacking = {name: CLI_ONLY for name, option in known.items() if option.cli_only and surface != "cli"}
    for reason, names in LACKS[command].get(surface, {}).items():
        lacking |= dict.fromkeys(known if names == ALL else names.split(), reason)
    return lacking
