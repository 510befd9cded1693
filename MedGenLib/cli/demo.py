"""`medgen demo`: generate and translate the embedded sample data."""

from __future__ import annotations

import contextlib
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from MedGenLib.cli.arguments import add_arguments
from MedGenLib.cli.commands import Parser, command
from MedGenLib.cli.console import Console
from MedGenLib.cli.run import warn
from MedGenLib.errors import InputError
from MedGenLib.io.atomic import Outputs
from MedGenLib.io.provenance import Source
from MedGenLib.io.samples import sample
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.license import is_accepted, license_notice
from MedGenLib.result import Result
from MedGenLib.run_files import write_with_facts

SEED = 1

MASK_SAMPLE, MASK_MODEL = "ct_tissue_mask.nii.gz", "ct-tissue"
LIMB_SAMPLE, LIMB_MODEL = "thigh_t1.nii.gz", "body-mr-to-ct"
IMAGE_SAMPLE, IMAGE_MODEL = "head_t1.nii.gz", "head-mr-to-ct"


@dataclass
class StepLog:
    """Steps with duration and output file, printed as a table."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, what: str, seconds: float, file: Path | str = "") -> None:
        self.seconds += seconds
        self.rows.append((what, f"{seconds:7.1f}", str(file)))

    @contextlib.contextmanager
    def timed(self, what: str, file: Path | str = "") -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.add(what, time.perf_counter() - start, file)


def extra_arguments(parser: Parser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("medgen-demo"),
        metavar="DIR",
        help="folder for the results (default: medgen-demo)",
    )
    add_arguments(parser, "generate", "device")
    parser.add_argument(
        "--accept-license",
        action="store_true",
        help="accept the non-commercial license of head-mr-to-ct; without it that part is skipped",
    )


@command(
    "demo",
    "generate and translate the sample data that come with MedGen",
    "Files of an earlier demo in the same folder are replaced.",
    extra_arguments,
)
def run(arguments: Namespace, console: Console) -> int:
    """Write volumes, pictures and reports of all runs, then print a table of all steps."""
    folder = _folder(arguments.output)
    log = StepLog()
    with log.timed("start PyTorch"):
        import torch  # noqa: F401 - to measure its share of the time

    codes = [_generate(folder, arguments.device, console, log)]
    codes.append(_translate(folder, "thigh_ct_from_mr", LIMB_SAMPLE, LIMB_MODEL, arguments.device, console, log))
    translator = find(IMAGE_MODEL)
    if arguments.accept_license or is_accepted(translator):
        if arguments.accept_license:
            console.note(
                f"{license_notice(translator)} --accept-license was given, so this demo accepts "
                "it; this is remembered for this user."
            )
        codes.append(_translate(folder, "ct_from_mr", IMAGE_SAMPLE, IMAGE_MODEL, arguments.device, console, log))
    else:
        console.note(
            f"The translation of the head is skipped: {license_notice(translator)} Add --accept-license to run it."
        )
    _conclude(log, console)
    return max(codes)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder '{path}' cannot be created ({error.strerror}); choose another one.") from error
    return path


def _generate(folder: Path, device: str, console: Console, log: StepLog) -> int:
    from MedGenLib import generate
    from MedGenLib.io.files import read_label_map

    source = sample(MASK_SAMPLE)
    console.note(f"A CT from the mask {source.name}, with {MASK_MODEL}:")
    with _outputs(folder, "ct_from_mask") as outputs:
        with log.timed("read the mask", source):
            mask = read_label_map(source)
        result = generate(mask, MASK_MODEL, seed=SEED, device=device, progress=console)
        _record(result, outputs, log, Source.of("mask", mask, source))
    return warn(result.report, console, outputs.paths[3])


def _translate(folder: Path, stem: str, file: str, model: str, device: str, console: Console, log: StepLog) -> int:
    from MedGenLib import translate
    from MedGenLib.io.files import read_volume

    source = sample(file)
    console.note(f"A CT from the MR {source.name}, with {model}:")
    with _outputs(folder, stem) as outputs:
        with log.timed("read the MR", source):
            image = read_volume(source, modality="T1w")
        result = translate(image, "CT", model=model, device=device, accept_license=True, progress=console)
        _record(result, outputs, log, Source.of("image", image, source))
    return warn(result.report, console, outputs.paths[3])


def _outputs(folder: Path, stem: str) -> Outputs:
    files = [folder / f"{stem}{suffix}" for suffix in (".nii.gz", ".medgen.json", ".png", ".json")]
    return Outputs(files, overwrite=True)


def _record(result: Result, outputs: Outputs, log: StepLog, made_from: Source) -> None:
    """Write volume, picture and report, and add them and the stages of the run to the log."""
    from MedGenLib.visual import preview

    for stage, seconds in result.report.timings.items():
        log.add(f"{result.report.model}: {stage}", seconds)
    volume, _, picture, report = outputs.paths
    with log.timed("write the volume", volume):
        facts = result.provenance([made_from])
        write_with_facts(result.volume, outputs.staged(volume), facts)
    with log.timed("draw the picture", picture):
        preview.preview(result.source, result.volume, outputs.staged(picture), title=result.report.model)
    with log.timed("write the report", report):
        result.report.write(outputs.staged(report))
    outputs.commit()


def _conclude(log: StepLog, console: Console) -> None:
    from MedGenLib.cli.table import table

    log.rows.append(("total", f"{log.seconds:7.1f}", ""))
    console.say("")
    console.say(table(("what", "seconds", "file"), log.rows))
    console.say("\nThese images are synthetic: for research and teaching, not for diagnosis.")
