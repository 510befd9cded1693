"""Model packages: accepted and refused ones, with the sentences."""

import copy
import dataclasses
import errno
import hashlib
import http.server
import io
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_packages import (
    WEIGHTS,
    features_metadata,
    generator_metadata,
    segmenter_metadata,
    write_generator,
    write_judge,
    write_translator,
)

from MedGenLib import user_folders
from MedGenLib.errors import InputError, LicenseError, PackageError
from MedGenLib.io import user_config
from MedGenLib.packages import archive, catalogue, rules, store, text
from MedGenLib.packages.export import seal, write_package
from MedGenLib.packages.inspection import verify, verify_all
from MedGenLib.packages.license import is_accepted, license_notice, require_acceptance
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.packages.sections import Tissue
from MedGenLib.packages.store import add, remove
from MedGenLib.packages.weights import load_weights

EMBEDDED = catalogue.embedded_dir()


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Empty user folder and empty embedded folder."""
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(catalogue, "embedded_dir", lambda: tmp_path / "embedded")


@pytest.fixture
def package(tmp_path):
    return write_generator(tmp_path / "made")


def edit_metadata(folder, change):
    path = folder / rules.METADATA
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def only_problem(folder):
    problems = verify(folder)
    assert len(problems) == 1, problems
    assert_sentence(problems[0])
    return problems[0]


def assert_sentence(message):
    assert "\n" not in message and message.endswith(".") and "Traceback" not in message, message


def refusal(call, *arguments, **named):
    """The sentence of the refusal; the user's folder must be empty."""
    before = set(user_folders.models_dir().glob("*"))
    with pytest.raises(PackageError) as caught:
        call(*arguments, **named)
    assert_sentence(str(caught.value))
    assert set(user_folders.models_dir().glob("*")) == before
    return str(caught.value)


def zipped(folder, path, prefix="", extra=()):
    with zipfile.ZipFile(path, "w") as target:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                target.write(file, prefix + file.relative_to(folder).as_posix())
        for member, content in extra:
            target.writestr(member, content)
    return path


# The manifest


def test_manifest_is_typed(package):
    assert package.name == "tiny-ct" and package.task == "generate" and package.version == "1.2.0"
    assert [(label.value, label.name) for label in package.input.labels.values()] == [(1, "fat"), (2, "soft tissue")]
    assert package.input.labels[1].aliases == ("a",) and package.input.modality is None
    assert package.output.range == (-1024, 2000) and package.output.background == -1000
    assert (package.spacing.min, package.spacing.native, package.spacing.max) == (1.5, 2.0, 3.0)
    assert package.field_of_view.max == (512, 512, 512)
    assert package.networks["autoencoder"].arguments == {"channels": 8}
    assert package.preset("normal").steps == 12
    assert package.preset("normal").most_steps == 48 and package.preset("normal").network == "flow"
    assert (package.pipeline, package.settings.mean) == ("latent-flow", 40)
    assert package.performance[0].size == (96, 96, 96)
    assert package.training.held_out == ("s1",)
    assert package.training.data[0].subjects == 2
    assert package.card == "# Card" and package.license_text == "License"
    assert package.folder.is_absolute()


def test_manifest_is_read_only_and_hashable(package):
    with pytest.raises(dataclasses.FrozenInstanceError):
        package.name = "other"
    assert len({package, load_manifest(package.folder)}) == 2


def test_unknown_presets_and_roles_list_the_known_ones(package):
    with pytest.raises(InputError, match="no preset 'best'; its presets are: draft, normal"):
        package.preset("best")
    with pytest.raises(PackageError, match="no network 'x'; it has: autoencoder, flow"):
        package.weights_path("x")


def set_at(path, value):
    def change(data):
        *parents, last = path
        for key in parents:
            data = data[key]
        data[last] = value

    return change


def delete_at(path):
    def change(data):
        *parents, last = path
        for key in parents:
            data = data[key]
        del data[last]

    return change


WRONG_METADATA = [
    (set_at(("medgen", "spacing_mm", "min"), "thin"), r"\$\.medgen\.spacing_mm\.min: 'thin' is not"),
    (set_at(("medgen", "spacing_mm", "min"), 2.5), r"\$\.medgen\.spacing_mm: min <= native"),
    (set_at(("medgen", "output", "range"), [5, 5]), r"\$\.medgen\.output\.range: the first"),
    (set_at(("medgen", "field_of_view_mm", "min"), [9, 9, 900]), r"field_of_view_mm: min is"),
    (set_at(("medgen", "schema"), 2), r"\$\.medgen\.schema: 1 was expected"),
    (set_at(("medgen", "task"), "dream"), r"\$\.medgen\.task: 'dream' is not one of"),
    (set_at(("medgen", "extra"), 1), r"\$\.medgen: Additional properties"),
    (set_at(("medgen", "input", "labels"), {"0": {"name": "air"}}), r"labels: '0' does not match"),
    (set_at(("medgen", "input", "labels", "2"), {"name": "Fat"}), "two labels have the same name"),
    (set_at(("medgen", "input"), {"kind": "image", "modality": "CT"}), r"input\.kind"),
    (delete_at(("medgen", "sampler")), r"\$\.medgen: 'sampler' is a required property"),
    (delete_at(("medgen", "networks", "flow")), "networks has no 'flow'; a package of the pipeline 'latent-flow'"),
    (delete_at(("medgen", "sampler", "presets", "normal")), "sampler.presets has no 'normal'"),
    (set_at(("medgen", "sampler", "presets", "draft"), {}), r"presets\.draft has no 'steps'; give a whole"),
    (delete_at(("medgen",)), r"\$: 'medgen' is a required property"),
    (set_at(("name",), "../evil"), r"\$\.name: '\.\./evil' does not match"),
    (set_at(("authors",), "a\x1b[31m"), r"\$\.authors: 'a\\x1b\[31m' does not match"),
    (set_at(("medgen", "citation"), "a\nb\x07"), r"\$\.medgen\.citation: "),
    (set_at(("name",), "tiny-ct\n"), r"\$\.name: 'tiny-ct\\n' does not match"),
    (set_at(("version",), "new"), r"\$\.version: 'new' does not match"),
    (set_at(("medgen", "networks", "flow", "weights"), "models/../../x.safetensors"), "weights"),
    (set_at(("medgen", "networks", "flow", "weights"), "models/x.safetensors"), "has no checksum"),
    (
        set_at(("medgen", "networks", "flow", "base"), "flow"),
        "'flow' is not another network of the package with complete",
    ),
    (set_at(("medgen", "networks", "flow", "base"), "x"), "'x' is not another network"),
    (
        set_at(("medgen", "networks", "flow", "network"), "os.system"),
        r"networks\.flow\.network: 'os\.system' is not one of the networks .*Autoencoder, Fea",
    ),
]


@pytest.mark.parametrize(("change", "words"), WRONG_METADATA)
def test_wrong_metadata_is_refused_with_its_json_path(package, change, words):
    edit_metadata(package.folder, change)
    with pytest.raises(PackageError, match=words) as caught:
        load_manifest(package.folder)
    assert_sentence(str(caught.value))
    assert only_problem(package.folder) == str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "", '{"a": NaN}', "[" * 100_000, "\x80"])
def test_metadata_that_is_not_a_json_object_is_refused(package, content):
    (package.folder / rules.METADATA).write_bytes(content.encode("latin-1"))
    with pytest.raises(PackageError, match="metadata.json") as caught:
        load_manifest(package.folder)
    assert_sentence(str(caught.value))


def test_segmenters_and_feature_networks_have_their_own_outputs(tmp_path):
    finds = write_judge(tmp_path, segmenter_metadata())
    assert finds.task == "segment" and finds.output.modality is None and finds.sampler is None
    assert [(v, label.name) for v, label in finds.output.labels.items()] == [(2, "lung"), (7, "liver")]
    assert str(finds.output) == "2 labels"
    sees = write_judge(tmp_path, features_metadata())
    assert sees.task == "features" and sees.output.features == 96
    assert str(sees.output) == "96 features" and sees.input.modality == "any"
    card = text.model_card(finds)
    assert "segment: T1w -> labels 2 lung, 7 liver" in card
    assert "features: any -> 96 features" in text.model_card(sees)
    table = text.models_table([finds, sees])
    assert "2 labels" in table and "96 features" in table
    command = json.loads((finds.folder / rules.INFERENCE).read_text())["command"]
    assert command == "medgen evaluate IMAGE --labels LABELS --segmenter tiny-segmenter"


def test_segmenters_and_feature_networks_are_neither_generators_nor_translators(tmp_path):
    models = tmp_path / "home" / "models"
    for metadata in (segmenter_metadata(), features_metadata()):
        write_judge(models, metadata)
    assert len(catalogue.catalogue()) == len(catalogue.light_catalogue()) == 2
    assert catalogue.for_generation() == []
    with pytest.raises(PackageError, match="the translations are: none"):
        catalogue.for_translation("T1w", "CT")
    for name, words in (("tiny-segmenter", "finds labels"), ("tiny-features", "compares cohorts")):
        for task in ("generate", "translate"):
            with pytest.raises(InputError, match=words):
                catalogue.find(name).require_task(task)
    catalogue.find("tiny-segmenter").require_task("segment")


@pytest.mark.parametrize(
    ("metadata", "change", "words"),
    [
        (segmenter_metadata, {"output": {"features": 3}}, r"output: "),
        (segmenter_metadata, {"output": {"labels": {}}}, r"output\.labels: "),
        (segmenter_metadata, {"output": {"labels": {"0": {"name": "air"}}}}, "'0' does not match"),
        (
            segmenter_metadata,
            {"output": {"labels": {"1": {"name": "a"}, "2": {"name": "A"}}}},
            r"output\.labels: two labels have the same name",
        ),
        (segmenter_metadata, {"input": {"kind": "labels"}}, r"\$\.medgen\.input"),
        (features_metadata, {"output": {"features": 0}}, r"output\.features: 0 is less than"),
        (features_metadata, {"output": {"modality": "CT"}}, r"output: "),
    ],
)
def test_wrong_outputs_of_segmenters_and_feature_networks_are_refused(tmp_path, metadata, change, words):
    package = write_judge(tmp_path, metadata())
    edit_metadata(package.folder, lambda data: data["medgen"].update(change))
    with pytest.raises(PackageError, match=words) as caught:
        load_manifest(package.folder)
    assert_sentence(str(caught.value))


def test_a_segmenter_needs_its_network(tmp_path):
    for metadata, role in ((segmenter_metadata(), "segmenter"), (features_metadata(), "encoder")):
        package = write_judge(tmp_path, metadata)
        edit_metadata(package.folder, delete_at(("medgen", "networks", role)))
        edit_metadata(
            package.folder,
            set_at(
                ("medgen", "networks", "other"),
                {"network": "Segmenter", "arguments": {}, "weights": f"models/{role}.safetensors"},
            ),
        )
        with pytest.raises(PackageError, match=f"networks has no '{role}'"):
            load_manifest(package.folder)


def test_a_folder_without_metadata_is_refused(tmp_path):
    with pytest.raises(PackageError, match=r"metadata\.json is missing.*not a model package"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"a": ["x", "$import os"]}, "$.a[1]"),
        ({"a": {"_target_": "os.system"}}, "$.a._target_"),
        ({"a": {"_requires_": []}}, "$.a._requires_"),
        ({"a": [{" $x": 1}]}, "$.a[0]. $x"),
        ({"a": "costs 5 $", "b": [1, None, True]}, None),
    ],
)
def test_expressions_are_found_anywhere(data, where):
    assert rules.find_expression(data) == where


@pytest.mark.parametrize("name", [rules.METADATA, rules.INFERENCE, "configs/more.json"])
def test_expressions_are_never_evaluated(package, name):
    path = package.folder / name
    data = json.loads(path.read_text()) if path.is_file() else {}
    data["description"] = "$__import__('os').abort()"
    path.write_text(json.dumps(data))
    assert "has an expression at $.description" in only_problem(package.folder)


# Verification


def test_a_valid_package_has_no_problems(package):
    assert verify(package) == verify(package.folder) == verify(str(package.folder)) == []


def test_a_changed_byte_is_found(package):
    path = package.weights_path("flow")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "checksum" in only_problem(package) and str(path) in only_problem(package)


@pytest.mark.parametrize("name", [rules.CARD, rules.LICENSE, rules.INFERENCE])
def test_a_changed_text_is_found(package, name):
    (package.folder / name).write_text("{}")
    assert f"checksum of {package.folder / name} is wrong" in only_problem(package)


@pytest.mark.parametrize("name", [rules.CARD, rules.LICENSE, rules.INFERENCE])
def test_a_missing_file_is_found(package, name):
    (package.folder / name).unlink()
    assert any(problem.endswith(f"has no {name}.") for problem in verify(package))


def test_a_missing_weights_file_is_found(package):
    package.weights_path("flow").unlink()
    assert "lacks the file models/flow.safetensors" in only_problem(package)


def test_a_file_without_checksum_is_found(package):
    (package.folder / "docs" / "more.md").write_text("x")
    assert "no checksum for its file docs/more.md" in only_problem(package)


def torch_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("archive/data.pkl", pickle.dumps({}))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({"weight": 1}), "a pickle, which can run code"),
        (torch_zip(), "a pickle, which can run code"),
        (b"", "damaged"),
        (b"\xff" * 100, "damaged"),
    ],
)
def test_weights_that_are_not_safetensors_are_refused(package, content, words):
    path = package.weights_path("flow")
    path.write_bytes(content)
    with pytest.raises(PackageError, match=words):
        seal(package.folder)
    assert words in only_problem(package)


def test_truncated_weights_are_refused_even_with_a_matching_checksum(package):
    path = package.weights_path("flow")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PackageError, match="damaged and not safetensors"):
        seal(package.folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("models/model.pt", "pickle"),
        ("models/model.PTH", "pickle"),
        ("models/x.pkl", "pickle"),
        ("models/x.ckpt", "pickle"),
        ("models/x.bin", "pickle"),
        ("models/x.npy", "pickle"),
        ("scripts/__init__.py", "code"),
        ("scripts/x.so", "code"),
        ("models/model.ts", "code"),
        ("configs/inference.yaml", "code"),
        ("notes", "not allowed in a package"),
        ("docs/x.html", "not allowed in a package"),
        ("docs/b\x1b[31m.md", "control characters"),
    ],
)
def test_pickles_code_and_strange_files_are_refused(package, name, words):
    path = package.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert ascii(name)[1:-1] in only_problem(package) and words in only_problem(package)
    assert words in refusal(add, package.folder)


def test_files_over_the_limits_are_refused(package, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(rules, "MAX_WEIGHTS_BYTES", 100)
        assert "models/autoencoder.safetensors has 0.0 MiB, more than" in only_problem(package)
    with monkeypatch.context() as patch:
        patch.setattr(rules, "MAX_DATA_BYTES", 100)
        assert "configs/inference.json has" in only_problem(package)
    with monkeypatch.context() as patch:
        patch.setattr(rules, "MAX_PACKAGE_BYTES", 100)
        assert "larger than the limit" in only_problem(package)
    with monkeypatch.context() as patch:
        patch.setattr(rules, "MAX_FILES", 3)
        assert "has more than 3 files" in only_problem(package)


def test_links_are_refused(package, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (package.folder / "docs" / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert "docs/link.txt is a symbolic link" in only_problem(package)
    assert "symbolic link" in refusal(add, package.folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_special_files_are_refused_unopened(package):
    os.mkfifo(package.folder / "docs" / "pipe.txt")
    assert "docs/pipe.txt is not a plain file" in only_problem(package)


def test_verification_and_listing_need_no_torch(package):
    code = (
        "import sys\n"
        "from MedGenLib.packages.inspection import verify\n"
        "from MedGenLib.packages import catalogue, text\n"
        f"assert verify({str(package.folder)!r}) == []\n"
        "text.models_table(catalogue.catalogue())\n"
        "heavy = {'torch', 'monai', 'SimpleITK'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Weights


def test_weights_are_loaded_as_tensors(package):
    import torch

    tensors = load_weights(package, "flow")
    assert tensors["weight"].dtype == torch.float16 and tensors["weight"].shape == (4,)
    expected = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(load_weights(package, "autoencoder")["weight"], expected)


def test_changed_weights_are_not_loaded_even_after_a_first_use(package):
    load_weights(package, "flow")
    path = package.weights_path("flow")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(PackageError, match="checksum of .*flow.safetensors is wrong"):
        load_weights(package, "flow")
    path.unlink()
    with pytest.raises(PackageError, match=f"cannot be read: {os.strerror(errno.ENOENT)}"):
        load_weights(package, "flow")


# Export


def test_export_accepts_torch_tensors_that_share_memory(tmp_path):
    import torch

    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    weights = {"autoencoder": {"a": base, "b": base.t(), "c": base.bfloat16()}, "flow": {"a": torch.ones(1)}}
    manifest = write_package(tmp_path / "p", generator_metadata(), weights, "c", "l")
    loaded = load_weights(manifest, "autoencoder")
    assert torch.equal(loaded["b"], base.detach().t()) and loaded["c"].dtype == torch.bfloat16
    assert verify(manifest) == []


def test_export_fills_in_versions_paths_and_checksums(tmp_path):
    metadata = generator_metadata()
    for key in ("monai_version", "pytorch_version", "numpy_version"):
        del metadata[key]
    before = copy.deepcopy(metadata)
    manifest = write_package(tmp_path / "deep" / "p", metadata, WEIGHTS, "c", "l")
    assert metadata == before, "the caller's metadata are left alone"
    assert manifest.metadata["numpy_version"] == np.__version__
    assert manifest.networks["flow"].weights == "models/flow.safetensors"
    assert set(manifest.checksums) == {
        "LICENSE",
        "configs/inference.json",
        "docs/README.md",
        "models/autoencoder.safetensors",
        "models/flow.safetensors",
    }
    inference = json.loads((manifest.folder / rules.INFERENCE).read_text())
    assert inference["command"] == "medgen generate MASK -o OUT --model tiny-ct"
    assert rules.find_expression(inference) is None


def test_export_accepts_numpy_statistics(tmp_path):
    metadata = generator_metadata()
    fat = {"name": "fat", "mean": np.float32(1.5), "means": np.arange(2)}
    metadata["medgen"]["statistics"] = {"tissues": {"1": fat}}
    manifest = write_package(tmp_path / "p", metadata, WEIGHTS, "c", "l")
    assert manifest.statistics.tissues == {1: Tissue(name="fat", mean=1.5, means=(0, 1))}


def test_export_replaces_an_older_package(package):
    metadata = generator_metadata()
    metadata["version"] = "1.3.0"
    (package.folder / "docs" / "old.md").write_text("x")
    newer = write_package(package.folder, metadata, WEIGHTS, "# New", "l")
    assert newer.version == "1.3.0" and newer.card == "# New" and verify(newer) == []
    assert not (package.folder / "docs" / "old.md").exists()
    assert [path.name for path in package.folder.parent.iterdir()] == ["tiny-ct"]


@pytest.mark.parametrize(
    ("change", "weights", "words"),
    [
        (set_at(("medgen", "schema"), 9), WEIGHTS, "schema: 1 was expected"),
        (delete_at(("medgen", "output")), WEIGHTS, "lack 'output'"),
        (delete_at(("medgen",)), WEIGHTS, "lack 'medgen'"),
        (set_at(("medgen", "citation"), "$x"), WEIGHTS, "expression at"),
        (set_at(("medgen", "statistics"), {"m": float("nan")}), WEIGHTS, "cannot be written"),
        (set_at(("medgen", "statistics"), {"m": object()}), WEIGHTS, "cannot be written"),
        (set_at(("version",), "1.3.0"), {"flow": WEIGHTS["flow"]}, "weights are for"),
    ],
)
def test_a_failed_export_leaves_the_older_package(package, change, weights, words):
    metadata = generator_metadata()
    change(metadata)
    with pytest.raises(PackageError, match=words) as caught:
        write_package(package.folder, metadata, weights, "# New", "l")
    assert_sentence(str(caught.value))
    assert ".part" not in str(caught.value)
    assert verify(package) == [] and package.card == "# Card"
    assert [path.name for path in package.folder.parent.iterdir()] == ["tiny-ct"]


def test_an_export_that_cannot_be_moved_restores_the_older_package(package, monkeypatch):
    replace = os.replace

    def failing(source, target):
        if Path(target) == package.folder and (Path(source) / rules.CARD).read_text() == "new":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(PackageError, match="No space left"):
        write_package(package.folder, generator_metadata(), WEIGHTS, "new", "l")
    assert package.card == "# Card" and verify(package) == []


def test_export_never_replaces_other_folders(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint").write_text("precious")
    with pytest.raises(PackageError, match="exists and is not a model package"):
        write_package(tmp_path / "run", generator_metadata(), WEIGHTS, "c", "l")
    assert (tmp_path / "run" / "checkpoint").read_text() == "precious"


def test_seal_updates_checksums_after_an_edit(package):
    (package.folder / rules.CARD).write_text("# Better card")
    assert verify(package)
    assert verify(seal(package.folder)) == []


# The catalogue


def test_catalogue_lists_embedded_then_added(tmp_path):
    write_generator(tmp_path / "embedded", "z-embedded")
    add(write_generator(tmp_path / "made", "a-added").folder)
    found = catalogue.catalogue()
    assert [manifest.name for manifest in found] == ["z-embedded", "a-added"]
    assert [catalogue.is_embedded(manifest) for manifest in found] == [True, False]
    assert catalogue.find("a-added").folder == user_folders.models_dir() / "a-added"
    assert [m.name for m in catalogue.for_generation()] == ["z-embedded", "a-added"]
    assert catalogue.broken() == []


def test_the_light_catalogue_lists_the_same_without_a_schema(tmp_path, monkeypatch):
    write_generator(tmp_path / "embedded", "z-embedded")
    add(write_generator(tmp_path / "made", "a-added").folder)
    write_translator(tmp_path / "embedded")
    full = catalogue.catalogue()
    monkeypatch.setitem(sys.modules, "jsonschema", None)  # importing it now fails
    light = catalogue.light_catalogue()
    assert [m.name for m in light] == [m.name for m in full]
    for one, other in zip(light, full, strict=True):
        assert {**vars(one)} == {**vars(other)}


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "medgen",
        "medgen.input",
        "medgen.output.range",
        "medgen.networks",
        "medgen.license",
        "medgen.spacing_mm",
        "medgen.training.data",
        "medgen.performance",
    ],
)
@pytest.mark.parametrize("wrong", [None, 7, "text", [1]])
def test_a_malformed_package_is_one_sentence_also_without_a_schema(package, key, wrong):
    def change(data):
        *path, last = key.split(".")
        for part in path:
            data = data[part]
        if wrong is None:
            del data[last]
        else:
            data[last] = wrong

    edit_metadata(package.folder, change)
    if key in ("name", "medgen.training.data") and wrong is not None:
        return  # an error that only the schema detects
    with pytest.raises(PackageError, match=r"metadata\.json") as caught:
        load_manifest(package.folder, validate=False)
    assert_sentence(str(caught.value))


def test_an_unknown_model_lists_the_known_ones(tmp_path):
    with pytest.raises(PackageError, match="no model named 'x'; no model is installed"):
        catalogue.find("x")
    write_generator(tmp_path / "embedded", "one")
    write_generator(tmp_path / "embedded", "two")
    with pytest.raises(PackageError, match="named 'x'; the installed models are: one, two"):
        catalogue.find("x")


def test_a_broken_package_does_not_hide_the_others(tmp_path):
    write_generator(tmp_path / "embedded", "good")
    add(write_generator(tmp_path / "made", "bad").folder)
    edit_metadata(user_folders.models_dir() / "bad", set_at(("medgen", "schema"), 7))
    (user_folders.models_dir() / ".hidden.part").mkdir()
    assert [manifest.name for manifest in catalogue.catalogue()] == ["good"]
    assert [package.folder.name for package in catalogue.broken()] == ["bad"]
    with pytest.raises(PackageError, match="schema: 1 was expected"):
        catalogue.find("bad")
    assert "broken model named 'bad'" in refusal(add, tmp_path / "made" / "bad")
    remove("bad")
    assert catalogue.broken() == []


def test_a_name_that_is_used_twice_keeps_the_embedded_one(tmp_path):
    write_generator(tmp_path / "embedded", "same")
    write_generator(user_folders.models_dir(), "same")
    assert [m.folder.parent.name for m in catalogue.catalogue()] == ["embedded"]
    assert "hidden by another model" in catalogue.broken()[0].reason


def test_translations_are_found_by_modality(tmp_path):
    write_translator(tmp_path / "embedded", "mr-to-ct", "T1w", "CT")
    write_translator(tmp_path / "embedded", "ct-to-mr", "CT", "T1w")
    name = {
        (source, target): catalogue.for_translation(source, target).name
        for source, target in [("T1w", "CT"), ("MR", "ct"), (None, "CT"), ("CT", "MR")]
    }
    assert set(list(name.values())[:3]) == {"mr-to-ct"} and name["CT", "MR"] == "ct-to-mr"
    with pytest.raises(PackageError, match=r"No model translates T2w to CT; .*T1w to CT \(mr-to"):
        catalogue.for_translation("T2w", "CT")
    with pytest.raises(PackageError, match="No model translates this image to PET"):
        catalogue.for_translation(None, "PET")


def test_the_embedded_folder_is_in_the_source_tree_or_the_wheel():
    assert EMBEDDED.parts[-2:] == ("Resources", "Models") and EMBEDDED.is_dir()


# Adding and removing


def test_add_a_folder(package):
    added = add(package.folder)
    assert added.folder == user_folders.models_dir() / "tiny-ct" and verify(added) == []
    assert [path.name for path in user_folders.models_dir().iterdir()] == ["tiny-ct"]
    assert package.folder.is_dir(), "the source is left alone"


@pytest.mark.parametrize("prefix", ["", "tiny-ct/"])
def test_add_a_zip_with_or_without_a_top_folder(package, tmp_path, prefix):
    litter = [("__MACOSX/._x.py", b"x"), (prefix + ".DS_Store", b"x")]
    path = zipped(package.folder, tmp_path / "p.zip", prefix, litter)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert verify(add(path, sha256=digest.upper())) == []
    assert [path.name for path in user_folders.models_dir().iterdir()] == ["tiny-ct"]


def test_an_existing_name_is_refused(package, tmp_path):
    add(package.folder)
    assert "'tiny-ct' was added before; remove it first" in refusal(add, package.folder)
    remove("tiny-ct")
    shutil.move(package.folder, tmp_path / "embedded" / "tiny-ct")
    copied = write_generator(tmp_path / "made")
    assert "'tiny-ct' is embedded; rename the package" in refusal(add, copied.folder)


def test_other_files_are_refused(tmp_path):
    assert "no file or folder" in refusal(add, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "has no configs/metadata.json" in refusal(add, tmp_path / "empty")
    (tmp_path / "x.tar").write_bytes(b"x")
    assert "neither a folder nor a .zip" in refusal(add, tmp_path / "x.tar")
    (tmp_path / "x.pth").write_bytes(torch_zip())
    assert "may hold a pickle" in refusal(add, tmp_path / "x.pth")
    (tmp_path / "x.zip").write_bytes(torch_zip())
    assert "archive/data.pkl may hold a pickle" in refusal(add, tmp_path / "x.zip")
    assert "not an http or https address" in refusal(add, "ftp://localhost/x.zip")
    assert "not an http or https address" in refusal(add, "file:///etc/passwd")


def test_a_refusal_names_the_source_and_not_a_temporary_copy(package, tmp_path):
    edit_metadata(package.folder, set_at(("medgen", "schema"), 2))
    message = refusal(add, package.folder)
    assert str(package.folder / rules.METADATA) in message and ".part" not in message
    message = refusal(add, zipped(package.folder, tmp_path / "p.zip"))
    assert str(tmp_path / "p.zip" / rules.METADATA) in message and ".part" not in message


def test_several_problems_are_counted(package):
    package.weights_path("flow").write_bytes(b"x")
    (package.folder / rules.CARD).write_text("other")
    assert "(and 2 more problems)." in refusal(add, package.folder)


def link_member():
    member = zipfile.ZipInfo("docs/link.md")
    member.create_system = 3
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member, "/etc/passwd"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("../evil.md", "x"), "leads out of the package"),
        (("docs/../../evil.md", "x"), "leads out of the package"),
        (("/evil.md", "x"), "leads out of the package"),
        (("C:evil.md", "x"), "leads out of the package"),
        (("..\\evil.md", "x"), "leads out of the package"),
        (link_member(), "symbolic link"),
        (("docs/readme.MD", "x"), "two files of the same name"),
        (("setup.py", "x"), "setup.py is code"),
        (("models/x.pt", "x"), "may hold a pickle"),
    ],
)
def test_hostile_archives_are_refused_before_anything_is_written(package, tmp_path, monkeypatch, extra, words):
    path = zipped(package.folder, tmp_path / "p.zip", extra=[extra])
    monkeypatch.setattr(archive, "_extract", lambda *_: pytest.fail("extracted"))
    assert words in refusal(add, path)
    assert not list(tmp_path.rglob("evil*"))


def test_an_encrypted_member_is_refused():
    member = zipfile.ZipInfo("docs/x.md")
    member.flag_bits |= 1
    assert archive.member_problem(member) == "docs/x.md in it is encrypted"


def test_a_damaged_archive_is_refused(package, tmp_path):
    path = zipped(package.folder, tmp_path / "p.zip")
    content = bytearray(path.read_bytes())
    content[80] ^= 0xFF
    path.write_bytes(content)
    assert "damaged or not a zip file" in refusal(add, path)


def test_a_zip_bomb_is_refused(package, tmp_path, monkeypatch):
    path = zipped(package.folder, tmp_path / "p.zip", extra=[("docs/x.txt", b"0" * 4000)])
    monkeypatch.setattr(rules, "MAX_DATA_BYTES", 3999)
    assert "docs/x.txt has" in refusal(add, path)


def test_a_full_disk_is_reported_before_and_while_copying(package, tmp_path, monkeypatch):
    path = zipped(package.folder, tmp_path / "p.zip")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        assert "MiB free; free some space or set MEDGEN_HOME" in refusal(add, path)
        assert "MiB free; free some space or set MEDGEN_HOME" in refusal(add, package.folder)

    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.shutil, "copyfile", no_space)
    assert "the disk is full" in refusal(add, package.folder)


def test_a_home_that_is_not_writable_is_reported(package, tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(PackageError, match="cannot be added to .*MEDGEN_HOME"):
        add(package.folder)


def test_ctrl_c_leaves_nothing(package, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "require_sound", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add(package.folder)
    assert list(user_folders.models_dir().iterdir()) == []


def test_remove(package, tmp_path):
    folder = add(package.folder).folder
    assert remove("tiny-ct") == folder and not list(user_folders.models_dir().iterdir())
    assert "no model named 'tiny-ct'" in refusal(remove, "tiny-ct")
    assert "no model named '../made'" in refusal(remove, "../made")
    write_generator(tmp_path / "embedded", "builtin")
    assert "'builtin' is part of MedGen" in refusal(remove, "builtin")
    assert package.folder.is_dir()


# Downloads


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/redirect.zip":
            self.send_response(302)
            self.send_header("Location", "/p.zip")
            self.end_headers()
        elif self.path == "/elsewhere.zip":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif self.path == "/short.zip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        else:
            super().do_GET()


@pytest.fixture
def server(package, tmp_path, monkeypatch):
    """URL of a local server with the package as p.zip."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = tmp_path / "site"
    site.mkdir()
    zipped(package.folder, site / "p.zip")
    (site / "page.zip").write_text("<html>")
    handler = partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_add_from_an_address(server, tmp_path):
    digest = hashlib.sha256((tmp_path / "site" / "p.zip").read_bytes()).hexdigest()
    seen = []
    added = add(f"{server}/p.zip", sha256=digest, progress=seen.append)
    assert verify(added) == []
    assert seen[0].step == 0 and seen[-1].step == seen[-1].total > 0
    assert {progress.stage for progress in seen} == {"downloading"}
    remove("tiny-ct")
    assert add(f"{server}/redirect.zip").name == "tiny-ct"


def test_refused_downloads_leave_nothing(server, monkeypatch):
    assert "checksum of" in refusal(add, f"{server}/p.zip", sha256="0" * 64)
    assert "'404 File not found'" in refusal(add, f"{server}/none.zip")
    assert "interrupted after 10 of 1,000 bytes" in refusal(add, f"{server}/short.zip")
    assert f"{server}/page.zip is damaged or not a zip" in refusal(add, f"{server}/page.zip")
    assert "302" in refusal(add, f"{server}/elsewhere.zip")
    assert "cannot be reached" in refusal(add, "http://127.0.0.1:1/p.zip")
    monkeypatch.setattr(rules, "MAX_PACKAGE_BYTES", 100)
    assert "larger than the limit" in refusal(add, f"{server}/p.zip")


def test_a_canceled_download_leaves_nothing(server):
    def cancel(progress):
        if progress.step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add(f"{server}/p.zip", progress=cancel)
    assert list(user_folders.models_dir().iterdir()) == []


# The license


def test_a_license_must_be_accepted_once(tmp_path):
    manifest = write_translator(tmp_path / "embedded")
    with pytest.raises(LicenseError, match="CC-BY-NC-4.0 and allows no commercial use.*--accept-license") as e:
        require_acceptance(manifest)
    assert_sentence(str(e.value))
    assert not is_accepted(manifest) and user_config.read_config() == {}
    assert require_acceptance(manifest, accept=True) is True
    assert require_acceptance(manifest) is False and is_accepted(manifest)
    assert user_config.read_config()["accepted_licenses"][manifest.name]["spdx"] == "CC-BY-NC-4.0"


def test_acceptance_is_valid_for_one_model_and_text(tmp_path):
    first = write_translator(tmp_path / "embedded", "one")
    other = write_translator(tmp_path / "embedded", "two")
    require_acceptance(first, accept=True)
    with pytest.raises(LicenseError):
        require_acceptance(other)
    require_acceptance(other, accept=True)
    assert is_accepted(first) and is_accepted(other)
    (first.folder / "LICENSE").write_text("Other terms")
    with pytest.raises(LicenseError):
        require_acceptance(first)


def test_a_license_without_acceptance(package):
    assert require_acceptance(package) is False and user_config.read_config() == {}
    assert license_notice(package) == "The license of the model 'tiny-ct' is CC-BY-4.0."


def test_acceptance_works_without_a_writable_configuration(tmp_path, monkeypatch):
    manifest = write_translator(tmp_path / "embedded")

    def read_only(_):
        raise InputError("The configuration cannot be written.")

    monkeypatch.setattr(user_config, "write_config", read_only)
    assert require_acceptance(manifest, accept=True) is True


# Text for the terminal


def test_table_and_card(tmp_path):
    write_generator(tmp_path / "embedded")
    write_translator(tmp_path / "embedded")
    add(write_generator(tmp_path / "made", "broken-one").folder)
    edit_metadata(user_folders.models_dir() / "broken-one", delete_at(("medgen",)))
    manifests = catalogue.catalogue()
    lines = text.models_table(manifests, catalogue.broken()).splitlines()
    assert lines[0].split()[:2] == ["NAME", "VERSION"] and len(lines) == 4
    assert "CC-BY-NC-4.0" in lines[2] and "embedded" in lines[2] and "T1w" in lines[2]
    assert lines[3].startswith("Not usable: ") and "'medgen' is a required" in lines[3]
    card = text.model_card(catalogue.find("tiny-ct"))
    for words in ("1 fat, 2 soft tissue", "CT (HU", "draft (4 steps)", "1.5 s, 900 MiB", "set, 2"):
        assert words in card
    assert "non-commercial" in text.model_card(catalogue.find("tiny-mr-to-ct"))
    problems = verify_all()
    assert problems["tiny-ct"] == problems["tiny-mr-to-ct"] == []
    assert "'medgen' is a required" in problems["broken-one"][0]
    assert text.models_table([]) == "No model is installed."


# Embedded packages


def test_every_embedded_package_is_valid_and_small():
    for folder in sorted(path.parents[1] for path in EMBEDDED.glob(f"*/{rules.METADATA}")):
        assert verify(folder) == []
        assert load_manifest(folder).name == folder.name
        # A package may have a second network for few steps, so the limit is that of each file.
        assert max(rules.list_files(folder).values()) < 16 * rules.MIB
