"""The sections of the panel. A new one is a file here, its part of MedGen.ui, and its line in `SECTIONS`."""

from importlib import import_module

SECTIONS = {
    "readiness": "Readiness",
    "generate": "GenerateTab",
    "translate": "TranslateTab",
    "card": "Card",
    "options": "Options",
    "run": "RunSection",
    "failure": "FailureBox",
    "result": "ResultBox",
    "edit": "EditSection",
    "lesion": "LesionSection",
    "enhance": "EnhanceSection",
    "breathe": "BreatheSection",
    "evaluation": "EvaluationSection",
    "dicom": "DicomSection",
    "batch": "BatchSection",
    "study": "StudySection",
    "models": "ModelsSection",
}
"""File -> class (`MedGenSlicer.panel.section.PanelSection`), in the order in which they are updated."""


def made(context) -> dict:
    """Every section by the name of its file."""
    return {
        name: getattr(import_module(f"{__name__}.{name}"), className)(context) for name, className in SECTIONS.items()
    }
