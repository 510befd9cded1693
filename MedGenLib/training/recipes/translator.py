"""Recipe `translator`: supervised slice generator, pix2pix family.

L1 inside the head, a distance of anatomical features (of a small network trained to classify tissues), optional SSIM,
and an optional patch discriminator (pix2pix, Isola et al. 2017, with the least-squares loss of Mao et al. 2017).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.imaging.normalization import HEAD_CODECS
from MedGenLib.io.atomic import replacing
from MedGenLib.labels.tissues import resegment
from MedGenLib.networks import SliceTranslator
from MedGenLib.networks.feature_net import FeatureNet
from MedGenLib.packages.sections import Resegment
from MedGenLib.packages.typed import read
from MedGenLib.training.adversarial import (
    least_squares_discriminator,
    least_squares_generator,
    logits,
    patch_discriminator,
)
from MedGenLib.training.config import resolve
from MedGenLib.training.data.painted import PaintedHeads
from MedGenLib.training.data.slices import Augmentation, SlicePair, read_pairs, split
from MedGenLib.training.loop import Draw, Log, Objective, start_from, to_device_of
from MedGenLib.training.package import export_package
from MedGenLib.training.recipes import recipe

TISSUE_LIMITS = (-400.0, -30.0, 100.0, 300.0)
FEATURE_FILE = "feature_net.pt"


@recipe("translator")
class TranslatorRecipe:
    """Recipe of the module. The configuration's sections are ``data``, ``network``, ``loss``."""

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        data = config["data"]
        pairs = read_pairs(resolve(config, data["slices"]))
        self.train, self.held, self.held_subjects = split(pairs, data["hold_out"], data["seed"])
        self.augment = Augmentation(**data.get("augmentation", {}))
        self.painted = PaintedHeads(resolve(config, data["label_maps"])) if "label_maps" in data else None
        self.source, self.target = data["source"], data["target"]
        self.loss = {"feature": 0.0, "ssim": 0.0, "adversarial": 0.0, "outside": 0.15} | config["loss"]
        source = HEAD_CODECS[self.source]
        translator = SliceTranslator(channels_in=source.channels, **config["network"])
        self.networks: dict[str, nn.Module] = {"translator": translator.to(memory_format=torch.channels_last)}
        start_from(config, out, "translator", translator)
        self.objectives = [Objective("translation", ("translator",), self._generator_loss)]
        if self.loss["adversarial"]:
            self.networks["discriminator"] = patch_discriminator(source.channels + 1, width=32)
            self.objectives.append(Objective("discrimination", ("discriminator",), self._discriminator_loss))
        self.feature_net = self._feature_net(out) if self.loss["feature"] else None

    # data

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        pairs = [self._pair(draw.numpy) for _ in range(size)]
        return self._tensors(pairs, self.augment, draw.numpy)

    def _pair(self, generator: np.random.Generator) -> SlicePair:
        share = self.config["data"].get("painted_share", 0)
        if self.painted is not None and generator.random() < share:
            return self.painted.slice(generator)
        return self.train[generator.integers(len(self.train))]

    def _tensors(self, pairs: list[SlicePair], view: Augmentation, generator: np.random.Generator) -> dict[str, Tensor]:
        views = [view(pair, generator) for pair in pairs]
        stack = {key: np.stack([v[key] for v in views]) for key in views[0]}
        if self.source == "CT":
            source = HEAD_CODECS["CT"]().as_input(stack["ct_noisy"])
            target = HEAD_CODECS["T1w"]().as_target(stack["mr_clean"])
        else:
            source = HEAD_CODECS["T1w"]().as_input(stack["mr"])
            target = HEAD_CODECS["CT"]().as_target(stack["ct"])
        tissue = np.digitize(stack["ct"], TISSUE_LIMITS)
        return {
            "source": torch.from_numpy(np.ascontiguousarray(source)),
            "target": torch.from_numpy(target)[:, None],
            "mask": torch.from_numpy(stack["mask"])[:, None],
            "tissue": torch.from_numpy(tissue),
            "plane": torch.tensor([pair.plane for pair in pairs]),
        }

    # losses

    def _predict(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        source = batch["source"].contiguous(memory_format=torch.channels_last)
        return network(source, batch["plane"])

    def _generator_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        predicted, target, mask = (self._predict(self.networks["translator"], batch), batch["target"], batch["mask"])
        weight = mask + self.loss["outside"] * (1 - mask)
        loss = (weight * (predicted - target).abs()).sum() / weight.sum()
        parts = {"l1": float(loss.detach())}
        inside = target + (predicted - target) * mask
        if self.feature_net is not None:
            feature = self._feature_distance(inside, target)
            parts["feature"] = float(feature.detach())
            loss = loss + self.loss["feature"] * feature
        if self.loss["ssim"]:
            dissimilarity = self._dissimilarity(inside, target)
            parts["ssim"] = 1 - float(dissimilarity.detach())
            loss = loss + self.loss["ssim"] * dissimilarity
        if self.loss["adversarial"]:
            score = logits(self.networks["discriminator"], batch["source"], inside)
            loss = loss + self.loss["adversarial"] * least_squares_generator(score)
        return loss, parts

    def _discriminator_loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            predicted = self._predict(self.networks["translator"], batch)
        fake = batch["target"] + (predicted - batch["target"]) * batch["mask"]
        judge = self.networks["discriminator"]
        loss = least_squares_discriminator(
            logits(judge, batch["source"], batch["target"]), logits(judge, batch["source"], fake)
        )
        return loss, {"discriminator": float(loss.detach())}

    def _feature_distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        self.feature_net.to(target.device)
        with torch.no_grad():
            expected = self.feature_net.features(target)
        found = self.feature_net.features(predicted)
        return sum((f - w).abs().mean() for f, w in zip(found, expected, strict=True)) / len(found)

    @staticmethod
    def _dissimilarity(predicted: Tensor, target: Tensor, span: float = 2.0) -> Tensor:
        """1 - SSIM with a 7 x 7 uniform window (Wang et al. 2004, eq. 13), values over ``span``."""
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2

        def mean(image: Tensor) -> Tensor:
            return F.avg_pool2d(image, 7, stride=1)

        predicted, target = predicted.float(), target.float()
        mu_p, mu_t = mean(predicted), mean(target)
        covariance = mean(predicted * target) - mu_p * mu_t
        variances = mean(predicted**2) - mu_p**2 + mean(target**2) - mu_t**2
        similarity = (2 * mu_p * mu_t + c1) * (2 * covariance + c2)
        similarity = similarity / ((mu_p**2 + mu_t**2 + c1) * (variances + c2))
        return 1 - similarity.mean()

    # the feature network

    def _feature_net(self, out: Path) -> FeatureNet:
        """Train (once) to predict the share of each tissue in cells of 8 x 8 pixels."""
        network = FeatureNet(classes=len(TISSUE_LIMITS) + 1)
        path = out / FEATURE_FILE
        if path.exists():
            network.load_state_dict(torch.load(path, weights_only=True))
        else:
            self._train_feature_net(network)
            out.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                torch.save(network.state_dict(), temporary)
        return network.eval().requires_grad_(False)

    def _train_feature_net(self, network: FeatureNet, steps: int = 300) -> None:
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        torch.manual_seed(0)
        for step in range(steps):
            batch = self.batch(Draw.of(1, step), 4)
            one_hot = F.one_hot(batch["tissue"], len(TISSUE_LIMITS) + 1).movedim(-1, 1).float()
            share = F.avg_pool2d(one_hot, 8)
            scores = network(batch["target"])
            loss = -(share * F.log_softmax(scores, 1)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    # validation and export

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Error inside the mask over every third held-out slice, and a picture of six."""
        view = Augmentation(size=256, rotation_degrees=0, zoom=0)
        errors, pictures = [], []
        for index, pair in enumerate(self.held[:: max(1, len(self.held) // 30)]):
            batch = self._tensors([pair], view, np.random.default_rng([7, index]))
            batch = to_device_of(networks["translator"], batch)
            predicted = self._predict(networks["translator"], batch)
            mask = batch["mask"]
            errors.append(float(((predicted - batch["target"]).abs() * mask).sum() / mask.sum()))
            if index < 6:
                both = torch.cat([predicted, batch["target"]], 2)[0, 0].cpu().numpy()
                pictures.append((np.clip(both, -1, 1) + 1) / 2)
        log.picture("validation/predicted_above_true", np.concatenate(pictures, 1), step)
        return {"mae": float(np.mean(errors))}

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return export_package(
            self.config,
            {"translator": networks["translator"]},
            step=step,
            held_out=self.held_subjects,
            statistics=self._statistics(),
            out=out,
        )

    def _statistics(self) -> dict[str, Any]:
        """Mean of the target in each tissue of the CT, over the training slices."""
        section = self.config["package"]["medgen"]["statistics"]["resegment"]
        spec = replace(read(Resegment, section, "statistics.resegment"), median=1)
        means: dict[int, list[float]] = {value: [] for value in spec.labels if value}
        for pair in self.train:
            target = pair.ct if self.target == "CT" else 1000 * np.clip(pair.mr, 0, 1.5)
            tissue = np.where(pair.mask, resegment(pair.ct, spec), 0)
            for value in means:
                if (tissue == value).sum() > 200:
                    means[value].append(float(target[tissue == value].mean()))
        return {
            "tissues": {
                str(value): {"name": name, **_spread(means[value])}
                for value, name in zip(spec.labels, spec.names, strict=True)
                if means.get(value)
            }
        }


def _spread(values: list[float]) -> dict[str, float]:
    """Mean and SD over images; low and high are three SD away."""
    mean, sd = float(np.mean(values)), float(np.std(values))
    numbers = {"mean": mean, "sd": sd, "low": mean - 3 * sd, "high": mean + 3 * sd}
    return {key: round(value, 1) for key, value in numbers.items()}
