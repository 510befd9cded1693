"""One run of a command that makes images; it checks paths first and writes all files or none."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedGenLib.cli.arguments import from_namespace
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.atomic import Outputs
from MedGenLib.io.files import WRITABLE, check_output_path
from MedGenLib.io.frames import SEQUENCE
from MedGenLib.io.output_names import numbered
from MedGenLib.io.provenance import Provenance, Source, sidecars
from MedGenLib.io.user_config import config_path
from MedGenLib.labels.mapping import parse_mapping
from MedGenLib.options import validate
from MedGenLib.packages.license import is_accepted, license_notice, require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.report import Report
from MedGenLib.result import Result
from MedGenLib.run_files import ROLES, read_input, recorded_options, with_forms, write_with_facts

BYTES_PER_VOXEL = 4
"""Maximum bytes per voxel of a written volume."""
CHECKS_FAILED = 3
"""Exit code of a run whose outputs were written and failed their checks."""
Draw = Callable[[Result, int, Path], None]
"""Draws one volume of a result into a file."""


class FileRun:
    """One run of a command; a context manager that discards incomplete files.

    Attributes
    ----------
    images: images of `read`, by option name.
    outputs: the files to write.
    """

    def __init__(self, command: str, arguments: Namespace, console: Console) -> None:
        self.command, self.arguments, self.console = command, arguments, console
        self.images: dict[str, Volume | LabelMap] = {}
        self._sources: list[Source] = []
        self._accepted: Manifest | None = None
        read = {} if self._given("mapping") is None else {"mapping": parse_mapping(arguments.mapping)}
        self._options = validate(command, from_namespace(command, arguments, **read))
        self._inputs = {name: path for name in ROLES if (path := self._given(name)) is not None}
        self.outputs = Outputs(self._paths(), overwrite=arguments.overwrite, keep=self._inputs.values())

    def __enter__(self) -> FileRun:
        self.outputs.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.outputs.__exit__(*error)

    def accept(self, manifest: Manifest) -> None:
        """Raise LicenseError unless the license of the model is accepted; a first acceptance is reported at the end."""
        if is_accepted(manifest):
            return
        if not self.arguments.accept_license:
            require_acceptance(manifest, accept=False)  # raises LicenseError
        self._accepted = manifest

    def read(self, stored: bool = False) -> None:
        """Read the images of the command line; ``stored``: integers in the format stored in files."""
        for name, path in self._inputs.items():
            self.images[name] = read_input(self.command, name, path, vars(self.arguments), stored)
            self._sources.append(Source.of(ROLES[name], self.images[name], path))

    def require_space(self, grid: Volume | LabelMap, frames: int = 1) -> None:
        """Raise InputError unless the disks have space for all files on this grid, of which a series has frames."""
        copies = self._count * frames * (1 + bool(self._given("dicom")))
        copies += self._count * sum(self._given(name) is not None for name in ("lesion_mask", "moved_labels"))
        copies += self._given("uncertainty") is not None
        # One more: NIfTI is uncompressed for a moment.
        self.outputs.require_space(grid.array.size * (copies + 1) * BYTES_PER_VOXEL)

    def keep_time(self, result: Result) -> None:
        """Store the duration of the run for later estimates."""
        from MedGenLib.pipelines.estimate import remember_run

        remember_run(result, self._options, sum(result.report.timings.values()))

    def options(self) -> dict[str, Any]:
        """The keyword arguments of the function of the library."""
        return {**self._options, **self.images}

    def on_engine(self, source: Volume | LabelMap) -> Result | None:
        """The result of the engine of --engine, beside the input as the model sees it; None without an engine."""
        if (address := self._given("engine")) is None:
            return None
        from MedGenLib.worker.client import connect

        options = {name: value for name, value in self.options().items() if name != "series"}  # it was read here
        with connect(address, os.environ.get("MEDGEN_ENGINE_TOKEN")) as worker:
            made = getattr(worker, self.command)(**options, progress=self.console)
        return Result(made.volumes, Report.from_dict(made.report), source, made.uncertainty)

    def write(self, result: Result, draw: Draw | None = None) -> None:
        """Write all requested files; ``draw`` makes the preview, by default of input and result."""
        recorded = recorded_options(self.command, self._options, vars(self.arguments))
        facts = [replace(result.provenance(self._sources, n), options=recorded) for n in range(len(result.volumes))]
        if self._given("grow"):
            facts = [replace(fact, parameters={**fact.parameters, "frame": n}) for n, fact in enumerate(facts)]
        volumes = [with_forms(volume, self.images.values()) for volume in result.volumes]
        self.write_frames(volumes, self.arguments.output, result.report, facts)
        if (path := self._given("uncertainty")) is not None:
            fact = facts[0].of_uncertainty(result.uncertainty)
            self._write_volume(result.uncertainty, path, fact)
        if self.arguments.preview is not None:
            for number, path in enumerate(numbered(self.arguments.preview, self._count)):
                shown = number if len(facts) == self._count else len(facts) // 2  # of a series over time
                (draw or _draw)(result, shown, self.outputs.staged(path))
        if self._given("dicom") is not None:
            self._write_dicom(result, facts)
        if self.arguments.report is not None:
            result.report.write(self.outputs.staged(self.arguments.report))
        self.outputs.commit()

    def write_frames(
        self, frames: Sequence[Volume | LabelMap], path: Path, report: Report, facts: Sequence[Provenance] = ()
    ) -> None:
        """Write the samples of a run, or the times of a series as one sequence where the path ends in .seq.nrrd."""
        from MedGenLib.io.files import write_volume
        from MedGenLib.io.frames import write_sequence

        paths = self._names(path)
        if len(paths) < len(frames):
            times = report.parameters["frames"]
            name, unit = ("day", "d") if "day" in times[0] else ("phase", "%")
            values = [time[name] for time in times]
            write_sequence(frames, self.outputs.staged(path), values, name, unit, facts[0] if facts else None)
            if facts:
                facts[0].write_beside(path, self.outputs.staged(self._beside[path]))
            return
        for number, (frame, one) in enumerate(zip(frames, paths, strict=True)):
            if facts:
                self._write_volume(frame, one, facts[number])
            else:
                write_volume(frame, self.outputs.staged(one))

    def describe(self, result: Result) -> int:
        """Print the files, assumptions and findings of the checks; the exit code."""
        volume, report, console = result.volume, result.report, self.console
        for sentence in [*self._on_license(), *self._on_identity()]:
            console.note(sentence)
        size = " x ".join(map(str, volume.shape))
        spacing = " x ".join(f"{length:.3g}" for length in volume.spacing)
        seed = "" if report.seed is None else f", seed {report.seed}"
        series = f"{len(result.volumes)} frames of " if len(result.volumes) > self._count else ""
        console.say(
            f"{series}{volume.modality} in {volume.unit}, {size} voxels of {spacing} mm, "
            f"made with {report.model} {report.version}{seed}."
        )
        if noise := report.parameters.get("noise"):
            console.say(f"Noise: {noise}.")
        console.wrote(*self.outputs.paths)
        console.detail(f"device: {report.device}; peak memory {report.peak_memory_mib:.0f} MiB")
        for stage, seconds in report.timings.items():
            console.detail(f"{stage}: {seconds:.1f} s")
        return warn(report, console, self.arguments.report)

    def _write_volume(self, volume: Volume, path: Path, facts: Provenance) -> None:
        # Beside the final path, which decides the name.
        write_with_facts(volume, self.outputs.staged(path), facts, self.outputs.staged(self._beside[path]))

    @property
    def _count(self) -> int:
        """How many volumes the run makes."""
        return self._given("grow") or self._given("samples", 1)

    def _names(self, path: Path) -> list[Path]:
        """Files of all volumes; a series over time fits into one sequence."""
        one = self._given("grow") and path.name.endswith(SEQUENCE)
        return [path] if one else numbered(path, self._count)

    def _given(self, name: str, default: Any = None) -> Any:
        """An option that some commands lack."""
        return getattr(self.arguments, name, default)

    def _paths(self) -> list[Path]:
        """All files of the run, with checked paths."""
        volumes = [*self._names(self.arguments.output), self._given("uncertainty")]
        volumes = [_output(path) for path in volumes if path is not None]
        self._beside = dict(zip(volumes, sidecars(volumes), strict=True))
        paths = [*volumes, *self._beside.values()]
        for path in filter(None, (self._given("lesion_mask"), self._given("moved_labels"))):
            paths += map(_output, self._names(path))
        if (path := self._given("explanation")) is not None:
            paths.append(_output(path, (".html",)))
        if self.arguments.preview is not None:
            paths += [_output(path, (".png",)) for path in numbered(self.arguments.preview, self._count)]
        if self.arguments.report is not None:
            paths.append(_output(self.arguments.report, (".json",)))
        if self._given("dicom") is not None:
            paths += _new_folders(numbered(self.arguments.dicom, self._count))
        elif self._given("deidentify"):
            raise InputError("--deidentify is for DICOM; add --dicom with a folder.")
        return paths

    def _write_dicom(self, result: Result, facts: list[Provenance]) -> None:
        """Write one series per volume; in the patient's study if the input was DICOM."""
        from MedGenLib.io.dicom import write_series

        image, patient = self._given("image"), {}
        if image is not None and image.is_dir():
            patient = {"source": image, "series": self.arguments.series}
        options = {"deidentify": self.arguments.deidentify, "progress": self.console, **patient}
        folders = [self.outputs.staged(folder) for folder in numbered(self.arguments.dicom, self._count)]
        times: list[dict[str, Any]] = [{}] * len(facts)
        if len(folders) < len(facts):  # the frames of one series over time
            folders[0].mkdir()
            folders = [folders[0] / f"phase_{number:02d}" for number in range(len(facts))]
            times = [{"temporal": (number, len(facts))} for number in range(1, len(facts) + 1)]
        for volume, fact, folder, time in zip(result.volumes, facts, folders, times, strict=True):
            write_series(volume, folder, facts=fact, **options, **time)

    def _on_license(self) -> list[str]:
        """The first acceptance of a license, and whether it could be stored."""
        if self._accepted is None:
            return []
        kept = "this is remembered" if config_path().exists() else "this cannot be remembered here"
        return [f"{license_notice(self._accepted)} You have accepted it; {kept}."]

    def _on_identity(self) -> list[str]:
        """Notes on what --deidentify does not change."""
        if not self._given("deidentify"):
            return []
        from MedGenLib.cli.dicom import STILL_THERE

        return [STILL_THERE, f"{self.arguments.output} and the file beside it still name the input."]


def _output(path: Path, suffixes: tuple[str, ...] = WRITABLE) -> Path:
    return check_output_path(path, suffixes, new_folder=True)


def warn(report: Report, console: Console, path: Path | None = None) -> int:
    """Print on stderr what the checks found, failed ones also when quiet; the exit code, 3 after failed checks.

    Parameters
    ----------
    path: of the written report, if there is one.
    """
    failed = {f.sentence for check in report.output_checks for f in check.findings if f.level == "error"}
    for sentence in report.sentences:
        if sentence in failed:
            console.error(f"warning: {sentence}")
        else:
            console.announce([sentence])
    if report.passed:
        return 0
    tried = len(report.attempts)
    seeds = f" with {tried} seeds" if tried > 1 else ""
    console.error(f"warning: the checks failed{seeds}; {f'see {path}' if path else 'details with --report'}.")
    return CHECKS_FAILED


def _draw(result: Result, number: int, path: Path) -> None:
    from MedGenLib.visual.preview import preview

    preview(result.source, result.volumes[number], path, title=result.report.model)


def _new_folders(folders: list[Path]) -> list[Path]:
    """Folders of new series, none of which exists yet."""
    from MedGenLib.io.dicom import check_folder

    for path in map(check_folder, folders):
        if path.exists():
            raise InputError(f"The folder {path} exists already; give a new one for the DICOM series.")
    return folders
