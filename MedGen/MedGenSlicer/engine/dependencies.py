"""What MedGen needs beyond Slicer, and how it is installed.

PyTorch comes through the PyTorch extension, the rest through pip. Packages that Slicer itself relies on (`PROTECTED`)
are never handed to pip and are held at their versions by constraints. Every failure ends in a sentence that says what
to do.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

PROTECTED = ("SimpleITK", "numpy", "pydicom", "requests", "torch", "torchvision")
TORCH_REQUIREMENT = ">=2.6"
TORCH_EXTENSION = "PyTorch"
REQUESTER = "MedGen"
MIB = 2**20

_SIZES = {  # MiB to download and on disk, with what each brings along; rounded up from Linux wheels
    "torch": (220, 850),
    "torch-cuda": (2900, 6600),
    "jsonschema": (1, 3),
    "platformdirs": (1, 1),
    "psutil": (1, 1),
    "safetensors": (1, 2),
    "scikit-image": (25, 75),
    "matplotlib": (25, 80),
    "dicom-anonymizer": (1, 2),
    "einops": (1, 1),
    "huggingface_hub": (10, 30),
    "monai": (3, 17),
}
_DEFAULT_SIZE = (5, 15)


@dataclass(frozen=True)
class Requirement:
    """A package that is needed: name, version specifier (">=4.20", may be empty), installed version or None."""

    name: str
    specifier: str = ""
    installed: str | None = None
    downloadMiB: float = 0.0
    diskMiB: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}{self.specifier}"


@dataclass(frozen=True)
class InstallPlan:
    """What an installation would do; `sentence` says it in words."""

    packages: list[Requirement]
    downloadMiB: float
    diskMiB: float
    freeMiB: float
    sentence: str

    @property
    def fits(self) -> bool:
        return self.diskMiB < self.freeMiB


@dataclass(frozen=True)
class Outcome:
    """How an installation ended.

    success: everything is installed and the self-test passed; sentence: for the user, with what to do; detail: the
    log; needsExtension: the PyTorch extension has to be installed first (`installExtension` offers it);
    needsRestart: Slicer has to be restarted.
    """

    success: bool
    sentence: str
    detail: str = ""
    needsExtension: bool = False
    needsRestart: bool = False


@dataclass
class Dependencies:
    """Checks and installs.

    Everything that reaches outside is a field, so that tests can put something else there.

    Parameters
    ----------
    engine: for the self-test in the worker; None skips it.
    requirementsFile: None takes Resources/requirements.txt.
    pipInstall(arguments, onLog, onDone): runs "pip install" with the arguments and calls onDone(exitCode).
    torchLogic(): the logic of the PyTorch extension, None where it is not installed.
    installedVersion(name): version or None.
    folder: where packages are installed.

    Example
    -------
    >>> dependencies = slicer.util.getModuleLogic("MedGen").dependencies   # doctest: +SKIP
    >>> print(dependencies.plan().sentence)                                # doctest: +SKIP
    >>> dependencies.install(print, lambda outcome: print(outcome.sentence))   # doctest: +SKIP
    """

    engine: Any = None
    requirementsFile: str | Path | None = None
    pipInstall: Callable[[list[str], Callable[[str], None], Callable[[int], None]], None] = None
    torchLogic: Callable[[], Any] = None
    installedVersion: Callable[[str], str | None] = None
    folder: str = ""
    isInstalling: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.pipInstall = self.pipInstall or slicerPipInstall
        self.torchLogic = self.torchLogic or pyTorchLogic
        self.installedVersion = self.installedVersion or versionOf
        self.folder = self.folder or sysconfig.get_paths()["purelib"]

    def requirements(self) -> list[Requirement]:
        """Everything that is needed, PyTorch first."""
        return [
            self._requirement("torch", TORCH_REQUIREMENT),
            *(self._requirement(name, specifier) for name, specifier in self._listed()),
        ]

    def missing(self) -> list[Requirement]:
        """What is not installed, or too old; quick, imports none of it."""
        return [need for need in self.requirements() if need.installed is None or not satisfies(need)]

    def plan(self) -> InstallPlan:
        """What `install` would do, for asking the user once."""
        packages = self.missing()
        download, disk = sum(need.downloadMiB for need in packages), sum(need.diskMiB for need in packages)
        free = freeMiB(self.folder)
        if not packages:
            return InstallPlan([], 0.0, 0.0, free, _("Everything that MedGen needs is installed."))
        sentence = _(
            "{packages} will be installed into Slicer's Python: about {download} to download, {disk} on disk "
            "({free} free)."
        ).format(
            packages=", ".join(need.name for need in packages),
            download=_size(download),
            disk=_size(disk),
            free=_size(free),
        )
        if disk >= free:
            sentence += " " + _("That does not fit; free some space first.")
        return InstallPlan(packages, download, disk, free, sentence)

    def install(
        self,
        onLog: Callable[[str], None] | None = None,
        onDone: Callable[[Outcome], None] | None = None,
        wheelFolder: str | Path | None = None,
    ) -> None:
        """Install what is missing and prove it by the self-test in the worker.

        Parameters
        ----------
        onLog(line): every line of the installers.
        onDone(outcome): called once, whatever happens.
        wheelFolder: a folder of wheels to install from, without any network.
        """
        _Installation(self, onLog or _nothing, onDone or _nothing, wheelFolder).start()

    def selfTest(self, onDone: Callable[[Outcome], None]) -> None:
        """Run a tiny network on each device in the worker."""
        if self.engine is None:
            onDone(Outcome(True, _("MedGen is ready.")))
            return

        def failed(error: Exception) -> None:
            onDone(Outcome(False, str(error), getattr(error, "detail", "")))

        def tested(answer: dict) -> None:
            sentences = " ".join(device["sentence"] for device in answer["devices"])
            onDone(Outcome(bool(answer["passed"]), sentences))

        self.engine.start(lambda info: self.engine.request("self_test", {}, tested, failed), failed)

    def installExtension(self) -> Outcome:
        """Install Slicer's PyTorch extension through the Extensions Manager; Slicer must be restarted after it."""
        manager = extensionsManager()
        if manager is None:
            return Outcome(
                False,
                _("This Slicer has no Extensions Manager; install the extension '{name}' by hand.").format(
                    name=TORCH_EXTENSION
                ),
                needsExtension=True,
            )
        manager.interactive = False
        manager.updateExtensionsMetadataFromServer(True, True)
        if not manager.installExtensionFromServer(TORCH_EXTENSION, False):
            return Outcome(
                False,
                _(
                    "The extension '{name}' could not be installed; check the network connection, or "
                    "install it in the Extensions Manager."
                ).format(name=TORCH_EXTENSION),
                needsExtension=True,
            )
        return Outcome(
            True,
            _("The extension '{name}' is installed; restart Slicer and press Install again.").format(
                name=TORCH_EXTENSION
            ),
            needsRestart=True,
        )

    def diagnostics(self) -> str:
        """Everything that a report of a problem needs, as text."""
        app = slicer.app
        lines = [
            f"Slicer {getattr(app, 'majorVersion', '?')}.{getattr(app, 'minorVersion', '?')} "
            f"revision {getattr(app, 'revision', '?')}, {platform.platform()}",
            f"Python {platform.python_version()} ({sys.executable})",
            f"packages in {self.folder}, {_size(freeMiB(self.folder))} free",
        ]
        for need in self.requirements():
            state = need.installed or _("missing")
            lines.append(f"{need}: {state}{'' if need.installed is None or satisfies(need) else ' (too old)'}")
        lines += [f"{name}: {self.installedVersion(name) or 'missing'}" for name in PROTECTED[:4]]
        lines.append(f"extension {TORCH_EXTENSION}: {'installed' if self.torchLogic() is not None else 'missing'}")
        lines += [
            f"{name}={os.environ[name]}"
            for name in ("HTTPS_PROXY", "HTTP_PROXY", "PIP_INDEX_URL", "MEDGEN_HOME")
            if os.environ.get(name)
        ]
        if self.engine is not None:
            lines.append(f"worker: {self.engine.state}, {self.engine.workerPython()}")
            lines += [f"  {key}: {value}" for key, value in self.engine.info.items()]
            lines += ["log:", self.engine.log]
        return "\n".join(lines)

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Name and specifier of each line of the requirements file; protected packages never count."""
        if self.requirementsFile is None:
            from MedGenSlicer.paths import resource

            self.requirementsFile = resource("requirements.txt")
        protected = {plainName(name) for name in PROTECTED}
        for line in Path(self.requirementsFile).read_text(encoding="utf-8").splitlines():
            match = re.match(r"\s*([A-Za-z0-9][\w.-]*)\s*([<>=!~][^#;]*)?", line.partition("#")[0])
            if match and plainName(match[1]) not in protected:
                yield match[1], (match[2] or "").strip().replace(" ", "")

    def _requirement(self, name: str, specifier: str) -> Requirement:
        isCuda = name == "torch" and shutil.which("nvidia-smi") is not None
        download, disk = _SIZES.get("torch-cuda" if isCuda else name, _DEFAULT_SIZE)
        return Requirement(name, specifier, self.installedVersion(name), download, disk)


class _Installation:
    """One installation: PyTorch, then the rest, then the self-test."""

    def __init__(
        self,
        dependencies: Dependencies,
        onLog: Callable[[str], None],
        onDone: Callable[[Outcome], None],
        wheelFolder: str | Path | None,
    ) -> None:
        self.dependencies, self.onLog, self.onDone = dependencies, onLog, onDone
        self.wheelFolder = str(wheelFolder) if wheelFolder is not None else None
        self.lines: list[str] = []
        self.constraints: str | None = None

    def start(self) -> None:
        dependencies = self.dependencies
        if dependencies.isInstalling:
            self.onDone(Outcome(False, _("An installation is on already; wait for its end.")))
            return
        if self.wheelFolder is not None and not any(Path(self.wheelFolder).glob("*.whl")):
            self.onDone(
                Outcome(
                    False,
                    _("The folder '{folder}' holds no wheels (*.whl); choose the one they were copied to.").format(
                        folder=self.wheelFolder
                    ),
                )
            )
            return
        plan = dependencies.plan()
        if plan.packages and not plan.fits:
            self.onDone(Outcome(False, plan.sentence))
            return
        dependencies.isInstalling = True
        try:
            names = [need.name for need in plan.packages]
            if "torch" in names and not self._installTorch(plan.packages[names.index("torch")]):
                return
            self._installRest([need for need in plan.packages if need.name != "torch"])
        except Exception as error:
            self._fail(error)

    def _installTorch(self, need: Requirement) -> bool:
        logic = self.dependencies.torchLogic()
        if logic is None:
            self._end(
                Outcome(
                    False,
                    _(
                        "PyTorch is installed by Slicer's extension '{name}', which is not there: install it in the "
                        "Extensions Manager, restart Slicer and press Install again."
                    ).format(name=TORCH_EXTENSION),
                    needsExtension=True,
                )
            )
            return False
        self._log(
            _("Installing PyTorch through the extension {name}; this takes some minutes.").format(name=TORCH_EXTENSION)
        )
        with self._captured(), self._offline():
            torch = callSupported(logic.installTorch, askConfirmation=False, torchVersionRequirement=need.specifier)
        importlib.invalidate_caches()
        if torch is None and self.dependencies.installedVersion("torch") is None:
            self._end(
                Outcome(
                    False,
                    _("PyTorch was not installed; press Install again, or use the module PyTorch Util."),
                    "\n".join(self.lines),
                )
            )
            return False
        return True

    def _installRest(self, needs: list[Requirement]) -> None:
        if not needs:
            self._test()
            return
        arguments = [str(need) for need in needs]
        if self.wheelFolder is not None:
            arguments += ["--no-index", "--find-links", self.wheelFolder]
        arguments += ["--prefer-binary", "-c", self._writeConstraints()]
        self._log("pip install " + " ".join(arguments))
        self.dependencies.pipInstall(arguments, self._log, self._onPipDone)

    def _onPipDone(self, exitCode: int) -> None:
        self._removeConstraints()
        importlib.invalidate_caches()
        if exitCode != 0:
            log = "\n".join(self.lines)
            self._end(Outcome(False, explain(log, self.dependencies.folder, self.wheelFolder), log))
            return
        still = [need.name for need in self.dependencies.missing()]
        if still:
            self._end(
                Outcome(
                    False,
                    _(
                        "pip reported success, but {names} cannot be found; restart Slicer and press Install again."
                    ).format(names=", ".join(still)),
                    "\n".join(self.lines),
                    needsRestart=True,
                )
            )
            return
        self._test()

    def _test(self) -> None:
        self._log(_("Testing in the worker."))
        self.dependencies.selfTest(self._end)

    def _writeConstraints(self) -> str:
        """A constraints file that holds protected packages at the versions they have."""
        handle, self.constraints = tempfile.mkstemp(prefix="medgen-constraints-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for name in PROTECTED:
                if version := self.dependencies.installedVersion(name):
                    file.write(f"{name}=={version}\n")
        return self.constraints

    def _removeConstraints(self) -> None:
        if self.constraints is not None:
            with contextlib.suppress(OSError):
                os.remove(self.constraints)
            self.constraints = None

    def _log(self, line: str) -> None:
        self.lines.append(line)
        self.onLog(line)

    def _fail(self, error: Exception) -> None:
        output = getattr(error, "output", None)
        if isinstance(output, (str, bytes)):
            self._log(output if isinstance(output, str) else output.decode("utf-8", errors="replace"))
        log = "\n".join([*self.lines, f"{type(error).__name__}: {error}"])
        self._end(Outcome(False, explain(log, self.dependencies.folder, self.wheelFolder), log))

    def _end(self, outcome: Outcome) -> None:
        self._removeConstraints()
        self.dependencies.isInstalling = False
        self.onDone(outcome)

    @contextlib.contextmanager
    def _captured(self) -> Iterator[None]:
        with contextlib.redirect_stdout(_Lines(self._log)):
            yield

    @contextlib.contextmanager
    def _offline(self) -> Iterator[None]:
        """pip reads these variables in whatever process the extension starts it."""
        if self.wheelFolder is None:
            yield
            return
        before = {name: os.environ.get(name) for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS")}
        os.environ.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=self.wheelFolder)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def slicerPipInstall(arguments: list[str], onLog: Callable[[str], None], onDone: Callable[[int], None]) -> None:
    """pip as Slicer offers it: `slicer.packaging` without blocking (5.12), else `slicer.util.pip_install`."""
    try:
        from slicer.packaging import pip_install
    except ImportError:
        pip_install = None
    # In testing mode slicer.packaging blocks and calls nobody.
    if pip_install is not None and not isTesting():
        callSupported(
            pip_install,
            arguments,
            blocking=False,
            show_progress=False,
            requester=REQUESTER,
            logCallback=onLog,
            completedCallback=lambda code: onDone(int(code)),
        )
        return
    try:
        with contextlib.redirect_stdout(_Lines(onLog)):
            (pip_install or slicer.util.pip_install)(arguments)
    except subprocess.CalledProcessError as error:
        onDone(error.returncode or 1)
        return
    onDone(0)


def isTesting() -> bool:
    """Whether Slicer runs with --testing."""
    return slicer.app.testingEnabled()


def extensionsManager() -> Any:
    """Slicer's Extensions Manager, None where it was built without one."""
    manager = getattr(slicer.app, "extensionsManagerModel", lambda: None)()
    return manager if manager and hasattr(manager, "installExtensionFromServer") else None


def pyTorchLogic() -> Any:
    """The logic of Slicer's PyTorch extension, None where it is not installed."""
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError:
        return None
    return PyTorchUtilsLogic()


def callSupported(function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Call with those of the keywords that the function knows: other extensions change theirs between releases."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C++
        return function(*arguments)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
        return function(*arguments, **keywords)
    return function(*arguments, **{name: value for name, value in keywords.items() if name in known})


def versionOf(name: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def satisfies(need: Requirement) -> bool:
    """Whether the installed version fits the specifier."""
    if need.installed is None:
        return False
    if not need.specifier:
        return True
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # Slicer 5.10; pip has it inside
        from pip._vendor.packaging.specifiers import SpecifierSet
    return SpecifierSet(need.specifier).contains(need.installed, prereleases=True)


def freeMiB(folder: str) -> float:
    """Free space on the disk of a folder, which need not exist."""
    path = Path(folder).absolute()
    existing = next((place for place in (path, *path.parents) if place.exists()), Path(path.anchor))
    return shutil.disk_usage(existing).free / MIB


def plainName(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def explain(log: str, folder: str, wheelFolder: str | None = None) -> str:
    """One sentence about a failed installation, with what to do, from what the installers wrote."""
    # The order matters: without a network pip ends with "no matching distribution" too.
    for pattern, sentence in _explanations(folder, wheelFolder):
        if match := re.search(pattern, log, re.IGNORECASE):
            return sentence.format(folder=folder, wheels=wheelFolder, name=(match.groups() or ("",))[0])
    return _("The installation failed; see the log, and send it with Copy diagnostics if it happens again.")


def _explanations(folder: str, wheelFolder: str | None) -> list[tuple[str, str]]:
    noMatch = (
        _(
            "The folder '{wheels}' lacks a wheel of '{name}' for this Python; copy it there (pip download) and "
            "press Install again."
        )
        if wheelFolder
        else _(
            "There is no version of '{name}' for this Python and the versions that Slicer needs; update Slicer, "
            "or see the log."
        )
    )
    return [
        (
            r"No space left on device|Errno 28|not enough space|disk quota exceeded|File too large",
            _("The disk of '{folder}' is full; free some space and press Install again."),
        ),
        (
            r"Permission denied|Access is denied|Errno 13|Read-only file system|Operation not permitted|WinError 5\b",
            _(
                "The folder '{folder}' cannot be written; start Slicer from a place where you may write, or ask your "
                "administrator."
            ),
        ),
        (
            r"being used by another process|WinError 32\b",
            _("A file that has to be replaced is in use; restart Slicer and press Install before anything else."),
        ),
        (
            r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError",
            _(
                "The package server's certificate was not accepted, as happens behind a company proxy; set PIP_CERT "
                "to your organization's certificate file, or install from a folder of wheels."
            ),
        ),
        (
            r"ProxyError|407 Proxy",
            _(
                "The proxy refused the connection; set HTTPS_PROXY with user and password, or install from a folder of "
                "wheels."
            ),
        ),
        (
            r"NewConnectionError|Name or service not known|name resolution|getaddrinfo|Network is unreachable|"
            r"ConnectTimeout|ReadTimeout|timed out|Connection refused|ConnectionError|ConnectionResetError|"
            r"Could not fetch URL|Max retries exceeded",
            _(
                "The package server cannot be reached; check the network connection and the proxy (HTTPS_PROXY), or "
                "install from a folder of wheels."
            ),
        ),
        (
            r"ResolutionImpossible|conflicting dependencies",
            _("The packages conflict with versions that Slicer needs; update Slicer, or see the log."),
        ),
        (r"No matching distribution found for ([\w.-]+)", noMatch),
        (r"Could not find a version that satisfies the requirement ([\w.-]+)", noMatch),
        (
            r"No module named pip|PythonSlicer executable not found",
            _("Slicer's Python cannot run pip; install Slicer again."),
        ),
    ]


def _size(mib: float) -> str:
    return f"{mib / 1024:.1f} GB" if mib >= 1024 else f"{max(1, round(mib))} MB"


class _Lines(io.TextIOBase):
    """A stream that hands on every line."""

    def __init__(self, onLine: Callable[[str], None]) -> None:
        super().__init__()
        self._onLine, self._rest = onLine, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._onLine(line.rstrip())
        return len(text)

    def writable(self) -> bool:
        return True


def _nothing(unused: Any) -> None:
    pass
