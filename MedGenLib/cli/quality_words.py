"""The words of the commands that judge images and hand them on: evaluate, reader-study, info,
dicom. As in `parser.py`, nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

AddCommand = Callable[..., "object"]
"""`parser._add_command`: (commands, name, run, summary, details) -> the command's parser."""


def add_quality_commands(commands, add: AddCommand, positive, natural) -> None:
    """Adds the commands; `positive` and `natural` read numbers."""
    _add_evaluate(commands, add)
    _add_distribution(commands, add, natural)
    _add_utility(commands, add, positive, natural)
    _add_reader_study(commands, add, positive, natural)
    _add_info(commands, add)
    _add_dicom(commands, add)


def _add_evaluate(commands, add: AddCommand) -> None:
    parser = add(
        commands,
        "evaluate",
        "cli.evaluate:evaluate",
        "measure how good a synthetic image is",
        "Against a real image of the same patient, against the mask it was made from, or both. Two "
        "folders are compared file by file, matched by name. See also `medgen evaluate "
        "distribution --help` and `medgen evaluate utility --help`.",
    )
    parser.add_argument("image", metavar="IMAGE", type=Path, help="volume, DICOM folder, or folder of volumes")
    parser.add_argument("--reference", type=Path, metavar="REF", help="the real image: volume or folder, as IMAGE")
    parser.add_argument("--mask", type=Path, metavar="M", help="measure where this is above 0 (default: the body)")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="L",
        help="label volume: measure each label by itself; with --segmenter also whether the image shows these labels",
    )
    parser.add_argument(
        "--segmenter",
        metavar="NAME",
        help="finds the labels in IMAGE again: ct-tissue (by its HU thresholds), a segmenter "
        "package such as hippocampus-segmenter, totalsegmentator, or nnunet:FOLDER",
    )
    parser.add_argument(
        "--uncertainty",
        type=Path,
        metavar="U",
        help="volume that `--uncertainty` of generate or translate wrote: does it tell where the image is wrong?",
    )
    parser.add_argument(
        "--modality",
        choices=("CT", "MR"),
        metavar="CT|MR",
        help="what IMAGE and REF are, where the files do not say it (default: by their values)",
    )
    parser.add_argument(
        "--resample",
        action="store_true",
        help="bring a reference on another grid onto that of IMAGE instead of refusing it",
    )
    _add_run_options(parser)


def _add_distribution(commands, add: AddCommand, natural) -> None:
    parser = add(
        commands,
        "evaluate distribution",
        "cli.distribution:distribution",
        "compare a cohort of synthetic images with a real one",
        "FID 2.5-D with its confidence interval and FID-infinity, MMD, precision, recall, density "
        "and coverage, diversity, and for each image its nearest training image.",
    )
    parser.add_argument("image", metavar="SYNTHETIC", type=Path, help="folder of volumes")
    parser.add_argument("--reference", required=True, type=Path, metavar="REAL", help="folder of real volumes")
    parser.add_argument(
        "--training", type=Path, metavar="DIR", help="the images the model was trained on, to find memorised ones"
    )
    parser.add_argument(
        "--features",
        default="medgen-features",
        metavar="NAME|FILE",
        help="feature package (default: medgen-features) or a local file of RadImageNet's ResNet-50 weights",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="of the resampling")
    _add_run_options(parser)


def _add_utility(commands, add: AddCommand, positive, natural) -> None:
    parser = add(
        commands,
        "evaluate utility",
        "cli.utility:utility",
        "ask whether synthetic images can train a segmenter",
        "Trains the small segmenter on real, on synthetic and on both, tests each on real images "
        "and gives Dice with confidence intervals. A folder holds `images` and `labels` with equal "
        "file names.",
    )
    parser.add_argument("--real", required=True, type=Path, metavar="DIR", help="for training")
    parser.add_argument("--synthetic", required=True, type=Path, metavar="DIR", help="for training")
    parser.add_argument("--test", required=True, type=Path, metavar="DIR", help="real cases kept apart")
    parser.add_argument("--steps", type=positive, default=300, metavar="N", help="of each training (default: 300)")
    parser.add_argument("--repeats", type=positive, default=3, metavar="K", help="trainings of each (default: 3)")
    parser.add_argument("--seed", type=natural, default=0, metavar="N")
    _add_run_options(parser)


def _add_run_options(parser) -> None:
    """What all that evaluate have in common: where the report goes, where to compute."""
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="also write report.html, metrics.json and metrics.csv there, and for one image with a "
        "reference error_map.nii.gz",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda:0")


def _add_reader_study(commands, add: AddCommand, positive, natural) -> None:
    parser = add(
        commands, "reader-study", "cli.reader_study:explain", "ask readers which images are real, without telling them"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    make = add(
        actions,
        "make",
        "cli.reader_study:make",
        "prepare a blinded, balanced reading list",
        "Copies nothing that could tell where an image comes from: no name, no header, one window, "
        "one size of pixel. The key stays in a file of its own that readers must not get.",
    )
    make.add_argument("--real", required=True, type=Path, nargs="+", metavar="PATH")
    make.add_argument("--synthetic", required=True, type=Path, nargs="+", metavar="PATH")
    make.add_argument("-o", "--output", required=True, type=Path, metavar="STUDY")
    make.add_argument("--items", choices=("slices", "volumes"), default="slices", help="(default: slices)")
    make.add_argument("--per-volume", type=positive, default=3, metavar="N", help="slices of each (default: 3)")
    make.add_argument("--window", metavar="WIDTH,LEVEL", help="one for all images (default: by modality)")
    make.add_argument("--seed", type=natural, metavar="N", help="same seed, same order")
    run = add(
        actions,
        "run",
        "cli.reader_study:run",
        "read: answer, confidence and time of each image",
        "Goes on where the same reader stopped.",
    )
    run.add_argument("study", metavar="STUDY", type=Path)
    run.add_argument("--reader", required=True, metavar="NAME", help="code name of the reader")
    run.add_argument("--port", type=natural, default=0, metavar="N", help="of the page (default: any free one)")
    run.add_argument("--no-browser", action="store_true", help="only print the page's address, do not open it")
    score = add(actions, "score", "cli.reader_study:score", "score all readers of a study")
    score.add_argument("study", metavar="STUDY", type=Path)
    score.add_argument("--key", type=Path, metavar="FILE", help="the key, if it was moved away")
    score.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    score.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _add_info(commands, add: AddCommand) -> None:
    parser = add(
        commands,
        "info",
        "cli.info:info",
        "tell how a file was made",
        "Reads what MedGen left in the image, beside it, or in its DICOM attributes.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="volume or DICOM folder")
    parser.add_argument("--json", action="store_true", help="print it all as JSON")


def _add_dicom(commands, add: AddCommand) -> None:
    parser = add(
        commands,
        "dicom",
        "cli.dicom:export",
        "write a volume as a DICOM series, or labels as a DICOM segmentation",
        "A synthetic image says that it is one, in standard attributes.",
    )
    parser.add_argument("image", metavar="IMAGE", type=Path, help="volume or label volume")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--like", type=Path, metavar="DIR", help="DICOM series of the patient: the new series goes into that study"
    )
    parser.add_argument("--series", metavar="UID", help="which series of --like to follow")
    parser.add_argument("--labels", action="store_true", help="IMAGE is a label volume")
    parser.add_argument(
        "--names",
        metavar="WHOSE",
        help="whose label numbers these are, where the file names none: a model such as ct-tissue, "
        "totalsegmentator, freesurfer, vista3d or maisi; segments get these names and their codes",
    )
    parser.add_argument("--modality", metavar="CT|MR", help="where the file does not say what it is")
    add_deidentify(parser)


def add_deidentify(parser) -> None:
    """The option that takes the patient out of DICOM."""
    parser.add_argument(
        "--deidentify", action="store_true", help="remove what names the patient (DICOM PS3.15, basic profile)"
    )
