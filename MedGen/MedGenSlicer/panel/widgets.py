"""Small helpers for Qt that hold on both Qt 5 and Qt 6."""

import contextlib
import math
from collections.abc import Callable, Iterable

import qt
from slicer.i18n import tr as _

from MedGenSlicer.panel import words

ICONS = {
    "ok": "SP_DialogApplyButton",
    "info": "SP_MessageBoxInformation",
    "warning": "SP_MessageBoxWarning",
    "error": "SP_MessageBoxCritical",
    "wait": "SP_BrowserReload",
}
"""Meaning of an icon -> the platform's own picture of it."""

ROW_MARGIN = 11
"""Pixels around the text of a row, enough for a combo box."""


def setIcon(label, meaning: str) -> None:
    """Show one of `ICONS` on a label, as large as the text; "" shows nothing."""
    if not meaning:
        label.clear()
        return
    style = qt.QApplication.style()
    icon = style.standardIcon(getattr(qt.QStyle, ICONS[meaning]))
    size = style.pixelMetric(qt.QStyle.PM_SmallIconSize)
    label.setPixmap(icon.pixmap(size, size))


def tell(label, text: str) -> None:
    """Show a text on a label; "" hides it."""
    label.text = text
    label.setVisible(bool(text))


def titleOf(ui, parameter: str) -> str:
    """What the label beside the widget of a parameter says."""
    for label in vars(ui).values():
        buddy = label.buddy() if isinstance(label, qt.QLabel) else None
        if buddy is not None and buddy.property("SlicerParameterName") == parameter:
            return label.text.replace("&", "").rstrip(":")
    return parameter


@contextlib.contextmanager
def quiet(*widgets):
    """Change widgets without their signals."""
    before = [widget.blockSignals(True) for widget in widgets]
    try:
        yield
    finally:
        for widget, blocked in zip(widgets, before, strict=True):
            widget.blockSignals(blocked)


def fillCombo(combo, items: Iterable[tuple[str, str, str]], current: str) -> None:
    """Fill a combo box with (text, data, tooltip) and select the item with the data `current`, without signals.

    A box that holds the same items already is left as it is, as its list may be open.
    """
    items = list(items)
    held = [(combo.itemText(index), combo.itemData(index)) for index in range(combo.count)]
    if held != [(text, data) for text, data, _tip in items]:
        with quiet(combo):
            combo.clear()
            for text, data, _tip in items:
                combo.addItem(text, data)
    for index, (_text, _data, tooltip) in enumerate(items):
        combo.setItemData(index, tooltip, qt.Qt.ToolTipRole)
    selectData(combo, current)


def selectData(combo, data: str) -> None:
    """Select the item with that data, without signals; the first one where there is none."""
    with quiet(combo):
        combo.setCurrentIndex(max(0, combo.findData(data)) if combo.count else -1)


def chosen(combo) -> str:
    """The data of the selected item; "" where nothing is selected."""
    return combo.itemData(combo.currentIndex) or "" if combo.currentIndex >= 0 else ""


def fitRows(table, most: int = 8) -> None:
    """Make a table as high as its rows, up to a number of them; more are scrolled."""
    height = table.fontMetrics().height() + ROW_MARGIN
    table.verticalHeader().setDefaultSectionSize(height)
    rows = max(1, min(table.rowCount, most))
    table.setFixedHeight(table.horizontalHeader().sizeHint.height() + 2 * table.frameWidth + rows * height)


def fillTable(table, node, of: str = "") -> None:
    """Show a table node of figures (see `MedGenSlicer.results.tables`), with their intervals; the tooltip says what
    they mean."""
    source = node.GetTable()

    def text(row: int, name: str) -> str:
        return source.GetValueByName(row, name).ToString()

    def number(row: int, name: str) -> float:
        return math.nan if source.GetColumnByName(name) is None else source.GetValueByName(row, name).ToDouble()

    titles = [_("Figure"), of or _("Structure"), _("Value")]
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels(titles)
    table.setRowCount(source.GetNumberOfRows())
    for row in range(source.GetNumberOfRows()):
        value = words.figure(*(number(row, name) for name in ("Value", "Low", "High")))
        shown = (text(row, "Figure"), text(row, "Label"), f"{value} {text(row, 'Unit')}".strip())
        for column, content in enumerate(shown):
            table.setItem(row, column, cell(content, text(row, "Meaning")))
        table.item(row, len(shown) - 1).setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
    for column in range(1, len(titles)):
        table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
    fitRows(table)


def cell(text: str, tooltip: str = ""):
    """A table cell that is read only."""
    item = qt.QTableWidgetItem(text)
    item.setToolTip(tooltip or text)
    return item


def addMenu(context, button, *actions: tuple[str, Callable[[], None]]):
    """Give a button a menu of (text, function); keep what is returned."""
    menu = qt.QMenu(button)
    menu.setToolTipsVisible(True)
    for text, function in actions:
        context.connect(menu.addAction(text).triggered, function)
    button.setMenu(menu)
    return menu


def singleShot(milliseconds: int, function: Callable[[], None]):
    """A timer that calls `function` once, that long after it was last started."""
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(function)
    return timer
