"""The table segment -> what it becomes, a label of the model."""

import json

import qt
from slicer.i18n import tr as _

from MedGenLib.labels.organs import PHASES, organ_of
from MedGenLib.pipelines.organ_levels import has_organs
from MedGenSlicer.nodes.labels import LEFT_OUT, suggestMapping
from MedGenSlicer.nodes.segments import segmentsOf
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.context import Context

LEAVE_OUT = LEFT_OUT
"""Background, in the mapping that goes to the model."""


class LabelTable:
    """Shows what each segment becomes, and keeps what the user changed in the parameter node.

    Segments whose name or terminology the model knows are filled in; the others ask for a choice.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ui = context.ui
        self._manifest = None
        self._rows: list[tuple[str, str]] = []
        self._shown = None
        self._suggestedFor = None
        self._suggestions: dict[str, str | None] = {}
        header = self._ui.labelTable.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(1, qt.QHeaderView.Stretch)
        self._ui.labelTable.setHorizontalHeaderLabels([_("Segment"), _("Becomes")])
        self._ui.labelTable.verticalHeader().setVisible(False)
        context.connect(self._ui.leaveOutButton.clicked, self.leaveOutRest)

    def show(self, node, manifest) -> None:
        """Show the segments of a node; nothing where it has none with names."""
        self._manifest = manifest
        segments = _namedSegments(node) if node is not None and manifest is not None else []
        chosen = self._chosen()
        suggested = self._suggested(node, manifest, segments)
        self._rows = [
            (segment.name, chosen.get(segment.name, suggested.get(segment.name) or "")) for segment in segments
        ]
        self._ui.labelsWidget.setVisible(bool(segments))
        # Combo boxes are replaced only when something changed: the user may have one open.
        state = (manifest.name if manifest else "", [(s.name, s.color) for s in segments], list(self._rows))
        if state != self._shown:
            self._fill(segments)
            self._shown = state
        self._tell()

    def mapping(self) -> dict[str, str]:
        """Segment name -> label name, "0" for those left out; without the ones that have no label yet."""
        return {name: label for name, label in self._rows if label}

    def unmapped(self) -> list[str]:
        """Names of the segments that still need a choice."""
        return [name for name, label in self._rows if not label]

    def leaveOutRest(self) -> None:
        """Make background of every segment without a label."""
        self._store({name: LEAVE_OUT for name in self.unmapped()})

    def _suggested(self, node, manifest, segments: list) -> dict[str, str | None]:
        """The labels that names and terminology suggest; computed again only when they change."""
        if not segments:
            return {}
        key = (manifest.name, manifest.version, tuple((s.name, s.terminology, s.value) for s in segments))
        if key != self._suggestedFor:
            self._suggestedFor, self._suggestions = key, suggestMapping(node, manifest)
        return self._suggestions

    def _fill(self, segments: list) -> None:
        table = self._ui.labelTable
        table.setRowCount(0)
        table.setRowCount(len(segments))
        for row, (segment, (name, label)) in enumerate(zip(segments, self._rows, strict=True)):
            item = widgets.cell(name, "\n".join([_tooltip(segment), *_organHU(name, self._manifest)]))
            if segment.color is not None:
                item.setIcon(_swatch(segment.color))
            table.setItem(row, 0, item)
            table.setCellWidget(row, 1, self._comboBox(row, name, label))
        widgets.fitRows(table, most=6)

    def _comboBox(self, row: int, name: str, label: str):
        combo = qt.QComboBox()
        combo.setObjectName(f"labelComboBox{row}")
        combo.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(8)
        combo.setFocusPolicy(qt.Qt.StrongFocus)
        combo.setAccessibleName(_("What {segment} becomes").format(segment=name))
        labels = [(entry.name, entry.name, "") for entry in self._manifest.input.labels.values()]
        items = [(_("Choose…"), "", ""), *labels, (_("Leave out"), LEAVE_OUT, "")]
        widgets.fillCombo(combo, items, label)
        self._context.connect(combo.currentIndexChanged, lambda: self._choose(row, widgets.chosen(combo)))
        return combo

    def _choose(self, row: int, label: str) -> None:
        """The box shows the choice already, and has to stay: the user may go on with the keyboard."""
        name = self._rows[row][0]
        self._rows[row] = (name, label)
        self._shown = (*self._shown[:2], list(self._rows))
        self._store({name: label})

    def _tell(self) -> None:
        unmapped = self.unmapped()
        text = ""
        if len(unmapped) == 1:
            text = _("Choose what '{name}' becomes.").format(name=unmapped[0])
        elif unmapped:
            text = _("Choose what these {count} segments become: {names}.").format(
                count=len(unmapped), names=words.listed(unmapped)
            )
        widgets.tell(self._ui.labelHintLabel, text)
        self._ui.leaveOutButton.setVisible(bool(text))

    def _chosen(self) -> dict[str, str]:
        parameters = self._context.parameters
        if parameters is None or self._manifest is None:
            return {}
        known = {label.name for label in self._manifest.input.labels.values()} | {LEAVE_OUT}
        chosen = _read(parameters.mapping).get(self._manifest.name, {})
        return {name: label for name, label in chosen.items() if label in known}

    def _store(self, choices: dict[str, str]) -> None:
        parameters = self._context.parameters
        if parameters is None or self._manifest is None:
            return
        storeChoices(parameters, self._manifest, choices)
        self._context.changed()


def storeChoices(parameters, manifest, choices: dict[str, str]) -> None:
    """Keep what the user chose: segment name -> label of the model, `LEAVE_OUT` for background."""
    everything = _read(parameters.mapping)
    everything[manifest.name] = {**everything.get(manifest.name, {}), **choices}
    parameters.mapping = json.dumps(everything, sort_keys=True)


def mappingFor(parameters, node, manifest) -> dict[str, str] | None:
    """Segment name -> label of the model, as the table would show it: what the user chose for this model, else what
    names and terminology say; None where nothing is known."""
    known = {name: label for name, label in suggestMapping(node, manifest).items() if label}
    return {**known, **_read(parameters.mapping).get(manifest.name, {})} or None


def _namedSegments(node) -> list:
    """Segments that can be mapped by name; a label map without names is taken by its numbers."""
    return [segment for segment in segmentsOf(node) if segment.name]


def _read(text: str) -> dict[str, dict[str, str]]:
    """The mapping saved in a scene, which may have been edited by hand."""
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    return {model: dict(choices) for model, choices in data.items() if isinstance(choices, dict)}


def _tooltip(segment) -> str:
    if not segment.terminology or segment.terminology == segment.name:
        return segment.name
    return _("{name}; terminology: {terminology}").format(name=segment.name, terminology=segment.terminology)


def _organHU(name: str, manifest) -> list[str]:
    """What the table of organs says of a segment, for models with organs; a name of the model has no HU of its own."""
    organ = organ_of(name) if has_organs(manifest) and manifest.input.vocabulary.label_of(name) is None else None
    if organ is None:
        return []
    levels = [f"{hu:g}" for hu in organ.hu]
    return [
        _("{none} HU; arterial {arterial}, portal {portal}, delayed {delayed}").format(
            **dict(zip(PHASES, levels, strict=True))
        )
    ]


def _swatch(color: tuple[float, float, float]):
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor.fromRgbF(*color))
    return qt.QIcon(pixmap)
