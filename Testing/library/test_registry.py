"""Registries: names without imports, modules on demand, names that are taken."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from MedGenLib.diffusion import DENOISERS, SAMPLERS, sampler
from MedGenLib.errors import InputError
from MedGenLib.registry import Registry
from MedGenLib.training.data import READERS
from MedGenLib.training.recipes import RECIPES

REGISTRIES = {registry.kind: registry for registry in (SAMPLERS, DENOISERS, RECIPES, READERS)}
MODULE = 'from {package} import thing\n\n\n@thing("{name}")\nclass Thing:\n    pass\n'


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A package of this name with a registry and two modules."""
    folder = tmp_path / "made_up"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from MedGenLib.registry import Registry\n"
        'THINGS = Registry("thing", "thing", __name__)\n'
        "thing = THINGS.register\n"
    )
    for name in ("first", "second"):
        (folder / f"{name}_module.py").write_text(MODULE.format(package="made_up", name=name))
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("made_up")
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up"]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", REGISTRIES)
def test_modules_register_the_names_that_their_text_declares(kind):
    registry = REGISTRIES[kind]
    assert len(registry) >= 2
    for name in registry:
        assert registry[name] is not None


def test_names_are_listed_without_imports_and_modules_are_imported_when_they_are_used(made):
    assert list(made.THINGS) == ["first", "second"] and "first" in made.THINGS
    assert not {"made_up.first_module", "made_up.second_module"} & set(sys.modules)
    assert made.THINGS["first"].__module__ == "made_up.first_module"
    assert "made_up.second_module" not in sys.modules


def test_names_of_our_registries_are_listed_without_torch():
    code = (
        "import sys\nfrom MedGenLib.diffusion import DENOISERS, SAMPLERS\n"
        "from MedGenLib.training.data import READERS\nfrom MedGenLib.training.recipes import RECIPES\n"
        "print([len(r) > 1 for r in (SAMPLERS, DENOISERS, RECIPES, READERS)], 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[True, True, True, True] False\n"


def test_an_unknown_name_is_answered_by_the_known_ones(made):
    with pytest.raises(InputError, match=r"^There is no thing 'third'; choose first, second\.$"):
        made.THINGS["third"]


@pytest.mark.parametrize("imported", [True, False])
def test_a_name_of_another_module_is_refused_before_and_after_its_import(made, imported):
    if imported:
        assert made.THINGS["first"]
    with pytest.raises(InputError, match=r"'first' of elsewhere .* because made_up.first_module uses this name"):
        made.THINGS.add("first", object(), "elsewhere")
    assert made.THINGS["first"].__module__ == "made_up.first_module"


def test_a_module_that_is_loaded_again_replaces_its_own_entry(made):
    first, second = (types.new_class("Thing", exec_body=lambda space: space.update(__module__="a")) for _ in range(2))
    made.thing("new")(first)
    made.thing("new")(second)
    assert made.THINGS["new"] is second and list(made.THINGS) == ["first", "second", "new"]


def test_a_name_of_ours_cannot_be_taken():
    assert isinstance(SAMPLERS, Registry)
    before = SAMPLERS["euler"]
    with pytest.raises(InputError, match="The sampler 'euler' of .*test_registry cannot be registered"):

        @sampler("euler", path="flow")
        def sample(denoise, noise, steps, generator=None, on_step=None):
            return noise

    assert SAMPLERS["euler"] is before


def test_the_documentation_lists_every_sampler_and_recipe():
    docs = Path(__file__).parents[2] / "docs"
    sampling = (docs / "how-to" / "sampling.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\w-]+) \| (\d) \| (\d) \|$", sampling, re.MULTILINE)
    facts = {name: SAMPLERS[name] for name in SAMPLERS}
    assert rows == [(name, s.path, str(s.order), str(s.evaluations)) for name, s in facts.items()]
    recipes = (docs / "tutorials" / "training.md").read_text(encoding="utf-8").partition("| recipe |")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", recipes, re.MULTILINE)) == set(RECIPES)
