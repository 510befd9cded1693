"""The page *Readers*, a reader study: can readers distinguish synthetic images from real ones?

Its form is loaded when the section is first opened: few users need it, and the module opens quicker without.
"""

import slicer

from MedGenSlicer import paths
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection


class StudySection(PanelSection):
    """Prepare, read and score, one tab each.

    Attributes
    ----------
    ui: widgets of ReaderStudy.ui by name; None until the section was opened.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.ui = None
        self.make = self.read = self.score = None
        context.pages.onOpened(context.ui.studyPage, self._opened)

    def pause(self) -> None:
        """Give the views back; every answer is kept."""
        if self.read is not None:
            self._context.guarded(self.read.pause)

    def _opened(self) -> None:
        if self.ui is None:
            self._load()

    def _load(self) -> None:
        from MedGenSlicer.panel.sections.study_make import MakeTab
        from MedGenSlicer.panel.sections.study_read import ReadTab
        from MedGenSlicer.panel.sections.study_score import ScoreTab

        form = slicer.util.loadUI(str(paths.resource("UI/ReaderStudy.ui")))
        self._context.ui.studyPage.layout().addWidget(form)
        self.ui = slicer.util.childWidgetVariables(form)
        self.read = ReadTab(self._context, self.ui)
        self.score = ScoreTab(self._context, self.ui)
        self.make = MakeTab(self._context, self.ui, self._made)

    def _made(self, study: str) -> None:
        """A study was prepared: it is the one to read and to score."""
        self.ui.readStudyEdit.currentPath = study
        self.ui.scoreStudyEdit.currentPath = study
