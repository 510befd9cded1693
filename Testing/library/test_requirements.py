"""The one list of dependencies, and everything that is made from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

import MedGenLib
from MedGenLib import cli, requirements
from MedGenLib.devices import software_versions
from MedGenLib.requirements import Needed, installed_version

LIBRARY = Path(MedGenLib.__file__).parent


def test_the_installed_package_requires_what_the_file_lists():
    (package,) = metadata.distributions(name="medgen", path=[sysconfig.get_paths()["purelib"]])
    listed = {f"{needed.name}{needed.specifier}" for needed in requirements.requirements()}
    assert {line for line in package.requires if "extra ==" not in line} == listed
    assert {"torch>=2.6", "simpleitk>=2.3", "huggingface_hub>=0.30", "highdicom>=0.26"} <= listed


def test_names_specifiers_and_comments_are_read(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# all\n\none >= 1.0, < 2  # another package\ntwo_b.c\nthree; python_version > '3'\nfour # for reports\n"
    )
    assert requirements.requirements(path) == [
        Needed("one", ">=1.0,<2", "another package"),
        Needed("two_b.c", ""),
        Needed("three", ""),
        Needed("four", "", used_for="reports"),
    ]
    assert [requirements.use_of(name) for name in ("monai.inferers", "huggingface_hub", "torch")] == [
        "models of MONAI",
        "published models",
        "",
    ]


def test_every_dependency_is_reported_and_missing_ones_are_named(tmp_path, monkeypatch, capsys):
    versions = software_versions()
    assert {needed.name for needed in requirements.requirements()} < set(versions)
    assert versions["torch"].startswith("2.") and requirements.missing() == []
    path = tmp_path / "requirements.txt"
    path.write_text("no-such-distribution>=1\nnumpy\n")
    monkeypatch.setattr(requirements.requirements, "__defaults__", (path,))
    assert requirements.missing() == ["no-such-distribution"]
    assert software_versions()["no-such-distribution"] == "missing"
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "PROBLEM  no-such-distribution is not installed; install MedGen again" in lines
    assert f"OK       numpy {installed_version('numpy')}" in lines
    assert not any("torch 2." in line and line.startswith("OK       torch") for line in lines)


def test_a_copy_that_is_no_distribution_knows_its_dependencies(tmp_path):
    """As in Slicer: MedGenLib lies in a folder of modules."""
    for name in ("__init__.py", "errors.py", "requirements.py", "requirements.txt"):
        (tmp_path / "MedGenLib").mkdir(exist_ok=True)
        shutil.copy(LIBRARY / name, tmp_path / "MedGenLib" / name)
    code = "from MedGenLib.requirements import missing, requirements; print(len(requirements()), missing())"
    bare = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    done = subprocess.run(bare, capture_output=True, text=True, check=True)
    count, _, names = done.stdout.partition(" ")
    assert int(count) == len(requirements.requirements())
    assert names.strip() == str([needed.name for needed in requirements.requirements()])


@pytest.mark.parametrize("name", ["torch", "SimpleITK", "scikit_image"])
def test_versions_are_found_without_import(name):
    assert installed_version(name)[0].isdigit()
