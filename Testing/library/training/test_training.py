"""Training: exact resume after a kill, splits by subject, usable packages."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hippocampi import CONFIGS, small_config, sphere

from MedGenLib import __version__, cli, generate
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import write_volume
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.pipelines import estimate
from MedGenLib.training import train
from MedGenLib.training.data.painted import PaintedHeads
from MedGenLib.training.data.slices import Augmentation, SlicePair, calibrate_hu, with_marrow
from MedGenLib.training.data.tissue import tissue_labels
from MedGenLib.training.loop import Draw, OptimizationSettings
from MedGenLib.training.splits import hold_out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {
        **state["networks"]["autoencoder"],
        **{f"average.{k}": v for k, v in state["averages"]["autoencoder"].items()},
    }


def test_a_killed_run_resumes_to_exactly_the_same_weights(crops, tmp_path):
    path = small_config(tmp_path, crops)
    train("autoencoder", path, tmp_path / "straight", device="cpu")

    def killed(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("autoencoder", path, tmp_path / "resumed", device="cpu", progress=killed)
    state = torch.load(tmp_path / "resumed" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    train("autoencoder", path, tmp_path / "resumed", device="cpu")
    straight, resumed = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert straight.keys() == resumed.keys()
    for name in straight:
        assert torch.equal(straight[name], resumed[name]), name


def test_a_process_killed_from_outside_can_be_resumed(crops, tmp_path):
    path = small_config(tmp_path, crops)
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "MedGenLib",
        "train",
        "autoencoder",
        "--data",
        str(path),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--steps",
    ]
    process = subprocess.Popen([*command, "100000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = out / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = torch.load(checkpoint, weights_only=True)["step"]
    finished = subprocess.run([*command, str(step + 2)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert torch.load(checkpoint, weights_only=True)["step"] == step + 2
    assert (out / "autoencoder.safetensors").exists()


def test_the_time_of_a_training_is_estimated_after_a_few_steps(crops, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimate, "LONG_SECONDS", 0.0)
    words = ["train", "autoencoder", "--data", str(small_config(tmp_path, crops)), "--out", str(tmp_path / "run")]
    assert cli.main([*words, "--steps", "6", "--device", "cpu"]) == 0
    assert "medgen: Estimate of the training: about 1 s on CPU for 2 steps.\n" in capsys.readouterr().err
    assert cli.main([*words, "--steps", "20", "--device", "cpu"]) == 0  # resumes
    assert re.search(r"Estimate of the training: about \d s on CPU for 10 steps\.", capsys.readouterr().err)


def test_validation_results_are_kept(trained):
    lines = (trained / "flow" / "validation.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["step"] == 6 and last["velocity"] > 0


def test_the_exported_package_is_valid(trained):
    package = trained / "flow" / "package" / "mr-hippocampus"
    assert store.verify(package) == []
    manifest = load_manifest(package)
    assert len(manifest.training.held_out) == 2
    assert manifest.networks["flow"].arguments["attention"] is True
    tissue = manifest.statistics.tissues[1]
    assert tissue.low < tissue.mean < tissue.high


def test_the_card_holds_what_this_run_did_and_nothing_of_the_embedded_model(trained):
    made = load_manifest(trained / "flow" / "package" / "mr-hippocampus")
    embedded = find("mr-hippocampus")
    last = json.loads((trained / "flow" / "validation.jsonl").read_text().splitlines()[-1])
    assert "\n6 steps with MedGen" in made.card and f"Validation after {last.pop('step')} steps" in made.card
    assert all(f"- {name}: {value:.4g}" in made.card for name, value in last.items())
    known = set(re.findall(r"\b\d+\.\d{2,}\b", embedded.card)) - set(re.findall(r"[\d.]+", f"{last} {__version__}"))
    assert known and not [figure for figure in known if figure in made.card]
    assert made.performance == () and "MedGen authors" not in json.dumps(dict(made.metadata))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_configurations_hold_no_figures_and_no_authors(path):
    package = json.loads(path.read_text())["package"]
    assert "performance" not in package.get("medgen", {}) and "MedGen authors" not in path.read_text()
    card = (CONFIGS / package["card"]).read_text() if "card" in package else ""
    assert not re.findall(r"\d\.\d", card)


def test_the_autoencoder_latent_carries_information(trained):
    from MedGenLib.training.recipes.latent_flow import trained_autoencoder

    network = trained_autoencoder(trained / "autoencoder")
    image = torch.randn(1, 1, 16, 16, 16)
    latent = network.encode(image)
    true = (network.decode(latent) - image).abs().mean()
    permuted = (network.decode(latent.flip(2)) - image).abs().mean()
    assert float(permuted) > 2 * float(true)


@pytest.mark.parametrize(("recipe", "words"), [("nonsense", "no recipe"), ("latent-flow", "no trained autoencoder")])
def test_wrong_requests_get_a_sentence(crops, tmp_path, recipe, words):
    path = small_config(tmp_path, crops)
    with pytest.raises(InputError, match=words):
        train(recipe, path, tmp_path / "flow", device="cpu")


def test_a_configuration_of_another_recipe_gets_a_sentence(crops, tmp_path):
    path = small_config(tmp_path, crops)
    with pytest.raises(InputError, match="does not fit the recipe translator"):
        train("translator", path, tmp_path / "out", device="cpu")


def test_an_invalid_configuration_gets_a_sentence(tmp_path, monkeypatch):
    broken = tmp_path / "broken.json"
    broken.write_text("{ not json")
    with pytest.raises(InputError, match="line 1"):
        train("translator", broken, tmp_path / "out", device="cpu")
    with pytest.raises(InputError, match="cannot be read"):
        train("translator", tmp_path / "absent.json", tmp_path / "out", device="cpu")
    monkeypatch.delenv("MEDGEN_DATA", raising=False)
    with pytest.raises(InputError, match="environment variable"):
        train("translator", CONFIGS / "head-mr-to-ct.json", tmp_path / "out", device="cpu")


def test_hold_out_is_deterministic_and_balanced():
    subjects = [f"1B{center}{n:03d}" for center in "ABC" for n in range(50)]
    held = hold_out(subjects, 30, 0, stratum=3)
    assert held == hold_out(reversed(subjects), 30, 0, stratum=3)
    assert [sum(s.startswith(f"1B{c}") for s in held) for c in "ABC"] == [10, 10, 10]
    assert held != hold_out(subjects, 30, 1, stratum=3)
    assert hold_out(["a", "b"], 5) == ["a", "b"]


def test_draws_depend_on_seed_and_step_only():
    first, again, other = Draw.of(0, 5), Draw.of(0, 5), Draw.of(0, 6)
    assert first.numpy.random() == again.numpy.random() != other.numpy.random()
    assert torch.equal(torch.randn(3, generator=first.torch), torch.randn(3, generator=again.torch))


def test_the_learning_rate_warms_up_stays_and_decays():
    settings = OptimizationSettings(steps=100, learning_rate=1.0, warmup=10, decay=0.3)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(50) == 1.0
    assert settings.rate(85) == pytest.approx(0.5)
    assert settings.rate(100) == 0.0


def test_eight_bit_slices_are_calibrated_by_air_and_brain():
    mask = np.ones((128, 128), bool)
    hu = np.full((128, 128), 35.0)
    hu[:8], hu[8:12] = -1024, 1200
    step = 11.0
    gray = np.round((hu + 1024) / step).astype(np.uint8)
    found = calibrate_hu(gray, mask)
    assert found[64, 64] == pytest.approx(35, abs=0.5)
    assert found[9, 64] == pytest.approx(1200, abs=15)
    assert found[0, 0] == -1024


def test_tissue_labels_follow_the_thresholds():
    hu = np.repeat(np.array([-900.0, -100, 40, 600]), 5)[:, None, None] * np.ones((1, 6, 6))
    body = np.ones(hu.shape, bool)
    body[..., 0] = False
    labels = tissue_labels(hu.astype(np.float32), body)
    assert labels[[2, 7, 12, 17], 3, 3].tolist() == [4, 1, 2, 3]
    assert not labels[..., 0].any()


def test_augmentation_keeps_ct_and_mr_aligned():
    generator = np.random.default_rng(0)
    mask = np.zeros((90, 80), bool)
    mask[10:80, 10:70] = True
    ct = np.where(mask, 40.0, -1000)
    ct[30:50, 30:50] = 900
    mr = np.where(mask, 0.8, 0.0)
    mr[30:50, 30:50] = 0.05
    view = Augmentation(size=96)(SlicePair("x", 0, ct, mr, mask), generator)
    bone, dark = view["ct"] > 500, (view["mr_clean"] < 0.4) & (view["mask"] > 0)
    overlap = 2 * (bone & dark).sum() / (bone.sum() + dark.sum())
    assert overlap > 0.9
    assert set(np.unique(view["mask"])) == {0.0, 1.0}


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> Path:
    """Four subjects with three slices each, in the layout of the paired slices."""
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("slices")
    generator = np.random.default_rng(0)
    for number in range(4):
        subject = folder / f"1B{'AB'[number % 2]}{number:03d}"
        subject.mkdir()
        for plane in ("axial", "coronal", "sagittal"):
            mask = np.zeros((96, 96), np.uint8)
            mask[8:88, 8:88] = 255
            ct = np.where(mask > 0, 96, 2) + generator.integers(0, 2, mask.shape)
            ct[8:14, 8:88] = 200
            mr = np.where(mask > 0, 180, 0)
            mr[8:14, 8:88] = 10
            for kind, image in (("ct", ct), ("mri", mr), ("mask", mask)):
                sitk.WriteImage(sitk.GetImageFromArray(image.astype(np.uint8)), str(subject / f"{kind}_{plane}.png"))
    return folder


def translator_config(folder: Path, slices: Path, name: str, **loss: float) -> Path:
    """A shipped configuration on tiny data and a tiny network."""
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    config["data"].update(slices=str(slices), hold_out=2)
    config["data"]["augmentation"] = {**config["data"].get("augmentation", {}), "size": 64}
    if "label_maps" in config["data"]:
        config["data"]["label_maps"] = str(folder / "label_maps")
    config["network"] = {"widths": [8, 16], "blocks": [1, 1], "stem": 4}
    config["loss"].update(loss)
    config["optimisation"]["translator"].update(steps=3, batch=2, precision="fp32")
    for item in ("license_file",):
        (folder / config["package"][item]).write_text("text\n")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("adversarial", [0.0, 0.05])
def test_the_translator_recipe_trains_and_exports(slices, tmp_path, adversarial):
    path = translator_config(tmp_path, slices, "head-ct-to-mr", adversarial=adversarial, ssim=0.1)
    package = train("translator", path, tmp_path / "run", device="cpu")
    assert store.verify(package) == []
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert ("discriminator" in state["networks"]) == bool(adversarial)


@pytest.fixture()
def label_maps(tmp_path) -> Path:
    """One small head: skin, cortical and cancellous bone, fluid, gray and white matter."""
    folder = tmp_path / "label_maps"
    folder.mkdir()
    shape, center = (48, 48, 48), (24, 24, 24)
    labels = np.zeros(shape, np.uint16)
    for value, radius in ((511, 21), (507, 20), (515, 18), (516, 17), (515, 15), (24, 14), (3, 12), (2, 9), (4, 3)):
        labels[sphere(shape, center, radius)] = value
    write_volume(LabelMap(labels, np.eye(4)), folder / "head.nii.gz")
    return folder


def test_synthesized_slices_have_bone_dark_in_mr_and_bright_in_ct(label_maps):
    generator = np.random.default_rng(0)
    heads = PaintedHeads(label_maps)
    planes = set()
    for _ in range(12):
        pair = heads.slice(generator)
        planes.add(pair.plane)
        bone, brain = pair.ct > 900, (np.abs(pair.ct - 35) < 10) & pair.mask
        if bone.sum() > 50 and brain.sum() > 50:
            assert pair.mr[bone].mean() < 0.8 * pair.mr[brain].mean()
        assert (pair.mr[~pair.mask] == 0).all()
        assert np.median(pair.ct[~pair.mask]) < -900 if (~pair.mask).any() else True
    assert planes == {0, 1, 2}


def test_marrow_augmentation_changes_the_inside_of_bone_only():
    ct = np.full((40, 40), 35.0, np.float32)
    ct[10:30, 10:30] = 900
    mr = np.where(ct > 500, 0.05, 0.6).astype(np.float32)
    changed = with_marrow(mr, ct, np.random.default_rng(0))
    assert np.abs(changed - mr)[15:25, 15:25].min() > 0.02
    assert np.abs(changed - mr)[:8].max() < 1e-3


def test_a_second_stage_starts_from_the_first(slices, label_maps, tmp_path):
    second = translator_config(tmp_path, slices, "head-mr-to-ct")
    with pytest.raises(InputError, match="head-mr-to-ct-slices, which does not exist"):
        train("translator", second, tmp_path / "second", device="cpu")
    first = translator_config(tmp_path, slices, "head-mr-to-ct-slices")
    train("translator", first, tmp_path / "head-mr-to-ct-slices", device="cpu")
    package = train("translator", second, tmp_path / "second", device="cpu")
    assert store.verify(package) == []


def test_a_trained_package_can_be_used_by_name(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))
    package = trained / "flow" / "package" / "mr-hippocampus"
    renamed = tmp_path / "tiny-hippocampus"
    metadata = json.loads((package / "configs" / "metadata.json").read_text())
    shutil.copytree(package, renamed)
    metadata["name"] = "tiny-hippocampus"
    (renamed / "configs" / "metadata.json").write_text(json.dumps(metadata))
    store.add(renamed)
    labels = np.zeros((16, 20, 16), np.uint8)
    labels[sphere((16, 20, 16), (8, 13, 8), 3)] = 1
    labels[sphere((16, 20, 16), (8, 6, 8), 3)] = 2
    result = generate(
        LabelMap(labels, np.eye(4)), "tiny-hippocampus", mapping="model", seed=1, steps=2, retries=0, device="cpu"
    )
    assert result.volume.shape == (16, 20, 16)
    assert result.report.model == "tiny-hippocampus"
