"""Bad input gives one sentence on stderr, exit code 2, and no files."""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from MedGenLib import cli
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import write_volume
from MedGenLib.packages.catalogue import catalogue, embedded_dir
from MedGenLib.packages.weights import sha256
from MedGenLib.pipelines import loading

REPOSITORY = Path(__file__).resolve().parents[3]
EMBEDDED = {manifest.name for manifest in catalogue()}


def needs(model):
    return pytest.mark.skipif(model not in EMBEDDED, reason=f"needs the embedded model {model}")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def medgen(out, capfd):
    """Runs a command that must fail and returns its sentence."""

    def refuse(*argv):
        before = everything_in(out)
        code = cli.main([str(word) for word in argv])
        captured = capfd.readouterr()
        assert code == 2, captured
        lines = captured.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("medgen: "), captured.err
        assert captured.out == ""
        assert everything_in(out) == before
        return lines[0]

    return refuse


@pytest.fixture
def generate(medgen, out):
    """`medgen generate` with all three outputs, refused."""

    def run(mask, *options, output="ct.nii.gz"):
        files = ["-o", out / output, "--preview", out / "p.png", "--report", out / "r.json"]
        return medgen("generate", mask, *files, "--device", "cpu", *options)

    return run


@pytest.fixture
def translate(medgen, out):
    """`medgen translate --to T1w` with all three outputs, refused."""

    def run(image, *options):
        files = ["-o", out / "mr.nii", "--preview", out / "p.png", "--report", out / "r.json"]
        words = [*files, "--to", "T1w", "--accept-license", "--device", "cpu", *options]
        return medgen("translate", image, *words)

    return run


def everything_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# Inputs that libraries do not write


def mask_file(folder, values=(0, 1, 2), shape=(12, 12, 12)):
    """A block of a body that the border cuts on all sides."""
    array = np.full(shape, values[-1], np.uint8)
    array.flat[: len(values)] = values
    return write_volume(LabelMap(array, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "mask.nii.gz")


def mr_file(folder):
    """A textured bright ball without negative values, unlike Hounsfield units."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij"))
    ball = np.linalg.norm(grid, axis=0) < 0.8
    noise = np.random.default_rng(0).normal(0, 40, ball.shape)
    array = np.clip(np.where(ball, 350 + 150 * grid[0] + noise, np.abs(noise) / 8), 0, None)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    return write_volume(Volume(array.astype(np.float32), affine), folder / "mr.nii.gz")


def nifti(path, shape=(8, 8, 8), spacing=(1, 1, 1), rows=None, values=None, codes=(0, 1)):
    """A single-file NIfTI-1 of uint8 or of the values' type; `codes` are qform and sform."""
    array = np.ones(shape, np.uint8) if values is None else values
    datatype = {"uint8": 2, "float32": 16}[array.dtype.name]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<hh", header, 70, datatype, array.dtype.itemsize * 8)
    struct.pack_into("<8f", header, 76, 1, *spacing, *[1] * (7 - len(spacing)))
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<hh", header, 252, *codes)
    rows = np.diag([*spacing[:3], 1])[:3] if rows is None else rows
    struct.pack_into("<12f", header, 280, *np.ravel(rows))
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + array.tobytes(order="F"))
    return path


def png(path, side=8):
    """A gray picture."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows = b"".join(b"\0" + bytes(range(side)) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def dicom_series(folder, description, slices=3):
    """A small axial CT series; returns its UID."""
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    folder.mkdir(exist_ok=True)
    for number in range(slices):
        data = pydicom.Dataset()
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID = series, study
        data.FrameOfReferenceUID, data.PatientID = frame, "test"
        data.Modality, data.SeriesDescription, data.InstanceNumber = "CT", description, number + 1
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [0, 0, 2.0 * number]
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.Rows = data.Columns = 8
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept = 0, 1, -1024
        data.PixelData = np.full((8, 8), 1000 + number, np.uint16).tobytes()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.save_as(folder / f"{description}_{number}.dcm", enforce_file_format=True)
    return series


# The input file


@needs("ct-tissue")
def test_missing_file(generate, tmp_path):
    assert "no file or folder" in generate(tmp_path / "nowhere.nii.gz")


@needs("head-ct-to-mr")
def test_missing_image(translate, tmp_path):
    assert "no file or folder" in translate(tmp_path / "nowhere.nii.gz")


@needs("head-ct-to-mr")
def test_folder_without_dicom(translate, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "readme.txt").write_text("no images here")
    sentence = translate(folder)
    assert str(folder) in sentence and "DICOM" in sentence


@needs("head-ct-to-mr")
def test_two_series_in_one_folder(translate, tmp_path):
    uids = [dicom_series(tmp_path / "study", name) for name in ("bone", "soft")]
    sentence = translate(tmp_path / "study")
    assert "--series" in sentence and "bone" in sentence and "soft" in sentence
    assert all(uid in sentence for uid in uids)


@needs("head-ct-to-mr")
def test_unknown_series(translate, tmp_path):
    dicom_series(tmp_path / "study", "bone")
    assert "9.9.9" in translate(tmp_path / "study", "--series", "9.9.9")


@needs("ct-tissue")
@pytest.mark.parametrize("name", ["cut.nii", "cut.nii.gz"])
def test_truncated_nifti(generate, tmp_path, name):
    whole = write_volume(
        LabelMap(np.random.default_rng(0).integers(0, 4, (16, 16, 16)), np.eye(4)), tmp_path / f"whole{name[3:]}"
    )
    path = tmp_path / name
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    sentence = generate(path)
    assert str(path) in sentence and "truncated" in sentence


@needs("ct-tissue")
def test_file_that_is_not_an_image(generate, tmp_path):
    path = tmp_path / "text.nii.gz"
    path.write_text("this is not an image")
    assert str(path) in generate(path)


@needs("ct-tissue")
def test_picture_in_two_dimensions(generate, translate, tmp_path):
    path = png(tmp_path / "slice.png")
    assert "2-D" in generate(path)


@needs("head-ct-to-mr")
def test_picture_to_translate(translate, tmp_path):
    assert "2-D" in translate(png(tmp_path / "slice.png"))


@needs("ct-tissue")
def test_four_axes(generate, tmp_path):
    path = nifti(tmp_path / "series.nii", shape=(4, 4, 4, 3), spacing=(1, 1, 1, 1))
    assert "4 axes (4 x 4 x 4 x 3)" in generate(path)


@needs("head-ct-to-mr")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(translate, tmp_path, value):
    values = np.ones((8, 8, 8), np.float32)
    values[1, 2, 3] = value
    sentence = translate(nifti(tmp_path / "image.nii", values=values))
    assert "NaN or infinite" in sentence and "(1, 2, 3)" in sentence


@needs("ct-tissue")
def test_mask_with_fractions_or_nan(generate, tmp_path):
    for value in (0.5, np.nan):
        values = np.zeros((8, 8, 8), np.float32)
        values[4, 4, 4] = value
        assert "mask.nii" in generate(nifti(tmp_path / "mask.nii", values=values))


@needs("ct-tissue")
def test_empty_mask(generate, tmp_path):
    assert "empty" in generate(mask_file(tmp_path, values=(0, 0)))


@needs("ct-tissue")
def test_unknown_labels_are_named_with_the_way_to_map_them(generate, tmp_path):
    sentence = generate(mask_file(tmp_path, values=(0, 2, 7777)[:2] + (200,)))
    assert "200" in sentence and "--map 200=" in sentence


@needs("ct-tissue")
def test_map_to_a_label_that_the_model_lacks(generate, tmp_path):
    sentence = generate(mask_file(tmp_path), "--map", "2=spaghetti")
    assert "spaghetti" in sentence


@needs("head-ct-to-mr")
def test_mr_given_to_ct_to_mr(translate, tmp_path):
    sentence = translate(mr_file(tmp_path))
    assert "MR" in sentence and "CT" in sentence


@needs("head-ct-to-mr")
def test_constant_image(translate, tmp_path):
    assert "Every voxel" in translate(nifti(tmp_path / "flat.nii"))


@needs("ct-tissue")
@pytest.mark.parametrize("spacing", [(1, 0, 1), (1, 1, -2)])
def test_spacing_zero_or_negative(generate, tmp_path, spacing):
    sentence = generate(nifti(tmp_path / "image.nii", spacing=spacing, codes=(1, 0)))
    assert "spacing" in sentence


@needs("ct-tissue")
def test_singular_affine(generate, tmp_path):
    rows = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    assert "image.nii" in generate(nifti(tmp_path / "image.nii", rows=rows))


@needs("ct-tissue")
def test_one_voxel(generate, tmp_path):
    assert "1 x 1 x 1" in generate(nifti(tmp_path / "image.nii", shape=(1, 1, 1)))


@needs("ct-tissue")
def test_huge_header_size_is_refused_before_allocation(generate, translate, tmp_path):
    path = tmp_path / "huge.nii"
    content = nifti(path).read_bytes()
    header = bytearray(content)
    struct.pack_into("<3h", header, 42, 2000, 2000, 2000)
    path.write_bytes(bytes(header))
    sentence = generate(path)
    assert "2000 x 2000 x 2000" in sentence or "truncated" in sentence


# The output


@needs("ct-tissue")
@pytest.mark.parametrize("name", ["ct.png", "ct.dcm", "ct", "ct.nii.bz2"])
def test_unknown_suffix(generate, tmp_path, name):
    sentence = generate(mask_file(tmp_path), output=name)
    assert name in sentence and ".nii.gz" in sentence


def test_unknown_suffix_of_preview_and_report(medgen, out, tmp_path):
    mask = mask_file(tmp_path)
    for option, name in (("--preview", "p.gif"), ("--report", "r.txt")):
        assert name in medgen("generate", mask, "-o", out / "ct.nii", option, out / name)


def test_output_folder_that_cannot_be_created(medgen, out, tmp_path):
    mask = mask_file(tmp_path)
    sentence = medgen("generate", mask, "-o", mask / "new" / "ct.nii.gz")
    assert "is no folder" in sentence


def test_output_is_a_folder(medgen, out, tmp_path):
    folder = out / "ct.nii.gz"
    folder.mkdir()
    assert "is a folder" in medgen("generate", mask_file(tmp_path), "-o", folder)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a read-only folder")
def test_output_in_a_read_only_file_system(medgen, tmp_path):
    assert "cannot be written" in medgen("generate", mask_file(tmp_path), "-o", "/proc/ct.nii.gz")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_output_without_permission(medgen, out, tmp_path):
    mask = mask_file(tmp_path)
    out.chmod(0o555)
    try:
        if os.access(out, os.W_OK):
            pytest.skip("this user may write everywhere")
        assert "permission" in medgen("generate", mask, "-o", out / "ct.nii.gz")
    finally:
        out.chmod(0o755)


@needs("ct-tissue")
def test_full_disk(tmp_path):
    """A real file system of 64 KiB, mounted in its own namespace if permitted."""
    unshare, mount = shutil.which("unshare"), tmp_path / "disk"
    mount.mkdir()
    mounting = f"mount -t tmpfs -o size=64k tmpfs '{mount}'"
    if not unshare or subprocess.run([unshare, "-rm", "sh", "-c", mounting]).returncode:
        pytest.skip("this user may not mount a file system")
    mask = mask_file(tmp_path, shape=(64, 64, 64))
    command = f"'{sys.executable}' -m MedGenLib generate '{mask}' -o '{mount}/ct.nii.gz' -q"
    script = f"{mounting} && {command}; code=$?; ls -A '{mount}'; exit $code"
    done = subprocess.run([unshare, "-rm", "sh", "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "", done
    assert len(done.stderr.splitlines()) == 1 and "0 MiB free" in done.stderr


# Models and devices


def test_unknown_model(generate, tmp_path):
    sentence = generate(mask_file(tmp_path), "--model", "ct-spaghetti")
    assert "ct-spaghetti" in sentence and all(name in sentence for name in EMBEDDED)


def test_unknown_target(medgen, out, tmp_path):
    image = mask_file(tmp_path)
    sentence = medgen("translate", image, "-o", out / "x.nii", "--to", "PET")
    assert "to PET" in sentence


@needs("ct-tissue")
@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_unknown_device(generate, tmp_path, device):
    assert f"'{device}'" in generate(mask_file(tmp_path), "--device", device)


@needs("ct-tissue")
def test_unknown_sampler(generate, tmp_path):
    assert "warp" in generate(mask_file(tmp_path), "--sampler", "warp")


@needs("head-mr-to-ct")
def test_license_not_accepted(medgen, out, tmp_path):
    sentence = medgen("translate", mr_file(tmp_path), "-o", out / "ct.nii", "--to", "CT")
    assert "--accept-license" in sentence and "commercial" in sentence


# Packages

METADATA = Path("configs") / "metadata.json"


@pytest.fixture
def package(tmp_path):
    """A copy of an embedded package under another name."""
    if "ct-tissue" not in EMBEDDED:
        pytest.skip("needs the embedded model ct-tissue")
    folder = tmp_path / "copy"
    shutil.copytree(embedded_dir() / "ct-tissue", folder)
    change(folder, lambda data: data.update(name="copy"))
    return folder


def change(folder, edit):
    data = json.loads((folder / METADATA).read_text())
    edit(data)
    (folder / METADATA).write_text(json.dumps(data))


def first_weights(folder):
    return sorted(folder.rglob("*.safetensors"))[0]


def wrong_checksum(folder):
    path = first_weights(folder)
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    return "checksum"


def wrong_schema(folder):
    change(folder, lambda data: data["medgen"].update(spacing_mm="fine"))
    return r"spacing_mm"


def wrong_network(folder):
    def edit(data):
        next(iter(data["medgen"]["networks"].values()))["network"] = "os.system"

    change(folder, edit)
    return "'os.system' is not one of the networks"


def pickle_beside(folder):
    (folder / "models" / "extra.pt").write_bytes(pickle.dumps({"a": 1}))
    return "pickle"


def pickle_in_disguise(folder):
    path = first_weights(folder)
    path.write_bytes(pickle.dumps({"a": 1}))
    name = path.relative_to(folder).as_posix()
    change(folder, lambda data: data["medgen"]["checksums"].update({name: sha256(path)}))
    return "pickle"


DAMAGES = [wrong_checksum, wrong_schema, wrong_network, pickle_beside, pickle_in_disguise]


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_package_is_not_added(damage, package, medgen, home):
    words = damage(package)
    assert re.search(words, medgen("models", "add", package))
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", [wrong_checksum, wrong_schema, wrong_network])
def test_package_damaged_after_it_was_added(damage, package, generate, home, tmp_path):
    assert cli.main(["-q", "models", "add", str(package)]) == 0
    words = damage(home / "models" / "copy")
    loading.forget()  # the command runs in a new process, which has loaded no network
    assert re.search(words, generate(mask_file(tmp_path), "--model", "copy"))


def test_missing_package(medgen, tmp_path):
    assert "There is no file or folder" in medgen("models", "add", tmp_path / "nothing.zip")


# Training


def test_training_configuration_that_is_missing_or_not_json(medgen, out, tmp_path):
    words = ["train", "autoencoder", "--out", out, "--data"]
    assert "nowhere.json" in medgen(*words, tmp_path / "nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    assert "not JSON" in medgen(*words, tmp_path / "broken.json")
    assert "telepathy" in medgen("train", "telepathy", "--out", out, "--data", "c.json")


# As a user sees it


def test_a_real_process_prints_one_line_and_exits_with_2(out, tmp_path):
    argv = ["generate", tmp_path / "nowhere.nii.gz", "-o", out / "ct.nii.gz", "--model", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "MedGenLib", *map(str, argv)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"medgen: .*none.*\n", done.stderr)
    assert list(out.iterdir()) == []
