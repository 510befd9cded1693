"""Names of output files."""

from __future__ import annotations

from pathlib import Path


def numbered(path: Path, count: int) -> list[Path]:
    """Paths of `count` samples: `ct.nii.gz` alone, or `ct_1.nii.gz`, `ct_2.nii.gz`, ..."""
    if count == 1:
        return [path]
    stem, suffix = split_suffix(path)
    return [path.with_name(f"{stem}_{number}{suffix}") for number in range(1, count + 1)]


def split_suffix(path: Path) -> tuple[str, str]:
    """Stem and suffix of a file name; `.nii.gz` counts as one suffix."""
    if path.name.lower().endswith(".nii.gz"):
        return path.name[:-7], path.name[-7:]
    return path.stem, path.suffix
