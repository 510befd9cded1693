"""Breathing: a series of CTs made from one.

from MedGenLib.motion import breathe

series = breathe("ct.nii.gz", phases=10, amplitude=15, chest=4)
series.volumes, series.labels, series.phases     # a CT, its labels and what was measured, for each phase
"""

from MedGenLib.motion.breathing import Breathing, Phase, breathe

__all__ = ["Phase", "Breathing", "breathe"]
