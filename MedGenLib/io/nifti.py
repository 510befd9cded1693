"""Reading NIfTI-1 and NIfTI-2 files and the comments in their headers.

Images are not read by SimpleITK: it silently replaces NaN and infinite voxels by 0, fills a truncated
file with zeros and repairs an invalid affine.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Forms, Geometry, by_axis
from MedGenLib.io.headers import HEADER_LIMIT, Header, check_axes, check_spacing, without_trailing_ones
from MedGenLib.io.nifti_layout import BLOCK, COMMENT, DAMAGED, TYPES, nifti_fields, open_nifti, order_of


@dataclass(frozen=True, kw_only=True)
class NiftiHeader(Header):
    """A `Header` with the affine and the layout of the stored voxels.

    Attributes
    ----------
    affine: voxel index -> RAS mm.
    dtype: type of the stored voxels, with byte order.
    start: offset of the first voxel in bytes.
    slope, intercept: value = stored x slope + intercept.
    is_start_doubtful: whether the header states another start, before its own end.
    """

    affine: np.ndarray
    dtype: np.dtype
    start: int
    slope: float
    intercept: float
    is_start_doubtful: bool = False

    @property
    def payload(self) -> int:
        """Size of all voxels in bytes."""
        return self.voxel_bytes * int(np.prod(self.shape, dtype=object))


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header of a .nii or .nii.gz file.

    Raises
    ------
    InputError: the file is not NIfTI, or its spacing, axes or voxel type cannot be used.
    """
    try:
        with open_nifti(path) as stream:
            raw = stream.read(540)
            fields = nifti_fields(raw, path)
            start = int(np.nan_to_num(fields["vox_offset"]))
            first = fields.dtype.itemsize + 4
            extension = raw[352:] + stream.read(max(0, min(start, HEADER_LIMIT) - len(raw)))
    except DAMAGED:
        raise InputError(f"{path} is truncated inside its header; copy it again.") from None
    code = int(fields["datatype"])
    if code not in TYPES:
        raise InputError(
            f"{path} holds colors, complex numbers or another voxel type (code "
            f"{code}) that is not a scalar image; convert it first."
        )
    dtype = np.dtype(TYPES[code]).newbyteorder(order_of(fields))
    shape = _nifti_shape(fields["dim"], path)
    forms, notes = _nifti_forms(fields, shape, path)
    names = {int(key): name.decode("utf-8", "replace").strip() for key, name in _LABEL_NAME.findall(extension)}
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        slope, intercept = 1.0, 0.0
    return NiftiHeader(
        shape,
        dtype.itemsize,
        names=names,
        notes=notes,
        step=0.0 if dtype.kind == "f" or slope == 1 else abs(slope),
        affine=forms.affine,
        forms=forms,
        description=bytes(fields["descrip"]).decode("latin-1").strip("\0 "),
        dtype=dtype,
        start=max(start, first),
        slope=slope,
        intercept=intercept,
        is_start_doubtful=start < first,
    )


def read_nifti_voxels(path: Path, header: NiftiHeader) -> np.ndarray:
    """Array (i, j, k): float32 after the header's slope and intercept, else the stored type.

    The file is read to its end, where the checksum of a compressed file is.

    Raises
    ------
    InputError: the file holds fewer voxels than its header claims, or is damaged.
    """
    raw, rest, damage = bytearray(), 0, None
    try:
        with open_nifti(path) as stream:
            stream.seek(header.start)
            while len(raw) < header.payload and (block := stream.read(min(BLOCK, header.payload - len(raw)))):
                raw += block
            while block := stream.read(BLOCK):
                rest += len(block)
    except DAMAGED as error:
        damage = error
    if len(raw) < header.payload:
        raise InputError(
            f"{path} is truncated or damaged: it holds {len(raw)} of the {header.payload} bytes "
            "of voxels that its header claims; copy or download it again."
        )
    if damage is not None and not str(damage).startswith("Not a gzipped"):  # other data after the compressed
        raise InputError(f"{path} is damaged: its checksum does not match its content; copy or download it again.")
    if header.is_start_doubtful and rest:
        raise InputError(
            f"The header of {path} claims that the voxels begin inside the header, and the file has {rest} bytes too "
            "many to tell where they begin; convert it again."
        )
    stored = np.frombuffer(raw, header.dtype).reshape(header.shape, order="F")
    if (header.slope, header.intercept) == (1.0, 0.0):
        return stored
    return stored.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)


def read_nifti_comments(path: Path) -> list[str]:
    """Texts of all header extensions with code 6; raises InputError if the file is not NIfTI."""
    comments = []
    try:
        with open_nifti(path) as stream:
            raw = stream.read(540)
            fields = nifti_fields(raw, path)
            length, start = fields.dtype.itemsize, int(np.nan_to_num(fields["vox_offset"]))
            raw += stream.read(max(0, min(start, HEADER_LIMIT) - len(raw)))
    except DAMAGED:
        raise InputError(f"{path} is truncated inside its header; copy it again.") from None
    order = order_of(fields)
    offset, end = length + 4, min(start, len(raw))
    while raw[length : length + 1] != b"\0" and offset + 8 <= end:
        size, code = struct.unpack(f"{order}2i", raw[offset : offset + 8])
        if size < 16 or offset + size > end:
            break  # not a valid extension
        if code == COMMENT:
            text = raw[offset + 8 : offset + size].rstrip(b"\0")
            comments.append(text.decode("utf-8", "replace"))
        offset += size
    return comments


_ROUNDING = 1e-3
_TO_MM = {1: 1000.0, 3: 0.001}
"""Factor to mm by xyzt_units (1 is m, 3 is um); all other codes are taken as mm."""
_LABEL_NAME = re.compile(rb'<Label\s[^>]*?Key="(\d+)"[^>]*>\s*<!\[CDATA\[(.*?)\]\]>', re.DOTALL)
"""Label name in the extension written by TotalSegmentator and Connectome Workbench."""


def _nifti_shape(dim: np.ndarray, path: Path) -> tuple[int, ...]:
    if not 1 <= dim[0] <= 7 or (dim[1 : dim[0] + 1] < 1).any():
        raise InputError(
            f"The header of {path} claims {dim[0]} axes of {dim[1:4].tolist()} "
            "voxels, which is not an image; check how it was made."
        )
    shape = [int(n) for n in dim[1 : dim[0] + 1]]
    return without_trailing_ones(shape + [1] * (3 - len(shape)))


def _nifti_forms(fields: np.void, shape: tuple[int, ...], path: Path) -> tuple[Forms, tuple[str, ...]]:
    """Affine from sform, else qform, else the voxel size (methods 3, 2 and 1 of the standard), and notes."""
    spacing = np.array(fields["pixdim"][1:4], dtype=np.float64)
    check_spacing(spacing, path)
    to_mm = _TO_MM.get(int(fields["units"]) & 7, 1.0)
    codes = max(0, int(fields["qform_code"])), max(0, int(fields["sform_code"]))
    affine, qform, notes = np.eye(4), None, ()
    if codes[0]:
        sign = -1.0 if fields["pixdim"][0] < 0 else 1.0
        qform = np.eye(4)
        qform[:3, :3] = _rotation(fields["quatern"].astype(np.float64)) * spacing * (1, 1, sign)
        qform[:3, 3] = fields["offset"]
        qform[:3] *= to_mm
    if codes[1]:
        affine[:3] = fields["srow"]
        affine[:3] *= to_mm
    elif qform is not None:
        affine, qform = qform, None
    else:
        affine[:3, :3] = np.diag(spacing * to_mm)
        notes = (f"{path.name} does not state its orientation; its axes are assumed to be right, anterior, superior.",)
    check_axes(affine, path)
    if len(shape) != 3 or qform is not None and not np.isfinite(qform).all():
        return Forms(affine), notes
    if qform is None:
        own = np.linalg.norm(affine[:3, :3], axis=0)
        if codes[1] and not np.allclose(own, spacing * to_mm, rtol=_ROUNDING):
            sizes = f"{by_axis(spacing * to_mm, '.4g')} mm by its pixdim, {by_axis(own, '.4g')} mm by its sform"
            notes += (f"The voxels of {path.name} measure {sizes}; the sform is used, so check which is right.",)
        return Forms(affine, None, *(codes if any(codes) else (1, 1))), notes
    return Forms(affine, qform, *codes), notes + _disagreement(Geometry(shape, affine), qform, path)


def _disagreement(geometry: Geometry, qform: np.ndarray, path: Path) -> tuple[str, ...]:
    """A note if the two positions of a header differ by more than rounding does."""
    other = Geometry(geometry.shape, qform)
    # A quaternion holds no axes that are a hair off a right angle, and 32 bits lose 1e-3 of a half turn.
    lean = np.abs(geometry.direction.T @ geometry.direction - np.eye(3)).max() + _ROUNDING
    is_near = np.linalg.norm(geometry.origin - other.origin) <= _ROUNDING + 0.05 * min(geometry.spacing)
    turned = geometry.distance(other) <= lean * np.linalg.norm(geometry.field_of_view)
    if geometry.is_close(other) or is_near and turned:
        return ()
    sizes = ""
    if not np.allclose(geometry.spacing, other.spacing, rtol=_ROUNDING):
        sizes = f", with voxels of {by_axis(geometry.spacing, '.4g')} and {by_axis(other.spacing, '.4g')} mm"
    return (
        f"The two positions in the header of {path.name} (sform and qform) lie up to {geometry.distance(other):.3g} mm "
        f"apart{sizes}; the sform is used, but other programs may use the qform, so check where the image belongs.",
    )


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix of the unit quaternion (a, b, c, d) with a >= 0, from its part (b, c, d)."""
    b, c, d = quaternion
    squared = b * b + c * c + d * d
    if squared > 1.0:  # rounding at a rotation by 180 degrees
        b, c, d = quaternion / np.sqrt(squared)
    a = np.sqrt(max(0.0, 1.0 - squared))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
