"""The panel, one file a section. Sections read and write the parameter node and know nothing of each other."""

from MedGenSlicer.panel.panel import Panel

__all__ = ["Panel"]
