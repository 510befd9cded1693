"""Lesions of a chosen shape in a real or a generated volume.

from MedGenLib.editing.lesions import insert_lesion

made = insert_lesion("ct.nii.gz", at=(52, 10, -120), shape="spiculated", size_mm=22,
                     label="soft tissue", seed=1)
made.volume, made.lesion                   # the image with the lesion, and the mask of the lesion
"""

from __future__ import annotations

from MedGenLib.editing.lesions.insertion import Insertion, insert_lesion
from MedGenLib.editing.lesions.library import names

__all__ = ["Insertion", "insert_lesion", "names"]
