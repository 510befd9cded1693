"""The page *Models*: what is installed, what can be installed, add, remove."""

import qt
from slicer.i18n import tr as _

from MedGenLib import user_folders
from MedGenLib.packages.catalogue import is_embedded
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.ask import askWorker
from MedGenSlicer.panel.catalogue import titleOf
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection

MIB = 2**20


class ModelsSection(PanelSection):
    """Lists the models; the worker checks, installs, adds and removes them."""

    def __init__(self, context: Context) -> None:
        self._context, self._ui, self._models = context, context.ui, context.models
        self._offers = []
        self._isInstalling = False
        table = self._ui.modelsTable
        table.setHorizontalHeaderLabels([_("Model"), _("License"), _("Size")])
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.horizontalHeader().setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)
        # The names of the models need the room; a long license is in its tooltip.
        table.horizontalHeader().resizeSection(1, table.fontMetrics().horizontalAdvance("CC-BY-NC-4.0  "))
        self._menus = [
            widgets.addMenu(
                context,
                self._ui.addModelButton,
                (_("From a folder…"), lambda: self.add(context.dialogs.folder(_("Folder of a model package")))),
                (
                    _("From a zip file…"),
                    lambda: self.add(context.dialogs.file(_("Model package"), _("Model packages (*.zip)"))),
                ),
                (
                    _("From a web address…"),
                    lambda: self.add(context.dialogs.text(_("Add a model"), _("Web address of the zip file:"))),
                ),
            ),
            widgets.addMenu(
                context,
                self._ui.installModelButton,
                (_("From the Hugging Face hub…"), self.install),
                (
                    _("From a folder with the published files…"),
                    lambda: self.install(context.dialogs.folder(_("Folder with the published files"))),
                ),
                (
                    _("From a mirror of the hub…"),
                    lambda: self.install(context.dialogs.text(_("Install a model"), _("Web address of the mirror:"))),
                ),
            ),
        ]
        context.connect(table.itemSelectionChanged, self._selected)
        context.connect(self._ui.stopModelButton.clicked, self.stop)
        context.connect(self._ui.removeModelButton.clicked, self.removeSelected)
        context.connect(self._ui.openModelsFolderButton.clicked, self.openFolder)
        context.pages.onOpened(self._ui.modelsPage, self.fill)

    def fill(self) -> None:
        """Show the models that are installed, then the published ones that are not."""
        from MedGenLib.packages.hub.install import DOWNLOAD_MB, available

        table = self._ui.modelsTable
        self._offers = available({manifest.name for manifest in self._models.manifests})
        table.setRowCount(len(self._models.manifests) + len(self._offers))
        for row, manifest in enumerate(self._models.manifests):
            origin = _("comes with MedGen") if is_embedded(manifest) else _("added by you")
            about = f"{manifest.name}: {manifest.description}; {taskText(manifest.task)}; {origin}"
            self._setRow(row, titleOf(manifest, self._models.manifests), about, manifest.license, _weightsMib(manifest))
        for row, model in enumerate(self._offers, len(self._models.manifests)):
            about = _("{name}: {what}; not installed").format(name=model.name, what=model.description)
            self._setRow(row, model.title, about, model.license, DOWNLOAD_MB[model.name], isThere=False)
        widgets.fitRows(table)
        self._selected()

    def add(self, source: str) -> None:
        """Add a package from a folder, a zip file or a web address."""
        if not source:
            return
        self._tell(_("Adding and checking the model…"))
        self._ask("models/add", {"source": source}, _("The model was added."))

    def install(self, source: str | None = None) -> None:
        """Install the selected published model from the hub, a folder with its files, or a mirror of the hub.

        Its license is shown first, unless the user has accepted it before.
        """
        model = self._selectedOffer()
        if model is not None and not self._isInstalling and source != "":
            self._context.withPackages("published models", lambda: self._installOffer(model, source))

    def _installOffer(self, model, source: str | None) -> None:
        params = {"name": model.name, "source": source}

        def shown(answer: dict) -> None:
            if answer["accepted"] or self._context.dialogs.agree(
                _("License of {name}").format(name=model.name), answer["text"]
            ):
                self._setInstalling(True)
                self._ask(
                    "models/install",
                    {**params, "accept_license": True},
                    _("The model '{name}' was installed.").format(name=model.name),
                    self._installEnded,
                )
            else:
                self._tell(_("Nothing was downloaded, because the license was not accepted."))

        self._setInstalling(True)
        self._tell(_("Asking the server…"))
        askWorker(self._context, "models/license", params, shown, self._tell, self._installEnded)

    def stop(self) -> None:
        """Stop an installation; what was downloaded is kept for the next one."""
        if self._isInstalling:
            self._context.logic.engine.cancel()

    def removeSelected(self) -> None:
        """Delete the selected model after asking."""
        manifest = self._selectedManifest()
        if manifest is None or is_embedded(manifest):
            return
        question = _("Delete the model '{name}' from this computer?").format(name=manifest.title)
        if self._context.dialogs.confirm(question, _("Remove model")):
            self._ask(
                "models/remove",
                {"name": manifest.name},
                _("The model '{name}' was removed.").format(name=manifest.title),
            )

    def openFolder(self) -> None:
        """Show the folder of the models that the user added."""
        folder = user_folders.models_dir()
        folder.mkdir(parents=True, exist_ok=True)
        self._context.dialogs.open(str(folder))

    def _ask(self, method: str, params: dict, done: str, onEnd=None) -> None:
        def finished(answer: dict) -> None:
            self._models.reload()
            self.fill()
            self._tell(done)
            self._context.changed()

        askWorker(self._context, method, params, finished, self._tell, onEnd)

    def _installEnded(self) -> None:
        self._setInstalling(False)

    def _setInstalling(self, isInstalling: bool) -> None:
        self._isInstalling = isInstalling
        self._ui.installModelButton.setVisible(not isInstalling)
        self._ui.stopModelButton.setVisible(isInstalling)

    def _selected(self) -> None:
        manifest = self._selectedManifest()
        self._ui.removeModelButton.setEnabled(manifest is not None and not is_embedded(manifest))
        self._ui.installModelButton.setEnabled(self._selectedOffer() is not None)

    def _selectedManifest(self):
        row = self._ui.modelsTable.currentRow()
        return self._models.manifests[row] if 0 <= row < len(self._models.manifests) else None

    def _selectedOffer(self):
        row = self._ui.modelsTable.currentRow() - len(self._models.manifests)
        return self._offers[row] if 0 <= row < len(self._offers) else None

    def _setRow(self, row: int, name: str, about: str, license_, megabytes: float, isThere: bool = True) -> None:
        """A row of the table; what is not installed is gray, with the size of the download in brackets."""
        table = self._ui.modelsTable
        use = _("commercial use allowed") if license_.commercial_use else _("no commercial use")
        size = (_("{size} MB") if isThere else _("({size} MB)")).format(size=round(megabytes))
        sizeTip = size if isThere else _("{size} MB to download").format(size=round(megabytes))
        cells = (
            widgets.cell(name, about),
            widgets.cell(licenseText(license_), f"{license_.spdx}: {use}"),
            widgets.cell(size, sizeTip),
        )
        for column, item in enumerate(cells):
            if not isThere:
                item.setForeground(qt.QBrush(qt.QColor("gray")))
            table.setItem(row, column, item)

    def _tell(self, text: str) -> None:
        widgets.tell(self._ui.modelsLabel, text)


def taskText(task: str) -> str:
    """What a model is for."""
    return {
        "generate": _("makes images from masks"),
        "translate": _("translates images"),
        "enhance": _("makes slices finer and removes noise"),
        "classify": _("finds the class of an image, in the console"),
        "detect": _("finds candidates of lesions, in the console"),
        "sequence": _("makes a series over time of an image, in a terminal"),
        "segment": _("finds labels in images, for the evaluation"),
        "features": _("compares cohorts of images, for the evaluation"),
    }.get(task, task)


def licenseText(license_) -> str:
    """An identifier without the prefix that SPDX gives those that it does not list."""
    return license_.spdx.removeprefix("LicenseRef-").replace("-OneWay-", "-")


def _weightsMib(manifest) -> float:
    paths = {manifest.weights_path(role) for role in manifest.networks}
    return sum(path.stat().st_size for path in paths if path.is_file()) / MIB
