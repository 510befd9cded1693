"""The section *Models*: what is installed, add, remove."""

import qt
from slicer.i18n import tr as _

from MedGenLib import home
from MedGenLib.packages.catalogue import is_embedded
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.ask import askWorker
from MedGenSlicer.panel.catalogue import Models
from MedGenSlicer.panel.context import Context

MIB = 2**20


class ModelsSection:
    """Lists the models; the worker checks, adds and removes them."""

    def __init__(self, context: Context, models: Models) -> None:
        self._context = context
        self._ui = context.ui
        self._models = models
        table = self._ui.modelsTable
        table.setHorizontalHeaderLabels([_("Model"), _("License"), _("Size")])
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in (1, 2):
            table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        self._addMenu()
        context.connect(table.itemSelectionChanged, self._selected)
        context.connect(self._ui.removeModelButton.clicked, self.removeSelected)
        context.connect(self._ui.openModelsFolderButton.clicked, self.openFolder)
        context.connect(self._ui.modelsSection.contentsCollapsed, self._opened)

    def update(self) -> None:
        """Show the models that are installed."""
        table = self._ui.modelsTable
        table.setRowCount(len(self._models.manifests))
        for row, manifest in enumerate(self._models.manifests):
            origin = _("comes with MedGen") if is_embedded(manifest) else _("added by you")
            license_ = manifest.license.spdx
            use = _("commercial use allowed") if manifest.license.commercial_use else _("no commercial use")
            about = f"{manifest.description}; {taskText(manifest.task)}; {origin}"
            table.setItem(row, 0, widgets.cell(manifest.name, about))
            table.setItem(row, 1, widgets.cell(license_, f"{license_}: {use}"))
            table.setItem(row, 2, widgets.cell(_("{size} MB").format(size=round(_weightsMib(manifest)))))
        widgets.fitRows(table)
        self._selected()

    def add(self, source: str) -> None:
        """Add a package from a folder, a zip file or a web address."""
        if not source:
            return
        self._tell(_("Adding and checking the model…"))
        self._ask("models/add", {"source": source}, _("The model was added."))

    def removeSelected(self) -> None:
        """Delete the selected model after asking."""
        manifest = self._selectedManifest()
        if manifest is None or is_embedded(manifest):
            return
        question = _("Delete the model '{name}' from this computer?").format(name=manifest.name)
        if self._context.dialogs.confirm(question, _("Remove model")):
            self._ask("models/remove", {"name": manifest.name},
                      _("The model '{name}' was removed.").format(name=manifest.name))

    def openFolder(self) -> None:
        """Show the folder of the models that the user added."""
        folder = home.models_dir()
        folder.mkdir(parents=True, exist_ok=True)
        self._context.dialogs.open(str(folder))

    def _addMenu(self) -> None:
        menu = qt.QMenu(self._ui.addModelButton)
        for text, function in (
            (_("From a folder…"), self._addFolder),
            (_("From a zip file…"), self._addFile),
            (_("From a web address…"), self._addAddress),
        ):
            self._context.connect(menu.addAction(text).triggered, function)
        self._ui.addModelButton.setMenu(menu)
        self._menu = menu

    def _addFolder(self) -> None:
        self.add(self._context.dialogs.folder(_("Folder of a model package")))

    def _addFile(self) -> None:
        self.add(self._context.dialogs.file(_("Model package"), _("Model packages (*.zip)")))

    def _addAddress(self) -> None:
        self.add(self._context.dialogs.text(_("Add a model"), _("Web address of the zip file:")))

    def _ask(self, method: str, params: dict, done: str) -> None:
        def finished(answer: dict) -> None:
            self._models.reload()
            self.update()
            self._tell(done)
            self._context.changed()

        askWorker(self._context, method, params, finished, self._tell)

    def _opened(self) -> None:
        if not self._ui.modelsSection.collapsed:
            self.update()

    def _selected(self) -> None:
        manifest = self._selectedManifest()
        self._ui.removeModelButton.setEnabled(manifest is not None and not is_embedded(manifest))

    def _selectedManifest(self):
        row = self._ui.modelsTable.currentRow()
        return self._models.manifests[row] if 0 <= row < len(self._models.manifests) else None

    def _tell(self, text: str) -> None:
        self._ui.modelsLabel.text = text
        self._ui.modelsLabel.setVisible(bool(text))


def taskText(task: str) -> str:
    """What a model is for."""
    return {"generate": _("makes images from masks"), "translate": _("translates images"),
            "segment": _("finds labels in images, for the evaluation"),
            "features": _("compares cohorts of images, for the evaluation")}.get(task, task)


def _weightsMib(manifest) -> float:
    paths = {manifest.weights_path(role) for role in manifest.networks}
    return sum(path.stat().st_size for path in paths if path.is_file()) / MIB
