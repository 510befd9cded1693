"""What the worker can be asked for. Every method takes the job and its parameters by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.errors import InputError, MedGenError, MemoryPlanError, WorkerError
from MedGenLib.progress import Stage
from MedGenLib.worker.methods import edit
from MedGenLib.worker.methods.dicom import write_dicom
from MedGenLib.worker.methods.install import install_model, list_available, show_license
from MedGenLib.worker.methods.lesion import insert_lesion
from MedGenLib.worker.methods.reader_study import make_study, score_study

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume
    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.result import Result
    from MedGenLib.worker.server import Request

NEEDED = {
    "numpy": "numpy",
    "torch": "torch",
    "SimpleITK": "simpleitk",
    "scipy": "scipy",
    "safetensors": "safetensors",
    "skimage": "scikit-image",
    "jsonschema": "jsonschema",
    "psutil": "psutil",
}
"""Modules that a run imports -> distributions that bring them."""


SHORT_RUN = 2.0
"""Seconds: a shorter run is mostly overhead and tells nothing about the time of a large one."""


def initialize(job: Request, folder: str | None = None, parent: int | None = None) -> dict[str, Any]:
    """Load the libraries; tell versions and devices.

    ``folder`` is the client's private folder for images, which is emptied when the client dies;
    ``parent`` is the client's process where it is not this one's parent, to die with it.

    Raises
    ------
    WorkerError: packages are missing or cannot be loaded.
    """
    if folder is not None:
        job.server.folder = Path(folder)
    if parent is not None:
        job.server.parents.add(int(parent))
    _require_packages()
    modules = (
        "torch",
        "scipy.ndimage",
        "SimpleITK",
        "jsonschema",
        "MedGenLib.pipelines.latent_flow",
        "MedGenLib.pipelines.slice_translation",
        "MedGenLib.generate",
        "MedGenLib.translate",
    )
    stage = Stage("loading PyTorch", len(modules), job.progress)
    for name in modules:
        _load(name)
        stage.advance()

    from MedGenLib.devices import software_versions
    from MedGenLib.worker.protocol.messages import PROTOCOL

    return {
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "python": sys.executable,
        "versions": software_versions(),
        **devices(job),
    }


def devices(job: Request) -> dict[str, Any]:
    """The devices of this machine with their memory in MiB."""
    import psutil
    import torch

    from MedGenLib.devices import MIB, describe_device, free_memory

    found = []
    for name in _device_names():
        device = torch.device(name)
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
        else:
            total = psutil.virtual_memory().total
        found.append(
            {
                "name": name,
                "description": describe_device(device),
                "free_mib": int(free_memory(name) // MIB),
                "total_mib": int(total // MIB),
            }
        )
    return {"devices": found}


def self_test(job: Request) -> dict[str, Any]:
    """A small network with random weights on every device, compared with the CPU's result."""
    names = _device_names()
    stage = Stage("testing", len(names), job.progress)
    rows = []
    for name in names:
        rows.append(_test_device(name))
        stage.advance()
    return {"passed": all(row["passed"] for row in rows), "devices": rows}


def list_models(job: Request) -> dict[str, Any]:
    """The packages, and those that cannot be used."""
    from MedGenLib.packages.catalogue import broken, catalogue

    return {
        "models": [_summary(manifest) for manifest in catalogue()],
        "broken": [{"folder": str(p.folder), "reason": p.reason} for p in broken()],
    }


def add_model(job: Request, source: str, sha256: str | None = None) -> dict[str, Any]:
    """Install a package from a folder, a .zip file or its address."""
    from MedGenLib.packages import store

    return _summary(store.add(source, sha256=sha256, progress=job.progress))


def remove_model(job: Request, name: str) -> dict[str, Any]:
    """Delete a package that the user added."""
    from MedGenLib.packages import store

    return {"folder": str(store.remove(name))}


def generate(
    job: Request,
    input: dict[str, Any] | None = None,
    model: str = "ct-tissue",
    folder: str | None = None,
    spread: bool = False,
    seed: int | None = None,
    samples: int = 1,
    device: str = "auto",
    memory: str = "normal",
    preset: str = "normal",
    sampler: str | None = None,
    steps: int | None = None,
    mapping: Any = None,
    fill: int | str | None = None,
    body_from: dict[str, Any] | None = None,
    any_grid: bool = False,
    size: list[int] | None = None,
    spacing: list[float] | None = None,
    modality: str | None = None,
    noise_hu: float | None = None,
    guidance: float | None = None,
    classifier_guidance: float = 0.0,
    style: dict[str, Any] | None = None,
    retries: int = 2,
    accept_license: bool = False,
) -> dict[str, Any]:
    """Mask -> volumes, as `MedGenLib.generate`; with ``spread`` also their voxel-wise SD."""
    from MedGenLib.generate import generate as run

    target = _folder(job, folder)
    if spread and samples < 2:
        raise InputError("The spread needs at least two samples; ask for more of them.")
    mask = None if input is None else _image({**input, "kind": "labels"})
    look = None if style is None else _image({**style, "kind": "volume"})
    body = None if body_from is None else _image({**body_from, "kind": "volume"})
    seed = secrets.randbelow(2**31) if seed is None else seed  # a second try has the same one

    def attempt(memory: str) -> Result:
        return run(
            mask,
            model,
            seed=seed,
            samples=samples,
            preset=preset,
            sampler=sampler,
            steps=steps,
            device=device,
            mapping=mapping,
            fill=fill,
            body_from=body,
            any_grid=any_grid,
            size=size,
            spacing=spacing,
            modality=modality,
            noise_hu=noise_hu,
            guidance=guidance,
            classifier_guidance=classifier_guidance,
            style=look,
            retries=retries,
            uncertainty=spread,
            accept_license=accept_license,
            memory=memory,
            progress=job.progress,
        )

    start = time.perf_counter()
    result = _within_memory(job, attempt, memory, device, "mask")
    _remember(result, result.source, device, preset, samples, time.perf_counter() - start)
    return _written(job, result, target)


def translate(
    job: Request,
    input: dict[str, Any],
    to: str,
    model: str | None = None,
    folder: str | None = None,
    seed: int | None = None,
    preset: str = "normal",
    device: str = "auto",
    memory: str = "normal",
    accept_license: bool = False,
    spread: bool = False,
) -> dict[str, Any]:
    """Image -> image of another modality, as `MedGenLib.translate`; with ``spread`` also how much
    several views of each voxel differ."""
    from MedGenLib.translate import translate as run

    target = _folder(job, folder)
    image = _image({**input, "kind": "volume"})

    def attempt(memory: str) -> Result:
        return run(
            image,
            to,
            model=model,
            seed=seed,
            preset=preset,
            device=device,
            uncertainty=spread,
            accept_license=accept_license,
            memory=memory,
            progress=job.progress,
        )

    start = time.perf_counter()
    result = _within_memory(job, attempt, memory, device, "image")
    _remember(result, image, device, preset, 1 + spread, time.perf_counter() - start)
    return _written(job, result, target)


def evaluate(
    job: Request,
    image: dict[str, Any],
    reference: dict[str, Any] | None = None,
    mask: dict[str, Any] | None = None,
    labels: dict[str, Any] | None = None,
    segmenter: str | None = None,
    uncertainty: dict[str, Any] | None = None,
    resample: bool = True,
    folder: str | None = None,
    report: str | None = None,
    overwrite: bool = False,
    names: dict[str, str] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """An image as `MedGenLib.evaluation.pair.evaluate` judges it.

    ``report`` is a folder for report.html and its tables, ``overwrite`` allows to replace an
    earlier report in it, and ``names`` tells it what the inputs are called by their role. The
    answer has the rows, the anatomy, the error map (None without a reference) and the path of
    report.html (None without a folder for it).
    """
    from contextlib import ExitStack

    from MedGenLib.evaluation import pair
    from MedGenLib.evaluation import report as files
    from MedGenLib.evaluation.folders import report_folder
    from MedGenLib.worker.protocol.transfer import put

    target = _folder(job, folder)
    names = names or {}
    given = {"image": image, "reference": reference, "uncertainty": uncertainty}
    volumes = {role: _image({**item, "kind": "volume"}) for role, item in given.items() if item}
    grids = {"mask": mask, "labels": labels}
    maps = {role: _image({**item, "kind": "labels"}) for role, item in grids.items() if item}
    page = None if report is None else Path(report) / files.REPORT
    with ExitStack() as stack:
        if page is not None:  # its place is checked before the work
            wanted = files.file_names(True, reference is not None)
            outputs = stack.enter_context(report_folder(page.parent, wanted, overwrite))
        found = pair.evaluate(
            **volumes,
            **maps,
            segmenter=segmenter,
            resample=resample,
            device=device,
            name=names.get("image", ""),
            names=names,
            progress=job.progress,
        )
        if page is not None:
            files.write(found, outputs, page.parent)
        error_map = None
        if found.comparison is not None:
            name = f"{job.method}-{job.number}-error"
            error_map = put(found.comparison.difference, target, name, job.check)
        if page is not None:
            outputs.commit()
    return {
        "rows": [vars(row) for row in (*found.rows, *found.uncertainty)],
        "anatomy": [row.to_dict() for row in found.anatomy],
        "note": found.note,
        "error_map": error_map,
        "report": None if page is None else str(page),
    }


METHODS: dict[str, Callable[..., dict[str, Any]]] = {
    "initialize": initialize,
    "devices": devices,
    "self_test": self_test,
    "models/list": list_models,
    "models/add": add_model,
    "models/remove": remove_model,
    "models/available": list_available,
    "models/license": show_license,
    "models/install": install_model,
    "generate": generate,
    "translate": translate,
    "edit/open": edit.open_canvas,
    "edit": edit.edit,
    "edit/undo": edit.undo,
    "edit/redo": edit.redo,
    "edit/close": edit.close_canvas,
    "insert_lesion": insert_lesion,
    "evaluate": evaluate,
    "dicom": write_dicom,
    "reader_study/make": make_study,
    "reader_study/score": score_study,
}


def explained(error: BaseException) -> BaseException:
    """An error of the system or of a library in a user's words, as far as its kind tells."""
    from MedGenLib.worker.protocol.messages import error_of
    from MedGenLib.worker.protocol.transfer import DISK_FULL, write_error

    if isinstance(error, MedGenError):
        return error
    told: MedGenError | None = None
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        told = write_error(error, Path(error.filename or "a file"))
    elif isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("MedGenLib"):
        told = _missing([str(error.name)])
    elif _is_out_of_memory(error):
        told = MemoryPlanError("The memory ran out; use a smaller input or larger voxels, or close other programs.")
    if told is None:
        return error
    told.detail = error_of(error)["data"]["detail"]
    return told


def _require_packages() -> None:
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise _missing(absent)


def _missing(modules: list[str]) -> WorkerError:
    names = [NEEDED.get(module, module) for module in modules]
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    plural = "s" if len(names) > 1 else ""
    error = WorkerError(
        f"The worker's Python ({sys.executable}) lacks the package{plural} {listed}; install "
        f"{'them' if plural else 'it'} (in Slicer with the button Install of MedGen, elsewhere "
        "with pip)."
    )
    error.detail = f"missing: {' '.join(names)}"
    return error


def _load(name: str) -> None:
    """Import a module that is there; a damaged installation gets a sentence too."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise explained(error) from error
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkerError(
            f"The package {name.partition('.')[0]} of the worker's Python ({sys.executable}) "
            f"cannot be loaded ({reason}); install it again."
        ) from error


def _device_names() -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{index}" for index in range(count))]


def _test_device(name: str) -> dict[str, Any]:
    import torch

    from MedGenLib.networks import build

    start = time.perf_counter()
    try:
        torch.manual_seed(0)
        arguments = {"maps": 2, "widths": (8, 16), "blocks": (1, 1)}
        net = build("FlowUNet", arguments).eval().requires_grad_(False)
        torch.nn.init.normal_(net.leave.weight, std=0.1)  # zeros would compare equal anywhere
        x, maps = torch.randn(1, 8, 8, 8, 8), torch.randn(1, 2, 16, 16, 16)
        expected = net(x, torch.ones(1), net.encode_mask(maps))
        net = net.to(name)
        found = net(x.to(name), torch.ones(1, device=name), net.encode_mask(maps.to(name))).cpu()
        passed = bool(torch.isfinite(found).all()) and torch.allclose(found, expected, atol=2e-2)
        sentence = f"{name} computes{'.' if passed else ' wrong values; do not use it.'}"
    except Exception as error:  # a device can be broken in any way
        passed = False
        sentence = f"{name} does not compute ({' '.join(str(error).split())[:200]})."
    seconds = round(time.perf_counter() - start, 3)
    return {"name": name, "passed": passed, "seconds": seconds, "sentence": sentence}


def _summary(manifest: Manifest) -> dict[str, Any]:
    from MedGenLib.packages.catalogue import is_embedded
    from MedGenLib.packages.license import is_accepted

    labels = {str(value): label.name for value, label in manifest.input.labels.items()}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "task": manifest.task,
        "input": {"kind": manifest.input.kind, "modality": manifest.input.modality, "labels": labels},
        "output": {"modality": manifest.output.modality, "unit": manifest.output.unit},
        "presets": list(manifest.sampler.presets) if manifest.sampler else [],
        "license": {
            "spdx": manifest.license.spdx,
            "commercial_use": manifest.license.commercial_use,
            "acceptance_required": manifest.license.acceptance_required,
            "accepted": is_accepted(manifest),
        },
        "embedded": is_embedded(manifest),
        "folder": str(manifest.folder),
    }


def _folder(job: Request, folder: str | None) -> Path:
    """Where the results go."""
    chosen = job.server.folder if folder is None else Path(folder)
    if chosen is None:
        raise InputError("No folder was named for the results; give one with the request.")
    if not chosen.is_dir():
        raise InputError(f"The folder {chosen} for the results is not there; choose another one.")
    return chosen


def _image(item: dict[str, Any]) -> Volume | LabelMap:
    from MedGenLib.worker.protocol.transfer import take

    return take(item)


def _within_memory(job: Request, attempt: Callable[[str], Result], memory: str, device: str, what: str) -> Result:
    """Run with the plan asked for; if the memory is not enough, once more with the small one."""
    result, failure, detail = _tried(attempt, memory)
    if result is not None:
        return result
    _forget_networks()
    if memory == "small":
        raise _too_large(failure, detail, device, what)
    from MedGenLib.devices import favour_small_memory
    from MedGenLib.findings import Finding
    from MedGenLib.pipelines.memory_plan import SMALL_PLAN

    job.log(f"{failure} Trying again with the small plan.", "warning")
    favour_small_memory()
    result, failure, detail = _tried(attempt, "small")
    if result is None:
        _forget_networks()
        raise _too_large(failure, detail, device, what)
    result.report.input_findings.append(Finding("warning", "small-plan", SMALL_PLAN))
    return result


def _tried(attempt: Callable[[str], Result], memory: str) -> tuple[Result | None, str, str]:
    """The result; or None, a sentence and the detail when the memory was not enough.

    Only the words of the error leave this function: the error itself would keep alive what filled
    the memory.
    """
    try:
        return attempt(memory), "", ""
    except MemoryPlanError as error:
        return None, str(error), ""
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        return None, "The memory ran out.", "".join(traceback.format_exception(error))


def _too_large(failure: str, detail: str, device: str, what: str) -> MemoryPlanError:
    import torch

    if "; " in failure:  # a plan that was refused says itself what to do
        sentence = failure.rstrip(".")
    else:
        sentence = f"{failure.rstrip('.')}, even with the small plan; crop the {what}, give it "
        sentence += "larger voxels or close other programs"
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    error = MemoryPlanError(f"{sentence}{', or compute on the CPU' if on_gpu else ''}.")
    error.detail = detail
    return error


def _is_out_of_memory(error: BaseException) -> bool:
    from MedGenLib.devices import is_out_of_memory

    return is_out_of_memory(error)


def _forget_networks() -> None:
    from MedGenLib.devices import release_memory
    from MedGenLib.pipelines import loading

    loading.forget()
    edit.forget()
    release_memory()


def _remember(
    result: Result, source: Volume | LabelMap, device: str, preset: str, samples: int, seconds: float
) -> None:
    """Keep how long it took, for the next plan."""
    from MedGenLib.packages.catalogue import find
    from MedGenLib.pipelines.estimate import remember

    report = result.report
    manifest = find(report.model)
    usual = manifest.preset(preset).steps in (None, report.steps)
    # A short run is better than nothing where the card has no figures either.
    telling = seconds > SHORT_RUN or not manifest.performance
    asked = report.parameters
    if usual and telling and asked.get("memory") == "normal" and asked.get("guidance", 1) == 1:
        tries = max(samples, len(report.attempts))
        remember(manifest, source.geometry, preset, device, tries, seconds)


def _written(job: Request, result: Result, folder: Path) -> dict[str, Any]:
    """Write the volumes and tell what was done."""
    from MedGenLib.worker.protocol.transfer import put

    images = [(f"{job.method}-{job.number}-{n}", v) for n, v in enumerate(result.volumes, 1)]
    if result.uncertainty is not None:
        images.append((f"{job.method}-{job.number}-spread", result.uncertainty))
    stage = Stage("writing", len(images), job.progress)
    items = []
    try:
        for name, image in images:
            items.append(put(image, folder, name, job.check))
            stage.advance()
    except BaseException:  # all or nothing
        for item in items:
            Path(item["path"]).unlink(missing_ok=True)
        raise
    report = result.report
    return {
        "volumes": items[: len(result.volumes)],
        "spread": items[-1] if result.uncertainty is not None else None,
        "report": report.to_dict(),
        "sentences": report.sentences,
        "passed": report.passed,
    }
