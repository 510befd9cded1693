"""Segmentation by tools that the user has installed: their commands run in a process of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import modality_of
from MedGenLib.imaging.volume import LabelMap, Volume, by_axis, check_finite
from MedGenLib.io.files import read_label_map, write_volume
from MedGenLib.labels.vocabulary import Label, Vocabulary, table
from MedGenLib.progress import Progress, ProgressCallback

TOTALSEGMENTATOR, NNUNET = "TotalSegmentator", "nnUNetv2_predict_from_modelfolder"
"""The commands of the tools that the user may have."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class TotalSegmentator:
    """The command TotalSegmentator (Wasserthal et al. 2023), task "total", version 2."""

    device: str = "auto"
    command: str = field(init=False, repr=False)
    name = "totalsegmentator"

    @property
    def labels(self) -> Vocabulary:
        return table("totalsegmentator")

    def __post_init__(self) -> None:
        command = _command(TOTALSEGMENTATOR, "pip install TotalSegmentator")
        object.__setattr__(self, "command", command)

    def __call__(self, volume: Volume, progress: ProgressCallback | None = None) -> LabelMap:
        modality = modality_of(volume)
        if modality != "CT":
            raise InputError(
                "TotalSegmentator is asked for its CT classes, but the image is "
                f"{modality or 'no CT'}; choose another segmenter."
            )
        with tempfile.TemporaryDirectory(prefix="medgen-") as folder:
            source, target = Path(folder, "image.nii.gz"), Path(folder, "labels.nii.gz")
            words = ["-i", source, "-o", target, "--ml", "--quiet", *self._device]
            _run(self, words, volume, source, Path(folder, "log.txt"), progress)
            return _labels(self, target, volume)

    @property
    def _device(self) -> list[str]:
        if self.device == "auto":
            return []
        return ["--device", self.device.replace("cuda", "gpu")]


@dataclass(frozen=True)
class NnUnet:
    """A trained nnU-Net version 2 (Isensee et al. 2021): the folder with its dataset.json."""

    folder: Path
    device: str = "auto"
    command: str = field(init=False, repr=False)
    dataset: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", _dataset(self.folder))
        command = _command(NNUNET, "pip install nnunetv2")
        object.__setattr__(self, "command", command)

    @property
    def name(self) -> str:
        return f"nnunet:{self.folder}"

    @property
    def labels(self) -> Vocabulary:
        pairs = sorted((value, name) for name, value in self.dataset["labels"].items() if value)
        return Vocabulary(tuple(Label(value, name) for value, name in pairs))

    def __call__(self, volume: Volume, progress: ProgressCallback | None = None) -> LabelMap:
        from MedGenLib.devices import pick_device

        ending = self.dataset["file_ending"]
        with tempfile.TemporaryDirectory(prefix="medgen-") as folder:
            source = Path(folder, "in", f"case_0000{ending}")
            target = Path(folder, "out", f"case{ending}")
            source.parent.mkdir()
            target.parent.mkdir()
            words = ["-i", source.parent, "-o", target.parent, "-m", self.folder]
            words += [*self._folds, "-device", pick_device(self.device).type]
            _run(self, words, volume, source, Path(folder, "log.txt"), progress)
            return _labels(self, target, volume)

    @property
    def _folds(self) -> list[str]:
        """The trained folds: those of a cross-validation, or the one of all cases."""
        names = sorted(path.name.removeprefix("fold_") for path in self.folder.glob("fold_*"))
        numbers = [name for name in names if name.isdigit()]
        return ["-f", *(numbers or ["all"])]


def _dataset(folder: Path) -> dict[str, Any]:
    """The description of a trained model that reads one volume and finds labels."""
    path = folder / "dataset.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        ending, single = data["file_ending"], len(data["channel_names"]) == 1
        plain = all(isinstance(value, int) for value in data["labels"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The folder '{folder}' is not a trained nnU-Net model ({path.name} cannot be used: "
            f"{type(error).__name__}); give the folder that holds dataset.json and plans.json."
        ) from None
    if not (single and plain):
        raise InputError(
            f"The nnU-Net model in '{folder}' reads several images or has regions "
            "instead of labels; choose one for a single image."
        )
    if ending not in (".nii.gz", ".nii", ".nrrd", ".mha"):
        raise InputError(
            f"The nnU-Net model in '{folder}' reads {ending} files, which MedGen does not write; choose another model."
        )
    return data


def _command(name: str, installation: str) -> str:
    """The path of an installed command."""
    found = shutil.which(name)
    if found is None:
        raise InputError(
            f"The command {name} is not on the PATH; install it with `{installation}` or choose another segmenter."
        )
    return found


def _run(
    tool: TotalSegmentator | NnUnet,
    words: Sequence[str | Path],
    volume: Volume,
    source: Path,
    log: Path,
    progress: ProgressCallback | None,
) -> None:
    """Write the image and run the tool; an exception of `progress`, or Ctrl-C, ends it at once."""
    check_finite(volume)
    write_volume(volume, source)
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                [tool.command, *map(str, words)], stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise InputError(f"{tool.name} cannot be started: {error.strerror}; check its installation.") from None
        stage = f"running {tool.name}"
        try:
            while (code := _ended(process)) is None:
                if progress is not None:  # a chance to cancel
                    progress(Progress(stage, 0, 1))
        finally:
            _end(process)
    if code != 0:
        raise InputError(f"{tool.name} failed with exit code {code}: {_last_line(log)}")
    if progress is not None:
        progress(Progress(stage, 1, 1, 0.0))


def _labels(tool: TotalSegmentator | NnUnet, path: Path, volume: Volume) -> LabelMap:
    """The labels that the tool has written, on the grid of the volume."""
    if not path.is_file():
        raise InputError(f"{tool.name} ended without writing its labels; run it by hand on the image to see why.")
    try:
        found = read_label_map(path)
    except InputError:
        raise InputError(
            f"{tool.name} wrote labels that cannot be read; run it by hand on the image to see why."
        ) from None
    if not found.geometry.is_close(volume.geometry, tolerance=0.01):
        raise InputError(
            f"{tool.name} gave labels on another grid ({by_axis(found.shape)} voxels "
            f"instead of {by_axis(volume.shape)}); update it or choose another "
            "segmenter."
        )
    return LabelMap(found.array, volume.affine, dict(tool.labels.names))


def _ended(process: subprocess.Popen) -> int | None:
    try:
        return process.wait(timeout=_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen) -> None:
    """End a process that still runs, and its children."""
    import psutil

    if process.poll() is not None:
        return
    tool = psutil.Process(process.pid)
    for member in (*tool.children(recursive=True), tool):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [" ".join(line.split()) for line in lines if line.strip()]
    return f"{said[-1][:200].rstrip('.')}." if said else "it said nothing."
