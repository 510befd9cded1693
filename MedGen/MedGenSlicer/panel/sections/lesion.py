"""The page *Insert lesion*: a place, a form, a tissue, one button."""

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import MedGenError
from MedGenSlicer.editing.origin import modelFor
from MedGenSlicer.nodes.kinds import isSegmentation
from MedGenSlicer.nodes.segments import segmentsOf
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import RunningSection
from MedGenSlicer.panel.sections.labels import mappingFor
from MedGenSlicer.results import views


class LesionSection(RunningSection):
    """Makes a volume with a lesion, and the lesion as a segmentation."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.ui.lesionStatusLabel)
        self._suits = self._suitsFor = None
        context.connect(self._ui.insertLesionButton.clicked, self._pressed)
        context.connect(self._ui.placePointButton.clicked, self._placePoint)
        context.connect(self._ui.lesionTimesSpinBox.valueChanged, self.update)
        context.pages.onOpened(self._ui.lesionPage, self.update)
        for name in ("Segment", "Shape", "Tissue", "Texture", "Organ"):
            context.bind(getattr(self._ui, f"lesion{name}ComboBox"), f"lesion{name}")

    def forget(self) -> None:
        self._tell("")

    def update(self) -> None:
        parameters, ui = self._context.parameters, self._ui
        if parameters is None or not self._context.pages.isOpen(ui.lesionPage):
            return
        from MedGenLib.editing.lesions.library import names
        from MedGenLib.editing.lesions.texture import PRESETS

        place, organs, manifest = parameters.lesionPlace, parameters.lesionOrgans, self._manifest()
        isPainted = isSegmentation(place)
        segments = [(segment.name, segment.segmentID, "") for segment in segmentsOf(place)] if isPainted else []
        widgets.fillCombo(ui.lesionSegmentComboBox, segments, parameters.lesionSegment)
        widgets.fillCombo(
            ui.lesionShapeComboBox, [(name, name, sentence) for name, sentence in names()], parameters.lesionShape
        )
        labels = [label.name for label in manifest.input.labels.values()] if manifest is not None else []
        widgets.fillCombo(
            ui.lesionTissueComboBox,
            [(_("Tissue that is there"), "", ""), *((n, n, "") for n in labels)],
            parameters.lesionTissue,
        )
        textures = [(_("Even, with the noise that is there"), "", ""), *((n, n, "") for n in PRESETS)]
        widgets.fillCombo(ui.lesionTextureComboBox, textures, parameters.lesionTexture)
        for widget in (ui.lesionDoublingSpinBox, ui.lesionBetweenSpinBox):
            widget.setEnabled(ui.lesionTimesSpinBox.value > 1)
        known = [segment.name for segment in segmentsOf(organs)] if organs is not None else labels
        places = [(_("The whole body"), "", ""), *((n, n, "") for n in known)]
        widgets.fillCombo(ui.lesionOrganComboBox, places, parameters.lesionOrgan)
        for widget in (ui.lesionSegmentLabel, ui.lesionSegmentComboBox):
            widget.setVisible(isPainted)
        for widget in (ui.lesionShapeLabel, ui.lesionShapeComboBox, ui.lesionSizeLabel, ui.lesionSizeSpinBox):
            widget.setVisible(not isPainted)
        ui.insertLesionButton.text = _("Cancel") if self._isRunning else _("Insert lesion")
        problem = self._problem()
        ui.insertLesionButton.setEnabled(self._isRunning or not problem)
        ui.placePointButton.setEnabled(parameters.lesionVolume is not None)
        if not self._isRunning:
            self._tell(problem)

    def insert(self) -> None:
        """Start it."""
        parameters = self._context.parameters
        isPainted, organs = isSegmentation(parameters.lesionPlace), parameters.lesionOrgans
        self._run(
            _("Inserting…"),
            self._context.logic.insertLesion,
            parameters.lesionVolume,
            parameters.lesionPlace,
            parameters.lesionShape,
            None if isPainted else parameters.lesionSize,
            parameters.lesionTissue or None,
            parameters.lesionContrast or None,
            device=parameters.device,
            segment=widgets.chosen(self._ui.lesionSegmentComboBox) or None if isPainted else None,
            organ=parameters.lesionOrgan or None,
            texture=parameters.lesionTexture or None,
            massEffect=self._ui.lesionMassEffectSpinBox.value / 100,
            grow=times if (times := self._ui.lesionTimesSpinBox.value) > 1 else None,
            doublingDays=self._ui.lesionDoublingSpinBox.value,
            daysBetween=self._ui.lesionBetweenSpinBox.value,
            labelsNode=organs,
            mapping=mappingFor(parameters, organs, self._manifest()) if organs is not None else None,
        )

    def _shown(self, run) -> str:
        views.showInstead(run.snapshot.node, run.volumeNode)
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *run.at)
        text = _("In the scene as '{name}'; nothing farther than {halo:.0f} mm from the lesion was changed.")
        return " ".join([text.format(name=run.node.GetName(), halo=run.haloMm), *run.sentences])

    def _end(self, sentence: str) -> None:
        super()._end(sentence or self._problem())

    def _pressed(self) -> None:
        if self._isRunning:
            self._context.logic.cancel()
        else:
            self.insert()

    def _placePoint(self) -> None:
        """A new point list where none is chosen; the next click in a slice view is its point."""
        parameters = self._context.parameters
        if parameters.lesionPlace is None or isSegmentation(parameters.lesionPlace):
            node = slicer.mrmlScene.AddNewNodeByClass(
                "vtkMRMLMarkupsFiducialNode", slicer.mrmlScene.GenerateUniqueName(_("Lesion"))
            )
            node.CreateDefaultDisplayNodes()
            parameters.lesionPlace = node
        application = slicer.app.applicationLogic()
        selection, interaction = application.GetSelectionNode(), application.GetInteractionNode()
        selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
        selection.SetActivePlaceNodeID(parameters.lesionPlace.GetID())
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.Place)

    def _problem(self) -> str:
        parameters = self._context.parameters
        if parameters is None or parameters.lesionVolume is None:
            return _("Select the volume that gets a lesion.")
        if self._manifest() is None:
            return _("No model draws this volume.")
        if parameters.lesionPlace is None and not parameters.lesionOrgan:
            return _("Place a point, choose a painted segment, or choose an organ.")
        if not (parameters.lesionTissue or parameters.lesionContrast or parameters.lesionTexture):
            return _("Choose a tissue for the lesion, a contrast, or a texture.")
        return ""

    def _manifest(self):
        """The model that suits the volume, None where there is none."""
        volume = self._context.parameters.lesionVolume
        if volume is None or volume.GetImageData() is None:
            return None
        organs = self._context.parameters.lesionOrgans
        key = (volume.GetID(), volume.GetImageData().GetMTime(), organs)
        if key != self._suitsFor:  # finding out what the voxels look like takes a moment
            models = self._context.logic.models()
            try:
                name = modelFor(volume, models, organs)
            except MedGenError:
                name = ""
            self._suits = next((manifest for manifest in models if manifest.name == name), None)
            self._suitsFor = key
        return self._suits
