"""The section *Export to DICOM*: a node becomes a series in its patient's study."""

from slicer.i18n import tr as _

from MedGenSlicer.jobs import dicom
from MedGenSlicer.nodes.kinds import isMask
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import RunningSection


class DicomSection(RunningSection):
    """What to export, whose study it joins, and where it goes."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.ui.exportLabel)
        self._proposedFor = ""
        self._ui.exportSourceSelector.addAttribute("vtkMRMLScalarVolumeNode", dicom.INSTANCES)
        context.connect(self._ui.exportButton.clicked, self._chooseFolder)
        context.connect(self._ui.exportSection.contentsCollapsed, self.update)

    def forget(self) -> None:
        self._proposedFor = ""
        self._tell("")

    def update(self) -> None:
        """Say what an export would do, and enable it; the study is proposed once a node."""
        parameters = self._context.parameters
        if parameters is None or self._ui.exportSection.collapsed:
            return
        node = parameters.exportNode
        nodeID = node.GetID() if node is not None else ""
        if nodeID and nodeID != self._proposedFor:
            isFirst, self._proposedFor = not self._proposedFor, nodeID
            self._tell("")
            if not isFirst or parameters.exportSource is None:  # else it was chosen and saved with the scene
                parameters.exportSource = dicom.findSource(node)
        self._ui.exportHintLabel.text = self._hint(node, parameters.exportSource)
        hasDatabase = dicom.database() is not None
        self._ui.exportDatabaseCheckBox.setVisible(hasDatabase)
        canExport = node is not None and (parameters.exportSource is not None or not isMask(node))
        self._ui.exportButton.setEnabled(canExport and not self._isRunning)

    def export(self, folder: str) -> None:
        """Write the series into a new folder below `folder`; the panel stays usable."""
        parameters = self._context.parameters
        node = parameters.exportNode
        # The name of a node may be that of the patient.
        name = _("de-identified") if parameters.exportDeidentify else node.GetName()
        self._run(
            _("Writing…"),
            self._context.logic.exportDicom,
            node,
            dicom.newFolder(folder, name),
            parameters.exportSource,
            parameters.exportDeidentify,
        )

    def _hint(self, node, source) -> str:
        if node is None:
            return _("Select what to export.")
        kind = _("DICOM segmentation") if isMask(node) else _("DICOM series")
        if source is not None:
            return _("A new {kind} in the study of '{source}'.").format(kind=kind, source=source.GetName())
        if isMask(node):
            return _(
                "A DICOM segmentation belongs to an image series: select the volume from DICOM that it was drawn on."
            )
        return _("A new {kind} of a new, synthetic patient.").format(kind=kind)

    def _chooseFolder(self) -> None:
        folder = self._context.dialogs.folder(_("Folder for the DICOM files"))
        if folder and self._context.parameters.exportDeidentify:
            self._context.withPackages("de-identified DICOM files", lambda: self.export(folder))
        elif folder:
            self.export(folder)

    def _shown(self, run) -> str:
        text = _("{count} files in {folder}.").format(count=len(run.files), folder=run.folder)
        if len(run.files) == 1:
            text = _("One file in {folder}.").format(folder=run.folder)
        if self._context.parameters is not None and self._context.parameters.exportToDatabase:
            text += " " + self._addToDatabase(run)
        return " ".join([text, *run.sentences])

    def _addToDatabase(self, run) -> str:
        if dicom.database() is None:
            return _("Slicer's DICOM database is not open, so the series was not added to it.")
        if not dicom.addToDatabase(run.folder, run.series):
            return _("Slicer's DICOM database did not take the series; import the folder in the module DICOM.")
        return _("Listed in the module DICOM.")
