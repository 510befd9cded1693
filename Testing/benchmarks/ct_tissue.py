"""Quality of ct-tissue on held-out scans, compared with trivial baselines.

    MEDGEN_DATA=<folder> python Testing/benchmarks/ct_tissue.py [--model ct-tissue] [--seeds 3] [--noise HU]

The metrics of the model are listed with those of the real image and of two baselines without a
network: *paint* (class means, blurred) and *paint+noise* (with noise that has the spectrum and the SD
per class of the training residual).
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from common import OUT, data_folder, save, table
from patch_distance import feature_distance, split_floor
from scipy import ndimage
from texture import highpass_sd, local_sd, seed_sd

from MedGenLib import generate
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.metrics import image as metrics
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.sections import Resegment
from MedGenLib.pipelines.loading import network
from MedGenLib.training.data.tissue import TISSUES, tissue_labels
from MedGenLib.visual import preview

HELD_OUT_SLICES = (97, 137)


def scans() -> dict[str, tuple[Volume, LabelMap]]:
    """Name -> (CT, tissue mask): an unseen person at 3 mm, a held-out block of a training scan at 2 mm."""
    folder = data_folder() / "ct_torso_with_masks"
    abdomen = read_volume(folder / "totalseg_abdomen" / "ct_full.nii.gz", modality="CT")
    body = body_envelope_from_image(abdomen)
    chest = read_volume(folder / "lidc_idri_0314" / "ct.nii.gz", modality="CT")
    inside = read_label_map(folder / "lidc_idri_0314" / "tissue.nii.gz")
    i, j, _ = chest.shape
    low, high = (0, 0, HELD_OUT_SLICES[0]), (i, j, HELD_OUT_SLICES[1])
    chest, inside = crop(chest, low, high), crop(inside, low, high)
    inside = inside.with_array((inside.array > 0).astype(np.uint8))
    return {
        "totalseg_abdomen, 3 mm": _pair(abdomen, body),
        "lidc_idri_0314 block, 2 mm": _pair(resample(chest, (2, 2, 2)), resample(inside, (2, 2, 2))),
    }


def _pair(ct: Volume, body: LabelMap) -> tuple[Volume, LabelMap]:
    hu = np.clip(ct.array, -1024, 3071).astype(np.float32)
    labels = tissue_labels(hu, body.array > 0)
    hu = np.where(labels > 0, hu, -1000)
    return ct.with_array(hu), LabelMap(labels, ct.affine, dict(enumerate(TISSUES, 1)))


@lru_cache(maxsize=1)
def training_scans() -> list[Any]:
    from pathlib import Path

    from MedGenLib.training import config
    from MedGenLib.training.data.tissue import TissueScans

    path = Path(config.__file__).parent / "configs" / "ct-tissue.json"
    settings = config.read_config(path)
    settings["data"]["spacings_mm"] = [2.0]
    return TissueScans(settings, 48).scans


def paint(labels: np.ndarray, noise: bool, seed: int = 0) -> np.ndarray:
    """Class means of the training scans, blurred by 0.7 voxel, with or without colored noise."""
    scans = training_scans()
    means, sds = [-1000.0], [0.0]
    residuals = []
    for value in range(1, len(TISSUES) + 1):
        voxels = np.concatenate([s.values[s.labels == value] for s in scans])
        means.append(float(voxels.mean()))
        inner = np.concatenate([_residual(s.values)[_eroded(s.labels == value)] for s in scans])
        sds.append(float(1.4826 * np.median(np.abs(inner - np.median(inner)))))
    painted = ndimage.gaussian_filter(np.array(means)[labels], 0.7)
    if noise:
        residuals = [_block(s) for s in scans]
        noise_field = _colored(residuals, labels.shape, seed)
        painted = painted + noise_field * np.array(sds)[labels]
    return np.where(labels > 0, painted, -1000)


def _residual(hu: np.ndarray) -> np.ndarray:
    return hu - ndimage.gaussian_filter(hu, 2.0)


def _eroded(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_erosion(mask, iterations=2)


def _block(scan: Any) -> np.ndarray:
    """Residual of the 32^3 cube with the most soft tissue, for the noise spectrum of the scanner."""
    soft = ndimage.uniform_filter((scan.labels == 2).astype(np.float32), 32)
    center = np.unravel_index(soft.argmax(), soft.shape)
    low = [min(max(c - 16, 0), n - 32) for c, n in zip(center, soft.shape, strict=True)]
    return _residual(scan.values)[tuple(slice(a, a + 32) for a in low)]


def _colored(blocks: list[np.ndarray], shape: tuple[int, ...], seed: int) -> np.ndarray:
    """White noise filtered to the mean spectrum of the blocks, with unit SD."""
    window = np.hanning(32)
    window = window[:, None, None] * window[None, :, None] * window[None, None, :]
    power = np.mean([np.abs(np.fft.fftn(b * window)) ** 2 for b in blocks], axis=0)
    kernel = np.fft.fftshift(np.fft.ifftn(np.sqrt(power)).real)
    white = np.random.default_rng(seed).normal(size=shape)
    noise = ndimage.convolve(white, kernel[8:24, 8:24, 8:24], mode="wrap")
    return noise / noise.std()


def measure(name: str, ct: Volume, mask: LabelMap, model: str, seeds: int, preset: str, noise: float | None) -> dict:
    real, labels = ct.array, mask.array
    spec = find(model).statistics.resegment
    options = {"preset": preset, "noise_hu": noise, "retries": 0}
    results = [generate(mask, model, seed=s, **options).volume for s in range(1, seeds + 1)]
    preview.preview(mask, results[0], OUT / f"{name.split(',')[0].replace(' ', '_')}.png")
    preview.preview(mask, ct, OUT / f"{name.split(',')[0].replace(' ', '_')}_real.png")
    candidates = {
        "real": real,
        model: results[0].array,
        "paint": paint(labels, False),
        "paint+noise": paint(labels, True),
    }
    figures = {who: _one(image, real, labels, spec) for who, image in candidates.items()}
    body = labels > 0
    for who, image in candidates.items():
        for key, high in (("FD", False), ("FD-hp", True)):
            figures[who][key] = (
                split_floor(real, body, highpass=high)
                if who == "real"
                else feature_distance(real, image, body, highpass=high)
            )
    figures[model]["seed SD soft, low-passed"] = seed_sd([r.array for r in results], _eroded(labels == 2), lowpass=1.5)
    figures[model]["autoencoder"] = autoencoder(ct, mask, model)
    return figures


def _one(image: np.ndarray, real: np.ndarray, labels: np.ndarray, spec: Resegment) -> dict[str, float]:
    from MedGenLib.labels.tissues import resegment

    found = np.where(labels > 0, resegment(image, spec), 0)
    row: dict[str, float] = {}
    for value, tissue in enumerate(TISSUES, start=1):
        where = labels == value
        row[f"Dice {tissue}"] = metrics.dice(found == value, where)
        row[f"mean HU {tissue}"] = float(image[where].mean())
        if value != 3:
            row[f"local SD ratio {tissue}"] = local_sd(image, where) / local_sd(real, where)
            row[f"high-pass SD ratio {tissue}"] = highpass_sd(image, where) / highpass_sd(real, where)
    row["stripe index"] = metrics.stripe_index(image, labels)
    row["share of lung above -500 HU, %"] = 100 * float(
        (image[ndimage.binary_erosion(labels == 4, iterations=3)] > -500).mean()
    )
    return row


@torch.inference_mode()
def autoencoder(ct: Volume, mask: LabelMap, model: str) -> dict[str, float]:
    """PSNR (range 2000 HU) in the body, and the error with shuffled latent voxels."""
    manifest = find(model)
    net = network(manifest, "autoencoder", torch.device("cpu"))
    codec = TissueStandard(manifest.settings.centers, manifest.settings.scales)
    labels = mask.array
    cut = tuple(slice(0, n // 2 * 2) for n in labels.shape)
    hu, labels = ct.array[cut], labels[cut]
    body = labels > 0
    x = np.where(body, codec.encode(hu, labels), 0).astype(np.float32)
    latent = net.encode(torch.from_numpy(x)[None, None])
    order = torch.randperm(latent[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = latent.flatten(2)[..., order].view(latent.shape)
    errors = {}
    for key, z in (("true", latent), ("permuted", shuffled)):
        back = codec.decode(net.decode(z)[0, 0].numpy(), labels)
        errors[f"MAE {key} latent"] = metrics.mae(hu, back, body)
        if key == "true":
            errors["PSNR"] = metrics.psnr(hu, back, body, data_range=2000)
            soft = labels == 2
            errors["high-pass SD ratio soft"] = highpass_sd(back, soft) / highpass_sd(hu, soft)
    errors["permuted / true"] = errors["MAE permuted latent"] / errors["MAE true latent"]
    return errors


def windows(ct: Volume, mask: LabelMap, model: str) -> dict[str, float]:
    """Largest jump at window borders when the volume is sampled in small windows."""
    from MedGenLib.pipelines import scene
    from MedGenLib.pipelines.memory_plan import LAYOUTS, Layout

    usual = LAYOUTS["normal"]
    LAYOUTS["normal"] = Layout("normal", whole=16, window=40, tile=usual.tile)
    seams, planes = scene.Scene.seams, []

    def noted(self: scene.Scene, borders: list) -> list:
        planes.extend(seams(self, borders))
        return planes

    scene.Scene.seams = noted
    try:
        result = generate(mask, model, seed=1, retries=0)
    finally:
        LAYOUTS["normal"], scene.Scene.seams = usual, seams
    figures = result.report.attempts[0].check.figures
    real = max(metrics.seam_index(ct.array, a, p, mask.array) for a, p in planes)
    return {"windows": result.report.parameters["windows"], "seam": figures.get("seam"), "real": real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ct-tissue")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="normal")
    parser.add_argument("--noise", type=float, help="in HU; by default the usual one at the spacing")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    everything = {}
    for name, (ct, mask) in scans().items():
        figures = measure(name, ct, mask, arguments.model, arguments.seeds, arguments.preset, arguments.noise)
        everything[name] = {**figures, "windows": windows(ct, mask, arguments.model)}
        keys = [key for key in figures["real"]]
        print(f"\n### {name}\n")
        print(table(["metric", *figures], [[k, *(f[k] for f in figures.values())] for k in keys]))
        ours = figures[arguments.model]
        for base, key in (("paint", "FD"), ("paint+noise", "FD"), ("paint+noise", "FD-hp")):
            print(f"{key} / {key} of {base}: {ours[key] / figures[base][key]:.2f}")
        print("seed SD soft, low-passed:", round(ours["seed SD soft, low-passed"], 1), "HU")
        print("autoencoder:", {k: round(v, 2) for k, v in ours["autoencoder"].items()})
        print("sampled in windows:", everything[name]["windows"], flush=True)
    save("ct_tissue", everything)


if __name__ == "__main__":
    main()
