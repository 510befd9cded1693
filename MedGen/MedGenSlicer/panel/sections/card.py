"""What there is to know about the model before it is used, and its license."""

from html import escape

from slicer.i18n import tr as _

from MedGenLib.packages.license import is_accepted, require_acceptance
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.catalogue import modalityText
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection


class Card(PanelSection):
    """The page *About* and the row that asks to accept a license."""

    def __init__(self, context: Context) -> None:
        self._context, self._ui = context, context.ui
        self._manifest = None
        context.connect(self._ui.licenseCheckBox.toggled, self._accept)
        context.connect(self._ui.licenseButton.clicked, self.showLicense)
        for button in (self._ui.generateAboutButton, self._ui.translateAboutButton):
            context.connect(button.clicked, lambda: context.pages.open(self._ui.aboutPage))

    def update(self) -> None:
        """Show the model of the open tab."""
        manifest = self._context.tab.manifest
        if manifest is not self._manifest:
            self._ui.cardLabel.text = cardText(manifest) if manifest is not None else _("No model is selected.")
        self._manifest = manifest
        if manifest is None:
            self._ui.licenseWidget.setVisible(False)
            return
        asked = not is_accepted(manifest)
        self._ui.licenseWidget.setVisible(asked)
        if asked:
            use = "" if manifest.license.commercial_use else _(" (no commercial use)")
            self._ui.licenseCheckBox.text = _("I accept {license}{use}").format(license=manifest.license.spdx, use=use)
            with widgets.quiet(self._ui.licenseCheckBox):
                self._ui.licenseCheckBox.setChecked(False)

    def problem(self) -> str:
        """What has to be accepted before the run; "" for nothing."""
        if self._manifest is None or is_accepted(self._manifest):
            return ""
        return _("Accept the license of '{model}' to use it.").format(model=self._manifest.title)

    def showLicense(self) -> None:
        """The license as text."""
        manifest = self._manifest
        use = _("Commercial use is allowed.") if manifest.license.commercial_use else _("No commercial use.")
        self._context.dialogs.show(
            _("The license of the model '{model}' is {license}. {use}").format(
                model=manifest.title, license=manifest.license.spdx, use=use
            ),
            _("License of the model"),
            manifest.license_text,
        )

    def _accept(self) -> None:
        if self._manifest is not None and self._ui.licenseCheckBox.checked:
            require_acceptance(self._manifest, True)
            self._context.changed()


def cardText(manifest) -> str:
    """The card as rich text; everything from the package is escaped."""
    facts = [
        (_("Trained on"), "<br>".join(_trainedOn(data) for data in manifest.training.data)),
        (_("Suits"), _suits(manifest)),
        (_("Measured"), "<br>".join(_measured(run) for run in manifest.performance)),
        (
            _("License"),
            escape(manifest.license.spdx) + ("" if manifest.license.commercial_use else _(", no commercial use")),
        ),
        (_("Cite"), escape(manifest.citation)),
    ]
    rows = "".join(f"<p><b>{title}:</b> {text}</p>" for title, text in facts if text)
    name = _("{description}. Model {name}, version {version}.").format(
        description=manifest.description, name=manifest.name, version=manifest.version
    )
    return f"<p><b>{escape(manifest.title)}</b></p><p>{escape(name)}</p>{rows}"


def _trainedOn(data) -> str:
    name = escape(data.name)
    if data.url.startswith(("http://", "https://")):
        name = f'<a href="{escape(data.url, quote=True)}">{name}</a>'
    subjects = _("1 subject") if data.subjects == 1 else _("{count} subjects").format(count=data.subjects)
    return f"{name}, {subjects}, {escape(data.license)}"


def _suits(manifest) -> str:
    spacing = _("voxels of {low:g} to {high:g} mm").format(low=manifest.spacing.min, high=manifest.spacing.max)
    if manifest.input.kind == "labels":
        names = ", ".join(label.name for label in manifest.input.labels.values())
        return escape(_("masks of {labels}; {spacing}").format(labels=names, spacing=spacing))
    if manifest.input.kind == "none":
        return escape(_("no input; {spacing}").format(spacing=spacing))
    return escape(f"{modalityText(manifest.input.modality)}; {spacing}")


def _measured(run) -> str:
    size = " × ".join(map(str, run.size))
    return escape(
        _("{size} voxels in {time}, {memory} ({device})").format(
            size=size, time=words.duration(run.seconds), memory=words.memory(run.peak_mib), device=run.device
        )
    )
