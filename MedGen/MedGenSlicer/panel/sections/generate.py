"""The tab *Generate from mask*."""

from slicer.i18n import tr as _

from MedGenSlicer.nodes.labels import suggestMapping
from MedGenSlicer.nodes.segments import segmentsOf
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.catalogue import Models, modelItems
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.sections.labels import LabelTable


class GenerateTab:
    """Mask, model, labels, gaps, output."""

    task = "generate"

    def __init__(self, context: Context, models: Models) -> None:
        self._context = context
        self._ui = context.ui
        self._models = models
        self.labels = LabelTable(context)
        self._fittingFor, self._fitting = None, ""
        context.connect(self._ui.generateModelComboBox.currentIndexChanged, self._modelChosen)
        context.connect(self._ui.fillComboBox.currentIndexChanged, self._fillChosen)

    @property
    def inputNode(self):
        """The mask, None where none is selected."""
        return self._context.parameters.generateInput if self._context.parameters else None

    @property
    def outputNode(self):
        """The volume to write into, None for a new one."""
        return self._context.parameters.generateOutput if self._context.parameters else None

    @property
    def manifest(self):
        """The model that is selected, None where it is not installed."""
        wanted = self._context.parameters.generateModel if self._context.parameters else ""
        return self._models.named(wanted) if wanted else self._bestFitting()

    def update(self) -> None:
        """Show what the parameter node says."""
        parameters = self._context.parameters
        manifest = self.manifest
        name = manifest.name if manifest else parameters.generateModel
        widgets.fillCombo(self._ui.generateModelComboBox, modelItems(self._models.generators(), name), name)
        self._fillGaps(manifest)
        self.labels.show(self.inputNode, manifest)

    def problem(self) -> str:
        """Why it cannot run yet, as one sentence; "" when it can as far as this tab knows."""
        if self.inputNode is None:
            return _("Select a segmentation or label map.")
        if self.manifest is None:
            return _("The model '{name}' is not installed; choose another.").format(
                name=self._context.parameters.generateModel
            )
        unmapped = self.labels.unmapped()
        if unmapped:
            return _("Choose a label for each segment, or leave it out.")
        return _outputProblem(self.inputNode, self.outputNode)

    def checkArguments(self) -> dict:
        """What the input check needs besides node and model."""
        return {"mapping": self.labels.mapping() or None}

    def arguments(self) -> dict:
        """Keyword arguments of MedGenLogic.generate that belong to this tab."""
        parameters = self._context.parameters
        return {
            "model": self.manifest.name,
            **self.checkArguments(),
            "fill": parameters.fill or None,
            "style": parameters.generateStyle,
            "samples": parameters.samples,
            "spread": parameters.spread and parameters.samples > 1,
        }

    def _bestFitting(self):
        """The first of the models that know most of the segments; None where no model is installed."""
        generators, node = self._models.generators(), self.inputNode
        if len(generators) < 2 or node is None:
            return generators[0] if generators else None
        key = (node.GetID(), tuple((s.name, s.terminology) for s in segmentsOf(node)), len(generators))
        if key != self._fittingFor:
            known = [
                sum(label is not None for label in suggestMapping(node, manifest).values()) for manifest in generators
            ]
            self._fittingFor, self._fitting = key, generators[known.index(max(known))].name
        return self._models.named(self._fitting)

    def _fillGaps(self, manifest) -> None:
        usable = manifest is not None and manifest.settings.outside == "background"
        for widget in (self._ui.fillLabel, self._ui.fillComboBox):
            widget.setVisible(usable)
        names = [label.name for label in manifest.input.labels.values()] if usable else []
        items = [(_("Nothing"), "", ""), *((name, name, "") for name in names)]
        widgets.fillCombo(self._ui.fillComboBox, items, self._context.parameters.fill)

    def _modelChosen(self) -> None:
        if self._context.parameters is not None:
            self._context.parameters.generateModel = widgets.chosen(self._ui.generateModelComboBox)
            # A label to fill with belongs to one model.
            self._context.parameters.fill = ""

    def _fillChosen(self) -> None:
        if self._context.parameters is not None:
            self._context.parameters.fill = widgets.chosen(self._ui.fillComboBox)


def _outputProblem(inputNode, outputNode) -> str:
    if outputNode is not None and outputNode.GetID() == inputNode.GetID():
        return _("The output would replace the input; choose another output.")
    return ""
