"""Quality, seed, samples and device: what both tasks share."""

import random

from slicer.i18n import tr as _

from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.catalogue import QUALITIES, qualityText, qualityTip
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection
from MedGenSlicer.parameters import LARGEST_SEED


class Options(PanelSection):
    """The row *Quality* and the page *Options*."""

    def __init__(self, context: Context) -> None:
        self._context, self._ui = context, context.ui
        self._devices: list[dict] = []
        context.bind(self._ui.presetComboBox, "preset")
        context.bind(self._ui.deviceComboBox, "device")
        context.connect(self._ui.seedSpinBox.valueChanged, self._seedChosen)

    def update(self) -> None:
        parameters, ui, task = self._context.parameters, self._ui, self._context.task
        manifest = self._context.tab.manifest
        presets = [(qualityText(name), name, qualityTip(name, manifest)) for name in QUALITIES]
        widgets.fillCombo(ui.presetComboBox, presets, parameters.preset)
        with widgets.quiet(ui.seedSpinBox):
            ui.seedSpinBox.setValue(parameters.seed)
        # Translation draws nothing at random.
        for widget in (
            ui.seedLabel,
            ui.seedSpinBox,
            ui.seedLockCheckBox,
            ui.samplesLabel,
            ui.samplesSpinBox,
            ui.styleLabel,
            ui.styleSelector,
        ):
            widget.setVisible(task == "generate")
        ui.spreadCheckBox.setEnabled(self._context.tab.hasUncertainty)
        self._fillDevices(parameters.device)

    def setDevices(self, devices: list[dict]) -> None:
        """The devices that the worker found."""
        self._devices = devices
        if self._context.parameters is not None:
            self._fillDevices(self._context.parameters.device)

    def nextSeed(self) -> int:
        """The seed of the next run: the one that is kept, or a new one, which is then shown."""
        parameters = self._context.parameters
        if not parameters.seedLocked:
            parameters.seed = random.SystemRandom().randint(0, LARGEST_SEED)
        return parameters.seed

    def _fillDevices(self, wanted: str) -> None:
        items = [(_("Automatic"), "auto", _("The GPU where there is one with enough free memory"))]
        items += [(words.device(device), device["name"], words.device(device)) for device in self._devices]
        if wanted not in [data for _text, data, _tip in items]:
            text = _("CPU") if wanted == "cpu" else wanted
            # Before the worker answered it is not known to be absent.
            items.append(
                (_("{device} (not on this computer)").format(device=text) if self._devices else text, wanted, "")
            )
        widgets.fillCombo(self._ui.deviceComboBox, items, wanted)

    def _seedChosen(self) -> None:
        """Keep a seed that the user types for the next runs, too."""
        if self._context.parameters is not None:
            self._context.parameters.seed = self._ui.seedSpinBox.value
            self._context.parameters.seedLocked = True
