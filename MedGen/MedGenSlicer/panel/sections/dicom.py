"""The section *Export to DICOM*: a node becomes a series in its patient's study."""

from slicer.i18n import tr as _

from MedGenLib.errors import MedGenError
from MedGenSlicer.panel import words
from MedGenSlicer.panel.context import Context


class DicomSection:
    """What to export, whose study it joins, and where it goes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ui = context.ui
        self._proposedFor = ""
        self._isRunning = False
        self._ui.exportSourceSelector.addAttribute("vtkMRMLScalarVolumeNode", "DICOM.instanceUIDs")
        context.connect(self._ui.exportButton.clicked, self._chooseFolder)
        context.connect(self._ui.exportSection.contentsCollapsed, self.update)

    def forget(self) -> None:
        """The scene is closed."""
        self._proposedFor = ""
        self._tell("")

    def show(self, node) -> None:
        """Open the section with this node selected."""
        self._context.parameters.exportNode = node
        self._ui.exportSection.collapsed = False
        self.update()

    def update(self) -> None:
        """Say what an export would do, and enable it; the study is proposed once a node."""
        parameters = self._context.parameters
        if parameters is None or self._ui.exportSection.collapsed:
            return
        from MedGenSlicer.jobs import dicom

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
        canExport = node is not None and (parameters.exportSource is not None or not _isMask(node))
        self._ui.exportButton.setEnabled(canExport and not self._isRunning)

    def export(self, folder: str) -> None:
        """Write the series into a new folder below `folder`; the panel stays usable."""
        from MedGenSlicer.jobs import dicom

        parameters = self._context.parameters
        node = parameters.exportNode
        # The name of a node may be that of the patient.
        name = _("de-identified") if parameters.exportDeidentify else node.GetName()
        self._isRunning = True
        self.update()
        self._tell(_("Writing…"))
        try:
            self._context.logic.exportDicom(
                node,
                dicom.newFolder(folder, name),
                parameters.exportSource,
                parameters.exportDeidentify,
                wait=False,
                onProgress=lambda progress: self._context.guarded(self._tell, words.stage(progress)),
                onDone=lambda run: self._context.guarded(self._done, run),
            )
        except MedGenError as error:
            self._ended(str(error))
        except BaseException:
            self._ended("")
            raise

    def _hint(self, node, source) -> str:
        if node is None:
            return _("Select what to export.")
        kind = _("DICOM segmentation") if _isMask(node) else _("DICOM series")
        if source is not None:
            return _("A new {kind} in the study of '{source}'.").format(kind=kind, source=source.GetName())
        if _isMask(node):
            return _(
                "A DICOM segmentation belongs to an image series: select the volume from DICOM that it was drawn on."
            )
        return _("A new {kind} of a new, synthetic patient.").format(kind=kind)

    def _chooseFolder(self) -> None:
        folder = self._context.dialogs.folder(_("Folder for the DICOM files"))
        if folder:
            self.export(folder)

    def _done(self, run) -> None:
        self._ended("")  # whatever comes now, the button is back
        if run.error is not None:
            self._ended(str(run.error))
            return
        text = _("{count} files in {folder}.").format(count=len(run.files), folder=run.folder)
        if len(run.files) == 1:
            text = _("One file in {folder}.").format(folder=run.folder)
        if self._context.parameters is not None and self._context.parameters.exportToDatabase:
            text += " " + self._addToDatabase(run)
        self._ended(" ".join([text, *run.sentences]))

    def _addToDatabase(self, run) -> str:
        from MedGenSlicer.jobs import dicom

        if dicom.database() is None:
            return _("Slicer's DICOM database is not open, so the series was not added to it.")
        if not dicom.addToDatabase(run.folder, run.series):
            return _("Slicer's DICOM database did not take the series; import the folder in the module DICOM.")
        return _("Listed in the module DICOM.")

    def _ended(self, text: str) -> None:
        self._isRunning = False
        self.update()
        self._tell(text)

    def _tell(self, text: str) -> None:
        self._ui.exportLabel.text = text
        self._ui.exportLabel.setVisible(bool(text))


def _isMask(node) -> bool:
    return node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLLabelMapVolumeNode")
