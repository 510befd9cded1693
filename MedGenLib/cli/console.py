"""Output of a command: progress bars on a terminal, otherwise plain lines."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from MedGenLib.progress import Progress, duration

if TYPE_CHECKING:
    from tqdm import tqdm


class Console:
    """Prints results on stdout and everything else on stderr; usable as a progress callback.

    Parameters
    ----------
    quiet: print only errors.
    verbose: also print details and warnings of other libraries.

    Attributes
    ----------
    lost: why a result could not be printed on stdout, or None.
    has_outputs: whether the command has written files, which matter more than what it prints.
    """

    LINE_EVERY = 10.0
    """Seconds between two plain progress lines of one stage."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.lost: OSError | None = None
        self.has_outputs = False
        self._bar: tqdm | None = None
        self._open: str | None = None
        self._announced: set[str] = set()
        self._started = self._last_line = 0.0

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close an open bar, so that the next output starts on a new line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, text: str) -> None:
        """Print a result on stdout."""
        self.close()
        if not self.quiet:
            self.lost = self._print(text, sys.stdout) or self.lost

    def wrote(self, *files: object) -> None:
        """Print what was written to files."""
        for what in files:
            self.has_outputs = True
            self.say(f"Wrote {what}")

    def note(self, text: str) -> None:
        """Print a remark or a warning on stderr."""
        self.close()
        if not self.quiet:
            self._print(f"medgen: {text}", sys.stderr)

    def announce(self, sentences: list[str]) -> None:
        """Print warnings once, those on the input before the work."""
        for sentence in sentences:
            if sentence not in self._announced:
                self._announced.add(sentence)
                self.note(f"warning: {sentence}")

    def has_announced(self, sentence: str) -> bool:
        """Whether a warning was printed."""
        return sentence in self._announced

    def estimate(self, sentence: str) -> None:
        """Print the estimated time of long work, before it."""
        self.note(f"Estimate of {sentence}.")

    def error(self, text: str) -> None:
        """Print an error on stderr, also when quiet."""
        self.close()
        self._print(f"medgen: {text}", sys.stderr)

    def _print(self, text: str, stream: TextIO) -> OSError | None:
        """Print a line; what keeps it from being printed is returned, and the stream leads nowhere from then on."""
        try:
            print(text, file=stream, flush=True)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            return error
        return None

    def detail(self, text: str) -> None:
        """Print a remark on stderr with --verbose."""
        if self.verbose:
            self.note(text)

    def __call__(self, progress: Progress) -> None:
        """Progress callback of `generate`, `translate` and `train`."""
        now = time.monotonic()
        alive = progress.step == 0 and progress.stage == self._open
        self._open = None if progress.step == progress.total else progress.stage
        if alive:  # a heartbeat while another program works: no second bar
            return
        if progress.step == 0:
            self._started = self._last_line = now
        if self.quiet:
            return
        if sys.stderr.isatty():
            self._draw_bar(progress)
        else:
            self._print_line(progress, now)

    def _draw_bar(self, progress: Progress) -> None:
        if progress.step == 0 or self._bar is None:  # a note closes the bar
            from tqdm import tqdm

            self.close()
            self._bar = tqdm(desc=f"{progress.stage:<19}", total=progress.total, ncols=79)
        self._bar.update(progress.step - self._bar.n)
        if progress.step == progress.total:
            self.close()

    def _print_line(self, progress: Progress, now: float) -> None:
        steps = f"{progress.total} step{'' if progress.total == 1 else 's'}"
        if progress.step == progress.total:
            line = f"{steps} in {now - self._started:.1f} s"
        elif progress.step and now - self._last_line >= self.LINE_EVERY:
            line = f"{progress.step} of {progress.total}, {duration(progress.seconds_left)} left"
        else:
            return
        self._last_line = now
        self._print(f"{progress.stage}: {line}", sys.stderr)
