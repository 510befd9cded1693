"""Breathing series: what is promised on open chest CTs, time, and a real pair of lungs.

    MEDGEN_DATA=DATA python Testing/benchmarks/breathe.py

Promises: three chest CTs, ten phases of 15 mm, and a tidal volume of 400 ml. Mass and tidal volume are measured from
the images and the moved labels, the largest travel from the displacement fields, and the inverse at every voxel.
Time: 256 x 256 x 128 voxels, against ten volumes warped by SimpleITK with the same displacement fields (without
density, labels and the making of the fields). Pair: one lung at baseline and follow-up.
"""

from __future__ import annotations

import time

import numpy as np
import SimpleITK
from common import data_folder, save, table
from scipy import ndimage

from MedGenLib import breathe
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, LabelMap, pad, to_sitk, whole_numbers
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.motion import Breathing

CHESTS = ("ct_torso_with_masks/lidc_idri_0314", "ct_torso_open/lidc_idri_0001", "ct_torso_open/lung_pet_ct_dx_a0001")
BELOW_MM = 100
LPS = np.array([-1, -1, 1])


def inverse_error(series: Breathing, phase: int) -> float:
    """Largest distance in mm between a voxel and itself, followed into the input and back."""
    index = np.stack(np.indices(series.source.shape), axis=-1).reshape(-1, 3)
    places = index @ series.source.affine[:3, :3].T + series.source.origin
    back = series.moved(places + series.displacement(phase).reshape(-1, 3) * LPS, phase)
    return float(np.linalg.norm(back - places, axis=1).max())


def noise(values: np.ndarray) -> float:
    """High-pass SD in HU of soft tissue, away from its borders."""
    values = values.astype(np.float32)
    inside = ndimage.binary_erosion((values > 0) & (values < 120), iterations=4)
    return float((values - ndimage.gaussian_filter(values, 2))[inside].std())


def promises(path: str) -> dict[str, float]:
    """What one CT shows."""
    image = read_volume(path)
    series = breathe(image, amplitude=15, chest=4)
    voxel = np.prod(image.spacing) / 1000
    inside = [labels.array > 0 for labels in series.labels]
    masses = [float((v.array[lung] + 1000.0).sum()) for v, lung in zip(series.volumes, inside, strict=True)]
    asked = breathe(image, phases=4, tidal_volume=400)
    tidal = np.ptp([np.count_nonzero(labels.array) * voxel for labels in asked.labels])
    rise = series.displacement(series.farthest)[..., 2]
    return {
        "lungs ml": float(np.count_nonzero(inside[0]) * voxel),
        "first phase is the input": float(np.array_equal(series.volumes[0].array, image.array)),
        "largest travel mm": float(-rise.min()),
        "tidal volume at 15 mm ml": float(np.ptp([np.count_nonzero(lung) * voxel for lung in inside])),
        "mass g": masses[0] * voxel / 1000,
        "mass error %": float(100 * np.abs(np.divide(masses, masses[0]) - 1).max()),
        "balance of vessels %": float(100 * max(abs(phase.blood - 1) for phase in series.phases)),
        "smallest Jacobian": min(phase.least_jacobian for phase in series.phases),
        "inverse error mm": inverse_error(series, series.farthest),
        "tidal volume asked 400 ml": float(tidal),
        "noise of the input HU": noise(series.volumes[0].array),
        "noise of the farthest phase HU": noise(series.volumes[series.farthest].array),
    }


def speed(path: str) -> dict[str, float]:
    """Seconds of a series of 256 x 256 x 128 voxels, and of ten plain warps."""
    image = read_volume(path)
    size = np.array(image.field_of_view) / (256, 256, 128)
    grid = Geometry((256, 256, 128), image.geometry.with_spacing(size).affine)
    large = resample_to(image, grid)
    large = large.with_array(whole_numbers(large.array))
    start = time.perf_counter()
    series = breathe(large, amplitude=15, chest=4)
    made = time.perf_counter() - start
    source, seconds = to_sitk(large), 0.0
    for phase in range(10):
        field = SimpleITK.GetImageFromArray(series.displacement(phase).transpose(2, 1, 0, 3), isVector=True)
        field.CopyInformation(source)
        start = time.perf_counter()
        SimpleITK.Warp(
            source,
            field,
            SimpleITK.sitkLinear,
            source.GetSize(),
            source.GetOrigin(),
            source.GetSpacing(),
            source.GetDirection(),
        )
        seconds += time.perf_counter() - start
    return {"series s": made, "ten warps s": seconds, "ratio": made / seconds}


def pair(folder) -> dict[str, float]:
    """Overlap of a lung at follow-up, laid over the baseline at its apex, with the baseline at rest and breathing."""
    lung = read_label_map(folder / "baseline_mask.mha")
    later = read_label_map(folder / "followup_mask.mha")
    image = read_volume(folder / "baseline_small.mha", modality="CT")
    below = round(BELOW_MM / image.spacing[2])  # the image ends close below the lung
    image = pad(image, (0, 0, below), (0, 0, 0))
    image.array[..., :below] = image.array[..., below : below + 1]
    lung = pad(lung, (0, 0, round(BELOW_MM / lung.spacing[2])), (0, 0, 0))
    image = resample_to(image, lung)
    fine = np.prod(lung.spacing) / 1000
    shift = apex(lung) - apex(later)
    affine = later.affine.copy()
    affine[:3, 3] += shift
    later = resample_to(LabelMap(later.array, affine), lung)
    wanted = float(fine * (np.count_nonzero(later.array) - np.count_nonzero(lung.array)))
    labels = LabelMap(lung.array, lung.affine, {1: "lung"})
    series = breathe(image, labels=labels, phases=2, start="exhale", tidal_volume=wanted)
    deep = series.labels[1].array > 0
    return {
        "baseline ml": float(fine * np.count_nonzero(lung.array)),
        "follow-up ml": float(fine * np.count_nonzero(later.array)),
        "amplitude mm": series.parameters["amplitude_mm"],
        "Dice at rest": dice(lung.array > 0, later.array > 0),
        "Dice breathing": dice(deep, later.array > 0),
        "Dice scaled by the same volume": dice(scaled(lung, later), later.array > 0),
    }


def apex(mask: LabelMap) -> np.ndarray:
    """Mean place of the upper third of a mask across, and its top along foot-head."""
    places = np.argwhere(mask.array > 0) @ mask.affine[:3, :3].T + mask.origin
    top = places[:, 2].max()
    upper = places[places[:, 2] > top - (top - places[:, 2].min()) / 3]
    return np.array([*upper[:, :2].mean(axis=0), top])


def scaled(mask: LabelMap, wanted: LabelMap) -> np.ndarray:
    """The mask stretched along foot-head below its top to the volume of another one."""
    ratio = np.count_nonzero(wanted.array) / np.count_nonzero(mask.array)
    affine = mask.affine.copy()
    top = apex(mask)[2]
    affine[2, :3] *= ratio
    affine[2, 3] = top + (mask.affine[2, 3] - top) * ratio
    return resample_to(LabelMap(mask.array, affine), mask).array > 0


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


def main() -> None:
    data = data_folder()
    columns = {name.split("/")[-1]: promises(data / name / "ct.nii.gz") for name in CHESTS}
    rows = [[figure, *(column[figure] for column in columns.values())] for figure in next(iter(columns.values()))]
    print(table(["", *columns], rows))
    others = {
        "time": speed(data / CHESTS[0] / "ct.nii.gz"),
        "pair": pair(data / "ct_torso_with_masks" / "elastix_lung"),
    }
    for name, figures in others.items():
        print(f"\n{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    save("breathe", {**columns, **others})


if __name__ == "__main__":
    main()
