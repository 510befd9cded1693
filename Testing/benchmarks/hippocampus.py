"""Quality of mr-hippocampus on the 40 held-out cases.

    MEDGEN_DATA=<folder> python Testing/benchmarks/hippocampus.py [--model mr-hippocampus]

A small segmenter is trained on the real training cases and applied to real and generated crops. Its
Dice on generated crops measures their agreement with the mask; exchanging the masks between cases
must lower it. The feature distance compares patches of all generated crops with those of all real
held-out ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import OUT, data_folder, save, table
from patch_distance import patch_features, patch_places, standardized_frechet
from texture import highpass_sd, local_sd

from MedGenLib import generate
from MedGenLib.imaging.volume import LabelMap, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.metrics import image as metrics
from MedGenLib.packages.catalogue import find
from MedGenLib.visual import preview

SIZE = (48, 64, 48)
STEPS = 400


def standard(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float32)
    return np.clip((array - array.mean()) / max(float(array.std()), 1e-6), -3, 5)


def padded(array: np.ndarray) -> np.ndarray:
    return np.pad(array, [(0, s - n) for n, s in zip(array.shape, SIZE, strict=True)])


def read(folder: Path, name: str) -> tuple[np.ndarray, LabelMap]:
    image = read_volume(folder / "images" / name, modality="T1w")
    return standard(image.array), read_label_map(folder / "labels" / name)


def train_segmenter(cases: list[tuple[np.ndarray, LabelMap]], steps: int) -> torch.nn.Module:
    """MONAI's BasicUNet trained on whole crops, with contrast and noise augmentation."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet

    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    network = BasicUNet(3, 1, 3, features=(16, 16, 32, 64, 64, 16), act="swish")
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    for _ in range(steps):
        x, y = [], []
        for index in generator.integers(len(cases), size=3):
            image, labels = cases[index][0], cases[index][1].array
            image = image * generator.uniform(0.8, 1.2) + generator.normal(0, 0.1)
            image = image + generator.normal(0, generator.uniform(0, 0.15), image.shape)
            x.append(padded(image))
            y.append(padded(labels))
        images = torch.from_numpy(np.stack(x))[:, None].float()
        wanted = torch.from_numpy(np.stack(y))[:, None].long()
        error = loss(network(images), wanted)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def segment(network: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    found = network(torch.from_numpy(padded(image))[None, None].float()).argmax(1)[0].numpy()
    return found[tuple(slice(0, n) for n in image.shape)]


def dices(network: torch.nn.Module, images: list[np.ndarray], masks: list[LabelMap]) -> list[float]:
    """Mean Dice of the two labels over all cases: [anterior, posterior]."""
    rows = []
    for image, mask in zip(images, masks, strict=True):
        found = segment(network, image)
        rows.append([metrics.dice(found == v, mask.array == v) for v in (1, 2)])
    return [float(v) for v in np.nanmean(rows, axis=0)]


def features(images: list[np.ndarray], scale: tuple[float, float]) -> np.ndarray:
    """Patch features of all crops, at the same 24 positions of each crop."""
    rows = []
    for image in images:
        places = patch_places(np.ones(image.shape, bool), 24, 0)
        rows.append(patch_features(image, places, scale))
    return np.concatenate(rows)


def nearest(images: list[np.ndarray], training: list[np.ndarray]) -> np.ndarray:
    """Correlation of each crop with its most similar training crop (centers aligned)."""

    def center(image: np.ndarray) -> np.ndarray:
        part = image[
            tuple(slice((n - w) // 2, (n - w) // 2 + w) for n, w in zip(image.shape, (30, 40, 24), strict=True))
        ]
        part = part.ravel() - part.mean()
        return part / np.linalg.norm(part)

    bank = np.stack([center(t) for t in training])
    return np.array([float((bank @ center(i)).max()) for i in images])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mr-hippocampus")
    parser.add_argument("--preset", default="normal")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of the segmenter")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    folder = data_folder() / "mr_hippocampus_msd"
    held = set(find(arguments.model).training.held_out)
    names = sorted(p.name for p in (folder / "images").glob("*.nii.gz"))
    training = [read(folder, n) for n in names if n not in held]
    testing = [read(folder, n) for n in names if n in held]
    masks = [mask for _, mask in testing]
    real = [image for image, _ in testing]
    known = [image for image, _ in training]

    results = [
        generate(mask, arguments.model, seed=seed, preset=arguments.preset, retries=0).volume
        for seed, mask in enumerate(masks, start=1)
    ]
    for index in (0, 1):
        preview.preview(masks[index], results[index], OUT / f"hippocampus_{index}.png")
        image = read_volume(folder / "images" / sorted(held)[index], modality="T1w")
        preview.preview(masks[index], image, OUT / f"hippocampus_{index}_real.png")
    made = [standard(r.array) for r in results]
    again = generate(masks[0], arguments.model, seed=1001, preset=arguments.preset, retries=0)
    mean_image = np.mean([padded(i) for i in known], axis=0)
    template = [standard(mean_image[tuple(slice(0, n) for n in i.shape)]) for i in real]
    cohorts = {"real, held out": real, arguments.model: made, "mean training image": template}

    rows = dice_rows(train_segmenter(training, arguments.steps), cohorts, masks, arguments.model)
    distances = distances_to_real(real, {"real, training (floor)": known[:40], **cohorts})
    ratio = np.mean(rows[arguments.model]) / np.mean(rows["real, held out"])
    copies = nearest_training_images({"generated": made, "real": real}, known)
    seed_sd = float((standard(again.volume.array) - made[0]).std() / np.sqrt(2))
    textures = {
        who: [float(np.mean([f(i, np.ones(i.shape, bool)) for i in images])) for f in (local_sd, highpass_sd)]
        for who, images in (("real", real), (arguments.model, made))
    }
    print(table(["images", "Dice anterior", "Dice posterior"], [[k, *v] for k, v in rows.items()]))
    print(table(["images", "feature distance"], [[k, v] for k, v in distances.items()]))
    print(f"Dice generated / real: {ratio:.3f}")
    print("correlation with the nearest training case:", {k: round(v, 3) for k, v in copies.items()})
    print(f"SD between two seeds: {seed_sd:.2f} of an image's SD")
    print("local SD, high-pass SD:", textures)
    figures = {"dice": rows, "distance": distances, "ratio": ratio, "nearest": copies}
    save("hippocampus", {**figures, "seed_sd": seed_sd, "texture": textures})


def dice_rows(network, cohorts: dict, masks: list, model: str) -> dict:
    """Dice of the segmenter by cohort, and of the model's images with exchanged masks."""
    exchanged = masks[1:] + masks[:1]
    rows = {name: dices(network, images, masks) for name, images in cohorts.items()}
    return {**rows, f"{model}, masks exchanged": _exchanged(network, cohorts[model], exchanged)}


def distances_to_real(real: list, cohorts: dict[str, list]) -> dict[str, float]:
    """Frechet distance of each cohort from the real held-out images, on their common scale."""
    pooled = np.concatenate([i.ravel() for i in real])
    scale = (float(pooled.mean()), float(1 / pooled.std()))
    target = features(real, scale)
    return {name: standardized_frechet(target, features(images, scale)) for name, images in cohorts.items()}


def nearest_training_images(cohorts: dict[str, list], known: list) -> dict[str, float]:
    """Mean and largest correlation of the images of each cohort with their nearest training image."""
    found = {name: nearest(images, known) for name, images in cohorts.items()}
    return {
        f"{name}{suffix}": float(value)
        for name, values in found.items()
        for suffix, value in (("", values.mean()), (", largest", values.max()))
    }


def _exchanged(network: torch.nn.Module, made: list[np.ndarray], masks: list[LabelMap]) -> list:
    """Dice against the mask of another case, aligned at the first voxel and cropped to fit."""
    images, labels = [], []
    for image, mask in zip(made, masks, strict=True):
        shape = tuple(min(a, b) for a, b in zip(image.shape, mask.shape, strict=True))
        images.append(np.ascontiguousarray(image[tuple(map(slice, shape))]))
        labels.append(crop(mask, (0, 0, 0), shape))
    return dices(network, images, labels)


if __name__ == "__main__":
    main()
