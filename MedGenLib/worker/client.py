"""Client of the worker for plain Python, blocking or with callbacks.

    from MedGenLib.worker.client import Worker

    with Worker() as worker:
        result = worker.generate("mask.nii.gz", "ct-tissue", seed=7)
        job = worker.submit("translate", "head.nii.gz", to="CT", accept_license=True)
        print(job.result().sentences)

The second run reuses the loaded networks. This process does not import torch, and survives the end of the worker.
"""

from __future__ import annotations

import collections
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from MedGenLib.errors import InputError, MedGenError, WorkerError
from MedGenLib.options import (
    EnhanceOptions,
    EvaluateOptions,
    GenerateOptions,
    TranslateOptions,
    deprecated,
    documented,
    of,
    validate,
)
from MedGenLib.progress import Progress, ProgressCallback
from MedGenLib.worker.piped import PipedProcess
from MedGenLib.worker.process import START_TIMEOUT
from MedGenLib.worker.protocol import messages

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume

LOG_LINES = 500


@dataclass(frozen=True)
class RemoteResult:
    """Result of a run in the worker.

    Attributes
    ----------
    volumes: one per sample, on the input's grid.
    report: plain JSON types, see `MedGenLib.report.Report`.
    sentences: sentences for the user.
    passed: whether input and samples passed their checks.
    uncertainty: as of `MedGenLib.result.Result`, if requested.
    """

    volumes: list[Volume]
    report: dict[str, Any]
    sentences: list[str]
    passed: bool
    uncertainty: Volume | None = None

    @property
    def volume(self) -> Volume:
        """The first sample."""
        return self.volumes[0]

    @property
    def spread(self) -> Volume | None:
        """Former name of `uncertainty`."""
        deprecated("spread", "uncertainty")
        return self.uncertainty


class Job:
    """One request in progress, created by `Worker.submit`."""

    def __init__(self, process: PipedProcess, on_done: Callable[[Job], None] | None) -> None:
        self._process, self._on_done = process, on_done
        self._finished = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self.number: int | None = None

    @property
    def done(self) -> bool:
        """Whether the job has a result or an error."""
        return self._finished.is_set()

    @property
    def error(self) -> BaseException | None:
        """Its error; None while it runs and after success."""
        return self._error

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Raises
        ------
        MedGenError: as raised by the library, or WorkerError.
        TimeoutError: no result after `timeout` seconds; the job continues.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"The worker has no result after {timeout:g} seconds.")
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """Request cancellation; `result` then raises `Cancelled`."""
        if self.number is not None:
            self._process.cancel(self.number)

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        """Set the result or the error; only the first call has an effect."""
        if self.done:
            return
        self._value, self._error = value, error
        self._finished.set()
        if self._on_done is not None:
            self._on_done(self)


class Worker:
    """A worker process, started by the first request or by `start`.

    Parameters
    ----------
    python: the Python interpreter of the worker, with MedGen's dependencies.
    env: environment variables that differ from this process's, such as OMP_NUM_THREADS.
    on_log: called with each line of the worker's log, in another thread.
    """

    def __init__(
        self,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        on_log: Callable[[str], None] | None = None,
    ) -> None:
        self._python, self._env, self._on_log = python, dict(env or {}), on_log
        self._process: PipedProcess | None = None
        self._folder: Path | None = None
        self._counter = 0
        self.log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self.info: dict[str, Any] = {}

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process ID, None without a process."""
        return self._process.pid if self._process is not None else None

    @property
    def runs(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.runs

    def start(self) -> Worker:
        """Start the process if needed and wait for its first answer.

        Raises
        ------
        WorkerError: wrong Python, missing packages, or no answer.
        InputError: there is no folder for temporary files.
        """
        if self.runs:
            return self
        self.close()
        self._folder, self.info = _private_folder(), {}
        try:
            self._process = PipedProcess(self._python, self._env, self._note, self._ended)
            params = {"folder": str(self._folder), "parent": os.getpid()}
            try:
                self.info = self.request("initialize", params).result(START_TIMEOUT)
            except TimeoutError:
                raise WorkerError(
                    f"The worker did not answer within {START_TIMEOUT:.0f} seconds; start it again."
                ) from None
            if self.info.get("protocol") != messages.PROTOCOL:
                raise WorkerError("The worker is of another version of MedGen; install MedGen again.")
        except BaseException:
            self._end()
            raise
        return self

    def close(self) -> None:
        """End the process; running jobs fail with WorkerError."""
        if self._process is not None:
            self._end(WorkerError("The worker was closed before the run was done."))

    @documented("generate", "client")
    def generate(
        self,
        mask: str | Path | LabelMap | None = None,
        model: str = "ct-tissue",
        *,
        progress: ProgressCallback | None = None,
        **options: Unpack[GenerateOptions],
    ) -> RemoteResult:
        """Generate volumes in the worker, as `MedGenLib.generate`.

        Parameters
        ----------
        {options}
        progress: called at each step; an exception raised in it cancels the run and is raised here.
        """
        return self._wait("generate", mask, progress, model=model, **options)

    @documented("translate", "client")
    def translate(
        self,
        image: str | Path | Volume,
        to: str | None = None,
        *,
        progress: ProgressCallback | None = None,
        **options: Unpack[TranslateOptions],
    ) -> RemoteResult:
        """Translate an image in the worker, as `MedGenLib.translate`.

        Parameters
        ----------
        {options}
        progress: called at each step; an exception raised in it cancels the run and is raised here.
        """
        return self._wait("translate", image, progress, to=to, **options)

    @documented("enhance", "client")
    def enhance(
        self, image: str | Path | Volume, *, progress: ProgressCallback | None = None, **options: Unpack[EnhanceOptions]
    ) -> RemoteResult:
        """Make an image finer, less noisy or more even in the worker, as `MedGenLib.enhance`.

        Parameters
        ----------
        {options}
        progress: called at each step; an exception raised in it cancels the run and is raised here.
        """
        return self._wait("enhance", image, progress, **options)

    def submit(
        self,
        method: str,
        image: str | Path | LabelMap | Volume | None,
        *,
        progress: ProgressCallback | None = None,
        on_done: Callable[[Job], None] | None = None,
        **options: Any,
    ) -> Job:
        """Start "generate", "translate" or "enhance" without waiting, with the options of these methods.

        `progress` and `on_done` are called in another thread. An exception raised in `progress` cancels the job and
        becomes its error.

        Raises
        ------
        WorkerError: the worker cannot start.
        InputError: the image cannot be transferred, for instance because the disk is full.
        """
        if method not in ("generate", "translate", "enhance"):
            raise InputError(f"A worker has no job '{method}'; choose generate, translate or enhance.")
        first = "mask" if method == "generate" else "image"
        return self._submit(method, {first: image, **options}, _result, progress, on_done)

    @documented("evaluate", "client")
    def evaluate(
        self,
        image: str | Path | Volume,
        reference: str | Path | Volume | None = None,
        mask: str | Path | LabelMap | None = None,
        labels: str | Path | LabelMap | None = None,
        uncertainty: str | Path | Volume | None = None,
        **options: Unpack[EvaluateOptions],
    ) -> dict[str, Any]:
        """Measure an image in the worker, as `evaluation.pair.evaluate`.

        Parameters
        ----------
        {options}

        Returns
        -------
        {"rows", "anatomy", "note", "error_map", "report"}; the error map is a Volume, None without a reference.
        """
        given = {"image": image, "reference": reference, "mask": mask, "labels": labels, "uncertainty": uncertainty}
        return self._submit("evaluate", {**given, **options}, _evaluated).result()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call any other method of the protocol, such as "devices", "self_test" or "models/list"."""
        self.start()
        return self.request(method, params).result()

    # Requests

    def _wait(self, method: str, image: Any, progress: ProgressCallback | None, **options: Any) -> RemoteResult:
        job = self.submit(method, image, progress=progress, **options)
        try:
            return job.result()
        except KeyboardInterrupt:
            job.cancel()
            raise

    def _submit(
        self,
        method: str,
        options: dict[str, Any],
        convert: Callable[[dict], Any],
        progress: ProgressCallback | None = None,
        on_done: Callable[[Job], None] | None = None,
    ) -> Job:
        """Request a method with declared options; images become files of the request."""
        values = validate(method, options, "client")
        self.start()
        folder = self._job_folder()
        try:
            params = {"folder": str(folder)}
            for name, option in of(method, "worker").items():
                value = values[option.name]
                if option.image and value is not None:
                    value = _item(value, folder, option.image, name)
                params[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
            if values.get("series") is not None:
                params["input"]["series"] = values["series"]
            return self.request(method, params, convert, progress, on_done, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def request(
        self,
        method: str,
        params: dict[str, Any],
        convert: Callable[[dict], Any] = dict,
        progress: ProgressCallback | None = None,
        on_done: Callable[[Job], None] | None = None,
        folder: Path | None = None,
    ) -> Job:
        """Send a request to the running process.

        Parameters
        ----------
        convert: makes the value of the job from the answer.
        folder: of the request, removed after the answer.
        """
        job = Job(self._process, on_done)
        stop: list[BaseException] = []

        def finish(value: Any = None, error: BaseException | None = None) -> None:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            job.finish(value, stop[0] if stop else error)

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
            except BaseException as error:  # the convention of progress callbacks
                stop.append(error)
                job.cancel()

        job.number = self._process.request(
            method, params, on_result, lambda error: finish(error=error), None if progress is None else on_progress
        )
        return job

    def _note(self, line: str) -> None:
        self.log.append(line)
        if self._on_log is not None:
            self._on_log(line)

    def _ended(self, code: int | None) -> WorkerError:
        if not self.info:
            sentence = f"The worker could not start with the Python '{self._python}'; see its log for the reason, or"
            sentence += " choose another Python."
        else:
            reason = "; the system may have run out of memory" if code in (-9, 137) else ""
            sentence = f"The worker ended unexpectedly (exit code {code}{reason}); run again to"
            sentence += " start another one."
        error = WorkerError(sentence)
        error.detail = "\n".join(self.log)
        return error

    def _end(self, error: WorkerError | None = None) -> None:
        if self._process is not None:
            self._process.end(error)
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _job_folder(self) -> Path:
        self._counter += 1
        folder = self._folder / str(self._counter)
        try:
            folder.mkdir()
        except OSError as error:
            raise InputError(
                f"The temporary folder {folder} cannot be created ({error.strerror}); free some "
                "space, or set TMPDIR to a writable folder."
            ) from error
        return folder


def _private_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="medgen-"))
    except OSError as error:
        raise InputError(
            f"No temporary folder can be created ({error.strerror or error}); free some space, or "
            "set TMPDIR to a writable folder."
        ) from error


def connect(
    address: str, token: str | None = None, *, on_log: Callable[[str], None] | None = None, python: str = sys.executable
) -> Worker:
    """A worker whose models run where `medgen serve` does, such as at "wss://workstation:7450".

    token: None for the one that is kept for the address; the loopback interface needs none.
    """
    return Worker(python, {"MEDGEN_ENGINE": address, "MEDGEN_ENGINE_TOKEN": token or ""}, on_log)


def _item(image: Any, folder: Path, kind: str, name: str) -> dict[str, Any]:
    """An image or a path in the form of the protocol."""
    if isinstance(image, str | os.PathLike):
        return {"path": str(Path(image).absolute()), "kind": kind}
    from MedGenLib.worker.protocol.transfer import put

    return put(image, folder, name)


def _result(answer: dict[str, Any]) -> RemoteResult:
    """The answer with its images read into memory."""
    uncertainty = answer.get("uncertainty")
    return RemoteResult(
        [_loaded(item) for item in answer["volumes"]],
        answer["report"],
        answer["sentences"],
        answer["passed"],
        None if uncertainty is None else _loaded(uncertainty),
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
