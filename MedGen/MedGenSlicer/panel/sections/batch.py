"""The page *Batch*: every file of a folder, with the settings that the panel shows."""

import os
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer import paths
from MedGenSlicer.jobs.cohort import CaseState, besideOf
from MedGenSlicer.models import useOf
from MedGenSlicer.nodes.labels import mappingOfFiles
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.catalogue import qualityText
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection, RunningSection


class BatchSection(PanelSection):
    """Loads the form when the page is first opened; None before."""

    def __init__(self, context: Context) -> None:
        self._context, self.form = context, None
        context.pages.onOpened(context.ui.batchPage, self._opened)

    def update(self) -> None:
        if self.form is not None:
            self.form.update()

    def _opened(self) -> None:
        self.form = self.form or BatchForm(self._context)
        self.update()


class BatchForm(RunningSection):
    """A row for each case: name, status, seconds, and why it failed."""

    def __init__(self, context: Context) -> None:
        form = slicer.util.loadUI(str(paths.resource("UI/Batch.ui")))
        form.layout().setContentsMargins(0, 0, 0, 0)
        context.ui.batchPage.layout().addWidget(form)
        self.ui = ui = slicer.util.childWidgetVariables(form)
        super().__init__(context, ui.batchLabel, ui)
        self._proposal, self._rows = "", []
        tasks = [(_("Generate from mask"), "generate", ""), (_("Translate CT / MR"), "translate", "")]
        widgets.fillCombo(ui.batchTaskComboBox, tasks, context.task)
        table, header = ui.batchTable, ui.batchTable.horizontalHeader()
        table.setHorizontalHeaderLabels([_("Case"), _("Status"), _("Seconds"), _("Why it failed")])
        for widget in (table, table.verticalHeader()):
            widget.setVisible(False)
        for column in (1, 2):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.setStretchLastSection(True)
        header.resizeSection(0, table.fontMetrics().horizontalAdvance("patient-00001"))
        context.connectPath(ui.batchFolderEdit, self._propose)
        context.connectPath(ui.batchOutputEdit, self.update)
        context.connect(ui.batchTaskComboBox.currentIndexChanged, self._propose)
        context.connect(ui.batchButton.clicked, self._pressed)
        context.connect(table.itemSelectionChanged, self._selected)
        context.connect(ui.batchOpenButton.clicked, self._open)
        context.connect(ui.batchReportButton.clicked, lambda: context.dialogs.open(self._cohort.report))

    def update(self) -> None:
        """Show what would be run, and enable what can be pressed."""
        ui, parameters = self.ui, self._context.parameters
        if parameters is None:
            return
        manifest, isRunning = self._tab.manifest, self._isRunning
        ui.batchSettingsLabel.text = _("With {model}, quality {quality}, and the other settings of the panel.").format(
            model=manifest.title if manifest is not None else "-", quality=qualityText(parameters.preset)
        )
        ui.batchButton.text = _("Cancel") if isRunning else _("Run")
        hasPaths = bool(ui.batchFolderEdit.currentPath and ui.batchOutputEdit.currentPath)
        ui.batchButton.setEnabled(isRunning or (hasPaths and manifest is not None))
        for widget in (ui.batchFolderEdit, ui.batchTaskComboBox, ui.batchOutputEdit):
            widget.setEnabled(not isRunning)
        ui.batchOpenButton.setEnabled(self._case.status in ("done", "kept"))
        ui.batchReportButton.setEnabled(self._cohort is not None and bool(self._cohort.report))

    @property
    def _tab(self):
        """The tab whose settings count."""
        return self._context.tabs[widgets.chosen(self.ui.batchTaskComboBox)]

    @property
    def _cohort(self):
        return self._context.logic.currentCohort

    @property
    def _name(self) -> str:
        """The selected case, "" for none."""
        items = self.ui.batchTable.selectedItems()
        return self._rows[items[0].row()] if items else ""

    @property
    def _case(self) -> CaseState:
        return self._cohort.cases.get(self._name, CaseState()) if self._cohort is not None else CaseState()

    def _propose(self) -> None:
        """Results beside the folder, unless the user chose another place."""
        edit, folder = self.ui.batchOutputEdit, self.ui.batchFolderEdit.currentPath
        if edit.currentPath in ("", self._proposal):
            self._proposal = besideOf(folder, self._tab.task) if folder else ""
            edit.currentPath = self._proposal
        self.update()

    def _pressed(self) -> None:
        if self._isRunning:
            self._cohort.cancel()
        else:
            self._runWith(["", "cohorts", "reports", useOf(self._tab.manifest)])

    def _runWith(self, uses: list[str]) -> None:
        """Run all cases that are not done, once the packages of these uses are installed."""
        if uses:
            self._context.withPackages(uses[0], lambda: self._runWith(uses[1:]))
            return
        places = self.ui.batchFolderEdit.currentPath, self._tab.task, self.ui.batchOutputEdit.currentPath
        self._run(_("Reading the files…"), self._context.logic.runCohort, *places, **self._settings())

    def _settings(self) -> dict[str, Any]:
        """The settings at this moment. Only a kept seed counts: another one would repeat every case."""
        parameters, tab = self._context.parameters, self._tab
        chosen = {**tab.arguments(), "preset": parameters.preset, "device": parameters.device}
        del chosen["uncertainty"]
        if chosen.get("mapping"):
            chosen["mapping"] = mappingOfFiles(tab.inputNode, chosen["mapping"])
        if chosen.get("style"):
            chosen["style"] = _fileOf(chosen["style"])
        if parameters.seedLocked:
            chosen["seed"] = parameters.seed
        return {name: value for name, value in chosen.items() if value is not None}

    def _shown(self, run) -> str:
        return f"{run.summary}."

    def _tell(self, sentence: str) -> None:
        """Show a sentence and the rows that changed."""
        super()._tell(words.inPanel(sentence))
        cohort, table = self._cohort, self.ui.batchTable
        if cohort is None:
            return
        if self._rows != list(cohort.cases):
            self._rows = list(cohort.cases)
            table.setRowCount(0)
            table.setRowCount(len(self._rows))
            widgets.fitRows(table)
            table.setVisible(bool(self._rows))
        places = {name: row for row, name in enumerate(self._rows)}
        for name in cohort.changed:
            case = cohort.cases[name]
            why = words.inPanel(case.sentence)
            seconds = "" if case.seconds is None else f"{case.seconds:.1f}"
            shown = why.replace(os.path.join(cohort.folder.resolve(), ""), "")
            for column, text in enumerate((name, _status(case.status), seconds, shown)):
                table.setItem(places[name], column, widgets.cell(text, why or name))
            table.item(places[name], 2).setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)

    def _selected(self) -> None:
        """The sentence of the selected case, for which the column has no room."""
        self.update()
        if self._case.sentence and not self._isRunning:
            self._tell(self._case.sentence)

    def _open(self) -> None:
        guarded = self._context.guarded
        self._context.logic.openCase(
            self._cohort.outputFolder, self._name, wait=False, onDone=lambda run: guarded(self._loaded, run)
        )

    def _loaded(self, run) -> None:
        if run.error is None:
            slicer.util.setSliceViewerLayers(background=run.node, fit=True)
        self._tell(str(run.error or _("In the scene as '{name}'.").format(name=run.node.GetName())))


def _status(name: str) -> str:
    known = {"waiting": _("waiting"), "running": _("running"), "done": _("done"), "kept": _("done before")}
    return known.get(name, _("failed"))


def _fileOf(node) -> str:
    """The file of a volume that every case gets."""
    storage = node.GetStorageNode()
    if storage is None or node.GetModifiedSinceRead():
        sentence = _("'{name}', whose look the images get, is not saved; save it to a file first.")
        raise InputError(sentence.format(name=node.GetName()))
    return storage.GetFullNameFromFileName()
