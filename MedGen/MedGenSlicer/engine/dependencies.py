"""What MedGen needs beyond Slicer, and how it is installed.

PyTorch comes through the PyTorch extension, the rest through pip: first only what the first image needs, and what
another use needs (`MedGenLib/requirements.txt`) when it is first used. Packages that Slicer itself relies on
(`PROTECTED`) are never given to pip and are held at their versions by constraints. Every failure ends in a sentence
that says what to do.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedGenLib.requirements import FILE, installed_version, requirements
from MedGenSlicer.engine import installers
from MedGenSlicer.engine.background import ignore
from MedGenSlicer.engine.explanations import explain
from MedGenSlicer.engine.installers import TORCH_EXTENSION
from MedGenSlicer.engine.packages import PROTECTED, InstallPlan, Outcome, Requirement, freeMiB, plainName, sizeText
from MedGenSlicer.engine.torch_process import CANNOT_RUN, callSupported

INSTALLED_SETTING = "MedGen/InstalledPackages"
"""Names of what MedGen installed, with spaces between."""


@dataclass
class Dependencies:
    """Checks and installs.

    Everything that reaches outside is a field, so that tests can put something else there.

    Parameters
    ----------
    engine: for the self-test in the worker; None skips it.
    requirementsFile: what is needed; lines with a comment are not given to pip.
    pipInstall(arguments, onLog, onDone): runs "pip install" with the arguments and calls onDone(exitCode); what it
        returns has `cancel()`.
    pipUninstall(names, onLog, onDone): the same for "pip uninstall".
    torchLogic(): the logic of the PyTorch extension, None where it is not installed.
    torchInstall(logic, specifier, variables, onLog, onDone): runs its installTorch as pipInstall runs pip.
    installedVersion(name): version or None.
    folder: where packages are installed.

    Example
    -------
    >>> dependencies = slicer.util.getModuleLogic("MedGen").dependencies   # doctest: +SKIP
    >>> print(dependencies.plan().sentence)                                # doctest: +SKIP
    >>> dependencies.install(print, lambda outcome: print(outcome.sentence))   # doctest: +SKIP
    """

    engine: Any = None
    requirementsFile: Path = FILE
    pipInstall: Callable[[list[str], Callable[[str], None], Callable[[int], None]], Any] = None
    pipUninstall: Callable[[list[str], Callable[[str], None], Callable[[int], None]], Any] = None
    torchLogic: Callable[[], Any] = None
    torchInstall: Callable[..., Any] = None
    installedVersion: Callable[[str], str | None] = None
    folder: str = ""
    isInstalling: bool = field(default=False, init=False)
    _installation: _Installation | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.pipInstall = self.pipInstall or installers.pipInstall
        self.pipUninstall = self.pipUninstall or installers.pipUninstall
        self.torchLogic = self.torchLogic or installers.pyTorchLogic
        self.torchInstall = self.torchInstall or installers.torchInstall
        self.installedVersion = self.installedVersion or installed_version
        self.folder = self.folder or sysconfig.get_paths()["purelib"]

    def requirements(self, use: str = "") -> list[Requirement]:
        """What is installed where it is missing, PyTorch first; protected packages never count.

        use: of `MedGenLib/requirements.txt`; "" for what the first image needs.
        """
        protected = {plainName(name) for name in PROTECTED}
        torch = [needed for needed in requirements() if needed.name == "torch" and not use]
        listed = [
            needed
            for needed in requirements(self.requirementsFile)
            if not needed.brought_by and needed.used_for == use and plainName(needed.name) not in protected
        ]
        return [
            Requirement.of(needed.name, needed.specifier, self.installedVersion(needed.name))
            for needed in (*torch, *listed)
        ]

    def missing(self, use: str = "") -> list[Requirement]:
        """What is not installed, or too old; quick, imports none of it."""
        return [need for need in self.requirements(use) if need.isMissing]

    def plan(self, use: str = "") -> InstallPlan:
        """What `install` would do, for asking the user once."""
        packages = self.missing(use)
        download, disk = sum(need.downloadMiB for need in packages), sum(need.diskMiB for need in packages)
        free = freeMiB(self.folder)
        if not packages:
            return InstallPlan([], 0.0, 0.0, free, _("Everything that MedGen needs is installed."))
        question = _(
            "{packages} will be installed into Slicer's Python: about {download} to download, {disk} on disk "
            "({free} free)."
        )
        if use:
            question = _(
                "For {use}, {packages} will be installed into Slicer's Python: about {download} to download, {disk} on "
                "disk ({free} free)."
            )
        sentence = question.format(
            use=use,
            packages=", ".join(need.name for need in packages),
            download=sizeText(download),
            disk=sizeText(disk),
            free=sizeText(free),
        )
        if disk >= free:
            sentence += " " + _("That does not fit; free some space first.")
        return InstallPlan(packages, download, disk, free, sentence)

    def install(
        self,
        onLog: Callable[[str], None] | None = None,
        onDone: Callable[[Outcome], None] | None = None,
        wheelFolder: str | Path | None = None,
        use: str = "",
    ) -> None:
        """Install what is missing and prove it by the self-test in a new worker.

        Parameters
        ----------
        onLog(line): every line of the installers.
        onDone(outcome): called once, whatever happens.
        wheelFolder: a folder of wheels to install from, without any network.
        use: as in `requirements`.
        """
        installation = _Installation(self, onLog or ignore, onDone or ignore, wheelFolder, use)
        if not self.isInstalling:
            self._installation = installation
        installation.start()

    def cancel(self) -> None:
        """Stop the installation; what was installed before stays."""
        if self.isInstalling and self._installation is not None:
            self._installation.cancel()

    def removable(self) -> list[str]:
        """The packages that MedGen installed and that are still there; PyTorch is its extension's."""
        recorded = slicer.app.settings().value(INSTALLED_SETTING, "") or ""
        return [name for name in recorded.split() if self.installedVersion(name) is not None]

    def remove(
        self, onLog: Callable[[str], None] | None = None, onDone: Callable[[Outcome], None] | None = None
    ) -> None:
        """Uninstall what MedGen installed; parameters as in `install`."""
        names, lines = self.removable(), []
        if self.isInstalling:
            (onDone or ignore)(Outcome(False, _("An installation is running already; wait for its end.")))
            return

        def log(line: str) -> None:
            lines.append(line)
            (onLog or ignore)(line)

        def done(exitCode: int) -> None:
            importlib.invalidate_caches()
            self.isInstalling = False
            left = self.removable()
            slicer.app.settings().setValue(INSTALLED_SETTING, " ".join(left))
            sentence = _("Removed from Slicer: {packages}.").format(packages=", ".join(names))
            if exitCode != 0 or left:
                sentence = _("Not removed: {packages}; restart Slicer and try it before anything else.").format(
                    packages=", ".join(left or names)
                )
            (onDone or ignore)(Outcome(exitCode == 0 and not left, sentence, "\n".join(lines)))

        self.isInstalling, self._installation = True, None
        if self.engine is not None:
            self.engine.kill()  # Windows removes no file that is in use
        self.pipUninstall(names, log, done)

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
        manager = installers.extensionsManager()
        isDone = False
        if manager is None:
            sentence = _("This Slicer has no Extensions Manager; install the extension '{name}' by hand.")
        else:
            with installers.withoutQuestions(manager):
                manager.updateExtensionsMetadataFromServer(True, True)
                isDone = bool(manager.installExtensionFromServer(TORCH_EXTENSION, False))
            sentence = _(
                "The extension '{name}' could not be installed; check the network connection, or install it in the "
                "Extensions Manager."
            )
        if isDone:
            sentence = _("The extension '{name}' is installed; restart Slicer and press Install again.")
        text = sentence.format(name=TORCH_EXTENSION)
        return Outcome(isDone, text, needsExtension=not isDone, needsRestart=isDone)

    def diagnostics(self) -> str:
        """Everything that a report of a problem needs, as text."""
        app = slicer.app
        lines = [
            f"Slicer {getattr(app, 'majorVersion', '?')}.{getattr(app, 'minorVersion', '?')} "
            f"revision {getattr(app, 'revision', '?')}, {platform.platform()}",
            f"Python {platform.python_version()} ({sys.executable})",
            f"packages in {self.folder}, {sizeText(freeMiB(self.folder))} free",
        ]
        uses = dict.fromkeys(needed.used_for for needed in requirements(self.requirementsFile))
        for need in (need for use in dict.fromkeys(["", *uses]) for need in self.requirements(use)):
            state = need.installed or _("missing")
            lines.append(f"{need}: {state}{' (too old)' if need.installed and need.isMissing else ''}")
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


class _Installation:
    """One installation: PyTorch, then the rest, then the self-test."""

    def __init__(
        self,
        dependencies: Dependencies,
        onLog: Callable[[str], None],
        onDone: Callable[[Outcome], None],
        wheelFolder: str | Path | None,
        use: str,
    ) -> None:
        self.dependencies, self.onLog, self.onDone, self.use = dependencies, onLog, onDone, use
        self.wheelFolder = str(wheelFolder) if wheelFolder is not None else None
        self.lines: list[str] = []
        self.wanted: list[str] = []
        self.constraints: str | None = None
        self.process: Any = None
        self.isCancelled = False

    def start(self) -> None:
        dependencies = self.dependencies
        plan = dependencies.plan(self.use)
        problem = self._problem(plan)
        if problem:
            self.onDone(Outcome(False, problem))
            return
        dependencies.isInstalling = True
        self.wanted = [need.name for need in plan.packages]
        if dependencies.engine is not None:
            dependencies.engine.endIfIdle()  # it has looked at what was installed before
        try:
            if "torch" in self.wanted:
                self._installTorch(plan.packages[0])
            else:
                self._installRest()
        except Exception as error:
            self._fail(error)

    def cancel(self) -> None:
        """End what runs; the outcome says that it was cancelled."""
        self.isCancelled = True
        if self.process is not None:
            self.process.cancel()
        elif self.dependencies.engine is not None:
            self.dependencies.engine.cancel()

    def _problem(self, plan: InstallPlan) -> str:
        """Why it cannot begin, "" where it can."""
        if self.dependencies.isInstalling:
            return _("An installation is running already; wait for its end.")
        if self.wheelFolder is not None and not any(Path(self.wheelFolder).glob("*.whl")):
            return _("The folder '{folder}' holds no wheels (*.whl); choose the one they were copied to.").format(
                folder=self.wheelFolder
            )
        return plan.sentence if plan.packages and not plan.fits else ""

    def _installTorch(self, need: Requirement) -> None:
        logic = self.dependencies.torchLogic()
        if logic is None:
            sentence = _(
                "PyTorch is installed by Slicer's extension '{name}', which is not there: install it in the "
                "Extensions Manager, restart Slicer and press Install again."
            )
            self._end(Outcome(False, sentence.format(name=TORCH_EXTENSION), needsExtension=True))
            return

        def done(exitCode: int) -> None:
            self.process = None
            try:
                if exitCode == CANNOT_RUN and not self.isCancelled:
                    self._installTorchHere(logic, need)
                    exitCode = 0
                self._onTorchDone(exitCode)
            except Exception as error:
                self._fail(error)

        self._log(
            _("Installing PyTorch through the extension {name}; this takes minutes.").format(name=TORCH_EXTENSION)
        )
        self.process = self.dependencies.torchInstall(logic, need.specifier, self._offline(), self._log, done)

    def _installTorchHere(self, logic: Any, need: Requirement) -> None:
        """For a release of the extension that works only inside of Slicer."""
        self._log(_("The extension {name} holds up Slicer meanwhile.").format(name=TORCH_EXTENSION))
        with contextlib.redirect_stdout(installers.Lines(self._log)), installers.withVariables(self._offline()):
            callSupported(logic.installTorch, askConfirmation=False, torchVersionRequirement=need.specifier)

    def _onTorchDone(self, exitCode: int) -> None:
        importlib.invalidate_caches()
        if exitCode != 0 or self.isCancelled:
            self._endExplained("\n".join(self.lines))
        elif self.dependencies.installedVersion("torch") is None:
            sentence = _("PyTorch was not installed; press Install again, or use the module PyTorch Util.")
            self._end(Outcome(False, sentence, "\n".join(self.lines)))
        else:
            self._installRest()

    def _installRest(self) -> None:
        needs = [need for need in self.dependencies.missing(self.use) if need.name != "torch"]
        if not needs:
            self._test()
            return
        arguments = [str(need) for need in needs]
        if self.wheelFolder is not None:
            arguments += ["--no-index", "--find-links", self.wheelFolder]
        arguments += ["--prefer-binary", "-c", self._writeConstraints()]
        self._log("pip install " + " ".join(arguments))
        self.process = self.dependencies.pipInstall(arguments, self._log, self._onPipDone)

    def _onPipDone(self, exitCode: int) -> None:
        self.process = None
        self._removeConstraints()
        importlib.invalidate_caches()
        if exitCode != 0:
            self._endExplained("\n".join(self.lines))
            return
        still = ", ".join(need.name for need in self.dependencies.missing(self.use))
        if still:
            sentence = _("pip reported success, but {names} cannot be found; restart Slicer and press Install again.")
            self._end(Outcome(False, sentence.format(names=still), "\n".join(self.lines), needsRestart=True))
            return
        self._test()

    def _test(self) -> None:
        self._record()
        self._log(_("Testing in the worker."))
        self.dependencies.selfTest(self._end)

    def _record(self) -> None:
        """Remember what can be removed again."""
        settings = slicer.app.settings()
        recorded = (settings.value(INSTALLED_SETTING, "") or "").split()
        names = dict.fromkeys([*recorded, *(name for name in self.wanted if name != "torch")])
        settings.setValue(INSTALLED_SETTING, " ".join(names))

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
        self._endExplained("\n".join([*self.lines, f"{type(error).__name__}: {error}"]))

    def _endExplained(self, log: str) -> None:
        self._end(Outcome(False, explain(log, self.dependencies.folder, self.wheelFolder), log))

    def _end(self, outcome: Outcome) -> None:
        self._removeConstraints()
        self.dependencies.isInstalling = False
        if self.isCancelled and not outcome.success:
            sentence = _("The installation was cancelled; what was installed before stays.")
            outcome = Outcome(False, sentence, outcome.detail)
        self.onDone(outcome)

    def _offline(self) -> dict[str, str]:
        """Variables that keep a pip, which the extension starts, from the network."""
        return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.wheelFolder} if self.wheelFolder is not None else {}
