"""The command `medgen`: arguments, exit codes, atomic outputs, Ctrl-C."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_packages import write_generator

import MedGenLib
from MedGenLib import cli, user_folders
from MedGenLib.cli import demo, doctor, run
from MedGenLib.cli.commands import build_parser, command
from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table
from MedGenLib.errors import Cancelled, InputError, LicenseError, PackageError
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.atomic import Outputs
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.output_names import numbered
from MedGenLib.io.samples import sample
from MedGenLib.labels.mapping import parse_mapping
from MedGenLib.packages.catalogue import catalogue
from MedGenLib.pipelines import estimate
from MedGenLib.progress import Progress, Stage
from MedGenLib.report import Report
from MedGenLib.requirements import requirements
from MedGenLib.result import Result

REPOSITORY = Path(__file__).resolve().parents[3]
EMBEDDED = {manifest.name for manifest in catalogue()}
SHAPE = (6, 5, 4)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def mask(tmp_path):
    array = np.zeros(SHAPE, np.uint8)
    array[1:-1, 1:-1, 1:-1] = 2
    folder = tmp_path / "in"
    folder.mkdir()
    return write_volume(LabelMap(array, np.diag([2.0, 2.0, 3.0, 1.0])), folder / "mask.nii.gz")


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def engine(monkeypatch):
    """generate and translate replaced by quick functions that record their arguments."""
    calls = []

    def work(mask=None, *, image=None, samples=1, progress=None, **options):
        source = mask if image is None else image
        calls.append({"samples": samples, **options})
        stage = Stage("sampling", 3, progress)
        for _ in range(3):
            stage.advance()
        return result_like(source, samples, seed=options["seed"])

    stub = SimpleNamespace(name="stub", task="translate", settings=None, input=SimpleNamespace(kind="labels"))
    monkeypatch.setattr("MedGenLib.packages.catalogue.find", lambda name: stub)
    monkeypatch.setattr("MedGenLib.packages.catalogue.for_translation", lambda source, target: stub)
    monkeypatch.setattr(run, "is_accepted", lambda manifest: True)
    monkeypatch.setattr(run.FileRun, "keep_time", lambda *_: None)
    monkeypatch.setitem(vars(MedGenLib), "generate", work)
    monkeypatch.setitem(vars(MedGenLib), "translate", work)
    return calls


def result_like(source, samples=1, seed=None):
    volumes = [Volume(np.full(source.shape, 10.0 * n, np.float32), source.affine, "CT", "HU") for n in range(samples)]
    report = Report("stub", "1.0.0", "generate", seed=seed, timings={"sampling": 0.1})
    report.peak_memory_mib = 321.0
    return Result(volumes, report, source)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Arguments


def test_help_is_instant_and_imports_nothing_heavy():
    code = (
        "import sys, time; start = time.process_time()\n"
        "from MedGenLib.cli import main\n"
        "code = main(['--help']); seconds = time.process_time() - start\n"
        "heavy = {'torch', 'monai', 'numpy', 'SimpleITK', 'matplotlib'} & set(sys.modules)\n"
        "print('code', code, 'heavy', sorted(heavy), 'quick', seconds < 0.3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "code 0 heavy [] quick True"
    for name in ("generate", "translate", "models", "train", "demo", "doctor"):
        assert f"    {name} " in done.stdout


def test_importing_the_library_is_quick_and_light():
    code = (
        "import sys, time; start = time.process_time()\n"
        "import MedGenLib\n"
        "print(time.process_time() - start < 0.3, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False", "False"], done.stderr


def test_public_names_stay_functions_when_the_module_of_that_name_is_imported():
    code = (
        "import MedGenLib.generate, MedGenLib.translate, MedGenLib\n"
        "print(callable(MedGenLib.generate), callable(MedGenLib.translate))\n"
        "print(all(hasattr(MedGenLib, name) for name in MedGenLib.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 3, done.stderr


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'edit_everything'"):
        _ = MedGenLib.edit_everything


def test_version_is_the_same_everywhere(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"medgen {MedGenLib.__version__}\n"
    assert f"version: {MedGenLib.__version__}" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"## {MedGenLib.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_no_command_prints_the_help(capsys):
    assert cli.main([]) == 0
    assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["generate", "m.nii"], "the following arguments are required: -o/--output"),
        (["generate", "m.nii", "-o", "o.nii", "--seed", "-1"], "invalid natural number"),
        (["generate", "m.nii", "-o", "o.nii", "--samples", "0"], "invalid positive number"),
        (["generate", "m.nii", "-o", "o.nii", "--preset", "x"], "'draft', 'normal', 'best'"),
        (["translate", "m.nii", "--to", "CT"], "required: -o/--output"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["--quiet", "--verbose", "doctor"], "not allowed with"),
        (["generate", "m.nii", "-o", "o.nii", "--guidence", "2"], "the option --guidence is unknown, use --guidance"),
        (["translate", "m.nii", "-o", "o.nii", "--to=CT", "--acept-license"], "unknown, use --accept-license"),
        (["models", "install", "x", "--form=y"], "--form is unknown, use --from"),
        (["enhance", "x", "-o", "o.nii", "--oux", "y"], "the option --oux is unknown; see"),  # not --quiet
        (["doctor", "--brush"], "the option --brush is unknown; see `medgen doctor --help`"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(argv, sentence, capsys):
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("medgen: ") and error.count("\n") == 1


def test_a_command_is_one_file_and_one_name_has_one_owner(capsys):
    parser = build_parser()
    assert parser.parse_args(["evaluate", "distribution", "a", "--reference", "b"]).image == Path("a")
    assert parser.parse_args(["evaluate", "./distribution"]).image == Path("distribution")
    with pytest.raises(InputError, match="The command 'generate' of .* cannot be registered because MedGenLib.cli.gen"):
        command("generate", "make something else")(lambda arguments, console: 0)
    command("count", "count voxels")(lambda arguments, console: console.say("none") or 0)
    assert cli.main(["count"]) == 0 and capsys.readouterr().out == "none\n"


def without_help(parser: argparse.ArgumentParser, name: str = "medgen") -> list[str]:
    """Arguments of a parser and of its commands that the help does not explain."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [line for word, part in action.choices.items() for line in without_help(part, f"{name} {word}")]
        elif not action.help:
            found.append(f"{name}: {action.dest}")
    return found


def test_every_argument_of_every_command_has_help():
    assert without_help(build_parser()) == []


def test_map_takes_numbers_and_names():
    argv = ["generate", "m", "-o", "o", "--map", "5=2", "--map", "left lung=lung", "--map", "7=fat"]
    words = build_parser().parse_args(argv).mapping
    assert parse_mapping(words) == {"5": "2", "left lung": "lung", "7": "fat"}


def test_memory_is_passed_on(mask, out, engine):
    base = [str(mask), "-o", str(out / "x.nii.gz"), "--memory", "small", "--overwrite"]
    assert cli.main(["generate", *base]) == 0
    assert cli.main(["translate", *base, "--to", "CT"]) == 0
    assert [options["memory"] for options in engine] == ["small", "small"]


def test_quiet_works_before_and_after_the_command():
    parser = build_parser()
    assert parser.parse_args(["-q", "doctor"]).quiet and parser.parse_args(["doctor", "-q"]).quiet
    assert not parser.parse_args(["doctor"]).quiet


# Runs


def test_generate_writes_volume_preview_and_report(mask, out, engine, capsys):
    argv = ["generate", mask, "-o", out / "ct.nii.gz", "--seed", 7, "--preview", out / "ct.png"]
    argv += ["--report", out / "ct.json", "--map", "2=3", "--sampler", "ddim", "--steps", 9]
    assert cli.main([str(word) for word in argv]) == 0
    assert names(out) == ["ct.json", "ct.medgen.json", "ct.nii.gz", "ct.png"]
    assert (out / "ct.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "ct.json").read_text())["seed"] == 7
    assert read_volume(out / "ct.nii.gz").shape == SHAPE
    options = engine[0]
    assert options["memory"] == "auto" and options["retries"] == 2
    assert options["model"] == "ct-tissue" and options["mapping"] == {"2": "3"}
    assert (options["seed"], options["sampler"], options["steps"]) == (7, "ddim", 9)
    captured = capsys.readouterr()
    assert f"Wrote {out / 'ct.nii.gz'}" in captured.out and "sampling: 3 steps" in captured.err


def test_samples_are_numbered_before_the_suffix(mask, out, engine):
    argv = ["generate", mask, "-o", out / "ct.nii.gz", "--samples", 2, "--preview", out / "p.png"]
    assert cli.main([str(word) for word in argv]) == 0
    written = ["ct_1.medgen.json", "ct_1.nii.gz", "ct_2.medgen.json", "ct_2.nii.gz"]
    assert names(out) == [*written, "p_1.png", "p_2.png"]
    assert read_volume(out / "ct_2.nii.gz").array.max() == 10
    assert numbered(Path("a.b.nrrd"), 2) == [Path("a.b_1.nrrd"), Path("a.b_2.nrrd")]


def test_translate_reads_an_image_and_passes_the_target(mask, out, engine):
    argv = ["translate", mask, "-o", out / "ct.nrrd", "--to", "CT", "--device", "cpu"]
    assert cli.main([str(word) for word in argv]) == 0
    assert names(out) == ["ct.medgen.json", "ct.nrrd"]
    assert engine[0]["to"] == "CT" and engine[0]["device"] == "cpu"


def test_the_first_acceptance_of_a_license_is_noted_once(mask, out, engine, monkeypatch, capsys):
    accepted = iter([False, True])
    monkeypatch.setattr(run, "is_accepted", lambda manifest: next(accepted))
    monkeypatch.setattr(run, "license_notice", lambda manifest: "For research only.")
    argv = ["translate", str(mask), "--to", "CT", "--accept-license", "--overwrite"]
    assert cli.main([*argv, "-o", str(out / "ct.nii")]) == 0
    assert "medgen: For research only. You have accepted it" in capsys.readouterr().err
    assert cli.main([*argv, "-o", str(out / "ct.nii")]) == 0
    assert "research" not in capsys.readouterr().err


def test_quiet_prints_nothing(mask, out, engine, capsys):
    assert cli.main(["-q", "generate", str(mask), "-o", str(out / "ct.mha")]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == "" and names(out) == ["ct.medgen.json", "ct.mha"]


def test_verbose_tells_time_and_memory(mask, out, engine, capsys):
    argv = ["generate", str(mask), "-o", str(out / "ct.mha")]
    assert cli.main([*argv, "--verbose"]) == 0
    error = capsys.readouterr().err
    assert "peak memory 321 MiB" in error and "medgen: sampling: 0.1 s" in error
    assert cli.main([*argv, "--overwrite"]) == 0
    assert "peak memory" not in capsys.readouterr().err


def test_an_existing_file_is_replaced_only_when_asked(mask, out, engine, capsys):
    target = out / "ct.nii"
    target.write_text("precious")
    argv = ["generate", str(mask), "-o", str(target)]
    assert cli.main(argv) == 2
    assert "exists already; choose another name or add --overwrite" in capsys.readouterr().err
    assert target.read_text() == "precious" and not engine
    assert cli.main([*argv, "--overwrite"]) == 0
    assert read_volume(target).shape == SHAPE


def test_the_input_is_never_replaced(mask, engine, capsys):
    assert cli.main(["generate", str(mask), "-o", str(mask), "--overwrite"]) == 2
    assert "is also the input" in capsys.readouterr().err and not engine


def test_one_name_for_two_outputs_is_refused(mask, out, engine, capsys):
    with pytest.raises(InputError, match="is named twice"):
        Outputs([out / "a.png", out / "../out/a.png"])
    assert names(out) == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PackageError("The weights are wrong."), 2, "medgen: The weights are wrong."),
        (LicenseError("Accept\nit."), 2, "medgen: Accept it."),
        (MemoryError(), 2, "medgen: The memory is full"),
        (OSError(28, "No space left on device"), 2, "medgen: The disk became full"),
        (KeyboardInterrupt(), 130, "medgen: Stopped; nothing was written."),
        (Cancelled("x"), 130, "medgen: Stopped; nothing was written."),
        (ZeroDivisionError("oops"), 1, "(ZeroDivisionError: oops); the details"),
        (ModuleNotFoundError("no", name="torch"), 1, "The Python package 'torch' is missing"),
    ],
)
def test_every_error_is_one_line_an_exit_code_and_no_file(error, code, words, mask, out, engine, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("MedGenLib.report.Report.write", fail)  # the volume is staged by then
    argv = ["generate", mask, "-o", out / "ct.nii.gz", "--report", out / "r.json", "--device=cpu"]
    assert cli.main([str(word) for word in argv]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medgen")]
    assert len(lines) == 1 and words in lines[0]
    assert names(out) == []


def test_a_fault_leaves_its_traceback_in_a_file(mask, out, engine, monkeypatch, capsys, home):
    monkeypatch.setattr("MedGenLib.packages.catalogue.find", lambda name: 1 / 0)
    assert cli.main(["generate", str(mask), "-o", str(out / "ct.nii.gz")]) == 1
    error = capsys.readouterr().err
    log = Path(error.split("'")[-2])
    assert log.is_relative_to(home) and "Traceback" not in error
    assert "Traceback" in log.read_text() and "ZeroDivisionError" in log.read_text()


def test_too_little_disk_space_is_noticed_before_the_run(mask, out, engine, monkeypatch, capsys):
    usage = SimpleNamespace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert cli.main(["generate", str(mask), "-o", str(out / "ct.nii.gz")]) == 2
    assert "0 MiB free and the output may need" in capsys.readouterr().err
    assert not engine and names(out) == []


def test_findings_are_printed(mask, out, engine, monkeypatch, capsys):
    monkeypatch.setattr(Report, "sentences", property(lambda self: ["The bone is soft."]))
    monkeypatch.setattr(Report, "passed", property(lambda self: False))
    assert cli.main(["generate", str(mask), "-o", str(out / "ct.nii.gz")]) == 3
    error = capsys.readouterr().err
    assert "medgen: warning: The bone is soft." in error and "the checks failed" in error


# Ctrl-C

SLOW_RUN = """
import sys, time
from types import SimpleNamespace
import MedGenLib
from MedGenLib import cli, user_folders
from MedGenLib.visual import preview as pictures
from MedGenLib.cli import run
from MedGenLib.packages import catalogue
from MedGenLib.progress import Stage
from MedGenLib.report import Report
from MedGenLib.result import Result
from MedGenLib.imaging.volume import Volume

slow_stage, *argv = sys.argv[1:]

def work(mask, *, progress, samples, **options):
    steps = 1000 if slow_stage == "sampling" else 1
    stage = Stage("sampling", steps, progress)
    for _ in range(steps):
        time.sleep(0.02)
        stage.advance()
    volume = Volume(mask.array, mask.affine)
    return Result([volume] * samples, Report("stub", "1.0.0", "generate"), mask)

def slow_preview(*_, **__):
    print("drawing", file=sys.stderr, flush=True)
    time.sleep(20)

pictures.preview = slow_preview
catalogue.find = lambda name: SimpleNamespace(name="stub", input=SimpleNamespace(kind="labels"))
run.is_accepted = lambda manifest: True
run.FileRun.keep_time = lambda *_: None
vars(MedGenLib)["generate"] = work
sys.exit(cli.main(argv))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize(
    ("number", "stage", "code"),
    [(signal.SIGINT, "sampling", 130), (signal.SIGINT, "drawing", 130), (signal.SIGTERM, "drawing", 143)],
)
def test_a_signal_leaves_nothing_behind(number, stage, code, mask, out):
    argv = ["generate", mask, "-o", out / "ct.nii.gz", "--samples", "2", "--preview", out / "p.png"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, stage, *map(str, argv)], stderr=subprocess.PIPE, text=True
    )
    assert_stops(process, stage, number, code)
    assert names(out) == []


@pytest.mark.skipif("ct-tissue" not in EMBEDDED, reason="needs the embedded model ct-tissue")
@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_stops_the_real_model(out, tmp_path):
    argv = ["generate", demo.sample(demo.MASK_SAMPLE), "-o", out / "ct.nii.gz", "--preset", "best"]
    argv += ["--report", out / "r.json", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "MedGenLib", *map(str, argv)], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert_stops(process, ": ", signal.SIGINT, 130)
    assert names(out) == []


def assert_stops(process, awaited, number, code):
    """Send the signal after a line with the expected text; the process must end quickly."""
    lines = []
    while not lines or awaited not in lines[-1]:
        lines.append(process.stderr.readline())
        assert lines[-1], f"ended before '{awaited}': {lines}"
    process.send_signal(number)
    sent = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert time.monotonic() - sent < 10
    if code == 130:
        assert error.splitlines()[-1] == "medgen: Stopped; nothing was written."


# Smaller commands


def test_doctor_tells_ok_and_exit_code_0(monkeypatch, capsys, home):
    monkeypatch.setattr(doctor, "_packages", lambda: iter([doctor.Diagnosis(True, "models")]))
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("OK  ") for line in lines[:-1]) and lines[-1] == "No problems found."
    text = "\n".join(lines)
    for word in ("torch 2.", "device cpu", "GiB free", f"configuration: {home} is writable"):
        assert word in text
    assert not home.exists()  # the examination leaves nothing behind


def test_doctor_tells_problems_and_exit_code_1(monkeypatch, capsys):
    def broken_torch():
        raise RuntimeError("no driver")

    monkeypatch.setattr(doctor, "_devices", broken_torch)
    monkeypatch.setattr(doctor, "_packages", lambda: iter([doctor.Diagnosis(False, "damaged")]))
    monkeypatch.setattr("MedGenLib.devices.free_memory", lambda: 2**29)
    monkeypatch.setenv("MEDGEN_HOME", "/proc/medgen")
    broken_torch.__name__ = "_devices"
    assert cli.main(["doctor"]) == 1
    problems = [w for w in capsys.readouterr().out.splitlines() if w.startswith("PROBLEM")]
    assert "PROBLEM  devices: RuntimeError: no driver" in problems
    assert any("0.5 GiB free, large volumes need" in problem for problem in problems)
    assert "PROBLEM  damaged" in problems
    if Path("/proc").is_dir():
        assert any("configuration: /proc/medgen cannot be written" in p for p in problems)


def test_models_without_an_action_lists_them(capsys):
    assert cli.main(["models"]) == cli.main(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in EMBEDDED)


def test_model_info_add_verify_remove(tmp_path, capsys):
    write_generator(tmp_path / "made")
    assert cli.main(["models", "add", str(tmp_path / "made" / "tiny-ct")]) == 0
    assert "Added the model 'tiny-ct' 1.2.0" in capsys.readouterr().out
    assert cli.main(["models", "info", "tiny-ct"]) == 0
    info = capsys.readouterr().out
    for words in ("1 fat, 2 soft tissue", "draft (4 steps)", "1.5 s, 900 MiB", "# Card"):
        assert words in info
    assert cli.main(["models", "verify", "tiny-ct"]) == 0
    assert capsys.readouterr().out.startswith("OK       tiny-ct 1.2.0")
    weights = tmp_path / "home" / "models" / "tiny-ct" / "models" / "flow.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    assert cli.main(["models", "verify"]) == 1
    assert "checksum" in capsys.readouterr().out
    assert cli.main(["models", "remove", "tiny-ct"]) == 0
    assert cli.main(["models", "info", "tiny-ct"]) == 2
    assert "There is no model named 'tiny-ct'" in capsys.readouterr().err


@pytest.mark.skipif(not EMBEDDED, reason="needs the embedded models")
def test_embedded_models_are_sound_and_stay(capsys):
    assert cli.main(["models", "verify"]) == 0
    assert cli.main(["models", "remove", sorted(EMBEDDED)[0]]) == 2
    assert "cannot be removed" in capsys.readouterr().err


def test_train_passes_its_options_on(tmp_path, monkeypatch, capsys):
    seen = {}

    def train(recipe, config, out, **options):
        seen.update(recipe=recipe, config=config, out=out, **options)
        return out / "package"

    monkeypatch.setattr("MedGenLib.training.train", train)
    argv = ["train", "latent-flow", "--data", "c.json", "--out", str(tmp_path), "--steps", "5"]
    assert cli.main(argv) == 0
    assert seen["recipe"] == "latent-flow" and seen["steps"] == 5 and seen["device"] == "auto"
    assert seen["config"] == Path("c.json")
    assert capsys.readouterr().out == f"Exported {tmp_path / 'package'}.\n"


@pytest.mark.parametrize("accept", [True, False])
def test_demo_writes_all_results_and_a_table(accept, mask, tmp_path, monkeypatch, capsys):
    def work(source, *_, progress, **__):
        Stage("sampling", 1, progress).advance()
        return result_like(source, seed=1)

    translator = SimpleNamespace(
        name="stub",
        license=SimpleNamespace(acceptance_required=True, spdx="CC-BY-NC", commercial_use=False),
        license_text="",
    )
    monkeypatch.setattr(demo, "sample", lambda name: mask)
    monkeypatch.setattr(demo, "find", lambda name: translator)
    monkeypatch.setitem(vars(MedGenLib), "generate", work)
    monkeypatch.setitem(vars(MedGenLib), "translate", work)
    folder = tmp_path / "new" / "demo"
    argv = ["demo", "-o", str(folder), *(["--accept-license"] if accept else [])]
    assert cli.main(argv) == 0
    captured = capsys.readouterr()
    suffixes = (".json", ".medgen.json", ".nii.gz", ".png")
    written = [f"ct_from_mask{suffix}" for suffix in suffixes]
    limb = [f"thigh_ct_from_mr{suffix}" for suffix in suffixes]
    if accept:
        written += [f"ct_from_mr{suffix}" for suffix in suffixes]
        assert "--accept-license was given" in captured.err
    else:
        assert "The translation of the head is skipped" in captured.err
    written += limb
    assert names(folder) == written
    listed = [name for name in written if not name.endswith(".medgen.json")]
    assert all(str(folder / name) in captured.out for name in listed)
    assert "stub: sampling" in captured.out and "CC-BY-NC" in captured.err


# Console and packaging


def test_table_lines_up():
    text = table(("a", "long head"), [("wide cell", "1")])
    assert text.splitlines() == ["a          long head", "---------  ---------", "wide cell  1"]


def test_console_prints_a_line_where_there_is_no_terminal(capsys):
    console = Console()
    for _ in range(2):
        stage = Stage("decoding", 2, console)
        stage.advance()
        stage.advance()
    assert capsys.readouterr().err.count("decoding: 2 steps in") == 2


def test_a_repeated_first_step_keeps_the_bar(monkeypatch):
    """Another program works without progress: the bar is kept."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console = Console()
    console(Progress("segmenting", 0, 1))
    bar = console._bar
    console(Progress("segmenting", 0, 1))
    assert bar is not None and console._bar is bar
    console(Progress("segmenting", 1, 1))
    console(Progress("segmenting", 0, 1))
    assert console._bar is not bar
    console.close()


def test_console_draws_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Console() as console:
        stage = Stage("sampling", 2, console)
        stage.advance()
        stage.advance()
    assert "100%" in capsys.readouterr().err


def test_every_package_folder_is_installed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    folders = {
        ".".join(path.parent.relative_to(REPOSITORY).parts) for path in (REPOSITORY / "MedGenLib").rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == folders | {"MedGenLib.Resources"}


def test_constraints_list_every_dependency():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [needed.name for needed in requirements()] + project["optional-dependencies"]["dev"]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert {re.split("[>=]=", word)[0].lower() for word in wanted} <= pinned
    assert "torch==2.13.0" in lines and not any("://" in line for line in lines)


def test_installed_command_is_this_one():
    command = Path(sys.executable).with_name("medgen")
    if not command.exists():
        pytest.skip("MedGen is not installed in this environment")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == f"medgen {MedGenLib.__version__}"


def test_a_long_run_states_its_time_before_the_work(mask, out, capsys, monkeypatch):
    arguments = ["generate", str(mask), "--map", "model", "--preset", "draft", "--steps", "1", "--seed", "1"]
    assert cli.main([*arguments, "-o", str(out / "a.nii")]) in (0, 3)
    assert "Estimate" not in capsys.readouterr().err
    monkeypatch.setattr(estimate, "LONG_SECONDS", 0.0)
    assert cli.main([*arguments, "-o", str(out / "b.nii")]) in (0, 3)
    shown = capsys.readouterr().err
    assert re.search(r"^medgen: Estimate of this run: about \d+ s on CPU", shown, re.MULTILINE)
    assert shown.index("Estimate") < shown.index("sampling")


def test_a_model_without_times_in_its_card_has_an_estimate_after_a_run(tmp_path, out, capsys, monkeypatch):
    labels = read_label_map(sample("brain_labels.seg.nrrd"))
    write_volume(crop(labels, (50, 60, 70), (90, 100, 100)), tmp_path / "brain.seg.nrrd")
    arguments = [
        "generate",
        str(tmp_path / "brain.seg.nrrd"),
        "--model",
        "mr-brain",
        "--preset",
        "draft",
        "--seed",
        "1",
    ]
    monkeypatch.setattr(estimate, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(user_folders, "cache_dir", lambda: tmp_path / "cache")
    for name, is_known in (("a.nii", False), ("b.nii", True)):
        assert cli.main([*arguments, "-o", str(out / name)]) in (0, 3)
        assert ("Estimate of this run: about" in capsys.readouterr().err) == is_known
