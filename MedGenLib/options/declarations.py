"""Every option of every command, declared once: name, type, default, range, unit, help.

An option is one annotation of a `TypedDict` and one line of its docstring. Classes that share options are derived
from one another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

from MedGenLib.options.option import REQUIRED, Option, helped

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume  # noqa: F401 - in annotations that are text

LEAST_NOISE_HU, MOST_NOISE_HU = 1, 50

Model = Annotated[str, Option("ct-tissue", metavar="NAME")]
Seed = Annotated[int | None, Option(None, low=0, high=2**62, metavar="N", term="seed of the initial noise")]
Preset = Annotated[Literal["draft", "normal", "best"], Option("normal")]
Device = Annotated[str, Option("auto", metavar="auto|cpu|cuda:0")]
Switch = Annotated[bool, Option(False)]
AsFile = Annotated[bool, Option(False, metavar="U")]
"""True or False; on the command line the path of the file to write."""
Label = Annotated[int | str | None, Option(None, metavar="LABEL")]
Series = Annotated[str | None, Option(None, metavar="UID")]
HuOffset = Annotated[float | None, Option(None, unit="HU", metavar="HU")]
Folder = Annotated[Path | None, Option(None, metavar="DIR")]


@helped
class RunOptions(TypedDict, total=False):
    """Computation.

    seed: the same seed gives the same voxels on the same device; by default one is drawn
    preset: speed or quality, as the model's number of steps or planes
    device: where to compute: auto, cpu or cuda:0
    memory: small takes smaller windows: less memory, more time, other fine detail; auto does so if memory is short
    accept_license: accept the license of the model; remembered for this user
    """

    seed: Seed
    preset: Preset
    device: Device
    memory: Annotated[Literal["normal", "small", "auto"], Option("auto", phrase="memory plan")]
    accept_license: Switch


@helped
class MaskOptions(RunOptions, total=False):
    """Mapping of the labels of a mask to those of the model.

    mapping: labels of the mask (number or name) to labels of the model, or the name of a table with the mask's
        numbers, such as totalsegmentator, or model for the numbers of the model
    fill: label of the model for voxels without a label inside the body, such as fat
    """

    mapping: Annotated[dict[int | str, int | str] | str | None, Option(None, flag="--map", metavar="SRC=DST")]
    fill: Label


@helped
class EditOptions(MaskOptions, total=False):
    """Adapting a region of an image to a changed mask.

    noise_hu: noise of a CT, for models that take it; by default usual for the voxels of the mask, or that of the edited
        image
    """

    noise_hu: Annotated[
        float | None,
        Option(
            None,
            low=LEAST_NOISE_HU,
            high=MOST_NOISE_HU,
            unit="HU (CT) or a.u. (MR)",
            phrase="noise",
            flag="--noise",
            metavar="HU",
        ),
    ]


@helped
class CanvasOptions(EditOptions, total=False):
    """Sampling of one volume.

    body_from: image of the same patient whose outline is the body's; by default it is closed from the mask
    phase: contrast phase of a CT whose mask names organs: none, arterial (35 s), portal (70 s) or delayed (3 min)
    hu: HU of organs instead of the table's, such as liver=105,spleen=120
    sampler: sampler instead of the model's own, such as euler, heun or ddim
    steps: steps of the sampler instead of the preset's
    guidance: how strongly the mask guides each step, for twice the time: 1 is none, 2 exaggerates the mask; above 10
        only with NV-Generate
    classifier_guidance: how strongly the model's classifier, if any, moves each step towards the mask: 0.1 to 0.5;
        more changes the levels of the tissues
    retries: further seeds to try when a sample fails its checks
    """

    body_from: Annotated["str | Path | Volume | None", Option(None, metavar="IMAGE")]
    phase: Annotated[Literal["none", "arterial", "portal", "delayed"], Option("none", phrase="contrast phase")]
    hu: Annotated[dict[str, float] | str | None, Option(None, phrase="HU of organs", metavar="ORGAN=HU,...")]
    sampler: Annotated[str | None, Option(None, metavar="NAME")]
    steps: Annotated[int | None, Option(None, low=1, high=1000, phrase="number of steps", metavar="N")]
    guidance: Annotated[
        float | None,
        Option(None, low=0, high=30, metavar="W", term="classifier-free guidance weight w: v_un + w (v_cond - v_un)"),
    ]
    classifier_guidance: Annotated[float, Option(0.0, low=0, high=1, metavar="W", term="classifier guidance scale s")]
    retries: Annotated[int, Option(2, low=0, phrase="number of retries", metavar="N")]


@helped
class GenerateOptions(CanvasOptions, total=False):
    """Generation of volumes from a mask, or from a grid alone.

    samples: number of volumes; sample n has the seed + n
    style: real volume whose appearance the result gets: noise and tissue levels of a CT, contrast of an MR image
    any_grid: let a model trained on a few sizes (NV-Generate) work on the mask's own size: quicker for a small mask,
        possible for a large one, less reliable
    size: for models without a mask, instead of one: voxels from left to right, back to front and foot to head
    spacing: with size: distance between voxels, by default 1 mm
    label: class of the image, for models that were trained on images of several classes
    modality: image that a model for several makes, such as T2w or FLAIR-skull-stripped
    uncertainty: also give how far each voxel may be off: of one sample the half-width of the interval that holds 90 %
        of the voxels of unseen people, for models that have measured it; of several their standard deviation
    """

    samples: Annotated[int, Option(1, low=1, phrase="number of samples", metavar="K")]
    style: Annotated["str | Path | Volume | None", Option(None, metavar="REF")]
    any_grid: Switch
    size: Annotated[
        Sequence[int] | None, Option(None, count=3, low=1, high=4096, unit="voxels", metavar=("X", "Y", "Z"))
    ]
    spacing: Annotated[
        Sequence[float] | None, Option(None, count=3, above=0, high=100, unit="mm", metavar=("X", "Y", "Z"))
    ]
    label: Annotated[str | None, Option(None, metavar="CLASS")]
    modality: Annotated[str | None, Option(None, metavar="NAME")]
    uncertainty: AsFile


@helped
class TranslateOptions(RunOptions, total=False):
    """Translation of an image.

    uncertainty: also give how far each voxel may be off: half-width of the interval that holds 90 % of the voxels of
        unseen people, or for models without measured intervals the standard deviation of several views, for up to
        twice the time
    series: UID of the series to read from a DICOM folder that holds several
    """

    uncertainty: AsFile
    series: Series


@helped
class LesionOptions(MaskOptions, total=False):
    """Position, shape and appearance of a lesion.

    at: center of the lesion, RAS
    lesion: instead of a place: mask on the image's grid, above 0 in the lesion
    shape: sphere, ellipsoid, lobulated, spiculated, a plaque such as plaque-oval, or a mask file whose shape is taken
    size_mm: greatest diameter, by default 10 mm or the own size of a shape from a mask
    label: label of the model that the place gets, such as 'soft tissue'; that of the surroundings removes a lesion;
        by default the tissue stays
    contrast: how much brighter than its tissue the lesion is, below 0 darker, in HU or the image's own unit
    texture: solid, rim, necrotic, calcified, spiculated, ground-glass or mixed, with heterogeneity and partial volume;
        its numbers may follow, such as necrotic,core=0.6,rim=30; by default the contrast is even
    mass_effect: how far the border of the lesion pushes the surroundings aside: 1 is half its radius
    grow: number of images of a series in which the lesion grows and all else stays; the first has the size given
    doubling_days: with grow, time in which the volume of the lesion doubles
    days_between: with grow, time from image to image
    organ: label (number or name) that the lesion stays inside; without a place, the seed chooses one there
    labels: tissues or organs on the image's grid; by default the model's labels are found in the image
    model: model package for images of this kind
    """

    at: Annotated[Sequence[float] | None, Option(None, count=3, unit="mm", phrase="place", metavar="X,Y,Z")]
    lesion: Annotated["str | Path | LabelMap | None", Option(None, flag="--mask", metavar="LESION")]
    shape: Annotated[str, Option("sphere", metavar="NAME|FILE")]
    size_mm: Annotated[
        float | None, Option(None, above=0, unit="mm", phrase="size of the lesion", flag="--size", metavar="MM")
    ]
    label: Label
    contrast: Annotated[float | None, Option(None, metavar="HU")]
    texture: Annotated[str | None, Option(None, metavar="NAME,...")]
    mass_effect: Annotated[float, Option(0.0, low=0, high=1, metavar="SHARE")]
    grow: Annotated[int | None, Option(None, low=2, high=60, phrase="number of images", metavar="N")]
    doubling_days: Annotated[float, Option(120.0, above=0, high=10000, unit="days", metavar="DAYS")]
    days_between: Annotated[float, Option(90.0, above=0, high=3650, unit="days", metavar="DAYS")]
    organ: Label
    labels: Annotated["str | Path | LabelMap | None", Option(None, metavar="L")]
    model: Model


@helped
class BreatheOptions(TypedDict, total=False):
    """A breathing series from one CT.

    phases: CTs of the series, evenly spaced in one cycle; the first is the input
    amplitude: travel of the top of the diaphragm along foot-head
    chest: travel of the front of the chest along back-front
    tidal_volume: difference of the lungs' volume between inspiration and expiration; sets the amplitude
    start: what the input shows: inhale is the deepest inspiration, exhale the deepest expiration of the series
    dwell: how long the lungs stay at expiration
    lag: how far the chest follows behind the diaphragm, as a share of the cycle; points then move along loops
    trace: measured cycle instead: CSV file with time, and position that rises on inspiration
    labels: lungs, organs or lesions on the CT's grid, which move along; labels named lung are the lungs, those named
        as bones stay; by default the lungs are found by their HU
    points: places R,A,S in mm whose paths are given, by a name
    """

    phases: Annotated[int, Option(10, low=2, high=100, phrase="number of phases", metavar="N")]
    amplitude: Annotated[float, Option(15.0, above=0, high=60, unit="mm", metavar="MM")]
    chest: Annotated[float, Option(4.0, low=0, high=20, unit="mm", phrase="travel of the chest", metavar="MM")]
    tidal_volume: Annotated[float | None, Option(None, above=0, high=5000, unit="ml", metavar="ML")]
    start: Annotated[Literal["inhale", "exhale"], Option("inhale")]
    dwell: Annotated[int, Option(2, low=1, high=6, metavar="N", term="n of cos^2n")]
    lag: Annotated[float, Option(0.05, low=0, high=0.25, metavar="SHARE")]
    trace: Annotated[Path | None, Option(None, metavar="TRACE.csv")]
    labels: Annotated["str | Path | LabelMap | None", Option(None, metavar="L")]
    points: Annotated[dict[str, Sequence[float]] | None, Option(None, flag="--point", metavar="NAME=PLACE")]


@helped
class EnhanceOptions(TypedDict, total=False):
    """Enhancement of an image.

    task: superres makes cubic voxels of thick slices, denoise removes noise, debias evens the brightness and deghost
        removes periodic ghosts of an MR image
    second: for superres, a further stack of the same part of the patient, with slices in another direction
    third: one more stack
    spacing: for superres, side of the cubic voxels; by default the smallest side of a voxel of the image
    thickness: for superres, thickness of the slices of all stacks; by default their distance
    register: for superres, align further stacks rigidly to the first one; by default the positions of their files count
    noise: for denoise, standard deviation of the noise in the unit of the image; by default measured in the image
    strength: for denoise, debias and deghost, share of the correction that is applied: 1 is all of it
    model: model package, by default the one for the modality
    device: where to compute: auto, cpu or cuda:0
    memory: small takes smaller tiles: less memory, more time, the same result up to rounding
    accept_license: accept the license of the model; remembered for this user
    """

    task: Annotated[Literal["superres", "denoise", "debias", "deghost"], Option("superres")]
    second: Annotated["str | Path | Volume | None", Option(None, metavar="STACK")]
    third: Annotated["str | Path | Volume | None", Option(None, metavar="STACK")]
    spacing: Annotated[float | None, Option(None, low=0.2, high=10, unit="mm", metavar="MM")]
    thickness: Annotated[float | None, Option(None, above=0, high=50, unit="mm", metavar="MM")]
    register: Switch
    noise: Annotated[float | None, Option(None, above=0, metavar="SD")]
    strength: Annotated[float, Option(1.0, low=0, high=1, metavar="SHARE")]
    model: Annotated[str | None, Option(None, metavar="NAME")]
    device: Device
    memory: Annotated[Literal["normal", "small", "auto"], Option("auto", phrase="memory plan")]
    accept_license: Switch


@helped
class ClassifyOptions(TypedDict, total=False):
    """Classification of an image.

    model: model package that finds classes
    target: class that the saliency map is for; by default the most probable one
    saliency: also compute where the image speaks for that class, on the grid of the image
    device: where to compute: auto, cpu or cuda:0
    accept_license: accept the license of the model; remembered for this user
    """

    model: Annotated[str, Option(REQUIRED, metavar="NAME")]
    target: Annotated[str | None, Option(None, metavar="CLASS")]
    saliency: Annotated[bool, Option(False, metavar="S.nii.gz")]
    device: Device
    accept_license: Switch


@helped
class DetectOptions(TypedDict, total=False):
    """Candidates of lesions in an image.

    model: model package that finds lesions
    threshold: score from which a candidate is reported, 0 to 1; by default that of the model
    device: where to compute: auto, cpu or cuda:0
    accept_license: accept the license of the model; remembered for this user
    """

    model: Annotated[str, Option(REQUIRED, metavar="NAME")]
    threshold: Annotated[float | None, Option(None, low=0.05, high=1, metavar="SCORE")]
    device: Device
    accept_license: Switch


@helped
class RedrawOptions(TypedDict, total=False):
    """One edit of an open canvas.

    label: label of the model for the voxels where the mask is not 0, the others stay
    seed: seed of the noise of the changed region, by default the canvas' own
    preset: speed or quality, as the model's number of steps
    """

    label: Label
    seed: Seed
    preset: Annotated[Literal["draft", "normal", "best"], Option("draft")]


@helped
class EvaluateOptions(TypedDict, total=False):
    """Evaluation of an image.

    segmenter: finds the labels in the image again: ct-tissue (by its HU thresholds), a segmenter package such as
        hippocampus-segmenter, totalsegmentator, or nnunet:FOLDER
    resample: bring reference, mask and labels on another grid onto that of the image instead of refusing them
    modality: of image and reference where the files do not say it; by default guessed from their values
    hu_offset: number to add to image and reference where they are CT with values that are not HU, such as -1024
    report: folder for report.html, metrics.json and metrics.csv; error_map.nii.gz too if one image has a reference
    overwrite: replace files that exist
    device: where to compute: auto, cpu or cuda:0
    """

    segmenter: Annotated["str | Callable | None", Option(None, metavar="NAME")]
    resample: Switch
    modality: Annotated[Literal["CT", "MR"] | None, Option(None, metavar="CT|MR")]
    hu_offset: HuOffset
    report: Annotated[str | Path | None, Option(None, metavar="DIR")]
    overwrite: Switch
    device: Device


@helped
class _GenerateInputs(TypedDict):
    """
    mask: label volume (.nii .nrrd .mha); models without a mask take its grid, or a size instead
    model: model package
    """

    mask: Annotated["str | Path | LabelMap | None", Option(None, flag="MASK")]
    model: Model


@helped
class _TranslateInputs(TypedDict):
    """
    image: volume (.nii .nrrd .mha) or DICOM folder
    to: modality to make, such as CT or T1w; a model states it
    model: model package, by default the one that fits
    """

    image: Annotated["str | Path | Volume", Option(REQUIRED, flag="IMAGE")]
    to: Annotated[str | None, Option(None, metavar="CT|T1w")]
    model: Annotated[str | None, Option(None, metavar="NAME")]


@helped
class _EditInputs(TypedDict):
    """
    volume: volume (.nii .nrrd .mha) or DICOM folder
    mask: label volume of the image as it is
    new_mask: label volume of the image as it is to become, on the same grid, in the same numbers
    model: model package for images of this kind
    """

    volume: Annotated["str | Path | Volume", Option(REQUIRED, flag="IMAGE")]
    mask: Annotated["str | Path | LabelMap", Option(REQUIRED, metavar="OLD")]
    new_mask: Annotated["str | Path | LabelMap", Option(REQUIRED, metavar="NEW")]
    model: Model


@helped
class _LiveEditInputs(TypedDict):
    """
    volume: image that is redrawn
    segmentation: segmentation of what the image shows; it is only read
    model: model package for images of this kind
    """

    volume: Annotated["str | Path | Volume", Option(REQUIRED)]
    segmentation: Annotated["str | Path | LabelMap", Option(REQUIRED)]
    model: Model


@helped
class _LesionInputs(TypedDict):
    """
    image: volume (.nii .nrrd .mha) or DICOM folder
    """

    image: Annotated["str | Path | Volume", Option(REQUIRED, flag="IMAGE")]


@helped
class _BreatheInputs(TypedDict):
    """
    image: CT of the chest (.nii .nrrd .mha) or DICOM folder
    """

    image: Annotated["str | Path | Volume", Option(REQUIRED, flag="IMAGE")]


@helped
class _ImageInput(TypedDict):
    """
    image: CT or MR image (.nii .nrrd .mha) or DICOM folder
    """

    image: Annotated["str | Path | Volume", Option(REQUIRED, flag="IMAGE")]


@helped
class _ClassifyInputs(TypedDict):
    """
    image: volume (.nii .nrrd .mha), DICOM folder, single DICOM image or picture (.png .jpg .tif)
    """

    image: Annotated["str | Path | Volume", Option(REQUIRED, flag="IMAGE")]


@helped
class _EvaluateInputs(TypedDict):
    """
    image: volume, DICOM folder, or folder of volumes
    reference: real image of the same patient: volume, or folder as the image
    mask: measure where this is above 0, by default in the body
    labels: label volume: measure each label by itself; with a segmenter also whether the image shows it
    uncertainty: volume that generate or translate wrote with --uncertainty, to compare with the error
    """

    image: Annotated["str | Path | Volume", Option(REQUIRED, flag="IMAGE")]
    reference: Annotated["str | Path | Volume | None", Option(None, metavar="REF")]
    mask: Annotated["str | Path | LabelMap | None", Option(None, metavar="M")]
    labels: Annotated["str | Path | LabelMap | None", Option(None, metavar="L")]
    uncertainty: Annotated["str | Path | Volume | None", Option(None, metavar="U")]


@helped
class _Files(TypedDict):
    """Output files of the command line.

    output: volume to write: .nii .nii.gz .nrrd .mha
    preview: also write a picture of what went in and what came out
    report: also write what was done and checked
    overwrite: replace files that exist
    """

    output: Annotated[Path, Option(REQUIRED, flag=("-o", "--output"), metavar="OUT")]
    preview: Annotated[Path | None, Option(None, metavar="P.png")]
    report: Annotated[Path | None, Option(None, metavar="R.json")]
    overwrite: Switch


@helped
class _Engine(TypedDict):
    """
    engine: run the model on the computer of `medgen serve`, such as wss://workstation:7450, with the token that is
        kept for it, or that in the environment variable MEDGEN_ENGINE_TOKEN
    """

    engine: Annotated[str | None, Option(None, metavar="ADDRESS")]


@helped
class _Dicom(TypedDict):
    """
    dicom: also write the result as a DICOM series
    deidentify: remove what names the patient (DICOM PS3.15, basic profile)
    """

    dicom: Folder
    deidentify: Switch


@helped
class _Read(TypedDict):
    """
    series: UID of the series to read from a DICOM folder that holds several
    """

    series: Series


@helped
class _Stated(TypedDict):
    """What the image does not say of itself.

    modality: what the image is, such as CT or T1w, where its file does not state it; by default guessed from its values
    hu_offset: number to add to a CT whose values are not HU, such as -1024
    """

    modality: Annotated[Literal["CT", "MR", "T1w", "T2w", "PDw", "FLAIR"] | None, Option(None, metavar="NAME")]
    hu_offset: HuOffset


@helped
class _LesionFile(TypedDict):
    """
    lesion_mask: also write where the lesion is
    moved_labels: also write the labels, given or found, as the mass effect moves them
    explanation: also write a page on how the lesion was made and which voxels changed
    """

    lesion_mask: Annotated[Path | None, Option(None, metavar="OUT2")]
    moved_labels: Annotated[Path | None, Option(None, metavar="OUT3")]
    explanation: Annotated[Path | None, Option(None, metavar="E.html")]


@helped
class _BreatheFiles(TypedDict):
    """Output files of the command line.

    output: series to write: .seq.nrrd, or a new folder for a 4-D DICOM series
    dicom: new folder for a 4-D DICOM series: one series a phase, in the study of the input
    deidentify: remove what names the patient (DICOM PS3.15, basic profile)
    moved_labels: also write the labels of each phase: .seq.nrrd; without --labels those of the lungs
    displacements: new folder for one displacement field a phase: .nrrd, which 3D Slicer and ITK read as a transform
    tracks: also write a table of the paths of points and of the centers of labels: .csv
    projections: also write average and maximum of the phases, beside the series
    preview: also write a picture of the two extremes and of their difference
    report: also write what was done and measured
    overwrite: replace files that exist
    """

    output: Annotated[Path, Option(REQUIRED, flag=("-o", "--output"), metavar="OUT")]
    dicom: Folder
    deidentify: Switch
    moved_labels: Annotated[Path | None, Option(None, metavar="M.seq.nrrd")]
    displacements: Folder
    tracks: Annotated[Path | None, Option(None, metavar="T.csv")]
    projections: Switch
    preview: Annotated[Path | None, Option(None, metavar="P.png")]
    report: Annotated[Path | None, Option(None, metavar="R.json")]
    overwrite: Switch


@helped
class _ClassifyFiles(TypedDict):
    """Output files of the command line.

    output: also write the probabilities
    overwrite: replace files that exist
    """

    output: Annotated[Path | None, Option(None, flag=("-o", "--output"), metavar="OUT.json")]
    overwrite: Switch


@helped
class _DetectFiles(TypedDict):
    """Output files of the command line.

    output: segmentation of the candidates
    markups: also write their positions, as point list of 3D Slicer
    table: also write positions, sizes and scores
    report: also write what was found, by which model in which image
    dicom: new folder for a DICOM segmentation, where the input is a DICOM folder
    deidentify: remove what names the patient (DICOM PS3.15, basic profile)
    overwrite: replace files that exist
    """

    output: Annotated[Path, Option(REQUIRED, flag=("-o", "--output"), metavar="OUT.seg.nrrd")]
    markups: Annotated[Path | None, Option(None, metavar="M.mrk.json")]
    table: Annotated[Path | None, Option(None, metavar="T.csv")]
    report: Annotated[Path | None, Option(None, metavar="R.json")]
    dicom: Folder
    deidentify: Switch
    overwrite: Switch


def _options(*groups: type, files: Sequence[type] = ()) -> dict[str, Option]:
    """The options of classes; ``files`` are of the command line only."""
    options = {}
    for group in (*groups, *files):
        found = (hint.__metadata__[0] for hint in group.__annotations__.values())
        options |= {option.name: replace(option, cli_only=group in files) for option in found}
    return options


COMMANDS: Mapping[str, Mapping[str, Option]] = {
    "generate": _options(_GenerateInputs, GenerateOptions, files=(_Files, _Dicom, _Engine)),
    "translate": _options(_TranslateInputs, TranslateOptions, files=(_Stated, _Files, _Dicom, _Engine)),
    "edit": _options(_EditInputs, EditOptions, files=(_Read, _Stated, _Files)),
    "redraw": _options(RedrawOptions),
    "live_edit": _options(_LiveEditInputs, EditOptions),
    "insert_lesion": _options(_LesionInputs, LesionOptions, files=(_Read, _Stated, _LesionFile, _Files)),
    "breathe": _options(_BreatheInputs, BreatheOptions, files=(_Read, _Stated, _BreatheFiles)),
    "enhance": _options(_ImageInput, EnhanceOptions, files=(_Read, _Stated, _Files, _Dicom, _Engine)),
    "classify": _options(_ClassifyInputs, ClassifyOptions, files=(_Read, _Stated, _ClassifyFiles)),
    "detect": _options(_ImageInput, DetectOptions, files=(_Read, _Stated, _DetectFiles)),
    "evaluate": _options(_EvaluateInputs, EvaluateOptions),
}
"""Command -> Python name -> option. "redraw" is one edit of an open canvas, "live_edit" follows a segmentation."""
