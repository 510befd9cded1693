"""Finding the labels in an image again: by thresholds, by a package, or by the user's own tools.

    find = segmenter("hippocampus-segmenter")
    labels = find(volume)            # on the volume's own grid, values as in find.labels

Names: a package of task "segment"; a generator whose manifest says how its labels are found again
(ct-tissue: `statistics.resegment`, mr-hippocampus: `statistics.segmenter`); "totalsegmentator";
"nnunet:FOLDER" with the folder of a trained nnU-Net model. The last two run the command that the
user has installed, in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from MedGenLib.checks.input import guess_modality
from MedGenLib.checks.output import resegment
from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import ZScore
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import LabelMap, Volume, check_finite
from MedGenLib.labels.mapping import Label, Vocabulary, body_envelope_from_image, table
from MedGenLib.pipelines.working_grid import SAME_SPACING
from MedGenLib.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from torch import nn

    from MedGenLib.packages.manifest import Manifest

TOTALSEGMENTATOR, NNUNET = "TotalSegmentator", "nnUNetv2_predict_from_modelfolder"
"""The commands of the tools that the user may have."""
WHOLE = 96
"""Voxels along an axis up to which an image is segmented in one piece."""
_POLL_SECONDS = 0.1


class Segmenter(Protocol):
    """Finds labels in a volume.

    Attributes
    ----------
    name: as the user calls it.
    labels: the vocabulary of the values that it gives.
    """

    name: str
    labels: Vocabulary

    def __call__(self, volume: Volume, progress: ProgressCallback | None = None) -> LabelMap:
        """Labels on the volume's own grid.

        Raises
        ------
        InputError: the volume is not what the segmenter reads, or an external tool failed.
        """
        ...


def segmenter(name: str, device: str = "auto") -> Segmenter:
    """The segmenter of that name (see the module).

    Raises
    ------
    InputError: unknown (names the known ones), or a tool that is not installed.
    PackageError, LicenseError: the package is broken, or its licence has to be accepted first.
    """
    kind, _, folder = name.partition(":")
    if kind.casefold() == "nnunet":
        return NnUnet(Path(folder), device)
    if name.casefold() == "totalsegmentator":
        return TotalSegmentator(device)
    manifest = _package(name)
    if manifest.task == "generate" and manifest.statistics.segmenter:
        manifest = _package(manifest.statistics.segmenter.package)
    if manifest.task == "segment":
        return PackageSegmenter(manifest, device)
    return ThresholdSegmenter(manifest)


def names() -> list[tuple[str, str]]:
    """The segmenters that can be used here, each with a sentence on what it does.

    nnU-Net is not among them: it needs the folder of a model. Reads no weights and needs neither
    torch nor the schema, so that a panel can ask.
    """
    from MedGenLib.packages.catalogue import light_catalogue

    known = []
    for manifest in light_catalogue():
        if manifest.task == "segment":
            known.append((manifest.name, f"{manifest.description.rstrip('.')}."))
        elif manifest.statistics.resegment and manifest.task == "generate":
            tissues = ", ".join(label.name for label in manifest.input.labels.values())
            known.append((manifest.name, f"Thresholds in HU: {tissues}."))
    if shutil.which(TOTALSEGMENTATOR):
        known.append(("totalsegmentator", "TotalSegmentator on this computer: 117 CT structures."))
    return known


@dataclass(frozen=True)
class ThresholdSegmenter:
    """Tissues of a CT by the thresholds in HU that a package's `statistics.resegment` gives.

    Voxels outside of the body's envelope are 0.
    """

    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def labels(self) -> Vocabulary:
        return _vocabulary(self.manifest.input.labels)

    def __call__(self, volume: Volume, progress: ProgressCallback | None = None) -> LabelMap:
        check_finite(volume)
        modality = volume.modality or guess_modality(volume)
        if modality != "CT":
            raise InputError(
                f"The segmenter '{self.name}' finds tissues by their HU, but the "
                f"image is {modality or 'no CT'}; choose another segmenter."
            )
        body = body_envelope_from_image(volume.with_array(volume.array, "CT", "HU"))
        found = resegment(volume.array, self.manifest.statistics.resegment)
        found = np.where(body.array > 0, found, 0).astype(np.uint8)
        return LabelMap(found, volume.affine, dict(self.labels.names))


@dataclass(frozen=True)
class PackageSegmenter:
    """The network of a package of task "segment"."""

    manifest: Manifest
    device: str = "auto"

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def labels(self) -> Vocabulary:
        return _vocabulary(self.manifest.output.labels)

    def __call__(self, volume: Volume, progress: ProgressCallback | None = None) -> LabelMap:
        from MedGenLib.devices import pick_device
        from MedGenLib.pipelines.loading import network

        check_finite(volume)
        self._require_fitting(volume)
        device = pick_device(self.device)
        net = network(self.manifest, "segmenter", device)
        settings = self.manifest.settings
        working = self._working(volume)
        reorientation = Reorientation.to(working.geometry, "RAS")
        image = ZScore(settings.low, settings.high).encode(reorientation.apply(working.array))
        shares = probabilities(net, image)
        found = np.zeros(volume.shape, np.uint8)
        highest = np.full(volume.shape, -np.inf, np.float32)
        for value, share in zip((0, *self.manifest.output.labels), shares, strict=True):
            placed = working.with_array(reorientation.undo(share))
            placed = resample_to(placed, volume, order=1, fill=float(value == 0)).array
            found[placed > highest] = value
            highest = np.maximum(highest, placed)
        return LabelMap(found, volume.affine, dict(self.labels.names))

    def _working(self, volume: Volume) -> Volume:
        """The volume at the package's own voxel size; itself where that is near enough."""
        native = self.manifest.spacing.native
        if all(abs(s / native - 1) <= SAME_SPACING for s in volume.spacing):
            return volume
        floating = replace(volume, array=volume.array.astype(np.float32))
        return resample(floating, (native,) * 3)

    def _require_fitting(self, volume: Volume) -> None:
        from MedGenLib.packages.catalogue import same_modality

        wanted = self.manifest.input.modality
        if wanted != "any" and volume.modality and not same_modality(volume.modality, wanted):
            raise InputError(
                f"The segmenter '{self.name}' reads {wanted} images, but this one is "
                f"{volume.modality}; choose another segmenter."
            )
        spacing, view = self.manifest.spacing, self.manifest.field_of_view
        sides = Reorientation.to(volume.geometry, "RAS").axes(volume.field_of_view)
        if not spacing.min <= max(volume.spacing) <= spacing.max:
            raise InputError(
                f"The segmenter '{self.name}' reads voxels of {spacing.min:g} to {spacing.max:g} "
                f"mm, but the image has {_times(volume.spacing)} mm; choose another segmenter."
            )
        if any(not a <= s <= b for a, s, b in zip(view.min, sides, view.max, strict=True)):
            raise InputError(
                f"The segmenter '{self.name}' reads images of {_times(view.min)} to "
                f"{_times(view.max)} mm (right-left, back-front, down-up), but this one has "
                f"{_times(sides)} mm; crop it to the structure."
            )


def probabilities(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standardised image (i, j, k) -> share of background and each label (n + 1, i, j, k).

    An axis longer than `WHOLE` voxels is done in overlapping pieces.
    """
    import torch

    from MedGenLib.pipelines.loading import bfloat16_pays, precision

    stride = network.stride
    device = next(network.parameters()).device
    padded = np.pad(image, [(0, -n % stride) for n in image.shape])
    x = torch.from_numpy(padded)[None, None].to(device)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode(), precision(device, bfloat16_pays(device)):
        if max(padded.shape) <= WHOLE:
            scores = network(x)
        else:
            from monai.inferers import sliding_window_inference

            scores = sliding_window_inference(x, WHOLE, 1, network, 0.25, mode="gaussian")
        shares = torch.softmax(scores.float(), 1)[0].cpu().numpy()
    return shares[(slice(None), *(slice(0, n) for n in image.shape))]


def label_array(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Standardised image (i, j, k) -> the most probable label of each voxel, 0 is background."""
    return probabilities(network, image).argmax(0).astype(np.uint8)


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
        modality = volume.modality or guess_modality(volume)
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
            words = [
                "-i",
                source.parent,
                "-o",
                target.parent,
                "-m",
                self.folder,
                *self._folds,
                "-device",
                pick_device(self.device).type,
            ]
            _run(self, words, volume, source, Path(folder, "log.txt"), progress)
            return _labels(self, target, volume)

    @property
    def _folds(self) -> list[str]:
        """The folds that were trained: those of a cross-validation, or the one of all cases."""
        names = sorted(path.name.removeprefix("fold_") for path in self.folder.glob("fold_*"))
        numbers = [name for name in names if name.isdigit()]
        return ["-f", *(numbers or ["all"])]


def _dataset(folder: Path) -> dict[str, Any]:
    """What a trained model says of its input and labels, as far as it fits one volume."""
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
    """Where the user's command lies."""
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
    """Write the image and run the tool; what `progress` or Ctrl-C raises ends it at once."""
    from MedGenLib.io.files import write_volume

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
                if progress is not None:  # a sign of life, at which a run can be cancelled
                    progress(Progress(stage, 0, 1))
        finally:
            _end(process)
    if code != 0:
        raise InputError(f"{tool.name} failed with exit code {code}: {_last_line(log)}")
    if progress is not None:
        progress(Progress(stage, 1, 1, 0.0))


def _labels(tool: TotalSegmentator | NnUnet, path: Path, volume: Volume) -> LabelMap:
    """What the tool has written, on the volume's own grid."""
    from MedGenLib.io.files import read_label_map

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
            f"{tool.name} gave labels on another grid ({_times(found.shape)} voxels "
            f"instead of {_times(volume.shape)}); update it or choose another "
            "segmenter."
        )
    return LabelMap(found.array, volume.affine, dict(tool.labels.names))


def _ended(process: subprocess.Popen) -> int | None:
    try:
        return process.wait(timeout=_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen) -> None:
    """End a process that still runs, and what it has started."""
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


def _package(name: str) -> Manifest:
    """A package that can find labels."""
    from MedGenLib.packages.catalogue import broken, catalogue, find
    from MedGenLib.packages.license import require_acceptance

    manifest = next((known for known in catalogue() if known.name == name), None)
    if manifest is None and any(package.folder.name == name for package in broken()):
        find(name)  # raises the sentence that tells what is wrong with it
    if manifest is None or not _finds_labels(manifest):
        known = ", ".join(usable for usable, _ in names())
        raise InputError(f"There is no segmenter '{name}'; choose one of {known}, totalsegmentator or nnunet:FOLDER.")
    require_acceptance(manifest, accept=False)
    return manifest


def _finds_labels(manifest: Manifest) -> bool:
    if manifest.task == "generate":
        return bool(manifest.statistics.resegment or manifest.statistics.segmenter)
    return manifest.task == "segment"


def _vocabulary(labels: Any) -> Vocabulary:
    return Vocabulary(tuple(Label(v, label.name, label.aliases) for v, label in labels.items()))


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
