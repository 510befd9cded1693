"""Published models: download, conversion and failures.

The published weights cannot be had here. `exact` has files of exactly the published architecture
(every tensor by name and shape, as `test_expected_shapes_equal_those_of_monai` compares them with MONAI)
and random numbers in them, of eight bits to spare the disk. The faults are tried with a small model
of the same kinds of networks. The server is real and on this machine, see `hubserver`.
"""

import dataclasses
import hashlib
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import hubfiles
import hubserver
import numpy as np
import pytest
import torch
from hubfiles import NAME, SCALE, SMALL, publish, shrunk
from workers import at_start, eventually, temporary_environment

from MedGenLib import cli, user_folders
from MedGenLib.errors import Cancelled, LicenseError, PackageError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.packages import archive, rules, text
from MedGenLib.packages.catalogue import broken, catalogue, find
from MedGenLib.packages.hub import convert, install
from MedGenLib.packages.hub import files as hub
from MedGenLib.packages.hub.nv_generate import PUBLISHED, HubFile
from MedGenLib.packages.inspection import verify
from MedGenLib.packages.license import is_accepted
from MedGenLib.packages.weights import load_weights
from MedGenLib.worker.client import Worker

REPO = "nvidia/NV-Generate-CT"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))


@pytest.fixture
def small(monkeypatch):
    """The published model with small networks."""
    model = shrunk(PUBLISHED[NAME])
    monkeypatch.setitem(PUBLISHED, NAME, model)
    return model


@pytest.fixture
def server(small, tmp_path):
    """A hub with the files of the small model."""
    root = tmp_path / "hub"
    publish(small, root)
    with hubserver.running(root) as running:
        yield running


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def file_of(server, role):
    file = PUBLISHED[NAME].files[role]
    return server.root / file.repo / file.path


def downloads():
    folder = user_folders.cache_dir() / "downloads"
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def install_from(source, **options):
    return install.install(install.offer(NAME, source), **{"accept_license": True, **options})


def nothing_installed():
    return find_or_none(NAME) is None and not broken() and not packages_in_the_making()


def packages_in_the_making():
    folder = user_folders.models_dir()
    return sorted(folder.glob(".*")) if folder.is_dir() else []


def find_or_none(name):
    return next((manifest for manifest in catalogue() if manifest.name == name), None)


@contextmanager
def changed(path):
    """A `.pt` file as a dictionary, written back after changes."""
    contents = torch.load(path, weights_only=True)
    yield contents
    torch.save(contents, path)


# The published architecture


def monais_own(role, arguments):
    from monai.apps.generation.maisi.networks import autoencoderkl_maisi, controlnet_maisi, diffusion_model_unet_maisi

    kinds = {
        "autoencoder": autoencoderkl_maisi.AutoencoderKlMaisi,
        "flow": diffusion_model_unet_maisi.DiffusionModelUNetMaisi,
        "controlnet": controlnet_maisi.ControlNetMaisi,
    }
    with torch.device("meta"):
        return kinds[role](**arguments)


@pytest.mark.parametrize("name", PUBLISHED)
def test_expected_shapes_equal_those_of_monai(name):
    for role, network in PUBLISHED[name].networks.items():
        expected = {
            key: tuple(tensor.shape) for key, tensor in monais_own(role, network["arguments"]).state_dict().items()
        }
        assert convert.expected_shapes(network["network"], network["arguments"]) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_of_the_downloads_follow_from_the_networks(name):
    shapes = [
        shape
        for network in PUBLISHED[name].networks.values()
        for shape in convert.expected_shapes(network["network"], network["arguments"]).values()
    ]
    megabytes = sum(4 * int(np.prod(shape)) for shape in shapes) / 1e6
    assert install.DOWNLOAD_MB[name] == pytest.approx(megabytes, abs=1)


def test_the_whole_way_with_the_exact_architecture(tmp_path, capsys):
    """From the command line: show, accept, download, convert, list, and load bit-identically."""
    published = publish(PUBLISHED[NAME], tmp_path / "hub", "float8_e4m3fn")
    (tmp_path / "hub" / REPO / "LICENSE").write_bytes(b"\xef\xbb\xbfTerms of NVIDIA\r\nsection 1\r\n")
    with hubserver.running(tmp_path / "hub") as running:
        command = ["models", "install", NAME, "--from", running.address]
        assert cli.main(command) != 0
        shown = capsys.readouterr()
        assert "Terms of NVIDIA\nsection 1" in shown.out and "nvidia-open-model-license" in shown.out
        assert "--accept-license" in shown.err
        assert running.requests("GET", ".pt") == [] and nothing_installed()
        assert cli.main([*command, "--accept-license"]) == 0
    shown = capsys.readouterr()
    for line in ("downloading autoencoder_v1.pt (MiB)", "converting"):
        assert line in shown.err
    manifest = find(NAME)
    assert f"Installed the model '{NAME}' 1.0.0 in {manifest.folder}" in shown.out
    assert verify(manifest) == [] and is_accepted(manifest) and downloads() == []
    assert packages_in_the_making() == []
    assert manifest.settings.scale_factor == pytest.approx(SCALE, rel=1e-7)
    assert manifest.metadata["sources"][0]["commit"] == hubserver.COMMIT
    assert hubserver.COMMIT in manifest.metadata["changelog"]["1.0.0"]
    for role, tensors in published.items():
        loaded = load_weights(manifest, role)
        assert set(loaded) == set(tensors)
        assert all(same_bits(loaded[key], tensors[key]) for key in tensors)
    shutil.rmtree(tmp_path)  # half a gigabyte


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_model_becomes_a_valid_package(name, tmp_path, monkeypatch):
    """With small networks, for the metadata and the card."""
    model = shrunk(PUBLISHED[name])
    monkeypatch.setitem(PUBLISHED, name, model)
    publish(model, tmp_path)
    folder = tmp_path / "all"
    folder.mkdir()
    for file in model.files.values():
        shutil.copy(tmp_path / file.repo / file.path, folder)
    manifest = install.install(install.offer(name, folder), accept_license=True)
    assert verify(manifest) == [] and set(manifest.networks) == set(model.files)
    assert manifest.input.kind == ("labels" if model.has_mask else "none")
    assert len(manifest.input.labels) == (125 if model.has_mask else 0)  # 124 and the body
    command = rules.read_json(manifest.folder / rules.INFERENCE, rules.INFERENCE)["command"]
    assert command.startswith("medgen generate MASK" if model.has_mask else "medgen generate -o")
    shown = f"{text.models_table([manifest])}{text.model_card(manifest)}{manifest.card}"
    for words in (model.license.spdx, model.license_url, "a size" if not model.has_mask else "liver"):
        assert words in shown
    assert str(tmp_path) not in manifest.card


# Sources


def test_a_mirror_in_the_environment(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.address + "/")
    assert install_from(None).name == NAME
    with pytest.raises(PackageError, match="was added before; remove it first"):
        install.offer(NAME)


@pytest.mark.parametrize("flat", [True, False])
def test_a_local_folder_is_not_changed(server, tmp_path, flat):
    folder = tmp_path / "mine"
    files = [file_of(server, role) for role in SMALL]
    for path in files:
        place = folder / path.name if flat else folder / "models" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (folder / "LICENSE").write_text("Terms in the folder")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    seen = []
    manifest = install_from(str(folder), progress=seen.append)
    assert manifest.license_text.endswith("Terms in the folder\n")
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert server.seen == [] and {progress.stage for progress in seen} == {"converting"}
    assert manifest.metadata["sources"][1]["from"] == "a folder"
    assert str(tmp_path) not in (manifest.folder / "configs/metadata.json").read_text()


def test_a_folder_that_lacks_a_file(server, tmp_path):
    folder = file_of(server, "controlnet").parent
    file_of(server, "controlnet").unlink()
    with pytest.raises(PackageError, match=r"lacks controlnet_3d_rflow-ct\.pt; nv-generate-ct n"):
        install.offer(NAME, folder)
    with pytest.raises(PackageError, match=r"There is no folder '.*nowhere' with the published"):
        install.offer(NAME, tmp_path / "nowhere")


def test_a_user_token_is_not_sent_to_mirrors_and_stores(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    install.offer(NAME, server.address)
    assert not any(token for *_, token in server.seen)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    install_from(None)
    asked = [(path.startswith("/store/"), token) for _, path, _, token in server.seen]
    assert (False, True) in asked and (True, True) not in asked


# Offers


def test_unknown_and_uninstalled_models(server):
    with pytest.raises(PackageError, match="no published model named 'nope'; the published models are: nv-gen"):
        install.offer("nope", server.address)
    with pytest.raises(PackageError, match=f"get it with `medgen models install {NAME}`"):
        find(NAME)


def test_available_models_are_listed_until_they_are_installed(server, capsys):
    assert cli.main(["models", "list", "--available"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 5 and rows[1].startswith("nv-generate-ct ")
    assert "1,094 MB" in rows[1] and "NVIDIA-Open-Model" in rows[1]
    install_from(server.address)
    assert cli.main(["models", "list", "--available"]) == 0
    assert NAME not in [row.split()[0] for row in capsys.readouterr().out.splitlines()]


# The license


def test_nothing_is_downloaded_before_the_license_is_accepted(server):
    with pytest.raises(LicenseError, match=r"LicenseRef-NVIDIA-Open-Model; read https://www\.nvidia"):
        install_from(server.address, accept_license=False)
    assert server.requests("GET", ".pt") == [] and nothing_installed()


def test_the_license_is_accepted_once_until_its_text_changes(server):
    install_from(server.address)
    shutil.rmtree(find(NAME).folder)
    install_from(server.address, accept_license=False)
    shutil.rmtree(find(NAME).folder)
    (server.root / REPO / "LICENSE").write_text("New terms")
    with pytest.raises(LicenseError):
        install_from(server.address, accept_license=False)


# Interrupted connections.


@pytest.fixture
def blob(server, tmp_path):
    """A large file on the server, and the target folder."""
    path = server.root / REPO / "blob.pt"
    path.write_bytes(np.random.default_rng(0).bytes(23 << 20))
    return path, tmp_path / "downloads"


def fetch(server, folder, progress=None):
    return hub.fetch(hub.look_up(REPO, "blob.pt", server.address), folder, server.address, progress)


def test_an_interrupted_download_is_retried(server, blob):
    path, folder = blob
    server.cuts = [15 << 20]
    assert fetch(server, folder).read_bytes() == path.read_bytes()
    first, second = [r for m, p, r, _ in server.seen if p.startswith("/store/")]
    assert first is None and second == f"bytes={15 << 20}-"


def test_a_stopped_download_is_resumed_by_the_next_call(server, blob):
    path, folder = blob
    seen = []

    def stop(progress):
        seen.append(progress.step)
        if progress.step >= 20:
            raise Cancelled("Stopped; nothing was written.")

    with pytest.raises(Cancelled):
        fetch(server, folder, stop)
    (part,) = folder.iterdir()
    held = part.stat().st_size
    assert part.suffix == ".part" and 0 < held < path.stat().st_size
    remote = hub.look_up(REPO, "blob.pt", server.address)
    assert hub.missing_bytes(remote, folder) == remote.size - held
    steps = []
    assert fetch(server, folder, lambda p: steps.append(p.step)).read_bytes() == path.read_bytes()
    assert server.requests("GET", "blob.pt")[-1] == f"bytes={held}-"
    assert steps[0] == held >> 20 and steps[-1] == 23 and hub.missing_bytes(remote, folder) == 0
    gets = len(server.requests("GET", "blob.pt"))
    fetch(server, folder)
    assert len(server.requests("GET", "blob.pt")) == gets


def test_a_server_without_ranges(server, blob):
    path, folder = blob
    server.ranges, server.cuts = False, [15 << 20]
    assert fetch(server, folder).read_bytes() == path.read_bytes()


def test_a_failed_download_is_kept(server, blob, monkeypatch):
    path, folder = blob
    monkeypatch.setattr(hub, "PAUSE_SECONDS", 0)
    server.cuts = [11 << 20] + [0] * 20
    with pytest.raises(PackageError, match=r"of blob\.pt was interrupted \(.*\); try again, and"):
        fetch(server, folder)
    server.cuts = []
    assert fetch(server, folder).read_bytes() == path.read_bytes()
    assert server.requests("GET", "blob.pt")[-1] == f"bytes={11 << 20}-"


def test_a_wrong_checksum_is_refused_and_deleted(server, blob):
    path, folder = blob
    server.checksums["blob.pt"] = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(PackageError, match=r"checksum of blob\.pt from nvidia/\S+ is wrong"):
        fetch(server, folder)
    assert list(folder.iterdir()) == []
    server.checksums.clear()
    assert fetch(server, folder).read_bytes() == path.read_bytes()


def test_a_partial_file_that_is_too_long_is_restarted(server, blob):
    path, folder = blob
    remote = hub.look_up(REPO, "blob.pt", server.address)
    folder.mkdir()
    hub.part_of(remote, folder).write_bytes(bytes(remote.size + 1))
    assert fetch(server, folder).read_bytes() == path.read_bytes()


def test_a_server_without_checksums_is_not_trusted(server):
    server.bare = True
    with pytest.raises(PackageError, match="does not state the size and the checksum of models/a"):
        install.offer(NAME, server.address)


def test_no_server(monkeypatch):
    with pytest.raises(PackageError, match=r"http://127.0.0.1:9 cannot be reached .*--from FOLDER"):
        install.offer(NAME, "http://127.0.0.1:9")


def test_refusals_of_a_server(server):
    server.closed.add(REPO)
    with pytest.raises(PackageError, match=f"accept the terms of {REPO} first.*HF_TOKEN"):
        install.offer(NAME, server.address)
    server.closed.clear()
    server.missing.add(REPO)
    with pytest.raises(PackageError, match=f"There is no repository {REPO} at http"):
        install.offer(NAME, server.address)
    server.missing.clear()
    file_of(server, "controlnet").unlink()
    with pytest.raises(PackageError, match=r"has no file models/controlnet_3d_rflow-ct\.pt"):
        install.offer(NAME, server.address)


def test_a_small_text_has_the_checksum_of_git(server):
    path = server.root / REPO / "LICENSE"
    path.write_text("Terms")
    remote = hub.look_up(REPO, "LICENSE", server.address)
    assert len(remote.checksum) == 40
    assert hub.read_text(remote, user_folders.cache_dir(), server.address) == "Terms"
    wrong = dataclasses.replace(remote, checksum="0" * 40)
    with pytest.raises(PackageError, match="checksum of LICENSE"):
        hub.read_text(wrong, user_folders.cache_dir(), server.address)


# Local failures


def test_free_space_is_checked_first(server, monkeypatch):
    offer = install.offer(NAME, server.address)
    usage = shutil.disk_usage(server.root)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: usage._replace(free=2 * offer.bytes - 1))
    with pytest.raises(PackageError, match=r"takes .* MiB and the disk of .* MEDGEN_HOME to an"):
        install.install(offer, accept_license=True)
    assert server.requests("GET", ".pt") == [] and nothing_installed()
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: usage._replace(free=2 * offer.bytes))
    assert install.install(offer, accept_license=True).name == NAME


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_becomes_full(server, blob):
    _, folder = blob
    remote = hub.look_up(REPO, "blob.pt", server.address)
    folder.mkdir()
    os.symlink("/dev/full", hub.part_of(remote, folder))
    with pytest.raises(PackageError, match=r"blob\.pt cannot be saved in .*: the disk is full; "):
        fetch(server, folder)


def test_files_of_a_killed_installation_are_removed(server):
    remains = user_folders.models_dir() / f".12345678.part.{NAME}"
    remains.mkdir(parents=True)
    (remains / "half").write_bytes(b"x")
    install_from(server.address)
    assert packages_in_the_making() == []


def test_two_installations_at_once(server):
    offer = install.offer(NAME, server.address)
    with (
        install.downloading_alone(NAME, user_folders.cache_dir() / "downloads"),
        pytest.raises(PackageError, match="being installed by another process"),
    ):
        install.install(offer, accept_license=True)
    assert install.install(offer, accept_license=True).name == NAME


# Through the worker, which the Slicer panel uses


@pytest.fixture
def worker(server, tmp_path):
    """A worker with the small published model and the server as hub."""
    code = f"import sys; sys.path.append({str(Path(hubfiles.__file__).parent)!r})\n"
    code += "import hubfiles; hubfiles.shrink()\n"
    values = {"HF_ENDPOINT": server.address, **at_start(tmp_path, code)}
    with temporary_environment(MEDGEN_HOME=str(user_folders.models_dir().parent)), Worker(env=values) as w:
        yield w


def liver():
    labels = np.zeros((32, 32, 32), np.uint8)
    labels[4:28, 4:28] = 200
    labels[10:20, 10:20, 8:24] = 1
    return LabelMap(labels, np.diag([3.0, 3.0, 3.0, 1.0]))


def test_the_worker_shows_the_license_and_installs(server, worker):
    (server.root / REPO / "LICENSE").write_text("Terms of NVIDIA")
    offered = {model["name"]: model for model in worker.call("models/available")["models"]}
    assert set(offered) == set(PUBLISHED) and offered[NAME]["download_mb"] == 1094
    assert offered["nv-generate-mr"]["license"]["commercial_use"] is False
    shown = worker.call("models/license", name=NAME)
    assert "Terms of NVIDIA" in shown["text"] and not shown["accepted"]
    assert shown["bytes"] == sum(file_of(server, role).stat().st_size for role in SMALL)
    with pytest.raises(LicenseError, match="--accept-license"):
        worker.call("models/install", name=NAME)
    made = worker.call("models/install", name=NAME, accept_license=True)
    assert verify(made["folder"]) == [] and find(NAME).folder == Path(made["folder"])
    left = [model["name"] for model in worker.call("models/available")["models"]]
    assert left == [name for name in PUBLISHED if name != NAME]
    with pytest.raises(PackageError, match="was added before; remove it first"):
        worker.call("models/license", name=NAME)
    made = worker.generate(liver(), model=NAME, mapping="model", any_grid=True, steps=1, retries=0, device="cpu")
    assert made.volume.shape == liver().shape and np.ptp(made.volume.array) > 0


def test_an_installation_is_canceled_and_resumed(server, worker):
    server.gate = threading.Event()
    worker.start()
    params = {"name": NAME, "accept_license": True}
    job = worker.request("models/install", params, lambda answer: answer, None)
    assert eventually(lambda: server.requests("GET", ".pt") != [], 60)
    job.cancel()
    server.gate.set()
    with pytest.raises(Cancelled):
        job.result(60)
    assert nothing_installed()
    assert worker.call("models/install", name=NAME, accept_license=True)["name"] == NAME


# Files that are not the published ones


class Code:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def test_a_pickle_that_needs_code(server, capfd):
    torch.save({"unet_state_dict": {"a": torch.zeros(1)}, "x": Code()}, file_of(server, "flow"))
    with pytest.raises(PackageError, match="could run code, so it is not read"):
        install_from(server.address)
    assert "must never run" not in capfd.readouterr().out
    assert nothing_installed() and downloads() == []


def test_a_tensor_of_another_shape_or_none(server):
    with changed(file_of(server, "flow")) as contents:
        state = contents["unet_state_dict"]
        name = next(key for key in state if key.endswith("conv_in.conv.weight"))
        state[name] = state[name][:, :3]
    wrong = rf"'{name}' has the shape \(32, 3, 3, 3, 3\) and MaisiUNet needs \(32, 4, 3, 3, 3\)"
    with pytest.raises(PackageError, match=wrong):
        install_from(server.address)
    with changed(file_of(server, "flow")) as contents:
        del contents["unet_state_dict"][name]
    with pytest.raises(PackageError, match=f"'{name}' is missing"):
        install_from(server.address)
    assert nothing_installed()


def test_the_file_of_another_network(server):
    shutil.copy(file_of(server, "controlnet"), file_of(server, "flow"))
    with pytest.raises(PackageError, match="no weights under 'unet_state_dict', so it is not the"):
        install_from(server.address)
    file_of(server, "flow").write_text("not found")
    unreadable = r"diff_unet_3d_rflow-ct\.pt cannot be read as PyTorch weights"
    with pytest.raises(PackageError, match=unreadable):
        install_from(server.address)


def test_a_missing_or_invalid_scale_factor(server):
    with changed(file_of(server, "flow")) as contents:
        contents["scale_factor"] = torch.tensor(float("nan"))
    with pytest.raises(PackageError, match="scale factor nan, so it is damaged"):
        install_from(server.address)
    with changed(file_of(server, "flow")) as contents:
        del contents["scale_factor"]
    with pytest.raises(PackageError, match="has no scale factor of the latents"):
        install_from(server.address)


def test_files_that_upstream_accepts(server):
    """Additional tensors (ddpm-ct), and a ControlNet with tensors of the U-Net."""
    shared = "time_embed.0.weight"
    with changed(file_of(server, "flow")) as contents:
        contents["unet_state_dict"]["down_blocks.1.attentions.0.more.weight"] = torch.zeros(2)
        expected = contents["unet_state_dict"][shared]
    with changed(file_of(server, "controlnet")) as contents:
        del contents["controlnet_state_dict"][shared]
    manifest = install_from(server.address)
    assert torch.equal(load_weights(manifest, "controlnet")[shared], expected)
    assert "down_blocks.1.attentions.0.more.weight" not in load_weights(manifest, "flow")


def test_a_scale_factor_with_metadata_is_plain_data(tmp_path):
    """Upstream computes it from MONAI's images, whose metadata contain NumPy scalars and arrays."""
    from monai.data import MetaTensor

    meta = {"affine": np.eye(4), "spatial_shape": np.array([8, 8, 8]), "name": np.array(b"scan")}
    latent = MetaTensor(torch.ones(4), meta=meta)
    contents = {"scale_factor": latent.mean() * SCALE, "loss": np.float64(0.5), "state": {"a": latent}}
    torch.save(contents, tmp_path / "x.pt")
    assert convert.read_checkpoint(tmp_path / "x.pt", "state").scale_factor == pytest.approx(SCALE)


@pytest.mark.parametrize("contents", [b"", b"no weights at all"])
def test_another_file_is_refused_without_the_message_of_pytorch(tmp_path, contents):
    """PyTorch's message suggests to read it without the restriction."""
    (tmp_path / "x.pt").write_bytes(contents)
    with pytest.raises(PackageError, match=r"\(it is empty, truncated or another format\)") as caught:
        convert.read_checkpoint(tmp_path / "x.pt")
    assert "weights_only" not in str(caught.value)


def test_checkpoints_of_before_2020_are_read(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert convert.read_checkpoint(tmp_path / "x.pt").tensors["a"].tolist() == [1, 1]


def test_every_published_file_is_listed(tmp_path):
    files = {file for model in PUBLISHED.values() for file in model.files.values()}
    assert all(isinstance(file, HubFile) and file.path.startswith("models/") for file in files)
    assert len(files) == 8
