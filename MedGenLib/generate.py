"""Mask -> volume: the main job, readable from top to bottom.

mask -> model labels -> working grid -> latent flow -> decode -> intensities -> input's grid
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib import devices
from MedGenLib.checks.input import check_gaps, check_left_out, check_mask
from MedGenLib.checks.output import check_generated
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, notes, require_usable
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.body import fill_rest
from MedGenLib.labels.mapping import MappingReport, map_labels
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenLib.metrics.uncertainty import spread
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.sections import Preset
from MedGenLib.pipelines.appearance import Style
from MedGenLib.pipelines.empty_grid import wanted_grid
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.report import Attempt, Report
from MedGenLib.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

    from MedGenLib.pipelines.latent_flow import Sampling, Scene
    from MedGenLib.pipelines.maisi.masks import MaisiScene
    from MedGenLib.pipelines.maisi.sampling import MaisiSampling

    OnSample = Callable[[Scene, Sampling, Tensor, int], None]

LARGEST_SEED = 2**62


def generate(
    mask: str | Path | LabelMap | None = None,
    model: str = "ct-tissue",
    *,
    seed: int | None = None,
    samples: int = 1,
    preset: str = "normal",
    sampler: str | None = None,
    steps: int | None = None,
    device: str = "auto",
    mapping: dict[int | str, int | str] | str | None = None,
    fill: int | str | None = None,
    body_from: str | Path | Volume | None = None,
    any_grid: bool = False,
    size: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    modality: str | None = None,
    noise_hu: float | None = None,
    guidance: float | None = None,
    classifier_guidance: float = 0.0,
    style: str | Path | Volume | None = None,
    retries: int = 2,
    accept_license: bool = False,
    memory: str = "auto",
    uncertainty: bool = False,
    progress: ProgressCallback | None = None,
    on_sample: OnSample | None = None,
) -> Result:
    """Make synthetic volumes that follow a label map.

    Parameters
    ----------
    mask: path or LabelMap, any size, spacing (mm) and orientation. Models that make an image of
        nothing (NV-Generate's for MR) take only its grid, or none and `size` instead.
    model: name of a package for task "generate".
    seed: of the first sample; sample n uses seed + n. None draws one, kept in the report.
        The same seed gives the same voxels on the same device and number of threads.
    samples: how many volumes to make.
    preset: "draft", "normal" or "best": the package's number of steps. A draft by a student
        network has the steps of "normal" where a sampler or guidance wants the main network.
    sampler, steps: override the package's sampler ("euler", "heun", "midpoint", "ddim",
        "ddpm") and steps.
    device: "auto", "cpu" or "cuda:0".
    mapping: labels of the mask -> labels of the model, by number or name, or a table's name.
    fill: label of the model that voxels without one get inside the body (segmentations of organs
        leave most of the body without a label); None leaves them outside of the body, or takes
        the model's own label for the rest of the body where it has one.
    body_from: image of the same patient whose outline is the body's; None closes it from the mask.
    any_grid: models trained on a few sizes (NV-Generate) work on the mask's own size, in whole
        strides: quicker for a small mask, possible for a large one, less sure.
    size, spacing: for models without a mask, voxels and mm from left to right, back to front and
        foot to head.
    modality: what a model that makes several shall make, such as "T2w" or "FLAIR skull-stripped".
    noise_hu: noise of a CT in HU, for models that take it; None is the training scanners' own.
    guidance: weight w of classifier-free guidance, ``v_un + w (v_cond - v_un)`` at every step for
        twice the time: 1 is none, more exaggerates what the mask says. None is the model's own.
    classifier_guidance: weight of the gradient of the package's classifier, which moves every step
        towards the mask's labels; 0 is none.
    style: a real volume whose look the samples get: noise and tissue levels of a CT, contrast of
        an MR image (see `MedGenLib.pipelines.appearance`); `noise_hu` goes before its noise.
    retries: further seeds to try when a sample fails its checks. What still fails is returned
        and the report says so.
    accept_license: accept the package's licence where it asks for that.
    memory: "normal", or "small" for about a quarter of the networks' memory: smaller windows and
        tiles, more time, and other fine detail than "normal" has from the same seed. "auto" takes
        the first of them that fits into the memory which is free; the report tells which.
    uncertainty: also give `Result.uncertainty`, the spread of the samples: where it is large, the
        mask did not decide. Two samples are the least, some eight make it smooth.
    progress: called at every step; what it raises stops the run.
    on_sample: called with scene, sampling, latent and seed of every try, the last of which is kept
        (see `MedGenLib.editing.session`).

    Raises
    ------
    InputError, PackageError, LicenseError, MemoryPlanError: one sentence, nothing was done.

    Examples
    --------
    >>> result = generate("mask.nii.gz", seed=1)              # doctest: +SKIP
    >>> result.volume.unit, result.report.passed              # doctest: +SKIP
    ('HU', True)
    """
    stage = Stage("preparing", 3, progress)
    manifest = _model(model, accept_license)
    plan = manifest.preset(preset)
    devices.require_memory_plan(memory)
    if seed is None:
        seed = secrets.randbelow(2**31)
    _check_numbers(seed, samples, retries, uncertainty)
    labels = wanted_grid(mask, size, spacing, manifest)
    mapped, findings = MappingReport({}, []), []
    if labels is None:
        labels, mapped, findings = _labels(mask, manifest, mapping, fill, body_from)
        findings += [*notes(labels), *check_left_out(mapped, manifest), *check_mask(labels, manifest)]
        if fill is None and mapped.changed:
            findings += check_gaps(labels, manifest)
    elif style is not None:
        raise InputError(f"The model '{manifest.name}' takes no style; leave it out.")
    require_usable(findings)
    look = None if style is None else Style.of(style, manifest)
    if look is not None and noise_hu is None:
        noise_hu = look.noise_hu
    stage.advance()

    clock = _Clock()
    place = devices.pick_device(device)
    wishes = _Wishes(plan, sampler, steps, memory, any_grid, modality, noise_hu, guidance, classifier_guidance)
    prepared = _prepared_maisi if _is_maisi(manifest) else _prepared
    scene, sampling = prepared(labels, manifest, place, wishes)
    stage.advance()
    stage.advance()
    clock.lap("preparing")

    report = Report(
        model=manifest.name,
        version=manifest.version,
        task="generate",
        seed=seed,
        preset=preset,
        sampler=sampling.sampler,
        steps=sampling.steps,
        parameters=_parameters(scene, sampling, mapped, samples, retries),
        software=devices.software_versions(),
        device=devices.describe_device(place),
        input_findings=findings + scene.findings,
    )
    volumes = [
        _sample(n, seed + n, retries, sampling, scene, labels, manifest, report, clock, progress, on_sample)
        for n in range(samples)
    ]
    if look is not None:
        report.parameters["style"] = asdict(look)
        volumes = [look.apply(volume, labels, manifest) for volume in volumes]
    report.timings = clock.seconds
    report.peak_memory_mib = round(devices.peak_memory_mib(), 1)
    return Result(volumes, report, labels, spread(volumes) if uncertainty else None)


@dataclass(frozen=True)
class _Wishes:
    """How the user wants to sample; None is the package's own way."""

    preset: Preset
    sampler: str | None
    steps: int | None
    memory: str
    any_grid: bool
    modality: str | None
    noise_hu: float | None
    guidance: float | None
    classifier_guidance: float


def _is_maisi(manifest: Manifest) -> bool:
    """Whether the package has NV-Generate's networks, which have a way of their own."""
    return manifest.networks["flow"].network == "MaisiUNet"


def _prepared(labels: LabelMap, manifest: Manifest, place: torch.device, wishes: _Wishes) -> tuple[Scene, Sampling]:
    """The working grid and the networks of a package made by `medgen train`."""
    from MedGenLib.pipelines.latent_flow import Sampling, network_role, prepare, stride

    if wishes.modality is not None:
        raise InputError(f"The model '{manifest.name}' makes {manifest.output.modality} only; leave the modality out.")
    if wishes.any_grid:
        raise InputError(f"The model '{manifest.name}' works on any grid as it is; leave any_grid (--any-grid) out.")
    scene = prepare(labels, manifest, stride(manifest, place), wishes.noise_hu)
    role = network_role(manifest, wishes.preset, wishes.sampler, wishes.guidance, wishes.steps)
    steps = wishes.steps
    if steps is None:
        # The few steps of a student are too few for the main network.
        own = role == wishes.preset.network
        steps = (wishes.preset if own else manifest.preset("normal")).steps
    return scene, Sampling.of(
        manifest, place, wishes.sampler, steps, scene, wishes.memory, role, wishes.guidance, wishes.classifier_guidance
    )


def _prepared_maisi(
    labels: LabelMap, manifest: Manifest, place: torch.device, wishes: _Wishes
) -> tuple[MaisiScene, MaisiSampling]:
    """The legal grid and the networks of an NV-Generate package."""
    from MedGenLib.pipelines.maisi.masks import prepare, prepare_grid
    from MedGenLib.pipelines.maisi.sampling import MaisiSampling, modality_of

    if wishes.noise_hu is not None:
        raise InputError("This model has no noise setting; leave noise_hu out.")
    if wishes.classifier_guidance:
        raise InputError(f"The model '{manifest.name}' has no classifier to be guided by.")
    if manifest.input.kind == "none":
        scene = prepare_grid(labels.geometry, manifest, any_grid=wishes.any_grid)
    else:
        scene = prepare(labels, manifest, any_grid=wishes.any_grid)
    scene.modality = modality_of(manifest, wishes.modality)
    if scene.modality is not None:
        scene.conditions["modality"] = scene.modality
    steps = wishes.preset.steps if wishes.steps is None else wishes.steps
    return scene, MaisiSampling.of(manifest, place, wishes.sampler, steps, scene, wishes.memory, wishes.guidance)


def _sample(
    number: int,
    seed: int,
    retries: int,
    sampling: Sampling | MaisiSampling,
    scene: Scene | MaisiScene,
    labels: LabelMap,
    manifest: Manifest,
    report: Report,
    clock: _Clock,
    progress: ProgressCallback | None,
    on_sample: OnSample | None,
) -> Volume:
    """One volume; another seed after a failed check, the last try is kept whatever it is."""
    for attempt in range(retries + 1):
        # Retried seeds are far from the seeds of the other samples.
        chosen = seed + attempt * 1_000_003
        latent = sampling.latent(chosen, progress)
        devices.release_memory()  # or what the networks left lies under the peak of what follows
        clock.lap("sampling")
        values = sampling.decode(latent, progress)
        if on_sample is not None:
            on_sample(scene, sampling, latent, chosen)
        del latent
        devices.release_memory()
        stage = Stage("checking", 2, progress)
        volume = scene.finish(values)
        del values
        clock.lap("decoding")
        stage.advance()
        check = check_generated(volume, labels, manifest, scene.seams(sampling.borders), scene.own_grid)
        stage.advance()
        clock.lap("checking")
        report.attempts.append(Attempt(number, chosen, check))
        if check.passed:
            break
    report.output_checks.append(check)
    return volume


def _check_numbers(seed: int, samples: int, retries: int, uncertainty: bool) -> None:
    if samples < 1:
        raise InputError(f"The number of samples is {samples}; ask for at least 1.")
    if uncertainty and samples < 2:
        raise InputError("The uncertainty is the spread of several samples; ask for at least 2 (--samples 8).")
    if retries < 0:
        raise InputError(f"The number of retries is {retries}; give 0 or more.")
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"The seed is {seed}; choose 0 to {LARGEST_SEED}.")


def _model(name: str, accept_license: bool) -> Manifest:
    manifest = find(name)
    manifest.require_task("generate")
    require_acceptance(manifest, accept_license)
    return manifest


def _labels(
    mask: str | Path | LabelMap,
    manifest: Manifest,
    mapping: dict[int | str, int | str] | str | None,
    fill: int | str | None,
    body_from: str | Path | Volume | None,
) -> tuple[LabelMap, MappingReport, list[Finding]]:
    """The mask in the model's labels, the body filled where that is wanted or needed."""
    label_map = mask if isinstance(mask, LabelMap) else read_label_map(mask)
    vocabulary = Vocabulary.from_dict(
        {str(value): {"name": label.name, "aliases": label.aliases} for value, label in manifest.input.labels.items()},
        manifest.input.left_out,
    )
    labels, report = map_labels(label_map, vocabulary, mapping)
    own = manifest.settings.body
    value = own if fill is None else vocabulary.value_of(fill)
    if fill is not None and not value:
        raise InputError(f"The model has no label '{fill}' to fill the body with: {vocabulary}.")
    if value is None and body_from is not None:
        raise InputError(
            f"The model '{manifest.name}' has no label for the rest of the body; name one with "
            f"--fill, such as '{vocabulary.labels[0].name}', beside --body-from."
        )
    if body_from is None and (value is None or fill is None and value in labels.values()):
        return labels, report, []
    image = body_from if isinstance(body_from, Volume | None) else read_volume(body_from)
    labels, findings = fill_rest(labels, value, image)
    # Who asks for a filling has been told what it does.
    return labels, report, findings if fill is None or image is not None else []


def _parameters(
    scene: Scene | MaisiScene, sampling: Sampling | MaisiSampling, mapped: MappingReport, samples: int, retries: int
) -> dict[str, Any]:
    return {
        "mapping": mapped.mapped,
        "samples": samples,
        "retries": retries,
        "working_spacing_mm": scene.spacing,
        "working_shape": scene.shape,
        **scene.conditions,
        "memory": "small" if sampling.small else "normal",
        "network": sampling.role,
        "guidance": sampling.guidance,
        "classifier_guidance": sampling.classifier_guidance,
        "windows": sampling.window_count,
        "precision": sampling.number_format,
    }


@dataclass
class _Clock:
    """Seconds per stage, summed over samples and attempts."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self.last, 3)
        self.last = now
