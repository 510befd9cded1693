"""The pages in the folded sections: which one the user sees, and opening one."""

from collections.abc import Callable

SECTIONS = {"editTabWidget": "editSection", "moreTabWidget": "moreSection"}
"""Tab widget with the pages -> the folded section that holds it."""


class Pages:
    """Finds the section of a page; a page is open while its section is unfolded and its tab is in front.

    Parameters
    ----------
    ui: widgets of MedGen.ui by name.
    connect: connects a signal to a function without arguments.
    """

    def __init__(self, ui, connect: Callable) -> None:
        self._connect = connect
        self._homes = [(getattr(ui, tabs), getattr(ui, section)) for tabs, section in SECTIONS.items()]
        for tabs in [tabs for tabs, _section in self._homes] + [ui.taskTabWidget]:
            connect(tabs.currentChanged, lambda tabs=tabs: fit(tabs))
            fit(tabs)

    def isOpen(self, page) -> bool:
        """Whether the user sees a page."""
        tabs, section = self._home(page)
        return not section.collapsed and tabs.currentIndex == tabs.indexOf(page.parentWidget())

    def open(self, page) -> None:
        """Unfold the section of a page and bring its tab to the front."""
        tabs, section = self._home(page)
        tabs.setCurrentIndex(tabs.indexOf(page.parentWidget()))
        section.collapsed = False

    def onOpened(self, page, function: Callable[[], None]) -> None:
        """Call `function` each time the user opens the page."""

        def opened() -> None:
            if self.isOpen(page):
                function()

        tabs, section = self._home(page)
        self._connect(tabs.currentChanged, opened)
        self._connect(section.contentsCollapsed, opened)

    def _home(self, page) -> tuple:
        return next(home for home in self._homes if home[0].indexOf(page.parentWidget()) >= 0)


def fit(tabs) -> None:
    """Make a tab widget as high as the page in front: a tab asks for the room of what is visible in it."""
    for index in range(tabs.count):
        tabs.widget(index).layout().itemAt(0).widget().setVisible(index == tabs.currentIndex)
    tabs.updateGeometry()
