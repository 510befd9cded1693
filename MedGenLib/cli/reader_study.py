"""`medgen reader-study make | run | score`: can readers distinguish synthetic from real images?"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from MedGenLib.cli.arguments import add_arguments, natural, positive
from MedGenLib.cli.commands import Parser, action, command
from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table
from MedGenLib.errors import InputError

STOPPED = 130


@command("reader-study", "prepare, read and score a blinded reading of real and synthetic images")
def explain(arguments: Namespace, console: Console) -> int:
    """Raise InputError, as an action is missing."""
    raise InputError("A reader study needs an action; give make, run or score after reader-study.")


def arguments_of_make(parser: Parser) -> None:
    parser.add_argument(
        "--real", required=True, type=Path, nargs="+", metavar="PATH", help="real volumes, or folders of them"
    )
    parser.add_argument(
        "--synthetic", required=True, type=Path, nargs="+", metavar="PATH", help="synthetic volumes, or folders of them"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="STUDY", help="folder of the new study")
    parser.add_argument("--items", choices=("slices", "volumes"), default="slices", help="(default: slices)")
    parser.add_argument("--per-volume", type=positive, default=3, metavar="N", help="slices per volume (default: 3)")
    parser.add_argument("--window", metavar="WIDTH,LEVEL", help="same for all images (default: by modality)")
    parser.add_argument("--seed", type=natural, metavar="N", help="seed of selection and order")


@action(
    "reader-study make",
    "prepare a blinded, balanced reading list",
    "Images carry no cue of their origin: no name, no header, one window, one voxel size. The key is a separate file "
    "that readers must not get.",
    arguments_of_make,
)
def make(arguments: Namespace, console: Console) -> int:
    """Real and synthetic volumes -> a blinded reading list."""
    from MedGenLib.reader_study.preparation import make as make_study

    made = make_study(
        arguments.real,
        arguments.synthetic,
        arguments.output,
        items=arguments.items,
        per_volume=arguments.per_volume,
        window=_window(arguments.window),
        seed=arguments.seed,
        progress=console,
    )
    for sentence in made.warnings:
        console.note(f"warning: {sentence}")
    console.say(f"{made.items} images, half of them synthetic, are ready to be read.")
    console.wrote(f"{made.study}")
    console.wrote(f"{made.key}, which lists the synthetic images: keep it from the readers.")
    return 0


def arguments_of_run(parser: Parser) -> None:
    parser.add_argument("study", metavar="STUDY", type=Path, help="folder of the study")
    parser.add_argument("--reader", required=True, metavar="NAME", help="code name of the reader")
    parser.add_argument("--port", type=natural, default=0, metavar="N", help="port of the page (default: any free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the page's address without opening it")


@action(
    "reader-study run",
    "read: answer, confidence and time of each image",
    "Continues where the same reader stopped.",
    arguments_of_run,
)
def run(arguments: Namespace, console: Console) -> int:
    """One reader reads on a local web page."""
    from MedGenLib.reader_study.page import ReadingPage
    from MedGenLib.reader_study.reading import Reading

    reading = Reading(arguments.study, arguments.reader)
    if reading.next() is None:
        console.say(f"{arguments.reader} has answered all {len(reading.items)} images already.")
        return 0
    with ReadingPage(reading, arguments.port, console.note) as page:
        console.say(f"Read at {page.address} (only on this computer; Ctrl-C pauses).")
        try:
            if not arguments.no_browser:
                _open(page.address, console)
            page.serve()
        except KeyboardInterrupt:
            done, total = reading.progress
            console.note(f"Paused after {done} of {total} images; the same command continues from there.")
            return STOPPED
    console.say(f"All {len(reading.items)} images have an answer; the answers are in {reading.path}")
    return 0


def arguments_of_score(parser: Parser) -> None:
    parser.add_argument("study", metavar="STUDY", type=Path, help="folder of the study")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the key, if it was moved away")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the scores")
    add_arguments(parser, "evaluate", "overwrite")


@action("reader-study score", "score all readers of a study", extra_arguments=arguments_of_score)
def score(arguments: Namespace, console: Console) -> int:
    """Compare all answers with the key; write table, files and pictures."""
    from MedGenLib.reader_study.report import FILES, TABLE_HEADS, table_of, write_report
    from MedGenLib.reader_study.scoring import score as score_study

    scores = score_study(arguments.study, arguments.key, progress=console)
    write_report(scores, arguments.output, overwrite=arguments.overwrite)
    console.say(table(TABLE_HEADS, table_of(scores)))
    console.say(scores.value("Accuracy").sentence)
    console.say(scores.note)
    for name in FILES:
        console.wrote(f"{arguments.output / name}")
    return 0


def _open(address: str, console: Console) -> None:
    import webbrowser

    if not webbrowser.open(address):
        console.note("No browser could be opened; open the address above in one.")


def _window(text: str | None) -> tuple[float, float] | None:
    """ "400,40" -> width and level."""
    if text is None:
        return None
    try:
        width, level = map(float, text.split(","))
    except ValueError:
        raise InputError(f'The window "{text}" is invalid; give width and level, for instance 400,40.') from None
    return width, level
