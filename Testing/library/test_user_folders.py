"""Where configuration, cache and models lie, and how they are written."""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from MedGenLib import user_folders
from MedGenLib.errors import InputError
from MedGenLib.io import user_config
from MedGenLib.io.atomic import write_json


@pytest.fixture
def medgen_home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("MEDGEN_HOME", str(folder))
    return folder


def test_medgen_home_moves_everything(medgen_home):
    assert user_folders.config_dir() == medgen_home
    assert user_folders.cache_dir() == medgen_home / "cache"
    assert user_folders.models_dir() == medgen_home / "models"
    assert not medgen_home.exists(), "asking for a path creates nothing"


def test_no_test_has_the_folders_of_the_user():
    folders = user_folders.config_dir(), user_folders.cache_dir(), user_folders.models_dir()
    assert all(folder.is_relative_to(tempfile.gettempdir()) for folder in folders)


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_medgen_home_counts_as_none(monkeypatch, value):
    monkeypatch.setenv("MEDGEN_HOME", value)
    paths = [user_folders.config_dir(), user_folders.cache_dir(), user_folders.models_dir()]
    assert all(path.is_absolute() and "medgen" in str(path) for path in paths)


def test_medgen_home_may_be_relative_or_start_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDGEN_HOME", "here")
    assert user_folders.config_dir() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("MEDGEN_HOME", "~/there")
    assert user_folders.config_dir() == tmp_path / "there"


FOLDERS = {"config": user_folders.config_dir, "cache": user_folders.cache_dir, "data": user_folders.models_dir}


@pytest.mark.parametrize("xdg", [None, "/elsewhere", "relative"])
@pytest.mark.parametrize("kind", ["config", "cache", "data"])
def test_without_platformdirs_the_folders_are_the_same(monkeypatch, kind, xdg):
    """A fresh Slicer lacks it: what was accepted or added before must be found after."""
    monkeypatch.delenv("MEDGEN_HOME", raising=False)
    variable = f"XDG_{kind.upper()}_HOME"
    monkeypatch.delenv(variable, raising=False)
    if xdg is not None:
        monkeypatch.setenv(variable, xdg)
    with_it = FOLDERS[kind]()
    monkeypatch.setitem(sys.modules, "platformdirs", None)  # importing it now fails
    assert FOLDERS[kind]() == with_it


@pytest.mark.parametrize("kind", ["config", "cache", "data"])
def test_the_folders_of_macos(monkeypatch, kind):
    from platformdirs.macos import MacOS

    monkeypatch.delenv(f"XDG_{kind.upper()}_HOME", raising=False)
    expected = getattr(MacOS("medgen", appauthor=False), f"user_{kind}_dir")
    assert user_folders.standard_folder(kind, "darwin", os.environ) == Path(expected)


def test_the_folders_of_windows():
    values = {"LOCALAPPDATA": "/c/Users/me/AppData/Local"}
    found = {kind: user_folders.standard_folder(kind, "win32", values) for kind in FOLDERS}
    local = Path("/c/Users/me/AppData/Local/medgen")
    assert found == {"config": local, "cache": local / "Cache", "data": local}


def test_configuration_round_trip(medgen_home):
    assert user_config.read_config() == {}
    user_config.write_config({"name": "Łódź", "n": 1})
    user_config.write_config({"name": "Łódź", "n": 2})
    assert user_config.read_config() == {"name": "Łódź", "n": 2}
    assert [path.name for path in medgen_home.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\x00"])
def test_a_damaged_configuration_is_one_sentence(medgen_home, text):
    medgen_home.mkdir()
    user_config.config_path().write_text(text)
    with pytest.raises(InputError, match=r"config\.json is not .*delete") as caught:
        user_config.read_config()
    assert "\n" not in str(caught.value)


def test_a_configuration_that_cannot_be_written_is_one_sentence(medgen_home):
    medgen_home.write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot be written.*MEDGEN_HOME"):
        user_config.write_config({})


def test_a_failed_write_leaves_the_old_file_and_no_other(medgen_home, monkeypatch):
    user_config.write_config({"n": 1})

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(InputError, match="No space left"):
        user_config.write_config({"n": 2})
    assert user_config.read_config() == {"n": 1}
    assert len(list(medgen_home.iterdir())) == 1


def test_write_json_takes_numpy_values_and_refuses_nan(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": np.float32(1.5), "b": np.arange(3)})
    assert json.loads(path.read_text()) == {"a": 1.5, "b": [0, 1, 2]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
