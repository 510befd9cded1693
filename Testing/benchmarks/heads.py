"""Quality of head-mr-to-ct and head-ct-to-mr on the 30 held-out subjects.

    MEDGEN_DATA=<folder> python Testing/benchmarks/heads.py [--mirror]

Slices: error inside the mask of the data set (MAE, PSNR with range 3024), SSIM over the bounding box
of the mask with the outside set to -1024 in both images, bone Dice at 250 HU, error inside the head
without the frame. All slices have the same weight. CT to MR is in units of the 99.5th percentile
inside the mask. Volume: Dice of the skull of the translated Seg3D head against the skull segmented
on the same patient's CT.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from common import OUT, data_folder, save, table
from scipy import ndimage
from skimage.metrics import structural_similarity

from MedGenLib import translate
from MedGenLib.imaging.normalization import HEAD_CODECS
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.metrics import image as metrics
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.loading import network
from MedGenLib.pipelines.slice_sampling import pad
from MedGenLib.training.data.slices import FILL_HU, PLANES, SlicePair, read_pairs
from MedGenLib.visual import preview


@torch.inference_mode()
def predict(model: str, pair: SlicePair, mirror: bool) -> np.ndarray:
    """Output of the network for one slice, with the mask of the data set."""
    manifest = find(model)
    net = network(manifest, "translator", torch.device("cpu"))
    source = pair.mr if manifest.input.modality != "CT" else np.where(pair.mask, pair.ct, FILL_HU)
    codec, target = HEAD_CODECS[manifest.input.modality](), HEAD_CODECS[manifest.output.modality]()

    def run(image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(codec.as_input(image[None])))
        padded, cut = pad(x, net.stride)
        return net(padded, torch.tensor([pair.plane]))[(0, 0, *cut)].numpy()

    value = run(source)
    if mirror and pair.plane != 2:
        value = (value + run(source[::-1])[::-1]) / 2
    return target.from_target(value)


def head(pair: SlicePair) -> np.ndarray:
    """Mask of the head in the CT, without frame or pillow."""
    solid = ndimage.binary_opening((pair.ct > -400) & pair.mask, iterations=3)
    labels, count = ndimage.label(solid)
    if not count:
        return pair.mask
    sizes = ndimage.sum_labels(solid, labels, range(1, count + 1))
    return ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes)))


def ssim(real: np.ndarray, made: np.ndarray, mask: np.ndarray, data_range: float, outside: float) -> float:
    """Structural similarity in windows of 7 x 7 pixels, averaged over the box around the mask."""
    first, second = (np.where(mask, image.astype(float), outside) for image in (real, made))
    similarity = structural_similarity(first, second, data_range=data_range, full=True)[1]
    return float(similarity[ndimage.find_objects(mask.astype(np.uint8))[0]].mean())


def mr_to_ct(pairs: list[SlicePair], model: str, mirror: bool) -> dict[str, dict[str, float]]:
    rows: dict[str, list] = {name: [] for name in PLANES}
    for pair in pairs:
        real = np.clip(pair.ct, -1024, 2000)
        made = predict(model, pair, mirror)
        inside, skull = head(pair), pair.mask
        rows[PLANES[pair.plane]].append(
            {
                "MAE in mask": metrics.mae(real, made, pair.mask),
                "MAE in head": metrics.mae(real, made, inside),
                "PSNR": metrics.psnr(real, made, pair.mask),
                "SSIM": ssim(real, made, pair.mask, metrics.CT_RANGE, -1024.0),
                "bone Dice": metrics.dice((real > 250) & skull, (made > 250) & skull),
                "gradient energy": _gradient(made, inside) / _gradient(real, inside),
            }
        )
    return _means(rows)


def ct_to_mr(pairs: list[SlicePair], model: str, mirror: bool) -> dict[str, dict[str, float]]:
    rows: dict[str, list] = {name: [] for name in PLANES}
    for pair in pairs:
        real, made = np.clip(pair.mr, 0, 1.5), predict(model, pair, mirror) * pair.mask
        core = ndimage.binary_erosion(
            ndimage.binary_opening((pair.ct > 0) & (pair.ct < 80) & pair.mask, iterations=6), iterations=3
        )
        rows[PLANES[pair.plane]].append(
            {
                "MAE in mask": metrics.mae(real, made, pair.mask),
                "PSNR": metrics.psnr(real, made, pair.mask, data_range=1.0),
                "SSIM": ssim(real, made, pair.mask, 1.0, 0.0),
                "correlation in head": metrics.pearson(real, made, head(pair)),
                "correlation in brain": metrics.pearson(real, made, core) if core.sum() > 500 else np.nan,
                "gradient energy": _gradient(made, head(pair)) / _gradient(real, head(pair)),
            }
        )
    return _means(rows)


def _gradient(image: np.ndarray, mask: np.ndarray) -> float:
    return float(np.hypot(*np.gradient(image))[mask].mean())


def _means(rows: dict[str, list]) -> dict[str, dict[str, float]]:
    keys = next(group[0] for group in rows.values() if group)
    groups = {
        **{name: group for name, group in rows.items() if group},
        "all": [r for group in rows.values() for r in group],
    }
    return {name: {key: float(np.nanmean([r[key] for r in group])) for key in keys} for name, group in groups.items()}


def skull(model: str, preset: str) -> dict[str, float]:
    """Dice of the translated MR above thresholds against the skull segmented on the patient's CT."""
    folder = data_folder() / "pairs_ct_mr" / "seg3d_mr_with_ct_skull"
    mr = read_volume(folder / "mr_t1.nii.gz", modality="T1w")
    truth = read_label_map(folder / "skull.nii.gz").array > 0
    result = translate(mr, "CT", model=model, preset=preset, accept_license=True)
    preview.preview(mr, result.volume, OUT / f"seg3d_{preset}.png")
    hu = result.volume.array
    top = np.arange(hu.shape[2]) >= hu.shape[2] / 2
    figures = {}
    for limit in (150, 200, 250, 300):
        figures[f"Dice > {limit} HU"] = metrics.dice(hu > limit, truth)
        figures[f"upper half > {limit}"] = metrics.dice((hu > limit)[..., top], truth[..., top])
    steps = [np.abs(np.diff(hu.astype(float), axis=a)).mean() for a in range(3)]
    figures["stair steps (largest / mean step of the axes)"] = float(max(steps) / np.mean(steps))
    figures["stripe index"] = metrics.stripe_index(hu)
    figures["seconds"] = result.report.timings["translating"]
    return figures


def montage(pairs: list[SlicePair], mirror: bool, models: tuple[str, str]) -> None:
    """Rows: MR, CT, synthetic CT, synthetic MR of nine held-out slices."""
    from matplotlib.figure import Figure

    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, 9).astype(int)]
    figure = Figure(figsize=(18, 9), facecolor="black")
    axes = figure.subplots(4, 9)
    for column, pair in zip(axes.T, chosen, strict=True):
        images = (
            (pair.mr, 0, 1),
            (pair.ct, -200, 800),
            (predict(models[0], pair, mirror), -200, 800),
            (predict(models[1], pair, mirror) * pair.mask, 0, 1),
        )
        for axis, (image, low, high) in zip(column, images, strict=True):
            shown = image.T if pair.plane == 0 else np.rot90(image)
            axis.imshow(shown, cmap="gray", vmin=low, vmax=high)
            axis.set_axis_off()
    figure.tight_layout(pad=0.2)
    figure.savefig(OUT / "heads.png", dpi=70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", action="store_true", help="average mirrored passes")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    models = ("head-mr-to-ct", "head-ct-to-mr")
    held = set.intersection(*(set(find(m).training.held_out) for m in models))
    pairs = read_pairs(data_folder() / "pairs_ct_mr" / "synthrad2023_brain_slices")
    pairs = [p for p in pairs if p.subject in held]
    everything = {}
    for model, measure in zip(models, (mr_to_ct, ct_to_mr), strict=True):
        rows = everything[model] = measure(pairs, model, arguments.mirror)
        keys = list(rows["all"])
        print(f"\n### {model}, {len(pairs)} slices of {len(held)} subjects\n")
        print(table(["slices", *keys], [[n, *r.values()] for n, r in rows.items()]), flush=True)
    for preset in ("draft", "normal", "best"):
        everything[f"skull, {preset}"] = figures = skull(models[0], preset)
        print(f"\n### skull of Seg3D, preset {preset}\n")
        print(table(["metric", "value"], [list(i) for i in figures.items()]), flush=True)
    montage(pairs, arguments.mirror, models)
    save("heads", everything)


if __name__ == "__main__":
    main()
