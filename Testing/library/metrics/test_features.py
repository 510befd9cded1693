"""Features of volumes: slices, cache, networks, and training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from MedGenLib import user_folders
from MedGenLib.errors import InputError, PackageError
from MedGenLib.evaluation import feature_networks
from MedGenLib.evaluation.feature_networks import PackageExtractor, extractor
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import write_volume
from MedGenLib.metrics.features import CUBE, describe
from MedGenLib.metrics.slices import Standard, encode, mostly_ct, slices
from MedGenLib.networks.feature_encoder import FeatureEncoder
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.training import config as training_config
from MedGenLib.training import train
from MedGenLib.training.data.views import DEGRADATIONS, degrade

CONFIGS = Path(training_config.__file__).parent / "configs"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))


def head(seed: int = 0, shape=(24, 30, 28), affine=None, modality="T1w") -> Volume:
    """A textured bright ball in a dark background."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    ball = (np.square(grid).sum(0) < 0.7).astype(np.float32)
    array = 100 * ball + 10 * generator.normal(size=shape)
    return Volume(array.astype(np.float32), np.eye(4) if affine is None else affine, modality)


class Means:
    """A minimal network that counts its calls."""

    name, key = "means", "1"

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return np.stack([images.mean((1, 2)), images.std((1, 2))], 1)


# slices


def test_hu_are_encoded_so_that_soft_tissue_counts():
    hu = np.array([-3000, -1024, 40, 60, 3000, 9000], np.float32)
    found = encode(hu, ct=True)
    assert found[0] == found[1] and found[4] == found[5]
    assert found[2] == 0
    assert found[3] == pytest.approx(0.1, abs=1e-3)
    assert -2.5 < found[0] < found[4] < 4


def test_mr_is_encoded_by_its_own_scale():
    array = np.random.default_rng(0).uniform(0, 100, (8, 8, 8)).astype(np.float32)
    assert encode(array, ct=False) == pytest.approx(encode(7 * array, ct=False), abs=1e-5)


def test_the_standard_reorients_and_resamples():
    volume = head(affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    standard = Standard.set_by(volume, "first")
    turned = Volume(
        volume.array.transpose(2, 0, 1)[:, ::-1],
        np.array([[0, -1, 0, 23], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
        "T1w",
    )
    assert standard.apply(turned, "turned") == pytest.approx(standard.apply(volume, "first"))
    fine = Volume(volume.array, np.diag([0.5, 1.0, 1.0, 1.0]), "T1w")
    assert standard.is_off(fine) and not standard.is_off(turned)
    assert standard.apply(fine, "fine").shape == (12, 30, 28)


def test_ct_is_not_compared_with_mr():
    standard = Standard.set_by(head(), "first.nii.gz")
    with pytest.raises(InputError, match="second.nii.gz is CT and first.nii.gz is not CT"):
        standard.apply(head(modality="CT"), "second.nii.gz")
    with pytest.raises(InputError, match="mr is T1w and ct is CT"):
        Standard.set_by(head(modality="CT"), "ct").apply(head(), "mr")
    assert Standard.set_by(head(modality=None), "a", ct=True).ct


def test_the_majority_of_volumes_determines_the_modality():
    assert mostly_ct(["CT", "MR", None, "CT"]) is True
    assert mostly_ct(["T1w", "CT", None]) is False
    assert mostly_ct([None, None]) is None


def test_slices_are_evenly_spaced_informative_and_large_enough():
    encoded = encode(head().array, ct=False)
    assert len(list(slices(encoded, 0, 12))) == 12
    assert len(list(slices(encoded, 0, 100))) == 20  # the outermost tenth is left out
    encoded[:12] = -2
    assert len(list(slices(encoded, 0, 12))) == 6
    assert list(slices(encoded[:, :15], 0, 12)) == []
    assert len(list(slices(encoded[:, :, 14:15], 2, 12))) == 1


# description and cache


def test_a_volume_is_described_and_cached():
    extract, volume = Means(), head()
    standard = Standard.set_by(volume, "a")
    first = describe(volume, "a", standard, extract)
    assert [len(p) for p in first.planes] == [12, 12, 12]
    assert first.vector.shape == (6,)
    assert first.cube.shape == (CUBE,) * 3
    assert np.linalg.norm(first.cube) == pytest.approx(1, abs=1e-5)
    calls = extract.calls
    again = describe(volume, "b", standard, extract)
    assert extract.calls == calls
    assert again.name == "b"
    assert all(np.array_equal(x, y) for x, y in zip(first.planes, again.planes, strict=True))


def test_other_voxels_or_weights_are_not_taken_from_the_cache():
    extract, volume = Means(), head()
    standard = Standard.set_by(volume, "a")
    describe(volume, "a", standard, extract)
    calls = extract.calls
    describe(head(seed=1), "a", standard, extract)
    assert extract.calls == 2 * calls
    extract.key = "2"
    describe(volume, "a", standard, extract)
    assert extract.calls == 3 * calls


def test_a_damaged_cache_is_recomputed_and_an_unwritable_one_is_ignored():
    extract, volume = Means(), head()
    standard = Standard.set_by(volume, "a")
    expected = describe(volume, "a", standard, extract).vector
    (path,) = (user_folders.cache_dir() / "features").glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    assert describe(volume, "a", standard, extract).vector == pytest.approx(expected)
    for entry in path.parent.iterdir():
        entry.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file where the folder should be")
    assert describe(volume, "a", standard, extract).vector == pytest.approx(expected)


def test_a_constant_volume_is_refused():
    flat = Volume(np.full((20, 20, 20), 5, np.float32), np.eye(4), "T1w")
    with pytest.raises(InputError, match="flat.nii.gz is constant or contains only air"):
        describe(flat, "flat.nii.gz", Standard.set_by(head(), "a"), Means())


def test_the_downsampled_volume_is_similar_at_any_size():
    extract = Means()
    large, small = head(shape=(64, 60, 50)), head(shape=(32, 30, 25))
    standard = Standard.set_by(large, "a")
    cubes = [describe(v, "v", standard, extract, cache=False).cube for v in (large, small)]
    assert (cubes[0] * cubes[1]).sum() > 0.85


# networks


def test_the_encoder_takes_any_size_and_standardizes():
    torch.manual_seed(0)
    net = FeatureEncoder(widths=(8, 16), blocks=(1, 1)).eval()
    assert net(torch.randn(2, 1, 17, 30)).shape == (2, 24)
    images = torch.randn(64, 1, 16, 16)
    with torch.no_grad():
        raw = net(images)
        net.standardize(raw)
        found = net(images)
        net.standardize(found)  # once more changes nothing
        again = net(images)
    assert found.mean(0).abs().max() < 1e-3
    assert [float(part.var(0).sum()) for part in found.split([8, 16], 1)] == pytest.approx([100, 100], rel=1e-3)
    assert torch.allclose(found, again, atol=1e-2)


def resnet_state() -> dict[str, torch.Tensor]:
    """Random weights in this architecture: the license of the real file forbids shipping it."""
    from monai.networks.nets import resnet50

    torch.manual_seed(0)
    net = resnet50(
        spatial_dims=2, n_input_channels=3, feed_forward=False, bias_downsample=False, conv1_t_size=7, conv1_t_stride=2
    )
    return net.state_dict()


def test_resnet50_is_read_with_both_naming_schemes(tmp_path):
    state = resnet_state()
    parts = {name: number for number, name in feature_networks.CHILDREN.items()}
    published = {
        f"backbone.{parts[name.split('.')[0]]}.{name.split('.', 1)[1]}": value for name, value in state.items()
    }
    torch.save(published, tmp_path / "published.pt")
    save_file({**state, "fc.bias": torch.zeros(3)}, tmp_path / "torchvision.safetensors")
    images = np.random.default_rng(0).normal(size=(2, 40, 36)).astype(np.float32)
    one = extractor(str(tmp_path / "published.pt"), "cpu")
    two = extractor(str(tmp_path / "torchvision.safetensors"), "cpu")
    found = one(images)
    assert found.shape == (2, 2048)
    assert np.array_equal(found, two(images))
    assert one.key != two.key
    assert one.name == "ResNet-50 of published.pt"


def test_unusable_resnet50_weights_are_refused(tmp_path):
    wrong = tmp_path / "wrong.pt"
    torch.save({"conv1.weight": torch.zeros(3)}, wrong)
    with pytest.raises(InputError, match=r"does not hold the weights of a ResNet-50.*it lacks bn1"):
        extractor(str(wrong), "cpu")
    torch.save([1, 2], wrong)
    with pytest.raises(InputError, match="no plain state dictionary"):
        extractor(str(wrong), "cpu")
    torch.save(Means(), wrong)  # a pickle that would run code
    with pytest.raises(InputError, match="no plain state dictionary"):
        extractor(str(wrong), "cpu")
    (tmp_path / "cut.safetensors").write_bytes(b"12345")
    with pytest.raises(InputError, match="does not hold the weights"):
        extractor(str(tmp_path / "cut.safetensors"), "cpu")
    with pytest.raises(InputError, match="cannot be read"):
        extractor(str(tmp_path / "absent.pth"), "cpu")


def test_other_packages_are_refused():
    with pytest.raises(InputError, match="'ct-tissue' is for the task 'generate'"):
        extractor("ct-tissue", "cpu")
    with pytest.raises(PackageError, match="no model named 'nonsense'"):
        extractor("nonsense", "cpu")


# training


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_artifacts_grow_with_their_severity(kind):
    image = encode(head(shape=(64, 64, 4)).array, ct=False)[:, :, 2]
    errors = [
        np.abs(degrade(image, kind, severity, np.random.default_rng(1)) - image).mean() for severity in (0, 0.3, 0.9)
    ]
    assert errors[0] == 0 < errors[1] < errors[2]
    assert degrade(image, kind, 0.5, np.random.default_rng(1)).dtype == np.float32


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The shipped configuration on two small volumes, with a tiny network: four steps."""
    folder = tmp_path_factory.mktemp("features")
    config = json.loads((CONFIGS / "medgen-features.json").read_text())
    scans = []
    for number in range(2):
        path = write_volume(head(number), folder / f"scan{number}.nii.gz")
        scans.append({"subject": f"s{number}", "image": str(path), "modality": "T1w"})
    config["data"] = {"scans": scans, "held_out": ["all others"]}
    config["features"] = {"patch": 16, "network": {"widths": [8, 16], "blocks": [1, 1]}}
    config["optimisation"]["features"].update(steps=4, batch=4, checkpoint_every=2)
    config["package"]["medgen"]["output"]["features"] = 24
    for name in ("license_file",):
        source = CONFIGS / config["package"][name]
        (folder / source.name).write_text(source.read_text())
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path, train("features", path, folder / "out", threads=1, device="cpu")


def test_training_exports_a_package_that_describes_volumes(trained):
    manifest = load_manifest(trained[1])
    assert manifest.task == "features"
    assert manifest.training.held_out == ("all others",)
    extract = PackageExtractor(manifest, CPU)
    found = describe(head(), "a", Standard.set_by(head(), "a"), extract)
    assert found.planes[2].shape == (12, 24)
    assert np.isfinite(found.vector).all()


@pytest.mark.slow
def test_training_learns_to_find_partners(trained, tmp_path):
    """After more steps, views of one slice with one artifact are more similar than others."""
    path, _ = trained
    config = json.loads(path.read_text())
    config["optimisation"]["features"].update(steps=150, batch=16, warmup=5, ema=0.9)
    longer = path.with_name("longer.json")
    longer.write_text(json.dumps(config))
    train("features", longer, tmp_path, threads=1, device="cpu")
    first, last = (
        json.loads((folder / "validation.jsonl").read_text().splitlines()[-1])
        for folder in (path.parent / "out", tmp_path)
    )
    assert (first["step"], last["step"]) == (4, 150)
    assert last["contrast"] < first["contrast"] - 0.3


def test_unusable_training_scans_are_refused(trained, tmp_path):
    config = json.loads(trained[0].read_text())
    flat = Volume(np.full((20,) * 3, 5, np.float32), np.eye(4))
    config["data"]["scans"][0]["image"] = str(write_volume(flat, tmp_path / "flat.nii.gz"))
    path = tmp_path / "config.json"
    for scans, sentence in ((config["data"]["scans"], "flat.nii.gz is constant"), ([], "lists no scans")):
        config["data"]["scans"] = scans
        path.write_text(json.dumps(config))
        with pytest.raises(InputError, match=sentence):
            train("features", path, tmp_path / "out", device="cpu")
