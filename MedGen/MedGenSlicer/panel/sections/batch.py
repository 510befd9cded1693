"""The page *Batch*: every file of a folder, with the settings that the panel shows.

Its form is loaded when the page is first opened.
"""

import os
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError, MedGenError
from MedGenSlicer import paths
from MedGenSlicer.jobs.cohort import besideOf
from MedGenSlicer.models import useOf
from MedGenSlicer.nodes.labels import mappingOfFiles
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.catalogue import qualityText
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection

SINGLE = ("uncertainty", "style", "samples", "mapping")
"""Settings of a tab that go another way, or are for one image only."""


class BatchSection(PanelSection):
    """A row for each case: name, status, seconds, and why it failed.

    Attributes
    ----------
    ui: widgets of Batch.ui by name; None until the page was opened.
    run: the current `CohortRun`, or the last one.
    """

    def __init__(self, context: Context) -> None:
        self._context, self.ui, self.run = context, None, None
        self._proposal, self._rows = "", {}
        context.pages.onOpened(context.ui.batchPage, self._opened)

    def update(self) -> None:
        """Show what would be run, and enable what can be pressed."""
        ui, parameters = self.ui, self._context.parameters
        if ui is None or parameters is None:
            return
        manifest, isRunning = self._tab.manifest, self._isRunning
        text = _("No model of this computer does that; install one.")
        if manifest is not None:
            text = _("With {model}, quality {quality}, and the other settings of the panel.")
            text = text.format(model=manifest.title, quality=qualityText(parameters.preset))
        ui.batchSettingsLabel.text = text
        ui.batchButton.text = _("Cancel") if isRunning else _("Run")
        hasPaths = bool(ui.batchFolderEdit.currentPath and ui.batchOutputEdit.currentPath)
        ui.batchButton.setEnabled(isRunning or (hasPaths and manifest is not None))
        for widget in (ui.batchFolderEdit, ui.batchTaskComboBox, ui.batchOutputEdit):
            widget.setEnabled(not isRunning)
        self._selected()

    def start(self) -> None:
        """Run all cases that are not done."""
        manifest = self._tab.manifest
        uses = [use for use in ("cohorts", "reports", useOf(manifest)) if use]
        self._withAll(uses, self._start)

    def open(self) -> None:
        """Load the image of the selected case."""
        name = self._selectedName()
        if name is not None:
            widgets.tell(self.ui.batchLabel, _("Loading…"))
            guarded = self._context.guarded
            self._context.logic.openCase(
                self.run.outputFolder, name, wait=False, onDone=lambda run: guarded(self._loaded, run)
            )

    @property
    def _isRunning(self) -> bool:
        return self.run is not None and not self.run.isDone

    @property
    def _tab(self):
        """The tab whose settings count."""
        return self._context.tabs[widgets.chosen(self.ui.batchTaskComboBox)]

    def _opened(self) -> None:
        if self.ui is None:
            self._load()
        if not self._isRunning and not self.ui.batchFolderEdit.currentPath:
            widgets.selectData(self.ui.batchTaskComboBox, self._context.task)
        self.update()

    def _load(self) -> None:
        form = slicer.util.loadUI(str(paths.resource("UI/Batch.ui")))
        self._context.ui.batchPage.layout().addWidget(form)
        self.ui = ui = slicer.util.childWidgetVariables(form)
        tasks = [(_("Generate from mask"), "generate", ""), (_("Translate CT / MR"), "translate", "")]
        widgets.fillCombo(ui.batchTaskComboBox, tasks, self._context.task)
        table = ui.batchTable
        table.setHorizontalHeaderLabels([_("Case"), _("Status"), _("Seconds"), _("Why it failed")])
        table.verticalHeader().setVisible(False)
        for column in (1, 2):
            table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().resizeSection(0, table.fontMetrics().horizontalAdvance("patient-00001"))
        connect = self._context.connect
        self._context.connectPath(ui.batchFolderEdit, self._propose)
        self._context.connectPath(ui.batchOutputEdit, self.update)
        connect(ui.batchTaskComboBox.currentIndexChanged, self._propose)
        connect(ui.batchButton.clicked, self._pressed)
        connect(table.itemSelectionChanged, self._tellWhy)
        connect(ui.batchOpenButton.clicked, self.open)
        connect(ui.batchReportButton.clicked, lambda: self._context.dialogs.open(self.run.report))

    def _propose(self) -> None:
        """Results beside the folder, unless the user chose another place."""
        edit, folder = self.ui.batchOutputEdit, self.ui.batchFolderEdit.currentPath
        if edit.currentPath in ("", self._proposal):
            task = widgets.chosen(self.ui.batchTaskComboBox)
            self._proposal = besideOf(folder, task) if folder else ""
            edit.currentPath = self._proposal
        self.update()

    def _pressed(self) -> None:
        if self._isRunning:
            self.run.cancel()
        else:
            self.start()

    def _withAll(self, uses: list[str], then) -> None:
        if not uses:
            then()
        else:
            self._context.withPackages(uses[0], lambda: self._withAll(uses[1:], then))

    def _start(self) -> None:
        ui, guarded = self.ui, self._context.guarded
        ui.batchTable.setRowCount(0)
        ui.batchTable.setVisible(False)
        self._rows = {}
        try:
            self.run = self._context.logic.runCohort(
                ui.batchFolderEdit.currentPath,
                widgets.chosen(ui.batchTaskComboBox),
                ui.batchOutputEdit.currentPath,
                wait=False,
                onProgress=lambda progress: guarded(self._show, progress),
                onDone=lambda run: guarded(self._done, run),
                **self._settings(),
            )
        except MedGenError as error:
            widgets.tell(ui.batchLabel, words.inPanel(str(error)))
        self.update()

    def _settings(self) -> dict[str, Any]:
        """The settings of the panel at this moment. Only a kept seed counts: another one would repeat every case."""
        parameters, tab = self._context.parameters, self._tab
        given = tab.arguments()
        chosen = {name: value for name, value in given.items() if value is not None and name not in SINGLE}
        if given.get("mapping"):
            chosen["mapping"] = mappingOfFiles(tab.inputNode, given["mapping"])
        if given.get("style") is not None:
            chosen["style"] = _fileOf(given["style"])
        if "samples" in given:
            chosen |= {"samples": given["samples"], "seed": parameters.seed if parameters.seedLocked else 0}
        return {**chosen, "preset": parameters.preset, "device": parameters.device}

    def _show(self, progress: dict) -> None:
        run = self._context.logic.currentCohort
        done, failed = run.counts
        text = progress["stage"][:1].upper() + progress["stage"][1:] + "…"
        if run.state == "running":
            text = _("{done} of {total} done, {failed} failed").format(
                done=done, total=progress["total"], failed=failed
            )
            if progress["seconds_left"]:
                text = _("{text}, about {time} left").format(text=text, time=words.duration(progress["seconds_left"]))
        widgets.tell(self.ui.batchLabel, text)
        bar = self.ui.batchBar
        bar.setVisible(True)
        bar.setRange(0, progress["total"])
        bar.setValue(progress["step"])
        self._fill(run)

    def _done(self, run) -> None:
        self._fill(run)
        self.ui.batchBar.setVisible(False)
        done, failed = run.counts
        text = _("{done} of {total} done, {failed} failed.").format(done=done, total=len(run.cases), failed=failed)
        widgets.tell(self.ui.batchLabel, text if run.error is None else words.inPanel(str(run.error)))
        self.update()

    def _fill(self, run) -> None:
        """Show the rows that changed."""
        table = self.ui.batchTable
        if len(self._rows) != len(run.cases):
            self._rows = {name: row for row, name in enumerate(run.cases)}
            table.setRowCount(len(self._rows))
            widgets.fitRows(table)
            table.setVisible(True)
        for name in run.changed:
            case = run.cases[name]
            why = words.inPanel(case.sentence)
            seconds = "" if case.seconds is None else f"{case.seconds:.1f}"
            shown = why.replace(os.path.join(run.folder.resolve(), ""), "")
            for column, text in enumerate((name, _status(case.status), seconds, shown)):
                table.setItem(self._rows[name], column, widgets.cell(text, why or name))
            table.item(self._rows[name], 2).setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        self._selected()

    def _selectedName(self) -> str | None:
        """The selected case, where it has an image."""
        rows = [item.row() for item in self.ui.batchTable.selectedItems()]
        name = next((name for name, row in self._rows.items() if row in rows), None)
        return name if name is not None and self.run.cases[name].status in ("done", "kept") else None

    def _selected(self) -> None:
        self.ui.batchOpenButton.setEnabled(self._selectedName() is not None)
        self.ui.batchReportButton.setEnabled(self.run is not None and bool(self.run.report))

    def _tellWhy(self) -> None:
        """The sentence of the selected case below the button, where the column has no room for it."""
        self._selected()
        cell = self.ui.batchTable.item(self.ui.batchTable.currentRow(), 3)
        if cell is not None and cell.text() and self.ui.batchTable.selectedItems() and not self._isRunning:
            widgets.tell(self.ui.batchLabel, cell.toolTip())

    def _loaded(self, run) -> None:
        if run.error is not None:
            widgets.tell(self.ui.batchLabel, str(run.error))
            return
        widgets.tell(self.ui.batchLabel, _("In the scene as '{name}'.").format(name=run.node.GetName()))
        slicer.util.setSliceViewerLayers(background=run.node, fit=True)


def _status(name: str) -> str:
    return {"waiting": _("waiting"), "running": _("running"), "done": _("done"), "kept": _("done before")}.get(
        name, _("failed")
    )


def _fileOf(node) -> str:
    """The file of a volume that every case gets."""
    storage = node.GetStorageNode()
    path = storage.GetFullNameFromFileName() if storage is not None else ""
    if not path or node.GetModifiedSinceRead():
        sentence = _("'{name}', whose look the images get, is not saved; save it to a file first.")
        raise InputError(sentence.format(name=node.GetName()))
    return path
