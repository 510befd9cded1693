"""Training data of mr-brain on phantoms: common scale, held-out slices and people, contrast, ablation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from MedGenLib import generate
from MedGenLib.errors import InputError
from MedGenLib.imaging import shading
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.packages import store
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.packages.settings import SHADING, ContrastSettings
from MedGenLib.pipelines.conditioning import label_channels
from MedGenLib.pipelines.contrast import adapted, contrast_of, drawn, softened_shift
from MedGenLib.training import config as training_config
from MedGenLib.training import train
from MedGenLib.training.config import read_config
from MedGenLib.training.data import read_data
from MedGenLib.training.data.ablation import Ablation
from MedGenLib.training.data.brain import BrainScans, Landmarks, with_shell
from MedGenLib.training.recipes.latent_flow import LatentFlowRecipe

CONFIGS = Path(training_config.__file__).parent / "configs"
WHITE, CORTEX, VENTRICLE, FLUID, BRAIN = 1, 2, 3, 15, 18
LIA = np.array([[-1, 0, 0, 20], [0, 0, 1, -20], [0, -1, 0, 20], [0, 0, 0, 1]], float)
GRAY = {0: 60.0, 3: 130.0, 41: 200.0, 42: 130.0, 43: 40.0}
"""Values on a scanner-specific scale; unlabeled voxels are fluid."""


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """A head, stored LIA like FreeSurfer's: shells of white matter and cortex around a ventricle."""
    folder = tmp_path_factory.mktemp("head")
    labels = np.zeros((40, 40, 40), np.uint8)
    radius = np.linalg.norm(np.indices(labels.shape) - 19.5, axis=0)
    for value, most in ((42, 15), (41, 12), (43, 5)):
        labels[radius < most] = value
    labels[:20][labels[:20] == 42] = 3  # the other half's cortex by FreeSurfer's numbers
    values = np.random.default_rng(0).normal(0, 4, labels.shape)
    values += sum(gray * (labels == value) for value, gray in GRAY.items())
    write_volume(Volume(values.astype(np.float32), LIA), folder / "t1.nii.gz")
    write_volume(LabelMap(labels, LIA), folder / "seg.nii.gz")
    return folder


def configuration(head: Path, folder: Path, **data) -> Path:
    """The shipped configuration of the first stage on the phantom, with tiny networks."""
    config = json.loads((CONFIGS / "mr-brain-first.json").read_text())
    scan = {"subject": "head", "image": str(head / "t1.nii.gz"), "label": str(head / "seg.nii.gz")}
    config["data"].update(scans=[scan], spacings_mm=[1.0], **data)
    config["autoencoder"] = {"patch": 16, "network": {"width": 8, "blocks": 1}}
    return small(config, folder / "config.json")


def small(config: dict, path: Path) -> Path:
    """Write a configuration with a tiny flow network and few steps."""
    config["flow"] = {"patch": 16, "network": {"widths": [8, 16], "blocks": [1, 1]}}
    for section in config["optimisation"].values():
        section.update(steps=3, batch=2, validate_every=100, precision="fp32")
    source = CONFIGS / config["package"]["license_file"]
    path.with_name(source.name).write_text(source.read_text())
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def first(head, tmp_path_factory) -> Path:
    """The trained first stage: the folder of autoencoder, flow-first and its package tiny-brain."""
    folder = tmp_path_factory.mktemp("first")
    path = configuration(head, folder)
    config = json.loads(path.read_text())
    config["package"]["metadata"]["name"] = "tiny-brain"
    path.write_text(json.dumps(config))
    train("autoencoder", path, folder / "autoencoder", device="cpu")
    train("latent-flow", path, folder / "flow-first", device="cpu")
    return folder


def scans_of(head: Path, folder: Path, **data) -> BrainScans:
    return BrainScans(read_config(configuration(head, folder, **data)), 16)


def test_landmarks_map_every_scanner_to_one_scale():
    labels = np.repeat([0, 1, 2, 3], 50).reshape(4, 5, 10)
    values = np.select([labels == 3, labels == 2, labels == 1], [40.0, 130.0, 200.0], 0)
    marks = Landmarks((3, 2, 1), (30, 70, 110))
    made = marks.standardize(values, labels)
    assert [float(made[labels == value].mean()) for value in (0, 3, 2, 1)] == [0, 30, 70, 110]
    # Above white matter the last segment is extrapolated: 270 is as far above it as the cortex is below.
    assert marks.standardize(np.full_like(values, 270.0) * (labels == 0) + values, labels).max() == pytest.approx(150)
    with pytest.raises(InputError, match="ascending order"):
        marks.standardize(-values + 300, labels)


def test_dark_voxels_around_the_brain_become_fluid():
    labels = np.zeros((11, 11, 11), np.uint8)
    labels[3:8, 3:8, 3:8] = CORTEX
    values = np.full(labels.shape, 30.0)
    values[2, 5, 5] = 200  # a vein
    values[8, 5, 5] = 0  # skull-stripped
    made = with_shell(values, labels, (1.0, 1.0, 1.0), FLUID)
    assert (made[labels > 0] == CORTEX).all()
    assert made[5, 5, 1] == made[5, 5, 9] == FLUID
    assert made[2, 5, 5] == made[8, 5, 5] == made[5, 5, 0] == 0
    coarse = with_shell(values, labels, (1.0, 1.0, 3.0), FLUID)
    assert coarse[5, 5, 2] == 0, "the shell is measured in mm"


def test_scans_are_on_the_common_scale_in_ras(head, tmp_path):
    scan = scans_of(head, tmp_path).scans[0]
    for value, level in ((WHITE, 110), (CORTEX, 70), (VENTRICLE, 30)):
        assert np.median(scan.values[scan.labels == value]) == pytest.approx(level, abs=1)
    assert set(np.unique(scan.labels)) == {0, WHITE, CORTEX, VENTRICLE, FLUID}
    assert scan.noise == pytest.approx(4 * 40 / 70, rel=0.4)


def test_held_out_slices_are_not_used(head, tmp_path):
    volume = configuration(head, tmp_path)
    config = json.loads(volume.read_text())
    config["data"]["scans"][0]["held_out"] = [14, 22]
    volume.write_text(json.dumps(config))
    data = BrainScans(read_config(volume), 16)
    assert data.held_out == ["head, slices 14 to 21"]
    assert len(data.scans) == 2
    # Stored slices lie along A: with the shell the brain covers 3 to 36, so 11 and 15 are left.
    assert sorted(s.labels.shape[1] for s in data.scans) == [11, 15]


def test_patches_are_coded_by_the_labels_of_the_network_input(head, tmp_path):
    data = scans_of(head, tmp_path, ablation={"share": 1.0, "into": BRAIN})
    batch = data.sample(np.random.default_rng(3), 12)
    maps, x = batch["maps"].numpy(), batch["x"].numpy()
    assert maps.shape[1] == data.maps == 19
    assert (maps.sum(1) == 1).all()
    labels = maps.argmax(1)
    assert (labels == BRAIN).any() and (labels == WHITE).any()
    back = data.codec.decode(x[:, 0], labels)
    assert (x[:, 0][labels == 0] == 0).all()
    assert batch["valid"].numpy()[:, 0][labels == 0].max() == 0
    # Voxels relabeled as "brain" keep their gray values: white matter and fluid.
    low, high = np.percentile(back[labels == BRAIN], [2, 98])
    assert low < 50 and high > 95
    assert back[labels == WHITE].mean() == pytest.approx(110, abs=4)


def test_same_generator_same_patches(head, tmp_path):
    data = scans_of(head, tmp_path)
    first, second = (data.sample(np.random.default_rng(5), 3) for _ in range(2))
    assert all((first[key] == second[key]).all() for key in first)


def test_ablation_replaces_only_the_allowed_labels():
    labels = np.repeat(np.arange(5), 10).reshape(5, 10).astype(np.uint8)
    lost = Ablation(1.0, into=4, keep=(1,))
    seen = [lost.apply(labels, np.random.default_rng(n)) for n in range(200)]
    assert all((s[:2] == labels[:2]).all() and (s[4] == 4).all() for s in seen)
    gone = np.array([[(s[value] == 4).all() for value in (2, 3)] for s in seen])
    assert 0.3 < gone.mean() < 0.7, "each label is lost half of the time on average"
    assert gone.all(1).any() and (~gone).all(1).any()
    kept = Ablation(0.25, into=0)
    changed = [(kept.apply(labels, np.random.default_rng(n)) != labels).any() for n in range(400)]
    assert 0.12 < np.mean(changed) < 0.25


@pytest.mark.parametrize(
    ("section", "words"), [({"share": 1.5, "into": 1}, "from 0 to 1"), ({"share": 0.5, "into": 19}, "are 0 to 18")]
)
def test_invalid_ablation_is_refused(head, tmp_path, section, words):
    with pytest.raises(InputError, match=words):
        scans_of(head, tmp_path, ablation=section)


def test_every_data_reader_supports_partial_masks(head, tmp_path):
    """The option of the configuration is the same for tissue scans and labeled crops."""
    ct = np.where(np.indices((24, 24, 24))[0] < 12, -100.0, 40.0).astype(np.float32)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    write_volume(Volume(ct, np.diag([2.0, 2, 2, 1])), tmp_path / "images" / "a.nii.gz")
    body = LabelMap((ct < 0) + np.uint8(1), np.diag([2.0, 2, 2, 1]))
    write_volume(body, tmp_path / "labels" / "a.nii.gz")
    tissue = json.loads((CONFIGS / "ct-tissue.json").read_text())
    tissue["data"].update(
        spacings_mm=[2.0],
        ablation={"share": 1.0, "into": 3},
        scans=[
            {
                "subject": "a",
                "image": str(tmp_path / "images" / "a.nii.gz"),
                "label": str(tmp_path / "labels" / "a.nii.gz"),
            }
        ],
    )
    small = json.loads((CONFIGS / "mr-hippocampus-first.json").read_text())
    small["data"].update(folder=str(tmp_path), hold_out=0, ablation={"share": 1.0, "into": 0})
    for name, config, into in (("tissue", tissue, 3), ("crops", small, 0)):
        config["folder"] = str(tmp_path)
        data = read_data(config, 16)
        labels = int(config["data"].get("labels", 4))
        plain = read_data({**config, "data": {**config["data"], "ablation": None}}, 16)
        full, partial = (
            d.sample(np.random.default_rng(1), 8)["maps"].numpy()[:, : labels + 1].sum((2, 3, 4)) for d in (plain, data)
        )
        assert partial[:, into].sum() > full[:, into].sum(), name
        assert partial[:, [1, 2]].sum() < full[:, [1, 2]].sum(), name


def test_the_shipped_configuration_trains_and_its_package_generates(first, tmp_path, monkeypatch):
    package = first / "flow-first" / "package" / "tiny-brain"
    manifest = load_manifest(package)
    assert store.verify(package) == [] and manifest.training.held_out == ()
    assert manifest.statistics.tissues[1].mean == pytest.approx(110, abs=3)
    assert manifest.networks["flow"].arguments["maps"] == 19
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))
    store.add(package)
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:10, 2:10, 2:10] = WHITE
    mask = LabelMap(labels, np.eye(4), {WHITE: "white matter"})
    volume = generate(mask, "tiny-brain", seed=1, steps=1, retries=0, device="cpu").volume
    assert (volume.array[labels == 0] == 0).all() and volume.unit == "a.u."


def test_one_hot_maps_contain_every_label():
    entries = json.loads((CONFIGS / "mr-brain.json").read_text())["package"]["medgen"]["input"]
    values = sorted(int(value) for value in entries["labels"])
    assert values == list(range(1, 19))
    assert label_channels(np.arange(19).reshape(1, 1, 19), 18).sum() == 19


# people in a folder, and their contrast

LEVELS = (0.55, 0.65, 0.6, 0.5, 0.62, 0.58, 0.7, 0.53, 0.59)
"""Cortex relative to white matter in nine people."""


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Nine skull-stripped heads, labeled 1 white matter and 2 cortex, with fluid that has no label."""
    folder = tmp_path_factory.mktemp("people")
    radius = np.linalg.norm(np.indices((30, 30, 30)) - 14.5, axis=0)
    labels = np.select([radius < 8, radius < 11], [1, 2]).astype(np.uint8)
    for number, level in enumerate(LEVELS):
        values = np.select([labels == 1, labels == 2, radius < 13], [90.0, 90 * level, 25.0])
        values += (values > 0) * np.random.default_rng(number).normal(0, 2 + 0.2 * number, labels.shape)
        write_volume(Volume(values.astype(np.float32), np.eye(4)), folder / f"p{number}_t1.nii.gz")
        write_volume(LabelMap(labels, np.eye(4)), folder / f"p{number}_seg.nii.gz")
    return folder


def people_configuration(
    people: Path, head: Path, folder: Path, contrast: tuple[int, ...] = (CORTEX, FLUID), shading: bool = False, **data
) -> Path:
    """The shipped configuration on the phantoms, with tiny networks."""
    config = json.loads((CONFIGS / "mr-brain.json").read_text())
    scan = {"subject": "head", "image": str(head / "t1.nii.gz"), "label": str(head / "seg.nii.gz")}
    config["data"].update(scans=[scan], spacings_mm=[1.0], contrast=contrast, shading=shading, **data)
    config["data"]["people"].update(folder=str(people), label="{}_seg.nii.gz")
    config["package"]["metadata"]["name"] = "tiny-brain"
    return small(config, folder / "people.json")


def test_every_fifth_person_is_held_out_and_some_of_the_rest_are_for_validation(people, head, tmp_path):
    data = BrainScans(read_config(people_configuration(people, head, tmp_path)), 16)
    assert data.held_out == ["p4, held out", "p3, for validation"]
    assert {s.subject for s in data.scans} == {"head", *(f"p{n}" for n in (0, 1, 2, 5, 6, 7, 8))}


def test_people_keep_their_contrast_and_what_has_no_label_is_fluid(people, head, tmp_path):
    data = BrainScans(read_config(people_configuration(people, head, tmp_path)), 16)
    for scan in data.scans:
        assert np.median(scan.values[scan.labels == WHITE]) == pytest.approx(110, abs=0.5)
        if scan.subject != "head":
            level = np.median(scan.values[scan.labels == CORTEX]) / 110
            assert level == pytest.approx(LEVELS[int(scan.subject[1:])], abs=0.01)
            assert np.median(scan.values[scan.labels == FLUID]) == pytest.approx(25 * 110 / 90, abs=1)
    found = data.preprocessing()["contrast"]
    trained = [level for number, level in enumerate(LEVELS) if number not in (3, 4)]
    assert found["means"][0] == pytest.approx(np.mean(trained), abs=0.005)
    assert found["sds"][0] == pytest.approx(np.std(trained, ddof=1), rel=0.05)
    with pytest.raises(InputError, match="lacks thalamus; leave it out of data.contrast"):
        BrainScans(read_config(people_configuration(people, head, tmp_path, (CORTEX, 6))), 16)


@pytest.fixture(scope="module")
def package(first, people, head) -> Path:
    """The package of both stages."""
    return train("latent-flow", people_configuration(people, head, first), first / "flow", device="cpu")


def test_new_conditions_have_no_effect_at_first(people, head, first):
    config = read_config(people_configuration(people, head, first, coordinates=True))
    made = LatentFlowRecipe(config, first / "flow-new").networks["flow"].state_dict()
    known = torch.load(first / "flow-first" / "checkpoint.pt", weights_only=True)["averages"]["flow"]
    name, more = "mask_encoder.enter.weight", 3 * 8
    assert made[name].shape[1] == known[name].shape[1] + more
    assert (made[name][:, -more:] == 0).all() and (made[name][:, :-more] == known[name]).all()
    assert (made["embed.0.weight"] == known["embed.0.weight"]).all()


def test_seeds_have_contrasts_of_people(package, tmp_path, monkeypatch):
    settings = load_manifest(package).settings.contrast
    assert settings.labels == (2, 15) and settings.reference == WHITE
    many = np.array([drawn(settings, seed) for seed in range(400)])
    assert many.mean(0) == pytest.approx(settings.means, abs=0.15 * max(settings.sds))
    assert 0.8 * settings.sds[0] < many[:, 0].std() < 1.05 * settings.sds[0]
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))
    store.add(package)
    mask = LabelMap(np.full((16, 16, 16), WHITE, np.uint8), np.eye(4), {WHITE: "white matter"})
    run = {"steps": 1, "retries": 0, "device": "cpu"}
    made = generate(mask, "tiny-brain", seed=3, samples=2, **run).report
    contrast = made.parameters["contrast"]
    assert set(contrast) == {"3", "4"} and contrast["3"] != contrast["4"]
    assert contrast["3"]["cortex"] == pytest.approx(drawn(settings, 3)[0], abs=1e-3)
    assert set(contrast["3"]) == {"cortex", "CSF", "noise"}
    given = generate(mask, "tiny-brain", seed=3, noise_hu=5.0, **run).report
    assert given.parameters["contrast"]["3"]["noise"] == 5.0


def test_the_contrast_of_a_seed_is_in_the_image(package, tmp_path, monkeypatch):
    """An untrained network gives the middle of each tissue, which is the level of the seed."""
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))
    store.add(package)
    labels = np.full((24, 24, 24), CORTEX, np.uint8)
    labels[:, :, :12] = WHITE
    mask = LabelMap(labels, np.eye(4), {WHITE: "white matter", CORTEX: "cortex"})
    made = generate(mask, "tiny-brain", seed=1, samples=6, steps=4, retries=0, device="cpu")
    wanted = [entry["cortex"] for entry in made.report.parameters["contrast"].values()]
    means = [float(v.array[:, :, 12:].mean() / v.array[:, :, :12].mean()) for v in made.volumes]
    assert np.corrcoef(wanted, means)[0, 1] > 0.9
    assert np.std(means) == pytest.approx(np.std(wanted), rel=0.5)


def test_a_patch_is_coded_with_the_levels_of_its_person(people, head, tmp_path):
    data = BrainScans(read_config(people_configuration(people, head, tmp_path)), 16)
    for scan in data.scans:
        coded = scan.codec.encode(scan.values, scan.labels)
        # White matter is scaled to 110, and its center is 107.
        assert np.median(coded[scan.labels == CORTEX]) == pytest.approx(0.15, abs=0.06), scan.subject


def test_an_edited_image_keeps_its_own_contrast(people):
    image = read_volume(people / "p6_t1.nii.gz").array
    labels = read_label_map(people / "p6_seg.nii.gz").array
    settings = ContrastSettings(
        labels=(2, 6), reference=WHITE, means=(0.6, 1.1, 0), sds=(0.05, 0.1, 1), factor=((1,), (0, 1), (0, 0, 1))
    )
    found = contrast_of(settings, 3.0 * image, LabelMap(labels, np.eye(4)))
    codec = adapted(TissueStandard((0, 110, 66, 40, 1, 1, 120), (30, 10, 10, 10, 1, 1, 10)), settings, found)
    assert codec.centers[2] == pytest.approx(0.7 * 110, abs=1) and codec.centers[6] == 120


def test_the_shading_of_people_is_taken_from_their_scans_and_drawn_by_seeds(people, head, first, tmp_path, monkeypatch):
    shaded = tmp_path / "shaded"
    shaded.mkdir()
    slopes = dict(zip((f"p{n}" for n in range(9)), np.linspace(2, 4, 9), strict=True))
    for name, slope in slopes.items():
        image = read_volume(people / f"{name}_t1.nii.gz")
        factor = np.exp(slope / shading.UNIT_MM * (np.arange(30) - 14.5))[:, None, None]
        write_volume(image.with_array((image.array * factor).astype(np.float32)), shaded / f"{name}_t1.nii.gz")
        write_volume(read_label_map(people / f"{name}_seg.nii.gz"), shaded / f"{name}_seg.nii.gz")
    path = people_configuration(shaded, head, first, shading=True)
    data = BrainScans(read_config(path), 16)
    for scan in data.scans:
        inner = scan.labels == WHITE
        halves = [
            np.median(part[white])
            for part, white in zip(np.array_split(scan.values, 2), np.array_split(inner, 2), strict=True)
        ]
        assert halves[0] == pytest.approx(halves[1], rel=0.02), scan.subject
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))
    package = train("latent-flow", path, first / "flow-shaded", device="cpu")
    settings = load_manifest(package).settings.contrast
    trained = [slope for name, slope in slopes.items() if name not in ("p3", "p4")]
    assert settings.entries == len(settings.means) == 2 + 1 + SHADING == 3 + len(shading.TERMS)
    assert settings.means[4] == pytest.approx(np.mean(trained), rel=0.05), "the slope from left to right"
    assert settings.means[0] == pytest.approx(np.mean([LEVELS[n] for n in (0, 1, 2, 5, 6, 7, 8)]), abs=0.01)
    store.add(package)
    mask = LabelMap(np.full((40, 16, 16), WHITE, np.uint8), np.eye(4), {WHITE: "white matter"})
    made = generate(mask, "tiny-brain", seed=3, steps=4, noise_hu=1, retries=0, device="cpu").volume.array
    slope = np.polyfit(np.arange(40) / shading.UNIT_MM, np.log(made.mean((1, 2))), 1)[0]
    assert slope == pytest.approx(drawn(settings, 3)[4], rel=0.1)


def test_a_patch_has_the_positions_of_its_voxels(people, head, tmp_path):
    """Relative to the center of the head; the cortex is 8 to 11 mm from it, whatever the flips."""
    data = BrainScans(read_config(people_configuration(people, head, tmp_path, coordinates=True)), 16)
    data.scans = [scan for scan in data.scans if scan.subject != "head"]
    data.weights, data.centers = np.full(len(data.scans), 1 / len(data.scans)), data.centers[-len(data.scans) :]
    data.ablation = None
    maps = data.sample(np.random.default_rng(0), 8)["maps"].numpy()
    assert maps.shape[1] == data.maps == 22
    radius = 32 * np.linalg.norm(maps[:, 19:], axis=1)
    cortex = radius[maps[:, CORTEX] > 0]
    assert cortex.min() > 7.5 and cortex.max() < 11.5
    assert data.preprocessing()["coordinates"] is True


def test_levels_that_change_at_a_border_are_blended():
    """A network that knows 100 | 60 blends them over a voxel; the levels 100 | 120 must not leave a dark rim."""
    known = TissueStandard((0, 100, 60), (1, 10, 10))
    codec = TissueStandard((0, 100, 120), (1, 10, 10))
    labels = np.full((8, 4, 4), 1, np.uint8)
    labels[4:] = 2
    blended = np.where(labels == 1, 100.0, 60.0)
    blended[3], blended[4] = 88, 72
    x = known.encode(blended, labels)
    sharp = codec.decode(x, labels)
    made = sharp + softened_shift(known, np.array(codec.centers)[labels], labels)
    assert sharp[3].max() < 90, "the rim"
    assert made.min() > 99 and made[:3] == pytest.approx(sharp[:3], abs=6)
    assert np.abs(np.diff(made[:, 2, 2])).max() < np.abs(np.diff(sharp[:, 2, 2])).max()
