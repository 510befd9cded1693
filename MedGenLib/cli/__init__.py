"""The command `medgen`: reads the command line, runs one command, turns errors into sentences.

Exit codes: 0 done; 1 an unexpected error or, for `doctor`, `verify` and `info`, a problem found, for `evaluate` and
`cohort run` some failed cases; 2 the request cannot be met, with one sentence on stderr; 3 the outputs were written but
failed their checks; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

from MedGenLib.cli.commands import build_parser
from MedGenLib.cli.console import Console
from MedGenLib.devices import let_threads_sleep
from MedGenLib.errors import Cancelled, MedGenError

OK, FAULT, REFUSED, STOPPED = 0, 1, 2, 130


def main(argv: list[str] | None = None) -> int:
    """Run `medgen` with these arguments and return the exit code."""
    _open_streams()
    let_threads_sleep()
    parser, console = build_parser(), Console()
    with _signals() as interrupted, warnings.catch_warnings(), console:
        try:
            arguments = parser.parse_args(argv)
            if arguments.work is None:
                parser.print_help()
                return OK
            arguments.main, arguments.words = main, sys.argv[1:] if argv is None else argv
            console.quiet, console.verbose = arguments.quiet, arguments.verbose
            if not arguments.verbose:
                warnings.simplefilter("ignore")
            return _completed(arguments.work(arguments, console), console)
        except BaseException as error:  # every exit has an exit code and a sentence
            console.close()
            return _explain(error, interrupted=bool(interrupted))


def _open_streams() -> None:
    """Give closed standard streams a place to write to, so that no file that is opened later takes their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that the terminal cannot show


def _completed(code: int, console: Console) -> int:
    """The exit code, which also tells whether a command without output files could print its result."""
    if console.lost is None or console.has_outputs:
        return code
    raise console.lost


def _explain(error: BaseException, interrupted: bool) -> int:
    """Print the sentence of an error and return the exit code."""
    # A Ctrl-C during the import of a library can appear as any error.
    if interrupted or isinstance(error, KeyboardInterrupt | Cancelled):
        _complain("Stopped; nothing was written.")
        return STOPPED
    if isinstance(error, SystemExit):  # SIGTERM; --help and --version, or an invalid option
        return int(error.code or OK)
    if isinstance(error, BrokenPipeError):  # the reader closed the pipe
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    if isinstance(error, MedGenError):
        _complain(str(error))
        return REFUSED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _complain("The disk became full while writing; free some space or choose another folder.")
        return REFUSED
    from MedGenLib.devices import is_out_of_memory

    if is_out_of_memory(error):
        _complain("The memory is full; try --memory small, a smaller input or larger voxels, or close other programs.")
        return REFUSED
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("MedGenLib"):
        _complain(f"The Python package '{error.name}' is missing; install MedGen again.")
        return FAULT
    return _report_fault(error)


def _complain(sentence: str) -> None:
    """Print one line on stderr, without line breaks from file names or libraries."""
    from MedGenLib.training.launch import was_started

    rank = os.environ["RANK"] if was_started() else "0"
    who = "medgen" if rank == "0" else f"medgen, process {rank} of a training"
    with contextlib.suppress(OSError):  # closed by its reader
        print(f"{who}: {' '.join(sentence.split())}", file=sys.stderr, flush=True)


def _report_fault(error: BaseException) -> int:
    """Save the traceback for a bug report and print its path."""
    import tempfile
    import time
    import traceback
    from pathlib import Path

    from MedGenLib import __version__, user_folders

    sentence = f"An unexpected error stopped the run ({type(error).__name__}: {error})"
    text = "".join(traceback.format_exception(error))
    details = f"MedGen {__version__}\nmedgen {' '.join(sys.argv[1:])}\n{text}"
    name = time.strftime("medgen-fault-%Y%m%d-%H%M%S.log")
    for folder in (user_folders.cache_dir(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(details, encoding="utf-8")
            _complain(f"{sentence}; the details for a bug report are in '{folder / name}'.")
            return FAULT
    _complain(f"{sentence}; its details could not be saved, as no folder for a log is writable.")
    return FAULT


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Let Ctrl-C, SIGTERM and SIGHUP run the clean-up code. Yields a list that gets an entry when Ctrl-C is pressed."""
    interrupted: list[int] = []

    def interrupt(number: int, _: object) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt

    def terminate(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # as nohup sets it
        handlers[hangup] = terminate
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
