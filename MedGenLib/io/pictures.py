"""Two-dimensional images: pictures such as PNG and JPEG, and single DICOM images such as radiographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume, affine_from_lps
from MedGenLib.io.files import READABLE, os_sentence, read_volume
from MedGenLib.io.system import plan_memory, quiet_library

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SINGLE = (".dcm",)
IMAGES = (*READABLE, *PICTURES, *SINGLE)
"""Suffixes that `read_image` reads; a folder with a DICOM series is read too."""
_MODALITY = "0008|0060"
_SPACINGS = ("0028|0030", "0018|1164")
"""In the patient, else at the imager."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def read_image(
    path: str | Path,
    modality: str | None = None,
    series: str | None = None,
    hu_offset: float | None = None,
    unstated: str | None = None,
) -> Volume:
    """Read a volume, a picture or a single DICOM image; a 2-D image has one voxel along the third axis.

    Parameters and errors are those of `MedGenLib.io.files.read_volume`; ``unstated`` is the modality of a picture or
    single image that is not stated to be CT or MR.
    """
    path = Path(path)
    if not path.is_file() or not path.name.lower().endswith((*PICTURES, *SINGLE)):
        return read_volume(path, series, modality, hu_offset)
    array, affine, tags = _read(path)
    found = tags.get(_MODALITY, "").strip()
    kind = modality or (found if found in ("CT", "MR") else unstated)
    return Volume(np.ascontiguousarray(array.T[..., None]), affine, kind, "HU" if kind == "CT" else "a.u.")


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Gray values (row, column) with white as the highest, affine in RAS mm, and the tags of a DICOM image.

    A DICOM image lies where its header says, a picture at the origin with pixels of 1 mm.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_library():
            reader.ReadImageInformation()
            size = reader.GetSize()
            plan_memory(16 * int(np.prod(size, dtype=object)), f"{path}")
            if sum(n > 1 for n in size) != 2:
                raise InputError(f"{path} is no single slice ({' x '.join(map(str, size))}); give one 2-D image.")
            picture = reader.Execute()
    except OSError as error:
        raise InputError(os_sentence(path, error, "read")) from None
    except RuntimeError:
        raise InputError(f"{path} cannot be read, it is damaged or truncated; copy it again.") from None
    while picture.GetDimension() > 2:
        picture = picture[..., 0]
    array = SimpleITK.GetArrayFromImage(picture).astype(np.float32)
    if array.ndim == 3:  # color, and an opacity that is left out
        array = array[..., :3] @ _LUMINANCE if array.shape[2] >= 3 else array[..., 0]
    if not path.name.lower().endswith(SINGLE):
        return array, affine_from_lps((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3).ravel()), {}
    tags = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    sides = next((tags[key].split("\\") for key in _SPACINGS if tags.get(key, "").strip()), ("1", "1"))
    spacing = (float(sides[1]), float(sides[0]), (*reader.GetSpacing(), 1.0)[2])  # the distance of rows comes first
    placed = len(reader.GetOrigin()) == 3
    origin, direction = (reader.GetOrigin(), reader.GetDirection()) if placed else ((0.0,) * 3, np.eye(3).ravel())
    return array, affine_from_lps(spacing, origin, direction), tags
