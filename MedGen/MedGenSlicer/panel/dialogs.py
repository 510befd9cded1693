"""Every question that the panel asks; tests answer them by replacing a method."""

import qt
import slicer
import vtk
from slicer.i18n import tr as _

MOST_NAMES = 5
"""Of unsaved data that a question lists."""


class Dialogs:
    """Modal questions. Under test Slicer shows none, and the answer is always the safe one."""

    def confirm(self, question: str, title: str) -> bool:
        """OK or Cancel."""
        return slicer.util.confirmOkCancelDisplay(question, title)

    def text(self, title: str, question: str) -> str:
        """A line of text; "" when cancelled."""
        if slicer.app.testingEnabled():
            return ""
        return qt.QInputDialog.getText(slicer.util.mainWindow(), title, question) or ""

    def choose(self, title: str, question: str, answers: list[str]) -> int:
        """The index of one of some answers; -1 when cancelled."""
        if slicer.app.testingEnabled():
            return -1
        dialog, combo = selection(title, question, answers)
        isChosen = dialog.exec_()
        index = combo.currentIndex if isChosen else -1
        dialog.deleteLater()
        return index

    def folder(self, title: str) -> str:
        """An existing folder; "" when cancelled."""
        if slicer.app.testingEnabled():
            return ""
        return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)

    def file(self, title: str, pattern: str) -> str:
        """An existing file; "" when cancelled."""
        if slicer.app.testingEnabled():
            return ""
        return qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", pattern)

    def newFile(self, title: str, name: str, pattern: str) -> str:
        """A file to write; "" when cancelled."""
        if slicer.app.testingEnabled():
            return ""
        return qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, name, pattern)

    def agree(self, title: str, text: str) -> bool:
        """Whether the user agrees to a long text, such as a license."""
        if slicer.app.testingEnabled():
            return False
        dialog = agreement(title, text)
        isAccepted = bool(dialog.exec_())
        dialog.deleteLater()
        return isAccepted

    def show(self, text: str, title: str, detail: str = "") -> None:
        """A text to read, with more of it on demand."""
        extra = {"detailedText": detail} if detail else {}
        slicer.util.infoDisplay(text, windowTitle=title, **extra)

    def restart(self) -> None:
        """Restart Slicer, if the user agrees after reading what is not saved."""
        slicer.app.confirmRestart(restartQuestion())

    def copy(self, text: str) -> None:
        """Put a text on the clipboard."""
        slicer.app.clipboard().setText(text)

    def open(self, path: str) -> None:
        """Show a folder in the file manager, a web page in the browser."""
        if not slicer.app.testingEnabled():
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(path))


def agreement(title: str, text: str):
    """A dialog with a text to scroll through and the buttons Accept and Cancel."""
    dialog = qt.QDialog(slicer.util.mainWindow())
    dialog.setWindowTitle(title)
    view = qt.QPlainTextEdit(dialog)
    view.setPlainText(text)
    view.setReadOnly(True)
    view.setAccessibleName(title)
    buttons = qt.QDialogButtonBox(dialog)
    accept = buttons.addButton(_("Accept"), qt.QDialogButtonBox.AcceptRole)
    cancel = buttons.addButton(_("Cancel"), qt.QDialogButtonBox.RejectRole)
    accept.setAutoDefault(False)
    cancel.setDefault(True)  # nobody agrees by pressing Enter
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    layout = qt.QVBoxLayout(dialog)
    layout.addWidget(view)
    layout.addWidget(buttons)
    dialog.resize(640, 480)
    return dialog


def selection(title: str, question: str, answers: list[str]) -> tuple:
    """A dialog with a list of answers to select one from, and that list."""
    dialog = qt.QDialog(slicer.util.mainWindow())
    dialog.setWindowTitle(title)
    label = qt.QLabel(question, dialog)
    label.setWordWrap(True)
    combo = qt.QComboBox(dialog)
    combo.setAccessibleName(question)
    for answer in answers:
        combo.addItem(answer)
    buttons = qt.QDialogButtonBox(dialog)
    buttons.setStandardButtons(qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel)
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    layout = qt.QVBoxLayout(dialog)
    for widget in (label, combo, buttons):
        layout.addWidget(widget)
    return dialog, combo


def overwriteQuestion(name: str) -> str:
    """What is asked before a volume is written over."""
    return _("The volume '{name}' is overwritten with the result. Continue?").format(name=name)


def restartQuestion() -> str:
    """What is asked before Slicer is restarted."""
    changed = vtk.vtkCollection()
    slicer.mrmlScene.GetStorableNodesModifiedSinceRead(changed)
    nodes = [changed.GetItemAsObject(index) for index in range(changed.GetNumberOfItems())]
    names = [f"'{node.GetName()}'" for node in nodes if node.GetSaveWithScene()]
    if not names:
        return _("Restart Slicer now? All data of the scene is saved; layout and selections are lost.")
    if len(names) > MOST_NAMES:
        names[MOST_NAMES:] = [_("{count} more").format(count=len(names) - MOST_NAMES)]
    return _(
        "Restart Slicer now? Unsaved data is lost: {names}. To keep it, press Cancel and choose File > Save Data first."
    ).format(names=", ".join(names))
