"""The recipe `restorer`: pairs of degraded and sharp patches, and a short training that helps."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from MedGenLib import training
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import write_volume
from MedGenLib.networks import Restorer
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.training import train
from MedGenLib.training.config import read_config
from MedGenLib.training.data.degraded import DegradedPatches

SHIPPED = "enhance-mr-first.json"


@pytest.fixture
def config(tmp_path):
    """Ten small images, and the shipped configuration with a tiny network."""

    shipped = read_config(f"{next(iter(training.__path__))}/configs/{SHIPPED}")
    for number in range(10):
        values = ndimage.gaussian_filter(np.random.default_rng(number).random((28, 26, 24)), 4)
        values = 500 * (values - values.min()) / np.ptp(values)
        write_volume(Volume(values.astype(np.float32), np.eye(4), "T1w"), tmp_path / f"i{number}_t1.nii.gz")
    data = {key: value for key, value in shipped.items() if key != "folder"}
    data["data"]["images"] = [str(tmp_path / "*_t1.nii.gz")]
    data["restorer"] = {"patch": 16, "network": {"width": 8, "blocks": 1}}
    data["optimisation"]["restorer"] |= {"steps": 120, "learning_rate": 0.002, "ema": 0.9}
    data["package"]["license_text"] = "CC-BY-4.0"
    (tmp_path / "c.json").write_text(json.dumps(data))
    return tmp_path / "c.json"


def test_every_fifth_image_is_held_out_and_patches_are_pairs(config):
    patches = DegradedPatches(read_config(config), 16)
    assert [name.split("/")[1] for name in patches.held_out] == ["i4_t1.nii.gz", "i9_t1.nii.gz"]
    batch = patches.sample(np.random.default_rng(0), 12)
    assert batch["image"].shape == batch["target"].shape == (12, 1, 16, 16, 16) and batch["conditions"].shape == (12, 5)
    difference = (batch["image"] - batch["target"]).abs().mean((1, 2, 3, 4))
    assert (difference > 0).all()
    again = patches.sample(np.random.default_rng(0), 12)
    assert all(torch.equal(batch[key], again[key]) for key in batch)


def test_a_training_lowers_the_error_and_makes_a_package(config, tmp_path, monkeypatch):
    monkeypatch.setattr("MedGenLib.training.data.degraded.SHARES", (1, 0, 0, 0))  # noise is learned in a few steps
    package = train("restorer", config, tmp_path / "run", threads=1)
    manifest = load_manifest(package)
    assert manifest.task == "enhance" and manifest.pipeline == "restoration"
    (figures,) = map(json.loads, (tmp_path / "run" / "validation.jsonl").read_text().splitlines()[-1:])
    assert figures["gain_db"] > 0.3


def test_the_untrained_network_is_the_identity_and_its_field_is_finite():
    network = Restorer(8, 2)
    x = torch.randn(1, 1, 32, 8, 8)
    assert torch.equal(network(x, torch.zeros(1, 5)), x)
    for part in network.parameters():
        torch.nn.init.normal_(part, 0, 0.2)
    changed = x.clone()
    changed[..., 0, :, :] += 1
    reach = (network(changed, torch.zeros(1, 5)) - network(x, torch.zeros(1, 5))).abs().amax((0, 1, 3, 4)).nonzero()
    assert 2 < int(reach.max()) <= network.halo


def test_a_pattern_without_images_is_refused(config):
    data = read_config(config)
    data["data"]["images"] = ["/none/*.nii.gz"]
    with pytest.raises(InputError, match=r"No image fits /none/\*.nii.gz in the training configuration"):
        DegradedPatches(data, 16)
