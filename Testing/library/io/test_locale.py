"""Reading and writing in a program with a decimal comma, which Qt sets where the user's language has one."""

import os
import subprocess
import sys

import pytest
from locales import make_locale

from MedGenLib.errors import InputError
from MedGenLib.io.files import read_entries, read_label_map, read_volume

PROGRAM = """
import locale, sys
from pathlib import Path
import numpy as np
import SimpleITK
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
assert locale.localeconv()["decimal_point"] == ","
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.dicom import write_series
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.provenance import Provenance

folder = Path(sys.argv[1])
affine = np.diag([1.5, 0.75, 2.25, 1.0])
affine[:3, 3] = 10.25, -20.5, 3.75
image = Volume(np.arange(120, dtype=np.float32).reshape(4, 5, 6) / 4, affine, "CT", "HU")
mask = LabelMap(np.ones((4, 5, 6), np.uint8), affine, {1: "bone"})
for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
    for original, read in ((image, read_volume), (mask, read_label_map)):
        path = write_volume(original, folder / f"o{suffix}", Provenance(model="m"))
        copy = read(path)
        assert np.allclose(copy.affine, affine, atol=1e-6), (suffix, copy.affine)
        assert np.array_equal(copy.array, original.array), suffix
        if suffix != ".nii":  # other programs read the same
            locale.setlocale(locale.LC_NUMERIC, "C")
            assert np.allclose(SimpleITK.ReadImage(str(path)).GetSpacing(), (1.5, 0.75, 2.25))
            locale.setlocale(locale.LC_NUMERIC, "de_DE.UTF-8")
write_series(image, folder / "dicom")
copy = read_volume(folder / "dicom")
assert np.allclose(copy.spacing, (1.5, 0.75, 2.25)), copy.spacing
assert locale.localeconv()["decimal_point"] == ","  # the program's own choice is left alone
print("done")
"""


COMMAND = """
import json, locale, sys
from pathlib import Path
import numpy as np
from MedGenLib.cli import main
from MedGenLib.io.files import read_volume
from MedGenLib.io.samples import sample

folder = Path(sys.argv[1])
mask = str(sample("hippocampus_mask.nii.gz"))

def made(name):
    out = [folder / f"{name}{suffix}" for suffix in (".nrrd", ".json", ".png")]
    options = ["--model", "mr-hippocampus", "--preset", "draft", "--seed", "1", "--device", "cpu"]
    written = ["-o", str(out[0]), "--report", str(out[1]), "--preview", str(out[2]), "--dicom", str(folder / name)]
    assert main(["generate", mask, *options, *written]) in (0, 3)
    assert main(["info", str(out[0])]) == 0
    assert out[2].stat().st_size > 10_000
    return read_volume(out[0]), read_volume(folder / name), json.loads(out[1].read_text())

plain, _, _ = made("plain")
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
german, series, report = made("german")
assert np.array_equal(german.array, plain.array) and np.allclose(german.affine, plain.affine)
assert np.allclose(sorted(series.spacing), sorted(plain.spacing)) and report["seed"] == 1
assert locale.localeconv()["decimal_point"] == ","
print("done")
"""


@pytest.fixture(scope="module")
def german(tmp_path_factory):
    """The environment of a program in German."""
    try:
        return make_locale(tmp_path_factory.mktemp("locales"))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a locale with a decimal comma cannot be made here: {error}")


@pytest.mark.parametrize("program", [PROGRAM, pytest.param(COMMAND, marks=pytest.mark.slow)], ids=["files", "command"])
def test_results_are_the_same_in_a_locale_with_a_decimal_comma(german, tmp_path, program):
    environment = {**os.environ, **german, "MEDGEN_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.endswith("done\n"), done.stderr


def test_an_nrrd_file_with_decimal_commas_is_named_as_such(tmp_path):
    """Slicer's own writer makes them in a process with a decimal comma."""
    path = tmp_path / "ct.nrrd"
    header = ["NRRD0004", "type: short", "dimension: 3", "space: left-posterior-superior", "sizes: 2 2 2"]
    header += ["space directions: (0,69999999999999996,0,0) (0,0,75,0) (0,0,1,25)", "endian: little", "encoding: raw"]
    path.write_bytes("\n".join([*header, "space origin: (-12,5,-3,25,7)"]).encode() + b"\n\n" + bytes(16))
    for read in (read_volume, read_label_map, read_entries):
        with pytest.raises(InputError, match="ct.nrrd has numbers with decimal commas, .* save it as .nii.gz"):
            read(path)
