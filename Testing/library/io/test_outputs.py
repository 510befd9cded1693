"""Output files of several runs, formats and of runs that end early."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io import recorded
from MedGenLib.io.atomic import Outputs
from MedGenLib.io.files import write_volume
from MedGenLib.io.provenance import Provenance, sidecar, sidecars
from MedGenLib.io.samples import sample

MASK = str(sample("hippocampus_mask.nii.gz"))
QUICK = ["--model", "mr-hippocampus", "--preset", "draft", "--seed", "1", "--retries", "0"]


# --- Two runs with one name ---------------------------------------------------------------------


def test_a_name_is_claimed_from_the_start(tmp_path):
    with Outputs([tmp_path / "o.txt"]) as first:
        for overwrite in (False, True):
            with (
                pytest.raises(InputError, match="Another run is writing .*o.txt"),
                Outputs([tmp_path / "other.txt", tmp_path / "o.txt"], overwrite),
            ):
                pass
        first.staged(tmp_path / "o.txt").write_text("first")
        first.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["o.txt"]


def test_the_claim_of_a_run_that_was_killed_does_not_count(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    import socket

    (tmp_path / ".o.txt.claim").write_text(f"{ended.pid} {socket.gethostname()}")
    with Outputs([tmp_path / "o.txt"]) as outputs:
        outputs.staged(tmp_path / "o.txt").write_text("x")
        outputs.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["o.txt"]


def test_a_file_that_appears_meanwhile_is_kept_and_nothing_else_written(tmp_path):
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    with pytest.raises(InputError, match="b.txt was written by another program"), Outputs(paths) as outputs:
        for path in paths:
            outputs.staged(path).write_text("ours")
        paths[1].write_text("theirs")
        outputs.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"] and paths[1].read_text() == "theirs"


def test_files_that_were_replaced_come_back_when_one_cannot_be_moved(tmp_path):
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    for path in paths:
        path.write_text("before")
    with pytest.raises(FileNotFoundError), Outputs(paths, overwrite=True) as outputs:
        outputs.staged(paths[0]).write_text("ours")  # and none for the other
        outputs.commit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]
    assert [path.read_text() for path in paths] == ["before", "before"]


# --- Records beside images of one name -----------------------------------------------------------


def test_two_formats_of_one_name_have_their_own_records(tmp_path, capsys):
    for seed, suffix in ((1, ".nii.gz"), (2, ".nrrd"), (3, ".mha")):
        assert main(["generate", MASK, "-o", str(tmp_path / f"t1{suffix}"), *QUICK[:-3], str(seed), *QUICK[-2:]]) == 0
    capsys.readouterr()
    for seed, suffix in ((1, ".nii.gz"), (2, ".nrrd"), (3, ".mha")):
        assert main(["info", str(tmp_path / f"t1{suffix}")]) == 0
        assert f"seed      {seed}" in capsys.readouterr().out
        assert recorded.read_beside(tmp_path / f"t1{suffix}").seed == seed
    assert len(list(tmp_path.iterdir())) == 6


def test_records_without_a_suffix_belong_to_the_image_that_is_there(tmp_path):
    """As written before the suffix was recorded."""
    image = Volume(np.ones((2, 2, 2), np.int16), np.eye(4))
    path = write_volume(image, tmp_path / "a.nrrd")
    (tmp_path / "a.medgen.json").write_text(json.dumps(Provenance(seed=5).to_dict()))
    assert recorded.read_beside(path).seed == 5
    assert sidecar(tmp_path / "a.mha").name == "a.mha.medgen.json"


def test_a_renamed_pair_keeps_its_record(tmp_path):
    path = write_volume(Volume(np.ones((2, 2, 2), np.int16), np.eye(4)), tmp_path / "a.nrrd")
    Provenance(seed=5).write_beside(path)
    path.rename(tmp_path / "b.nrrd")
    (tmp_path / "a.medgen.json").rename(tmp_path / "b.medgen.json")
    assert recorded.read_beside(tmp_path / "b.nrrd").seed == 5


def test_outputs_of_one_run_have_their_own_records(tmp_path):
    names = [path.name for path in sidecars([tmp_path / "a.nrrd", tmp_path / "a.nii.gz", tmp_path / "b.nii"])]
    assert names == ["a.nrrd.medgen.json", "a.nii.gz.medgen.json", "b.medgen.json"]


# --- Streams, signals, homes -----------------------------------------------------------------------


def shell(command, **environment):
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m MedGenLib {command}"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    "streams",
    [
        ">&- 2>&-",
        ">/dev/full",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("2>&-", ">&-", "0<&- >&- 2>&-", "2>/dev/full")),
    ],
)
def test_streams_that_cannot_be_written_do_not_matter_to_outputs(tmp_path, streams):
    done = shell(f"generate {MASK} {' '.join(QUICK)} -o {tmp_path}/o.nii.gz {streams}")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.medgen.json", "o.nii.gz"]


def test_a_command_whose_result_is_lost_does_not_report_success():
    done = shell("models list >/dev/full")
    assert done.returncode == 2 and "full" in done.stderr and done.stderr.count("\n") == 1


def test_a_pipe_that_is_closed_early_is_no_traceback():
    done = shell("models list | true; exit ${PIPESTATUS[0]}")
    assert done.returncode in (0, 1) and done.stderr == ""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
@pytest.mark.parametrize("number", [1, 15])
def test_nothing_is_left_behind_by_a_signal(tmp_path, number):
    words = [sys.executable, "-m", "MedGenLib", "generate", MASK, "-o", str(tmp_path / "o.nii.gz"), *QUICK[:3], "best"]
    run = subprocess.Popen(words, stderr=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(1, signal.SIG_DFL))
    while not list(tmp_path.iterdir()) and run.poll() is None:
        time.sleep(0.02)
    run.send_signal(number)
    assert run.wait(60) == 128 + number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "home", [pytest.param("", marks=pytest.mark.slow), pytest.param("/dev/null", marks=pytest.mark.slow), "/proc"]
)
def test_models_work_without_a_home(tmp_path, home):
    environment = {"HOME": home, "MEDGEN_HOME": "", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "XDG_DATA_HOME": ""}
    done = shell(f"generate {MASK} {' '.join(QUICK)} -o {tmp_path}/o.nii.gz", **environment)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="the program unshare is not installed")
def test_a_user_whom_the_system_does_not_know(tmp_path):
    tmp_path.chmod(0o777)
    inside = "unshare --user --map-user=54321 true"
    if subprocess.run(inside.split(), capture_output=True, check=False).returncode:
        pytest.skip("this system lets no program have another user")
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "USER", "LOGNAME", "MEDGEN_HOME")}
    words = [*inside.split()[:-1], sys.executable, "-m", "MedGenLib"]
    words += ["generate", MASK, *QUICK, "-o", str(tmp_path / "o.nii.gz")]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
