"""The tab *Generate from mask*."""

from slicer.i18n import tr as _

from MedGenLib.pipelines.organ_levels import has_organs
from MedGenSlicer.nodes.labels import suggestMapping
from MedGenSlicer.nodes.segments import segmentsOf
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.catalogue import modelItems
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.sections.labels import LabelTable
from MedGenSlicer.panel.tab import TaskTab


class GenerateTab(TaskTab):
    """Mask, model, labels, gaps, output."""

    task = "generate"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.labels = LabelTable(context)
        self._fittingFor, self._fittingName = None, ""
        context.bind(self._ui.generateModelComboBox, "generateModel", self._modelChosen)
        context.bind(self._ui.fillComboBox, "fill")
        context.bind(self._ui.phaseComboBox, "phase")

    @property
    def isWithoutMask(self) -> bool:
        """Whether the chosen model makes images of its own grid, without an input."""
        return self._context.models.named(self._parameter("Model")) in self._context.models.withoutMask()

    @property
    def hasUncertainty(self) -> bool:
        """Several samples have a deviation, one has the half-width of an interval if the model has measured it."""
        manifest = self.manifest
        return self._context.parameters.samples > 1 or bool(manifest and manifest.statistics.intervals)

    @TaskTab.inputNode.getter
    def inputNode(self):
        """The node to work on; None also for a model without a mask."""
        return None if self.isWithoutMask else self._parameter("Input")

    def note(self) -> str:
        return _("This model makes images without a mask; no segmentation is used.") if self.isWithoutMask else ""

    def update(self) -> None:
        super().update()
        manifest = self.manifest
        name = manifest.name if manifest else self._context.parameters.generateModel
        known = self._context.models
        models = modelItems(known.generators() + known.withoutMask(), name)
        widgets.fillCombo(self._ui.generateModelComboBox, models, name)
        self._fillGaps(manifest)
        self._fillPhases(manifest)
        self.labels.show(self.inputNode, manifest)

    def problem(self) -> str:
        if self.isWithoutMask:
            several = _("This model makes images of several classes; run it with logic.generate(label=...).")
            return several if self.manifest.settings.classes else ""
        problem = super().problem()
        if self.inputNode is not None and self.manifest is not None and self.labels.unmapped():
            return _("Choose what each segment becomes, or leave it out.")
        return problem

    def checkArguments(self) -> dict:
        return {"mapping": self.labels.mapping() or None}

    def arguments(self) -> dict:
        parameters = self._context.parameters
        return {
            "model": self.manifest.name,
            **self.checkArguments(),
            "fill": parameters.fill or None,
            "phase": parameters.phase if has_organs(self.manifest) else "none",
            "style": parameters.generateStyle,
            "samples": parameters.samples,
            "uncertainty": parameters.spread and self.hasUncertainty,
        }

    def _noInput(self) -> str:
        return _("Select a segmentation or label map.")

    def _fitting(self):
        """The first of the models that know most of the segments; None where no model is installed."""
        generators, node = self._context.models.generators(), self._parameter("Input")
        if len(generators) < 2 or node is None:
            return generators[0] if generators else None
        key = (node.GetID(), tuple((s.name, s.terminology) for s in segmentsOf(node)), len(generators))
        if key != self._fittingFor:
            known = [
                sum(label is not None for label in suggestMapping(node, manifest).values()) for manifest in generators
            ]
            self._fittingFor, self._fittingName = key, generators[known.index(max(known))].name
        return self._context.models.named(self._fittingName)

    def _fillGaps(self, manifest) -> None:
        usable = manifest is not None and manifest.settings.outside == "background"
        for widget in (self._ui.fillLabel, self._ui.fillComboBox):
            widget.setVisible(usable)
        names = [label.name for label in manifest.input.labels.values()] if usable else []
        items = [(_("Left empty"), "", "")]
        if has_organs(manifest):
            tip = _("Muscle, fat and skin around organs; other masks are left empty")
            items = [(_("By rule around organs"), "", tip), (_("Left empty"), "background", "")]
        items += [(name, name, "") for name in names]
        widgets.fillCombo(self._ui.fillComboBox, items, self._context.parameters.fill)

    def _fillPhases(self, manifest) -> None:
        for widget in (self._ui.phaseLabel, self._ui.phaseComboBox):
            widget.setVisible(has_organs(manifest))
        items = [
            (_("None"), "none", _("CT without contrast agent")),
            (_("Arterial"), "arterial", _("35 s after the injection")),
            (_("Portal venous"), "portal", _("70 s after the injection")),
            (_("Delayed"), "delayed", _("3 minutes after the injection")),
        ]
        widgets.fillCombo(self._ui.phaseComboBox, items, self._context.parameters.phase)

    def _modelChosen(self) -> None:
        self._context.parameters.fill = ""  # a label to fill with belongs to one model
