"""The worker for plain Python: ask and wait, or ask and be called back.

    from MedGenLib.worker.client import Worker

    with Worker() as worker:
        result = worker.generate("mask.nii.gz", "ct-tissue", seed=7)
        job = worker.submit("translate", "head.nii.gz", to="CT", accept_license=True)
        print(job.result().sentences)

The second run finds the networks loaded. This process stays free of torch, and survives whatever
happens to the worker.
"""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.errors import InputError, MedGenError, WorkerError
from MedGenLib.progress import Progress, ProgressCallback
from MedGenLib.worker.process import SILENCE_TIMEOUT, START_TIMEOUT, command, environment, kill_tree
from MedGenLib.worker.protocol import messages
from MedGenLib.worker.protocol.connection import Connection

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume

LOG_LINES = 500
_GRACE = 5.0
"""Seconds that the worker has to end by itself."""


@dataclass(frozen=True)
class RemoteResult:
    """What a run in the worker gave.

    Attributes
    ----------
    volumes: one per sample, on the input's grid.
    report: the report as plain JSON types, see `MedGenLib.report.Report`.
    sentences: what the user should read.
    passed: whether input and samples passed their checks.
    spread: voxel-wise standard deviation of the samples, where it was asked for.
    """

    volumes: list[Volume]
    report: dict[str, Any]
    sentences: list[str]
    passed: bool
    spread: Volume | None = None

    @property
    def volume(self) -> Volume:
        """The first sample."""
        return self.volumes[0]


class Job:
    """One request that is on its way. Made by `Worker.submit`."""

    def __init__(self, worker: Worker, on_done: Callable[[Job], None] | None) -> None:
        self._worker, self._on_done = worker, on_done
        self._finished = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self.number: int | None = None

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._finished.is_set()

    @property
    def error(self) -> BaseException | None:
        """Why it failed; None while it runs and when it did not fail."""
        return self._error

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Raises
        ------
        MedGenError: of the kind that the library itself would raise, or WorkerError.
        TimeoutError: no result after so many seconds; the job goes on.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"The worker has no result after {timeout:g} seconds.")
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """Ask for its end; `result` then raises `Cancelled`."""
        self._worker._cancel(self)

    def _finish(self, value: Any = None, error: BaseException | None = None) -> None:
        if self.done:
            return
        self._value, self._error = value, error
        self._finished.set()
        if self._on_done is not None:
            self._on_done(self)


class Worker:
    """A worker process of its own, started with the first request or by `start`.

    Parameters
    ----------
    python: the Python that runs it; it needs MedGen's dependencies, this one does not.
    env: environment variables that differ from this process's, such as OMP_NUM_THREADS.
    on_log: takes the lines of the worker's log, in a thread of the worker.
    """

    def __init__(
        self,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        on_log: Callable[[str], None] | None = None,
    ) -> None:
        self._python, self._env, self._on_log = python, dict(env or {}), on_log
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        # Held while the connection is touched; callbacks of jobs run outside of it.
        self._lock = threading.RLock()
        self._later: list[Callable[[], None]] = []
        self._folder: Path | None = None
        self._counter = 0
        self._threads: list[threading.Thread] = []
        self.log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self.info: dict[str, Any] = {}

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process, None when there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> Worker:
        """Start the process and wait until it has answered; at once when it runs already.

        Raises
        ------
        WorkerError: it cannot start: wrong Python, missing packages, no answer.
        InputError: there is no place for temporary files.
        """
        if self._process is not None and self._process.poll() is None:
            return self
        self.close()
        self._folder, self.info = _private_folder(), {}
        try:
            self._launch()
            params = {"folder": str(self._folder), "parent": os.getpid()}
            job = self._request("initialize", params, lambda answer: answer, None)
            try:
                self.info = job.result(START_TIMEOUT)
            except TimeoutError:
                raise WorkerError(
                    f"The worker did not answer within {START_TIMEOUT:.0f} seconds; start it again."
                ) from None
            if self.info.get("protocol") != messages.PROTOCOL:
                raise WorkerError("The worker is of another version of MedGen; install MedGen again.")
        except BaseException:
            self._kill()
            self._clean()
            raise
        return self

    def close(self) -> None:
        """End the process; what still runs in it fails with WorkerError."""
        process = self._process
        if process is None:
            return
        with self._lock:
            self._connection.fail(WorkerError("The worker was closed before the run was done."))
        self._call_back()
        with suppress(OSError, ValueError):
            process.stdin.close()  # the worker ends when its stdin does
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        self._kill()
        self._clean()

    def generate(
        self,
        mask: str | Path | LabelMap,
        model: str = "ct-tissue",
        *,
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> RemoteResult:
        """As `MedGenLib.generate`, with `spread=True` for the voxel-wise spread of the samples.

        What `progress` raises cancels the run and is raised here.
        """
        return self._wait("generate", mask, progress, model=model, **options)

    def translate(
        self, image: str | Path | Volume, to: str, *, progress: ProgressCallback | None = None, **options: Any
    ) -> RemoteResult:
        """As `MedGenLib.translate`. What `progress` raises cancels the run and is raised here."""
        return self._wait("translate", image, progress, to=to, **options)

    def submit(
        self,
        method: str,
        image: str | Path | LabelMap | Volume,
        *,
        progress: ProgressCallback | None = None,
        on_done: Callable[[Job], None] | None = None,
        **options: Any,
    ) -> Job:
        """Ask for "generate" or "translate" without waiting.

        `progress` and `on_done` are called in a thread of the worker. What `progress` raises
        cancels the job and becomes its error.

        Raises
        ------
        WorkerError: the worker cannot start.
        InputError: the image cannot be handed over, for instance because the disk is full.
        """
        if method not in ("generate", "translate"):
            raise InputError(f"A worker has no job '{method}'; choose generate or translate.")
        self.start()
        series = options.pop("series", None)
        folder = self._job_folder()
        try:
            item = _item(image, folder, "labels" if method == "generate" else "volume")
            if series is not None:
                item["series"] = series
            params = {"input": item, "folder": str(folder), **options}
            return self._request(method, params, _result, progress, on_done, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def evaluate(
        self,
        image: str | Path | Volume,
        reference: str | Path | Volume | None = None,
        mask: str | Path | LabelMap | None = None,
        labels: str | Path | LabelMap | None = None,
        uncertainty: str | Path | Volume | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """As `evaluation.pair.evaluate`: {"rows", "anatomy", "note", "error_map", "report"}.

        The error map is a Volume, None without a reference. Options: segmenter, resample, device,
        and ``report``, a folder for the HTML report.
        """
        self.start()
        folder = self._job_folder()
        given = {"image": image, "reference": reference, "mask": mask, "labels": labels, "uncertainty": uncertainty}
        try:
            kinds = {"mask": "labels", "labels": "labels"}
            items = {
                name: _item(item, folder, kinds.get(name, "volume"), name)
                for name, item in given.items()
                if item is not None
            }
            params = {**items, "folder": str(folder), **options}
            return self._request("evaluate", params, _evaluated, None).result()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Any other method of the protocol, such as "devices", "self_test" or "models/list"."""
        self.start()
        return self._request(method, params, lambda answer: answer, None).result()

    # Requests

    def _wait(self, method: str, image: Any, progress: ProgressCallback | None, **options: Any) -> RemoteResult:
        job = self.submit(method, image, progress=progress, **options)
        try:
            return job.result()
        except KeyboardInterrupt:
            job.cancel()
            raise

    def _request(
        self,
        method: str,
        params: dict[str, Any],
        convert: Callable[[dict], Any],
        progress: ProgressCallback | None,
        on_done: Callable[[Job], None] | None = None,
        folder: Path | None = None,
    ) -> Job:
        job = Job(self, on_done)
        stop: list[BaseException] = []

        def finish(value: Any = None, error: BaseException | None = None) -> None:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            job._finish(value, stop[0] if stop else error)

        def on_result(answer: dict) -> None:
            try:
                value = convert(answer)
            except (MedGenError, LookupError, TypeError, AttributeError) as error:
                finish(error=_unusable(error))
                return
            finish(value)

        def on_progress(params: dict) -> None:
            try:
                progress(_progress(params))
            except BaseException as error:  # the convention of every progress callback
                stop.append(error)
                job.cancel()

        def later(function: Callable) -> Callable:
            return lambda *values: self._later.append(lambda: function(*values))

        with self._lock:
            job.number = self._connection.request(
                method,
                params,
                on_result=later(on_result),
                on_error=later(lambda error: finish(error=error)),
                on_progress=None if progress is None else later(on_progress),
            )
        return job

    def _cancel(self, job: Job) -> None:
        with self._lock:
            if self._connection is not None and job.number is not None:
                self._connection.cancel(job.number)

    # The process and its threads

    def _launch(self) -> None:
        try:
            self._process = subprocess.Popen(
                command(self._python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment({**os.environ, **self._env}),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise WorkerError(
                f"The worker cannot start with the Python '{self._python}' "
                f"({error.strerror or error}); choose another one."
            ) from error
        self._connection = Connection(self._write, self._note)
        targets = (self._read, self._read_log, self._watch)
        self._threads = [threading.Thread(target=target, args=(self._process,), daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def _write(self, line: bytes) -> None:
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError, AttributeError) as error:
            process = self._process
            raise self._ended(process.poll() if process is not None else None) from error

    def _read(self, process: subprocess.Popen) -> None:
        """Feed the connection until the worker's stdout ends."""
        error: MedGenError | None = None
        while error is None and (data := os.read(process.stdout.fileno(), 1 << 16)):
            try:
                with self._lock:
                    self._connection.feed(data)
            except WorkerError as garbage:
                error = garbage
                kill_tree(process.pid)
            self._call_back()
        process.wait()
        self._threads[1].join(1.0)  # the last lines of its log often tell the reason
        with self._lock:
            self._connection.fail(error or self._ended(process.returncode))
        self._call_back()

    def _read_log(self, process: subprocess.Popen) -> None:
        for line in process.stderr:
            self._note(line.decode("utf-8", errors="replace").rstrip())

    def _watch(self, process: subprocess.Popen) -> None:
        """End a worker that gives no sign of life."""
        while process.poll() is None:
            time.sleep(0.5)
            with self._lock:
                silent = self._connection.silent_for
                if silent < SILENCE_TIMEOUT:
                    continue
                self._connection.fail(
                    WorkerError(f"The worker gave no sign of life for {silent:.0f} seconds and was stopped; run again.")
                )
            self._call_back()
            kill_tree(process.pid)

    def _call_back(self) -> None:
        """Run what the connection asked for, without its lock: a callback may ask again."""
        while True:
            with self._lock:
                if not self._later:
                    return
                function = self._later.pop(0)
            function()

    def _note(self, line: str) -> None:
        self.log.append(line)
        if self._on_log is not None:
            self._on_log(line)

    def _ended(self, code: int | None) -> WorkerError:
        if not self.info:
            sentence = f"The worker could not start with the Python '{self._python}'; its log tells"
            sentence += " why, and another Python may do."
        else:
            reason = "; the system may have run out of memory" if code in (-9, 137) else ""
            sentence = f"The worker ended unexpectedly (exit code {code}{reason}); run again to"
            sentence += " start another one."
        error = WorkerError(sentence)
        error.detail = "\n".join(self.log)
        return error

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            kill_tree(process.pid)
            process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_GRACE)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError, ValueError):
                pipe.close()

    # Files

    def _job_folder(self) -> Path:
        self._counter += 1
        folder = self._folder / str(self._counter)
        try:
            folder.mkdir()
        except OSError as error:
            raise InputError(
                f"The temporary folder {folder} cannot be made ({error.strerror}); free some "
                "space, or set TMPDIR to a folder that can be written."
            ) from error
        return folder

    def _clean(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _private_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="medgen-"))
    except OSError as error:
        raise InputError(
            f"No temporary folder can be made ({error.strerror or error}); free some space, or "
            "set TMPDIR to a folder that can be written."
        ) from error


def _item(image: Any, folder: Path, kind: str, name: str = "input") -> dict[str, Any]:
    """An image or a path as the protocol describes it."""
    if isinstance(image, str | os.PathLike):
        return {"path": str(Path(image).absolute()), "kind": kind}
    from MedGenLib.worker.protocol.transfer import put

    return put(image, folder, name)


def _result(answer: dict[str, Any]) -> RemoteResult:
    """The answer with its images read into memory; the files can go."""
    spread = answer.get("spread")
    return RemoteResult(
        [_loaded(item) for item in answer["volumes"]],
        answer["report"],
        answer["sentences"],
        answer["passed"],
        None if spread is None else _loaded(spread),
    )


def _evaluated(answer: dict[str, Any]) -> dict[str, Any]:
    item = answer["error_map"]
    return {**answer, "error_map": None if item is None else _loaded(item)}


def _loaded(item: dict[str, Any]) -> Volume:
    import numpy as np

    from MedGenLib.worker.protocol.transfer import take

    image = take(item)
    return image.with_array(np.array(image.array, order="K", subok=False))


def _progress(params: dict[str, Any]) -> Progress:
    left = params.get("seconds_left")
    return Progress(str(params.get("stage", "")), int(params.get("step", 0)), int(params.get("total", 0)), left)


def _unusable(error: BaseException) -> MedGenError:
    if isinstance(error, MedGenError):
        return error
    unusable = WorkerError("The worker's answer cannot be used; run again.")
    unusable.detail = repr(error)
    return unusable
