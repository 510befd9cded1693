"""Reading and writing images and masks as NIfTI, NRRD and MetaImage; reading DICOM series.

The header of a file is checked first (`headers.py`, `nifti.py`): it must be consistent, and the
image must fit into memory, before any voxel is read. A file is written under a temporary name in
the same folder and renamed when complete, so an interrupted write leaves no partial file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.colors import rgb
from MedGenLib.imaging.modality import modality_family
from MedGenLib.imaging.units import unit_doubt
from MedGenLib.imaging.volume import LabelMap, Volume, affine_from_lps, by_axis, check_finite, to_sitk
from MedGenLib.io import dicom
from MedGenLib.io.atomic import replacing
from MedGenLib.io.headers import Header, Segment, check_packed, read_meta_header, read_nrrd_header
from MedGenLib.io.mgh import read_mgh_header, read_mgh_voxels
from MedGenLib.io.nifti import read_nifti_comments, read_nifti_header, read_nifti_voxels
from MedGenLib.io.nifti_writing import write_nifti
from MedGenLib.io.provenance import KEY, Provenance
from MedGenLib.io.sequence import contrast_beside, contrast_by_name
from MedGenLib.io.system import plan_memory, quiet_library

if TYPE_CHECKING:
    import SimpleITK

READABLE = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh")
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha")
_NIFTI, _NRRD, _MGH = (".nii", ".nii.gz"), (".nrrd", ".nhdr"), (".mgz", ".mgh")
_ANALYZE = (".hdr", ".img", ".img.gz", ".hdr.gz")
_LABEL_NOISE, _LARGEST_LABEL_NOISE = 1e-3, 0.1
"""Deviation of labels from whole numbers: by rounding of floating point, and at most by a scale."""
_LONGEST_NAME = 235
"""Bytes of an output's name; file systems allow 255, and the name of the file beside it is longer."""
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")


def read_volume(
    path: str | Path, series: str | None = None, modality: str | None = None, hu_offset: float | None = None
) -> Volume:
    """Read a scalar image.

    Parameters
    ----------
    path: a file with one of the suffixes `READABLE`, or a folder with a DICOM series.
    series: series of the folder: its number in `list_series`, from 1, or its UID.
    modality: "CT", "T1w", "T2w" or "MR", where the file does not state it.
    hu_offset: added to the values of a CT that are not HU, such as -1024.

    Returns
    -------
    Volume with float32 voxels, in HU if the modality is CT. A single slice is a volume with one
    voxel along that axis. `notes` lists what was changed or assumed.

    Raises
    ------
    InputError: the path, the format, the geometry or the values cannot be used.
    MemoryPlanError: the image does not fit into the free memory.
    """
    path = _existing(path)
    if path.is_dir():
        volume = dicom.read_series(path, series)
    else:
        array, affine, header = _read_file(path)
        known = contrast_beside(path, header.description)
        named = contrast_by_name(path) if known is None and modality is None else None
        volume = Volume(array.astype(np.float32, order="C"), affine, known, "a.u.", header.notes, header.forms, named)
    _check_extent(volume.shape, path)
    check_finite(volume, str(path))
    if modality and volume.modality and modality_family(modality) != modality_family(volume.modality):
        raise InputError(f"{path} is stated to be {modality}, but its header says {volume.modality}; correct that.")
    modality = modality or volume.modality
    if hu_offset is not None:
        volume, modality = _in_hu(volume, hu_offset, modality, path), "CT"
    notes = (*volume.notes, *_on_units(volume))
    return replace(volume, modality=modality, unit="HU" if modality == "CT" else "a.u.", notes=notes)


def read_frames(path: str | Path, modality: str | None = None) -> list[Volume]:
    """Read a series over time, whose frames have one grid, in their order.

    Parameters
    ----------
    path: a 4-D file, such as .seq.nrrd of Slicer or .nii.gz, or a folder with a file or a DICOM folder for each frame.
    modality: see `read_volume`.

    Raises
    ------
    InputError: a single image, frames on different grids, or as in `read_volume`.
    """
    path = _existing(path)
    if path.is_dir():
        parts = [part for part in sorted(path.iterdir()) if part.is_dir() or part.name.lower().endswith(READABLE)]
        frames = [read_volume(part, modality=modality) for part in parts]
    else:
        array, affine, header = _read_file(path, with_frames=True)
        arrays = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
        unit = "HU" if modality == "CT" else "a.u."
        frames = [Volume(a.astype(np.float32, order="C"), affine, modality, unit, header.notes) for a in arrays]
    if len(frames) < 2:
        raise InputError(
            f"{path} holds {len(frames) or 'no'} image{'' if len(frames) == 1 else 's'}, but a series over time is "
            "needed; give a 4-D file (.seq.nrrd, .nii.gz), or a folder with a file for each frame."
        )
    for number, frame in enumerate(frames):
        check_finite(frame, f"Frame {number} of {path}")
        if not frame.geometry.is_close(frames[0].geometry):
            away = frame.geometry.apart(frames[0].geometry)
            raise InputError(
                f"The frames 0 and {number} of {path} lie on different grids ({frames[0].geometry}; "
                f"{frame.geometry}{away}); resample them to one grid."
            )
    return frames


def _on_units(image: Volume | LabelMap) -> list[str]:
    doubt = unit_doubt(image.geometry)
    return [doubt] if doubt else []


def _in_hu(volume: Volume, offset: float, modality: str | None, path: Path) -> Volume:
    if modality not in (None, "CT"):
        raise InputError(f"{path} is {modality}, but an offset to HU is for CT; leave it out or correct the modality.")
    array = np.maximum(volume.array + np.float32(offset), dicom.LOWEST_HU)
    notes = (*(note for note in volume.notes if note != dicom.NO_INTERCEPT), f"{offset:+g} was added to get HU.")
    return replace(volume, array=array, notes=notes)


def read_label_map(path: str | Path, images: Path | None = None) -> LabelMap:
    """Read a mask of integer labels, with the label names that the file holds.

    A DICOM Segmentation or RT structure set is read as well, given as a file or as a folder that holds one, and an XML
    file of LIDC-IDRI, whose CT series lies in the folder ``images``, by default that of the file.

    Raises
    ------
    InputError: as in `read_volume`, or the values are not labels.
    """
    path = _existing(path)
    if path.suffix.lower() == ".xml":
        return dicom.read_outlines(path, images or path.parent)
    if path.is_dir() or not path.name.lower().endswith(READABLE) and _is_dicom(path):
        mask = dicom.read_mask(dicom.find_mask(path))
        return mask.with_array(np.ascontiguousarray(mask.array))
    array, affine, header = _read_file(path, with_layers=True)
    header_notes, segments = header.notes, header.segments
    if array.ndim == 4:
        array, segments, header_notes = _one_layer(array, header, path)
    names = header.names or {segment.value: segment.name for segment in segments if segment.name}
    colors = {segment.value: segment.color for segment in segments if segment.color}
    _check_extent(array.shape, path)
    array, notes = _whole(array, header.step, path)
    try:
        labels = LabelMap(array, affine, names, header_notes + notes, header.forms, colors)
        labels = replace(labels, notes=(*labels.notes, *_on_units(labels)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    small = np.min_scalar_type(int(labels.array.max()))
    return labels.with_array(labels.array.astype(small, order="C"))


def _one_layer(array: np.ndarray, header: Header, path: Path) -> tuple[np.ndarray, list[Segment], tuple[str, ...]]:
    """Labels, segments with their values, and notes; where segments of the layers overlap, the later one counts."""
    segments = [segment for segment in header.segments if segment.layer < array.shape[3]]
    if not segments:
        raise InputError(
            f"{path} has {array.shape[3]} layers and does not state its segments; save them as one label map."
        )
    values = [segment.value for segment in segments]
    if len(set(values)) < len(values) or 0 in values:
        values = list(range(1, len(segments) + 1))
    labels = np.zeros(array.shape[:3], np.min_scalar_type(max(values)))
    overlap = 0
    for value, segment in zip(values, segments, strict=True):
        inside = array[..., segment.layer] == segment.value
        overlap += int(np.count_nonzero(labels[inside]))
        labels[inside] = value
    segments = [replace(segment, value=value) for value, segment in zip(values, segments, strict=True)]
    listed = ", ".join(f"{segment.value} = {segment.name or 'unnamed'}" for segment in segments)
    note = f"The {array.shape[3]} layers of {path.name} were merged by the order of their segments ({listed})"
    return labels, segments, (*header.notes, f"{note}; {overlap} voxels of overlap belong to the later segment.")


def _whole(array: np.ndarray, step: float, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as whole numbers if they deviate by no more than the scale they were stored with, or noise, and a note."""
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        return array, ()
    rounded = np.rint(array)
    deviation = float(np.abs(array - rounded).max())
    if deviation == 0 or deviation > max(_LABEL_NOISE, min(0.51 * step, _LARGEST_LABEL_NOISE)):
        return array, ()
    return rounded, (
        f"The labels of {path.name} deviate from whole numbers by up to {deviation:.1g}; they are rounded.",
    )


def list_series(folder: str | Path) -> list[dicom.Series]:
    """The image series in a folder of DICOM files."""
    return dicom.list_series(_existing(folder))


def write_volume(image: Volume | LabelMap, path: str | Path, provenance: Provenance | None = None) -> Path:
    """Write an image or a mask; the file appears under its name only when it is complete.

    Parameters
    ----------
    path: ends in .nii, .nii.gz, .nrrd or .mha. The voxel type is that of the array.
    provenance: record of how the image was made, stored in the header; other programs ignore it.

    Raises
    ------
    InputError: the suffix is unknown, the folder does not exist or is not writable, or the disk is full.
    """
    path = check_output_path(path)
    with temporary_output(path) as temporary:
        try:
            if path.name.lower().endswith(_NIFTI):
                comment = ("", "") if provenance is None else (provenance.line(), provenance.summary)
                write_nifti(image, temporary, *comment)
            else:
                _write_by_sitk(image, temporary, provenance)
        except RuntimeError:
            raise InputError(_write_failure(path, image.array.nbytes)) from None
    return path


def _write_by_sitk(image: Volume | LabelMap, path: Path, provenance: Provenance | None) -> None:
    import SimpleITK

    picture = to_sitk(image)
    if isinstance(image, LabelMap) and path.name.lower().endswith(".nrrd"):
        for number, value in enumerate(image.names | image.colors):
            picture.SetMetaData(f"Segment{number}_LabelValue", str(value))
            picture.SetMetaData(f"Segment{number}_Name", image.names.get(value, ""))
            if value in image.colors:
                parts = (f"{part / 255:.4g}" for part in rgb(image.colors[value]))
                picture.SetMetaData(f"Segment{number}_Color", " ".join(parts))
    if provenance is not None:
        picture.SetMetaData(KEY, provenance.line())
    with quiet_library():
        SimpleITK.WriteImage(picture, str(path), useCompression=True)


def read_entries(path: str | Path) -> dict[str, str]:
    """Header entries whose keys start with `KEY`.

    `write_volume` writes one; Slicer writes the attributes of a synthetic volume's node into .nrrd.

    Raises
    ------
    InputError: the file does not exist or is damaged.
    """
    import SimpleITK

    path = _existing(path)
    try:
        if path.name.lower().endswith(_NIFTI):
            start = f'{{"{KEY}":'
            comments = [text for text in read_nifti_comments(path) if text.startswith(start)]
            return {KEY: comments[0]} if comments else {}
        if path.name.lower().endswith(_MGH):
            return {}
        if path.name.lower().endswith(_NRRD):
            read_nrrd_header(path)
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        with quiet_library():
            reader.ReadImageInformation()
    except OSError as error:
        raise InputError(os_sentence(path, error, "read")) from None
    except RuntimeError:
        raise InputError(f"{path} cannot be read, it is damaged or truncated; copy it again.") from None
    keys = [key for key in reader.GetMetaDataKeys() if key.startswith(KEY)]
    return {key: reader.GetMetaData(key) for key in keys}


def check_output_path(path: str | Path, suffixes: tuple[str, ...] = WRITABLE, new_folder: bool = False) -> Path:
    """Return the path if a file with one of the suffixes can be written there; call before the work.

    Parameters
    ----------
    new_folder: whether its folder may be one that `MedGenLib.io.atomic.Outputs` creates.

    Raises
    ------
    InputError: the suffix is unknown, the path is a folder, or its folder does not exist or is not writable.
    """
    path = Path(path)
    _check_name(path)
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise InputError(
            f"The name of the output {path.name[:40]}... is too long; give one of at most {_LONGEST_NAME} bytes."
        )
    if not path.name.lower().endswith(suffixes):
        raise InputError(f"The output {path} has none of the suffixes {', '.join(suffixes)}; choose one of them.")
    if path.is_dir():
        raise InputError(f"The output {path} is a folder; give the name of a file.")
    if not (new_folder or path.parent.is_dir()):
        raise InputError(f"The folder {path.parent} of the output does not exist; create it first.")
    existing = next(folder for folder in (path.parent, *path.parent.parents) if folder.exists())
    if not existing.is_dir():
        raise InputError(f"{existing} is no folder, so the output {path} cannot be written; choose another folder.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(os_sentence(path, error)) from None
    return path


@contextlib.contextmanager
def temporary_output(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` with the same suffix, renamed to `path` on exit.

    On any exception, including Ctrl-C, the temporary file is removed and `path` is unchanged.
    An OSError is converted to an InputError.
    """
    path = Path(path)
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(os_sentence(path, error)) from None


def _check_name(path: Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise InputError(
            f"The name {shown} is not UTF-8, which the libraries need; rename the file or folder."
        ) from None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    _check_name(path)
    try:
        found = path.exists()
    except OSError as error:
        raise InputError(os_sentence(path, error, "read")) from None
    if not found:
        raise InputError(f"There is no file or folder {path}; check the path.")
    return path


def _read_file(
    path: Path, with_layers: bool = False, with_frames: bool = False
) -> tuple[np.ndarray, np.ndarray, Header]:
    """Array (i, j, k), affine from voxel index to RAS mm, and header of an image file.

    With layers, a segmentation of several may be an array (i, j, k, layer); with frames, a series (i, j, k, frame).
    """
    try:
        _check_readable(path)
        name = path.name.lower()
        if name.endswith(_NIFTI):
            header = read_nifti_header(path)
            _check_claims(header, path, with_frames=with_frames)
            return read_nifti_voxels(path, header), header.affine, header
        if name.endswith(_MGH):
            header = read_mgh_header(path)
            _check_claims(header, path)
            return read_mgh_voxels(path, header), header.affine, header
        header = read_nrrd_header(path) if name.endswith(_NRRD) else read_meta_header(path)
        _check_claims(header, path, with_layers and bool(header.segments), with_frames)
        check_packed(header, path)
        return *_read_by_sitk(path, with_frames), header
    except OSError as error:
        raise InputError(os_sentence(path, error, "read")) from None
    except (ValueError, OverflowError) as error:  # a number in the header that no image has
        raise InputError(f"{path} is damaged ({error}); copy it again or convert it to .nii.gz.") from None


def _read_by_sitk(path: Path, with_frames: bool = False) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK

    try:
        with quiet_library():
            picture = SimpleITK.ReadImage(str(path))
    except RuntimeError:
        raise InputError(
            f"{path} cannot be read, it is damaged or truncated; copy it again or convert it to .nii.gz."
        ) from None
    first = _three_axes(picture)
    affine = affine_from_lps(first.GetSpacing(), first.GetOrigin(), first.GetDirection())
    if with_frames and picture.GetDimension() == 4:
        array = np.moveaxis(SimpleITK.GetArrayFromImage(picture), 0, -1)
    else:
        array = SimpleITK.GetArrayFromImage(first)
    return array.transpose(2, 1, 0, *range(3, array.ndim)), affine


def _three_axes(picture: SimpleITK.Image) -> SimpleITK.Image:
    """Remove axes of one voxel beyond the third."""
    while picture.GetDimension() > 3:
        picture = picture[..., 0]
    return picture


def _check_readable(path: Path) -> None:
    name = path.name.lower()
    if name.endswith(READABLE):
        return
    if name.endswith(_PICTURES):
        raise InputError(
            f"{path} is a 2-D picture without patient coordinates; give a 3-D "
            f"image ({', '.join(READABLE)}) or a folder with a DICOM series."
        )
    if name.endswith(_ANALYZE):
        raise InputError(
            f"{path} is a pair of files (Analyze or NIfTI) whose orientation programs read differently; convert it to "
            ".nii.gz first, for instance with 3D Slicer, and check left and right."
        )
    if _is_dicom(path):
        raise InputError(f"{path} is one DICOM file; give the folder that holds the series.")
    raise InputError(
        f"The suffix of {path} is unknown; give one of {', '.join(READABLE)} or a folder with a DICOM series."
    )


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _check_claims(header: Header, path: Path, with_layers: bool = False, with_frames: bool = False) -> None:
    size = by_axis(header.shape)
    if len(header.shape) < 3:
        raise InputError(f"{path} is a 2-D image ({size}); give a 3-D image or a folder with a DICOM series.")
    if len(header.shape) not in ((3, 4) if with_frames else (3,)):
        raise InputError(
            f"{path} has {len(header.shape)} axes ({size}), but one 3-D image is needed; split it and give one part."
        )
    if header.channels != 1 and header.segments and not with_layers:
        raise InputError(f"{path} is a segmentation with {header.channels} layers; give an image.")
    if header.channels != 1 and not (with_layers or with_frames):
        raise InputError(
            f"{path} holds {header.channels} numbers per voxel, but a scalar "
            "image is needed; split it and give one part."
        )
    voxels = header.channels * int(np.prod(header.shape, dtype=object))
    # SimpleITK's image, its copy as an array and that array as float32 are in memory at once.
    plan_memory(voxels * (2 * header.voxel_bytes + 4), f"{path} claims {size} voxels, which")


def _check_extent(shape: tuple[int, ...], path: Path) -> None:
    if sum(n > 1 for n in shape) < 2:
        raise InputError(f"{path} has only {by_axis(shape)} voxels; give a slice or a volume.")


def _write_failure(path: Path, size: int) -> str:
    """Reason for a failed write. SimpleITK reports none, so the same space is requested again."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.write(bytes(size))
    except OSError as error:
        return os_sentence(path, error)
    return f"{path} could not be written completely; check the disk, then try another folder."


def os_sentence(path: Path, error: OSError, verb: str = "written") -> str:
    """Sentence that states why the system refused a file and what to do."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space or choose another folder",
        errno.EFBIG: "the disk or the allowed file size is full; choose another folder",
        errno.EDQUOT: "your quota is used up; free some space or choose another folder",
        errno.EACCES: "permission is denied; choose another folder",
        errno.EPERM: "permission is denied; choose another folder",
        errno.EROFS: "the disk is read-only; choose another folder",
    }
    reason = reasons.get(error.errno, f"{error.strerror or error}; check the path")
    return f"{path} cannot be {verb}: {reason}."
