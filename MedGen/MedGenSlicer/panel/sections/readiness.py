"""The strip at the top: is everything here that a run needs?"""

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, MedGenError
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection

MOST_LETTERS = 60
"""Of an installer's line that are shown; the tooltip has all."""


class Readiness(PanelSection):
    """Installed? Then which device, with how much free memory; else one button that installs.

    States: "idle" (nothing asked yet), "missing", "installing", "extension" (of Slicer, needed for PyTorch),
    "restart", "starting", "ready", "failed".
    """

    def __init__(self, context: Context) -> None:
        self._context, self._ui = context, context.ui
        self.state = ""
        self._device = ""
        self._onDevices = lambda devices: None
        context.connect(self._ui.installButton.clicked, self._pressed)
        self._menu = widgets.addMenu(
            context,
            self._ui.readinessMenuButton,
            (_("Run on another computer…"), self.chooseEngine),
            (_("Copy diagnostics"), self.copyDiagnostics),
            (_("Check installation again"), self._checkAgain),
            (_("Install from a folder…"), self.installFromFolder),
            (_("Remove installed packages…"), self.remove),
            (_("Offline and proxy help"), self.showHelp),
        )

    def onDevices(self, function) -> None:
        """Call `function(devices)` whenever the worker has listed its devices."""
        self._onDevices = function

    @property
    def isInstalled(self) -> bool:
        """Whether a run can be tried."""
        return self.state not in ("missing", "installing", "restart", "extension")

    def refresh(self) -> None:
        """Show what is installed and what is known of the worker; quick, starts nothing."""
        engine = self._context.logic.engine
        if self.state in ("installing", "restart", "extension") or (self.state == "failed" and engine.state == "off"):
            return
        if engine.info:
            self._updated(engine.info.get("devices") or [])
        elif self._context.logic.dependencies.missing(engine.use):
            self._show(
                "missing",
                "warning",
                _("Some Python packages have to be installed once."),
                _("Install…"),
                _("Show what has to be installed, with download and disk size in MB, and install it after you agree"),
            )
        elif engine.state == "starting":
            self._show("starting", "wait", self._waitText())
        else:
            # A worker that was stopped leaves what is known of the computer.
            self._show("idle", "ok", self._device or _("Installed. Select an input to begin."))

    def startWorker(self) -> None:
        """Start the worker in the background, so that device and memory are known before the run."""
        engine = self._context.logic.engine
        if not self.isInstalled or engine.state != "off":
            return
        self._show("starting", "wait", self._waitText())
        engine.start(
            lambda *unused: self._context.guarded(self._started),
            lambda error: self._context.guarded(self._notStarted, error),
        )

    def askDevices(self) -> None:
        """Ask the worker for its free memory again."""
        engine = self._context.logic.engine
        if engine.state == "ready":
            engine.request(
                "devices",
                {},
                onResult=lambda answer: self._context.guarded(self._updated, answer.get("devices", [])),
                onError=lambda error: None,
            )

    def install(self, wheelFolder: str | None = None) -> None:
        """Say what is installed, ask once, install, test.

        wheelFolder: a folder of wheels to take instead of the network.
        """
        dependencies, use = self._context.logic.dependencies, self._context.logic.engine.use
        if self._agrees(dependencies.plan(use)):
            self._begin()
            dependencies.install(
                self._log, lambda outcome: self._context.guarded(self._installed, outcome), wheelFolder, use
            )

    def withPackages(self, use: str, then: Callable[[], None]) -> None:
        """Call `then()` once everything for a use is installed; asks first where something is missing, and does nothing
        more where the user does not agree.

        use: of `MedGenLib/requirements.txt`.
        """
        dependencies = self._context.logic.dependencies

        def installed(outcome) -> None:
            self._leave()
            if outcome.success:
                then()
            else:
                title = _("Install packages for {use}").format(use=use)
                self._context.dialogs.show(outcome.sentence, title, outcome.detail)

        if not dependencies.missing(use):
            then()
        elif self._agrees(dependencies.plan(use)):
            self._begin()
            dependencies.install(self._log, lambda outcome: self._context.guarded(installed, outcome), use=use)

    def remove(self) -> None:
        """Uninstall the packages that MedGen installed, after asking."""
        dependencies, title = self._context.logic.dependencies, _("Remove installed packages")
        names = ", ".join(dependencies.removable())
        if not names:
            self._context.dialogs.show(_("MedGen has installed no packages that could be removed."), title)
            return
        question = _(
            "{packages} will be removed from Slicer's Python. Other extensions that use them will have to install them "
            "again. Models are removed in the list of models, PyTorch with the module PyTorch Util."
        )
        if not self._context.dialogs.confirm(question.format(packages=names), title):
            return

        def removed(outcome) -> None:
            self._leave()
            self._context.dialogs.show(outcome.sentence, title, outcome.detail)

        self._show("installing", "wait", _("Removing…"))
        self._context.changed()
        dependencies.remove(self._log, lambda outcome: self._context.guarded(removed, outcome))

    def chooseEngine(self) -> None:
        """Ask where models run: on this computer, or at an address where `medgen serve` runs, with a token."""
        dialogs, title = self._context.dialogs, _("Where models run")
        answer = dialogs.choose(title, _("Models run on"), [_("This computer"), _("Another computer")])
        address = dialogs.text(title, _("Its address, such as wss://workstation:7450")) if answer == 1 else ""
        if answer < 0 or (answer == 1 and not address):
            return
        if address:
            from MedGenLib.worker.remote.certificate import remember
            from MedGenLib.worker.remote.frames import parsed

            try:
                address = parsed(address)[0]
                if token := dialogs.text(title, _("Your token; leave it empty to keep the one you gave before")):
                    remember(address, token=token.strip())
            except MedGenError as error:
                dialogs.show(str(error), title)
                return
        self._context.logic.engine.address = address
        self._device = ""
        self._checkAgain()

    def copyDiagnostics(self) -> None:
        """Versions, devices and paths, on the clipboard."""
        self._context.dialogs.copy(self._context.logic.dependencies.diagnostics())

    def showHelp(self) -> None:
        """What to do without a network or behind a proxy."""
        self._context.dialogs.show(
            _(
                "Behind a proxy: set HTTPS_PROXY before Slicer is started. Without a network: on a computer that has"
                ' one, run "pip download -r requirements.txt torch" with the same operating system and Python, copy'
                ' the folder of wheels here, and choose "Install from a folder" in this menu.'
            ),
            _("Installing MedGen's packages"),
        )

    def installFromFolder(self) -> None:
        """Install from a folder of wheels, without a network."""
        folder = self._context.dialogs.folder(_("Folder of wheels"))
        if folder:
            self.install(folder)

    def _pressed(self) -> None:
        if self.state == "failed":
            self._checkAgain()
        elif self.state == "restart":
            self._context.dialogs.restart()
        elif self.state == "extension":
            self._installExtension()
        elif self.state == "installing":
            self._context.logic.dependencies.cancel()
        else:
            self.install()

    def _checkAgain(self) -> None:
        self.state = ""
        self.refresh()
        if self.state == "idle":
            self.startWorker()

    def _started(self) -> None:
        info = self._context.logic.engine.info
        if info:
            self._updated(info.get("devices") or [])

    def _notStarted(self, error) -> None:
        # A scene that was closed, or a cancel, ended it on purpose: it starts again with the next input.
        isOnPurpose = isinstance(error, Cancelled) or slicer.mrmlScene.IsClosing()
        if isOnPurpose or self._context.logic.dependencies.missing(self._context.logic.engine.use):
            self.state = ""
            self.refresh()
            return
        self._show("failed", "error", str(error), _("Try again"), _("Start the worker again"))

    def _updated(self, devices: list[dict]) -> None:
        # The last one named is what "Automatic" takes when a GPU is there.
        best = next((device for device in devices if device["name"] != "cpu"), devices[0] if devices else None)
        text = _("Ready: {device}").format(device=words.device(best)) if best else _("Ready")
        if address := self._context.logic.engine.address:
            text = _("{ready}, at {address}").format(ready=text, address=address)
        self._device = text
        self._show("ready", "ok", text)
        self._onDevices(devices)

    def _waitText(self) -> str:
        if address := self._context.logic.engine.address:
            return _("Connecting to {address}…").format(address=address)
        return _("Checking this computer…")

    def _agrees(self, plan) -> bool:
        return self._context.dialogs.confirm(plan.sentence, _("Install packages for MedGen"))

    def _begin(self) -> None:
        self._show("installing", "wait", _("Installing…"), _("Cancel"), _("Stop; what was installed before stays"))
        self._context.changed()

    def _leave(self) -> None:
        """Nothing is installed or removed any longer."""
        self.state = ""
        self.refresh()
        self._context.changed()

    def _log(self, line: str) -> None:
        self._context.guarded(self._logged, line)

    def _logged(self, line: str) -> None:
        self._ui.readinessLabel.text = _("Installing… {line}").format(line=line.strip()[:MOST_LETTERS])
        self._ui.readinessLabel.toolTip = line

    def _installed(self, outcome) -> None:
        self.state = ""
        if outcome.success and not outcome.needsRestart:
            self.refresh()
            self.startWorker()
            self._context.changed()
        elif outcome.needsRestart:
            self._show("restart", "warning", outcome.sentence, _("Restart"), _("Close and open Slicer"))
        elif outcome.needsExtension:
            self._show("extension", "warning", outcome.sentence, _("Get it…"), _("Install Slicer's PyTorch extension"))
        else:
            self._show("missing", "warning", outcome.sentence, _("Try again"), _("Try the installation again"))
        self._ui.readinessLabel.toolTip = outcome.detail

    def _installExtension(self) -> None:
        question = _("Install Slicer's extension PyTorch? Slicer has to be restarted after it.")
        if self._context.dialogs.confirm(question, _("Install extension")):
            self._installed(self._context.logic.dependencies.installExtension())

    def _show(self, state: str, icon: str, text: str, button: str = "", purpose: str = "") -> None:
        self.state = state
        widgets.setIcon(self._ui.readinessIcon, icon)
        self._ui.readinessLabel.text = text
        self._ui.readinessLabel.toolTip = ""
        self._ui.installButton.text = button
        self._ui.installButton.toolTip = purpose
        self._ui.installButton.setVisible(bool(button))
