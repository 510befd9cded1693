"""Typed settings of packages: reading, and sentences of refusals."""

import copy
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass

import jsonschema
import maisis
import package_schema
import pytest

from MedGenLib.errors import InputError, PackageError
from MedGenLib.packages.catalogue import embedded_dir
from MedGenLib.packages.manifest import SCHEMA, load_manifest
from MedGenLib.packages.settings import (
    SETTINGS,
    FeatureSettings,
    GenerationSettings,
    LatentFlowSettings,
    MaisiSettings,
    PixelDiffusionSettings,
    read_settings,
    settings,
)
from MedGenLib.packages.typed import ALIASES, keys_of, read

EMBEDDED = sorted(path.name for path in embedded_dir().iterdir())
PIPELINES = {
    "body-ct-to-mr": "slice-translation",
    "body-mr-to-ct": "slice-translation",
    "brain-segmenter": "segmentation",
    "ct-tissue": "latent-flow",
    "enhance-ct": "restoration",
    "enhance-mr": "restoration",
    "head-ct-to-mr": "slice-translation",
    "head-mr-to-ct": "slice-translation",
    "hippocampus-segmenter": "segmentation",
    "medgen-features": "features",
    "mr-brain": "latent-flow",
    "mr-hippocampus": "latent-flow",
}


CENTERS = "centers"
"""Keys as in the embedded packages."""


def medgen_of(name):
    return json.loads((embedded_dir() / name / "configs" / "metadata.json").read_text())["medgen"]


def maisi(name="nv-generate-ct"):
    return maisis.small_metadata(name)["medgen"] | {"checksums": {}}


def loaded(medgen):
    """As `load_manifest` reads and checks the typed sections."""
    typed = read_settings(medgen)
    typed.require_consistent(medgen)
    return typed


def changed(medgen, path, value):
    """A copy with another value; None removes the key."""
    medgen = copy.deepcopy(medgen)
    *parents, last = path.split("/")
    part = medgen
    for key in parents:
        part = part[int(key) if isinstance(part, list) else key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return medgen


def refusal(medgen):
    with pytest.raises(PackageError) as caught:
        loaded(medgen)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and "; " in sentence, sentence
    return sentence


def assert_equal(typed, raw):
    """Every value of the JSON is in the dataclass under the same key."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            if is_dataclass(typed):
                found = getattr(typed, keys_of(type(typed))[ALIASES.get(key, key)].name)
            else:
                found = typed.get(key, typed.get(int(key) if key.isdecimal() else key))
            assert_equal(found, value)
    elif isinstance(raw, list):
        assert len(typed) == len(raw)
        for found, value in zip(typed, raw, strict=True):
            assert_equal(found, value)
    else:
        assert typed == raw


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_package_has_the_values_of_its_file(name):
    manifest, raw = load_manifest(embedded_dir() / name), medgen_of(name)
    assert manifest.pipeline == PIPELINES[name]
    assert_equal(manifest.settings, raw["preprocessing"])
    assert_equal(manifest.statistics, raw["statistics"])
    if "sampler" in raw:
        assert_equal(manifest.sampler, raw["sampler"])
    else:
        assert manifest.sampler is None


def test_missing_keys_have_their_default():
    flow = loaded(medgen_of("ct-tissue"))
    assert (flow.settings.latent_channels, flow.settings.latent_stride) == (8, 2)
    assert (flow.settings.coordinates, flow.settings.partial, flow.settings.limit) == (False, False, None)
    assert flow.sampler.presets["best"].network == "flow" and flow.sampler.prediction == "velocity"
    assert flow.statistics.tissues[1].means and flow.statistics.segmenter is None
    assert loaded(medgen_of("head-mr-to-ct")).sampler.presets["normal"].mirror is False
    assert loaded(maisi()).settings.latent_stride == 4


@pytest.mark.parametrize("name", ["nv-generate-ct", "nv-generate-ct-ddpm", "nv-generate-mr-brain"])
def test_a_published_package_has_the_pipeline_maisi(name):
    typed = loaded(maisi(name))
    assert typed.pipeline == "maisi" and isinstance(typed.settings, MaisiSettings)
    assert typed.sampler.prediction == ("noise" if name.endswith("ddpm") else "velocity")
    assert typed.settings.default_class == maisi(name)["preprocessing"].get("class")


def test_a_network_that_predicts_v_has_the_pipeline_pixel_diffusion():
    medgen = changed(medgen_of("mr-hippocampus"), "sampler/prediction", "v")
    del medgen["pipeline"]
    assert isinstance(loaded(medgen).settings, PixelDiffusionSettings)
    named = changed(medgen, "pipeline", "pixel-diffusion")
    assert loaded(named) == loaded(medgen)
    assert "sampler.prediction is 'v'; choose velocity" in refusal(changed(medgen, "pipeline", "latent-flow"))


def test_american_and_british_keys_are_the_same_setting():
    medgen = medgen_of("ct-tissue")
    spec = medgen["preprocessing"]
    british = {("centres" if key == "centers" else key): value for key, value in spec.items()}
    assert loaded(medgen | {"preprocessing": british}) == loaded(medgen)
    both = refusal(medgen | {"preprocessing": {**british, "centers": spec["centers"]}})
    assert "has 'centres' and 'centers', which are the same setting" in both


FLOW = "ct-tissue"
FAULTS = [
    (FLOW, "preprocessing/outsid", "anatomy", "preprocessing.outsid is not a setting; did you mean 'outside'"),
    (FLOW, "preprocessing/zzz", 1, "preprocessing.zzz is not a setting; choose name, outside,"),
    (FLOW, "preprocessing/outside", "somewhere", "preprocessing.outside is 'somewhere'; choose background or anatomy"),
    (FLOW, "preprocessing/name", "affin", "preprocessing.name is 'affin'; did you mean 'affine'"),
    (FLOW, "preprocessing/outside", None, "preprocessing has no 'outside'; give background or anatomy"),
    (FLOW, "preprocessing/limit", "3", "preprocessing.limit is '3'; give a number above 0"),
    (FLOW, "preprocessing/limit", True, "preprocessing.limit is True; give a number above 0"),
    (FLOW, "preprocessing/limit", -1, "preprocessing.limit is -1; give a number above 0"),
    (FLOW, "preprocessing/partial", 1, "preprocessing.partial is 1; give true or false"),
    (FLOW, "preprocessing/fill", "a\x1b[31m", "preprocessing.fill is 'a\\x1b[31m'; give a text of one line"),
    (FLOW, "preprocessing/scales", [], "preprocessing.scales is []; give a list of at least one entry"),
    (FLOW, "preprocessing/scales", 3, "preprocessing.scales is 3; give a list of at least one entry"),
    (FLOW, "preprocessing/noise_hu", [[1.5]], "noise_hu[0] is [1.5]; give a list of 2 entries, each a number above 0"),
    (FLOW, "preprocessing/latent_stride", 0, "preprocessing.latent_stride is 0; give a whole number of 1 or more"),
    (FLOW, "preprocessing/tissue_range/passes", 1.5, "tissue_range.passes is 1.5; give a whole number"),
    (FLOW, "preprocessing/tissue_range", 2, "tissue_range is 2; give an object with the keys low, high and passes"),
    (FLOW, "sampler/presets/normal/steps", 1001, "presets.normal.steps is 1001; give a whole number from 1 to 1000"),
    (FLOW, "sampler/presets/normal/windw", 4, "presets.normal.windw is not a setting"),
    (FLOW, "sampler/presets/norml", {"steps": 4}, "a key of sampler.presets is 'norml'; did you mean 'normal'"),
    (FLOW, "sampler/presets", 4, "sampler.presets is 4; give an object"),
    (FLOW, "statistics/tissues/fat", {"name": "fat"}, "statistics.tissues has the key 'fat'; give the value of a"),
    (FLOW, "statistics/tissues/1/sd", -1, "statistics.tissues.1.sd is -1; give a number of 0 or more"),
    (FLOW, "statistics/resegment/image", "input", "resegment.image is 'input'; choose output or source"),
    (FLOW, "statistics/resegment/minimum_dice/1", 70, "minimum_dice.1 is 70; give a number from 0 to 1"),
    ("head-mr-to-ct", "sampler/presets/draft/planes", 4, "draft.planes is 4; give a whole number from 1 to 3"),
    ("medgen-features", "preprocessing/other/percentile", 101, "percentile is 101; give a number above 0 up to 100"),
    (FLOW, "pipeline", "latent-flaw", "pipeline is 'latent-flaw', which is not registered; did you mean 'latent-flow'"),
    (FLOW, "pipeline", "slice-translation", "is for the task 'translate', but task is 'generate'"),
]


@pytest.mark.parametrize(("name", "path", "value", "words"), FAULTS)
def test_an_error_states_key_value_and_allowed_values(name, path, value, words):
    assert words in refusal(changed(medgen_of(name), path, value))


HIPPOCAMPUS = "mr-hippocampus"
CONTRADICTIONS = [
    (
        FLOW,
        f"preprocessing/{CENTERS}",
        [0.0, 1.0],
        "preprocessing.centers has 2 values, but the labels of the model go up to",
    ),
    (
        FLOW,
        "preprocessing/tissue_range/low",
        [0],
        "tissue_range.low has 1 values, but the labels of the model go up to 4",
    ),
    (FLOW, "preprocessing/tissue_range/low", [0, 0, 0, 0, 0], "preprocessing.tissue_range.low is above its high"),
    (FLOW, "preprocessing/noise_hu", [[3, 1], [2, 1]], "noise_hu has the spacings [3.0, 2.0]; give them in rising"),
    (FLOW, "preprocessing/noise_hu", None, "arguments.scalars is 2, but must be 0 for a model without noise_hu"),
    (FLOW, "preprocessing/tissue_range", None, "preprocessing.organs needs a tissue_range and the labels fat, soft"),
    (FLOW, "preprocessing/mean", 3, "preprocessing.mean does not belong to the codec 'tissue-standard'"),
    (FLOW, "preprocessing/scales", None, "preprocessing has no 'scales', which the codec 'tissue-standard' needs"),
    (
        FLOW,
        "preprocessing/contrast",
        {"labels": [1], "reference": 2, "means": [1, 0], "sds": [1], "factor": [[1], [1, 1]]},
        "preprocessing.contrast.sds has 1 entries; give 2",
    ),
    (
        FLOW,
        "preprocessing/contrast",
        {"labels": [1], "reference": 2, "means": [1, 0], "sds": [1, 1], "factor": [[1], [1]]},
        "preprocessing.contrast.factor is not triangular",
    ),
    (
        FLOW,
        "preprocessing/contrast",
        {"labels": [1], "reference": 2, "means": [1, 0], "sds": [1, 1], "factor": [[1], [1, 1]]},
        "preprocessing.resampled_noise needs noise_hu and no contrast; leave it out",
    ),
    (
        FLOW,
        "preprocessing/contrast",
        {"labels": [9], "reference": 2, "means": [1, 0], "sds": [1, 1], "factor": [[1], [1, 1]]},
        "preprocessing.contrast has a label without a center",
    ),
    (FLOW, "preprocessing/coordinates", True, "flow.arguments.maps is 5, but must be 8 for 5 labels and 3 coordinates"),
    (
        FLOW,
        "preprocessing/latent_channels",
        4,
        "flow.arguments.latent is 8, but must be 4 for preprocessing.latent_channels",
    ),
    (FLOW, "preprocessing/fill", "water bottle", "preprocessing.fill is 'water bottle', which is not a label"),
    (FLOW, "preprocessing/body", 7, "preprocessing.body is 7, which is not a label of the model; choose one of its 4"),
    (FLOW, "networks/flow", None, "networks has no 'flow'; a package of the pipeline 'latent-flow' needs autoencoder"),
    (FLOW, "sampler/presets/normal", None, "sampler.presets has no 'normal'"),
    (FLOW, "sampler/presets/draft/network", "sketch", "draft.network is 'sketch', but there is no network 'sketch'"),
    (FLOW, "sampler/presets/normal/steps", 5, "sampler.presets.normal.steps is 5, but its most_steps is 4"),
    (FLOW, "networks/draft/arguments/maps", 6, "networks.draft.arguments.maps is 6, not the 5 of the network 'flow'"),
    (
        FLOW,
        "networks/draft/arguments/widths",
        [8],
        "networks.draft.arguments.widths is [8], but the network 'flow' has 3",
    ),
    (FLOW, "performance/0/preset", "quick", "performance[0].preset is 'quick', but the presets are draft, normal and"),
    (FLOW, "statistics/tissues/1/low", 100, "statistics.tissues.1.low is 100, above its high of -60"),
    (FLOW, "statistics/background/low", 0, "statistics.background.low is 0, above its high of -1000"),
    (
        FLOW,
        "statistics/tissues/9",
        {"name": "x"},
        "statistics.tissues names the label 9, but the model's labels are 1, 2",
    ),
    (FLOW, "statistics/resegment/labels", [1, 2], "resegment.labels has 2 values, but 3 thresholds divide"),
    (
        FLOW,
        "statistics/resegment/thresholds",
        [1, 0, 2],
        "resegment.thresholds is [1.0, 0.0, 2.0]; give them in rising",
    ),
    (HIPPOCAMPUS, "statistics/segmenter/minimum_dice/3", 0.5, "segmenter.minimum_dice names the label 3"),
    (HIPPOCAMPUS, f"preprocessing/{CENTERS}", [1, 2, 3], "preprocessing.centers does not belong to the codec 'affine'"),
    (HIPPOCAMPUS, "preprocessing/sd", None, "preprocessing has no 'sd', which the codec 'affine' needs"),
    ("head-mr-to-ct", "statistics/resegment/names", ["a"], "resegment.names has 1 names, but there are 3 labels"),
    ("head-mr-to-ct", "input/modality", "T2w", "input.modality is 'T2w', but head-slices knows CT or T1w"),
    ("hippocampus-segmenter", "preprocessing/low", 6, "preprocessing.low is 6, not below preprocessing.high, 5"),
    (
        "hippocampus-segmenter",
        "networks/segmenter/arguments/labels",
        3,
        "arguments.labels is 3, but output.labels has 2",
    ),
]
MAISI_CONTRADICTIONS = [
    ("preprocessing/grids", [[32, 32, 40]], "preprocessing.grids has [32, 32, 40], but the stride is 32"),
    ("preprocessing/latent_stride", 3, "preprocessing.stride is 32, which is not a multiple of the latent_stride 3"),
    (
        "preprocessing/latent_stride",
        8,
        "autoencoder.arguments.num_channels means 4, but preprocessing.latent_stride is 8",
    ),
    (
        "preprocessing/latent_channels",
        8,
        "networks.flow.arguments.in_channels means 4, but preprocessing.latent_channels is",
    ),
    ("preprocessing/spacing_min_mm", [4, 1, 1], "preprocessing.spacing_min_mm is above spacing_max_mm along an axis"),
    ("preprocessing/intensity", [5, 5], "preprocessing.intensity is [5.0, 5.0]; give the lower value first"),
    ("preprocessing/class", "MR", "preprocessing.class is 'MR', which is not one of preprocessing.classes"),
    ("preprocessing/classes/CT", 128, "preprocessing.classes.CT is 128, but the network 'flow' has 128 classes"),
    ("preprocessing/regions", True, "include_top_region_index_input means False, but preprocessing.regions is True"),
    ("networks/controlnet", None, "input.kind is 'labels', but there is no 'controlnet'"),
    ("preprocessing/scale_factor", None, "preprocessing has no 'scale_factor'; give a number above 0"),
]


@pytest.mark.parametrize(("name", "path", "value", "words"), CONTRADICTIONS)
def test_each_contradiction_has_its_own_sentence(name, path, value, words):
    assert words in refusal(changed(medgen_of(name), path, value))


@pytest.mark.parametrize(("path", "value", "words"), MAISI_CONTRADICTIONS)
def test_each_contradiction_of_maisi_has_its_own_sentence(path, value, words):
    assert words in refusal(changed(maisi(), path, value))


def test_the_sentence_on_a_damaged_file_contains_its_name(tmp_path):
    data = json.loads((embedded_dir() / FLOW / "configs" / "metadata.json").read_text())
    data["medgen"]["preprocessing"]["outside"] = "nowhere"
    path = tmp_path / "configs" / "metadata.json"
    path.parent.mkdir()
    path.write_text(json.dumps(data))
    for validate in (True, False):
        with pytest.raises(PackageError) as caught:
            load_manifest(tmp_path, validate)
        assert str(caught.value).startswith(f"{path} is wrong: preprocessing.outside is 'nowhere'; choose ")


def test_the_json_schema_agrees_with_the_classes():
    """`python Testing/support/package_schema.py` generates it."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema == package_schema.completed(schema)
    assert {f"preprocessing of {name}" for name in PIPELINES.values()} < set(schema["$defs"])


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_schema_accepts_what_the_classes_accept(name):
    """A package with pipeline and American keys, and copies with one error of each kind."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    data = json.loads((embedded_dir() / name / "configs" / "metadata.json").read_text())
    text = json.dumps(data | {"medgen": data["medgen"] | {"pipeline": PIPELINES[name]}})
    for british, american in ALIASES.items():
        text = text.replace(f'"{british}"', f'"{american}"')
    data = json.loads(text)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(data)) == []
    for path, value in [(path, value) for of, path, value, _ in FAULTS if of == name]:
        odd = changed(data["medgen"], path, value)
        if path != "pipeline":
            assert list(validator.iter_errors(data | {"medgen": odd})), path


def test_an_external_pipeline_registers_its_settings():
    @settings("toy-settings")
    class Toy(GenerationSettings):
        pass

    assert SETTINGS["toy-settings"] is Toy
    with pytest.raises(
        InputError, match="'latent-flow' of .* cannot be registered because MedGenLib.packages.settings"
    ):
        settings("latent-flow")(Toy)
    assert SETTINGS["latent-flow"] is LatentFlowSettings


def test_a_scale_is_read_from_its_british_key():
    section = {"name": "slices", "ct": {"centre_hu": 40, "scale_hu": 200, "low_hu": -1024, "high_hu": 3000}}
    assert read(FeatureSettings, section, "preprocessing").ct.center_hu == 40


def test_settings_are_read_without_numpy_and_torch():
    program = "import sys, MedGenLib.packages.settings; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "MedGenLib.packages.settings" in names and not {"numpy", "torch", "jsonschema"} & set(names)
