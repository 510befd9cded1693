"""Every question that the panel asks; tests answer them by replacing a method."""

import qt
import slicer
from slicer.i18n import tr as _


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

    def show(self, text: str, title: str, detail: str = "") -> None:
        """A text to read, with more of it on demand."""
        extra = {"detailedText": detail} if detail else {}
        slicer.util.infoDisplay(text, windowTitle=title, **extra)

    def copy(self, text: str) -> None:
        """Put a text on the clipboard."""
        slicer.app.clipboard().setText(text)

    def open(self, path: str) -> None:
        """Show a folder in the file manager, a web page in the browser."""
        if not slicer.app.testingEnabled():
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(path))


def overwriteQuestion(name: str) -> str:
    """What is asked before a volume is written over."""
    return _("The volume '{name}' is overwritten with the result. Continue?").format(name=name)
