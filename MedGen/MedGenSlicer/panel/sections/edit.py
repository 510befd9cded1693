"""The section *Edit*: paint in the Segment Editor, and the volume follows."""

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import MedGenError
from MedGenSlicer.editing.notice import ViewNotice
from MedGenSlicer.editing.origin import modelFor
from MedGenSlicer.nodes.kinds import isSegmentation
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.catalogue import modelItems
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection
from MedGenSlicer.panel.sections.labels import LEAVE_OUT, mappingFor, storeChoices


class EditSection(PanelSection):
    """Live editing of one volume; it continues while another module, such as the Segment Editor, is open.

    Attributes
    ----------
    edit: the current LiveEdit, None when there is none.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._ui = context, context.ui
        self.edit = None
        self._notice = ViewNotice()
        self._labelTable = ""
        self._asked: set[str] = set()
        self._otherTimer = widgets.singleShot(0, lambda: context.guarded(self._endOther))
        # A dialog opens after the event that it is about: a stroke, or a node that goes.
        self._askTimer = widgets.singleShot(0, lambda: context.guarded(self._askLabels))
        self._endTimer = widgets.singleShot(0, lambda: context.guarded(self._showEnd))
        self._endSentence = ""
        context.connect(self._ui.liveButton.toggled, self._toggled)
        context.connect(self._ui.paintButton.clicked, self._paint)
        context.connect(self._ui.redrawButton.clicked, self.redraw)
        context.connect(self._ui.undoEditButton.clicked, lambda: self.edit.undo())
        context.connect(self._ui.redoEditButton.clicked, lambda: self.edit.redo())
        context.bind(self._ui.editModelComboBox, "editModel", self._modelChosen)

    def forget(self) -> None:
        """The scene is closed; why it ended stays to be read."""
        self.close()
        ui = self._ui
        for button in (ui.liveButton, ui.redrawButton, ui.paintButton, ui.undoEditButton, ui.redoEditButton):
            button.setEnabled(False)

    def close(self) -> None:
        """End it."""
        for timer in (self._otherTimer, self._askTimer, self._endTimer):
            timer.stop()
        if self.edit is not None:
            self.edit.stop(self.edit.sentence)
        self.edit = None

    def made(self, run) -> None:
        """Select a new volume and its segmentation for editing, unless another one is being edited."""
        parameters, mask = self._context.parameters, run.snapshot.node
        isLive = self.edit is not None and self.edit.isLive
        if parameters is not None and not isLive and isSegmentation(mask):
            parameters.editVolume, parameters.editMask = run.nodes[0], mask

    def update(self) -> None:
        """Show the parameter node; end the editing of other nodes."""
        parameters = self._context.parameters
        name = parameters.editModel
        items = [(_("Automatic"), "", _("The one that made the volume, else the first of its modality"))]
        widgets.fillCombo(self._ui.editModelComboBox, items + modelItems(self._context.models.generators(), name), name)
        if self._isOther():
            # A node that is deleted is deselected first, and then that is the reason.
            self._otherTimer.start()
        elif self.edit is not None and parameters.mapping != self._labelTable:
            self._labelTable = parameters.mapping
            manifest = self._context.models.named(self.edit.model)
            if manifest is not None:
                self.edit.setMapping(mappingFor(parameters, self.edit.segmentationNode, manifest))
        self._showButtons()

    def redraw(self) -> None:
        """Draw what was painted since the last time."""
        if self.edit is None:
            self._begin(isLive=False)
        if self.edit is not None:
            self.edit.redraw()

    def _isOther(self) -> bool:
        """Whether other nodes are selected than those that are edited."""
        parameters, edit = self._context.parameters, self.edit
        return (
            parameters is not None
            and edit is not None
            and (
                parameters.editMask is not edit.segmentationNode
                or parameters.editVolume not in (edit.sourceNode, edit.volumeNode)
            )
        )

    def _endOther(self) -> None:
        if self._isOther():
            self.edit.stop(_("Live editing ended because another volume or segmentation was chosen."))
            self.edit = None
            self._showButtons()

    def _toggled(self) -> None:
        isWanted = self._ui.liveButton.checked
        if self.edit is not None:
            self.edit.setLive(isWanted)
            if not isWanted:
                self._tell(_("Paused. Redraw once draws what was painted since."))
        elif isWanted:
            self._begin(isLive=True)

    def _paint(self) -> None:
        """Open the Segment Editor with what is selected."""
        parameters = self._context.parameters
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(parameters.editMask)
        editor.setSourceVolumeNode(parameters.editVolume)

    def _begin(self, isLive: bool) -> None:
        parameters = self._context.parameters
        self._asked.clear()
        try:
            name = parameters.editModel or modelFor(
                parameters.editVolume, self._context.models.manifests, parameters.editMask
            )
            manifest = self._context.models.named(name)
            mapping = mappingFor(parameters, parameters.editMask, manifest) if manifest is not None else None
            self._labelTable = parameters.mapping
            self.edit = self._context.logic.liveEdit(
                parameters.editVolume,
                parameters.editMask,
                name,
                device=parameters.device,
                live=isLive,
                mapping=mapping,
                onChange=lambda edit: self._context.guarded(self._changed, edit),
            )
        except MedGenError as error:
            self._tell(str(error))
        self._showButtons()

    def _changed(self, edit) -> None:
        """The state of live editing has changed."""
        if self.edit is not None and edit is not self.edit:
            return
        self._tell(edit.sentence)
        self._notice.show(edit.sentence)
        if edit.state == "ended":
            self.edit = None
            self._notice.clear()
            if edit.error is not None and not slicer.mrmlScene.IsClosing():
                self._endSentence = edit.sentence
                self._endTimer.start()
        elif set(edit.unknown) - self._asked:
            self._askTimer.start()
        parameters = self._context.parameters
        if (
            parameters is not None
            and edit.volumeNode is not None
            and parameters.editVolume is edit.sourceNode
            and edit.volumeNode is not edit.sourceNode
        ):
            parameters.editVolume = edit.volumeNode  # the copy is what is edited from now on
        self._showButtons()

    def _askLabels(self) -> None:
        """What is a new segment? Each is asked about once; then the sentence in the views reminds of it."""
        edit, parameters = self.edit, self._context.parameters
        manifest = self._context.models.named(edit.model) if edit is not None else None
        if manifest is None or parameters is None:
            return
        labels = [label.name for label in manifest.input.labels.values()]
        choices = {}
        for name in [name for name in edit.unknown if name not in self._asked]:
            self._asked.add(name)
            question = _("What does the new segment '{name}' show? Choose a label of the model.").format(name=name)
            index = self._context.dialogs.choose(
                _("Label of a segment"), question, [*labels, _("Nothing: leave it out")]
            )
            if index >= 0:
                choices[name] = [*labels, LEAVE_OUT][index]
        if choices and self.edit is edit:
            storeChoices(parameters, manifest, choices)

    def _showEnd(self) -> None:
        """Live editing ended by itself, maybe in another module."""
        self._context.dialogs.show(self._endSentence, _("Live editing"))

    def _showButtons(self) -> None:
        ui, edit, problem = self._ui, self.edit, self._problem()
        with widgets.quiet(ui.liveButton):
            ui.liveButton.setChecked(edit is not None and edit.isLive)
        for button in (ui.liveButton, ui.redrawButton, ui.paintButton):
            button.setEnabled(not problem)
        ui.undoEditButton.setEnabled(edit is not None and edit.canUndo)
        ui.redoEditButton.setEnabled(edit is not None and edit.canRedo)

    def _problem(self) -> str:
        parameters = self._context.parameters
        if parameters is None or parameters.editVolume is None:
            return _("Select the volume to redraw.")
        return _("Select the segmentation that it follows.") if parameters.editMask is None else ""

    def _modelChosen(self) -> None:
        if self.edit is not None:
            self.edit.stop(_("Live editing ended because another model was chosen; switch it on again to go on."))

    def _tell(self, text: str) -> None:
        widgets.tell(self._ui.editStatusLabel, text)
