"""The declaration of the options: values, names on every surface, flags, signatures, the documentation's table."""

import argparse
import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Unpack

import numpy as np
import pytest

from MedGenLib import options
from MedGenLib.cli.arguments import add_arguments, from_namespace
from MedGenLib.errors import InputError
from MedGenLib.options import COMMANDS, SURFACES, GenerateOptions, camel, changed, documented, missing, of, snake, table
from MedGenLib.options.surfaces import ALL, DEFAULTS, LACKS, NAMES

NOISE_UNIT = "HU (CT) or a.u. (MR)"

EVERY = [(command, name, option) for command, known in COMMANDS.items() for name, option in known.items()]
IDS = [f"{command}-{name}" for command, name, _ in EVERY]


def sentence_of(command: str, values: dict, surface: str = "python") -> str:
    with pytest.raises(InputError) as caught:
        options.validate(command, values, surface)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def parsed(command: str, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(command)
    add_arguments(parser, command)
    return parser.parse_args(words)


# The declaration


@pytest.mark.parametrize(("command", "name", "option"), EVERY, ids=IDS)
def test_every_option_has_a_line_of_help_and_a_default_that_fits(command, name, option):
    assert option.name == name == snake(name)
    assert option.help and "\n" not in option.help and not option.help.endswith(".")
    if option.default not in (None, options.REQUIRED):
        option.check(option.default)
    assert option.type_text.endswith("None") == (option.default is None)


def test_the_differences_between_surfaces_name_options_that_exist():
    named = [
        (command, word)
        for command, surfaces in LACKS.items()
        for reasons in surfaces.values()
        for names in reasons.values()
        if names != ALL
        for word in names.split()
    ]
    named += [(command, name) for table in (NAMES, DEFAULTS) for (command, _), names in table.items() for name in names]
    assert named and all(name in COMMANDS[command] for command, name in named)
    assert {surface for surfaces in LACKS.values() for surface in surfaces} <= set(SURFACES)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_surface_has_each_option_or_a_reason_why_not(command, surface):
    present = {option.name for option in of(command, surface).values()}
    lacking = missing(command, surface)
    assert present.isdisjoint(lacking) and present | set(lacking) == set(COMMANDS[command])
    assert all(reason and not reason.endswith(".") for reason in lacking.values())


def test_surfaces_agree_where_they_did_not():
    for surface in SURFACES:
        assert of("generate", surface)["memory"].default == "auto"
    for surface in ("python", "cli", "worker", "client", "slicer"):
        assert "uncertainty" in of("generate", surface) and "uncertainty" in of("translate", surface)
    assert {"guidance", "classifier_guidance", "sampler", "steps", "body_from"} <= set(of("generate", "canvas"))
    console = {"sampler", "steps", "size", "spacing", "modality", "bodyFromNode", "anyGrid", "memory", "retries"}
    assert console <= set(of("generate", "slicer"))
    assert of("evaluate", "worker")["resample"].default is False


def test_the_module_is_light():
    program = "import sys, MedGenLib.options, MedGenLib.cli.arguments; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "MedGenLib.options" in loaded
    assert not {"numpy", "torch", "SimpleITK", "scipy", "pydicom"} & set(loaded)


def test_options_work_without_docstrings():
    program = "from MedGenLib.options import validate; print(validate('generate', {'seed': 3})['seed'])"
    assert subprocess.run([sys.executable, "-OO", "-c", program], capture_output=True, check=True).stdout == b"3\n"


# Names


@pytest.mark.parametrize(
    ("name", "slicer"),
    [
        ("noise_hu", "noiseHU"),
        ("size_mm", "sizeMm"),
        ("classifier_guidance", "classifierGuidance"),
        ("seed", "seed"),
        ("accept_license", "acceptLicense"),
        ("any_grid", "anyGrid"),
    ],
)
def test_camel_case_and_back(name, slicer):
    assert camel(name) == slicer and snake(slicer) == name


def test_every_name_survives_camel_case():
    assert all(snake(camel(name)) == name for _, name, _ in EVERY)


def test_images_are_nodes_in_slicer():
    assert {"maskNode", "bodyFromNode", "style", "noiseHU"} <= set(of("generate", "slicer"))
    assert {"volumeNode", "maskNode", "newMaskNode"} <= set(of("edit", "slicer"))
    assert {"imageNode", "referenceNode", "labelsNode", "reportFolder"} <= set(of("evaluate", "slicer"))
    kinds = {name: option.image for name, option in of("edit").items() if option.image}
    assert kinds == {"volume": "volume", "mask": "labels", "new_mask": "labels"}


@pytest.mark.parametrize(
    ("surface", "name", "near"),
    [
        ("python", "guidence", "guidance"),
        ("python", "noiseHU", "noise_hu"),
        ("python", "noise", "noise_hu"),
        ("client", "sample", "samples"),
        ("slicer", "noise_hu", "noiseHU"),
        ("slicer", "acceptLicence", "acceptLicense"),
        ("worker", "sampeler", "sampler"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name(surface, name, near):
    expected = f"The option '{name}' of generate is unknown; use {near}."
    assert sentence_of("generate", {name: 1}, surface) == expected


def test_an_unknown_option_like_no_other_is_refused_with_all_names():
    sentence = sentence_of("translate", {"brush": 3}, "client")
    assert sentence.startswith("The option 'brush' of translate is unknown; use image, to, model, seed, preset,")


def test_an_option_that_a_surface_lacks_is_refused_with_the_reason():
    sentence = sentence_of("generate", {"samples": 3}, "canvas")
    assert (
        sentence == "The option 'samples' of generate is not available here; leave it out: a canvas holds one volume."
    )


# Values


@pytest.mark.parametrize(
    ("command", "values", "sentence"),
    [
        ("generate", {"seed": -1}, f"The seed is -1; choose 0 to {2**62}."),
        ("generate", {"seed": 10**400}, f"The seed is {10**400}; choose 0 to {2**62}."),
        ("generate", {"seed": "one"}, "The seed is 'one'; give a whole number."),
        ("generate", {"seed": 1.5}, "The seed is 1.5; give a whole number."),
        ("generate", {"seed": True}, "The seed is True; give a whole number."),
        ("generate", {"samples": 0}, "The number of samples is 0; choose at least 1."),
        ("generate", {"retries": -1}, "The number of retries is -1; choose 0 or more."),
        ("generate", {"steps": np.int64(0)}, "The number of steps is 0; choose 1 to 1000."),
        ("generate", {"guidance": 31.0}, "The guidance is 31; choose 0 to 30."),
        ("generate", {"guidance": float("nan")}, "The guidance is nan; give a number."),
        ("generate", {"classifier_guidance": -1}, "The classifier guidance is -1; choose 0 to 1."),
        ("generate", {"noise_hu": 500.0}, f"The noise is 500 {NOISE_UNIT}; choose 1 to 50 {NOISE_UNIT}."),
        ("generate", {"noise_hu": 0.5}, f"The noise is 0.5 {NOISE_UNIT}; choose 1 to 50 {NOISE_UNIT}."),
        ("generate", {"preset": "fast"}, "There is no preset 'fast'; choose draft, normal or best."),
        ("generate", {"memory": "huge"}, "There is no memory plan 'huge'; choose normal, small or auto."),
        ("generate", {"device": 0}, "The device is 0; give text."),
        ("generate", {"any_grid": "no"}, "The any grid is 'no'; give True or False."),
        ("generate", {"fill": 1.5}, "The fill is 1.5; give a whole number or text."),
        ("generate", {"mapping": [1, 2]}, "The mapping is [1, 2]; give a dictionary or text."),
        ("generate", {"size": (0, 32, 32)}, "The size is 0 x 32 x 32 voxels; choose 1 to 4096 voxels."),
        ("generate", {"size": (32, 32)}, "The size is 32 x 32, not three whole numbers; give three whole numbers."),
        ("generate", {"size": 32}, "The size is 32, not three whole numbers; give three whole numbers."),
        ("generate", {"spacing": (1, -1, 1)}, "The spacing is 1 x -1 x 1 mm; choose more than 0 and at most 100 mm."),
        ("insert_lesion", {"at": (1, 2)}, "The place is 1 x 2, not three numbers; give three numbers."),
        ("insert_lesion", {"at": (1, 2, np.inf)}, "The place is 1 x 2 x inf, not three numbers; give three numbers."),
        ("insert_lesion", {"size_mm": -1}, "The size of the lesion is -1 mm; choose more than 0 mm."),
        ("insert_lesion", {"contrast": np.nan}, "The contrast is nan; give a number."),
        ("evaluate", {"modality": "PET"}, "There is no modality 'PET'; choose CT or MR."),
    ],
)
def test_a_wrong_value_is_one_sentence(command, values, sentence):
    given = {name: "x.nii" for name, option in of(command).items() if option.default is options.REQUIRED}
    assert sentence_of(command, {**given, **values}, "cli") == sentence


def test_what_is_required_is_asked_for():
    sentence = sentence_of("translate", {"to": "CT"})
    assert sentence == "The option 'image' of translate is missing; give it: volume (.nii .nrrd .mha) or DICOM folder."


def test_values_at_the_ends_of_their_ranges_and_of_numpy_are_taken():
    given = {
        "seed": 2**62,
        "samples": np.int32(1),
        "retries": 0,
        "noise_hu": np.float32(50),
        "guidance": 0,
        "size": np.array([1, 4096, 64]),
        "spacing": [0.4, 1, 100],
        "fill": np.int64(3),
        "mapping": {"a": 1},
        "classifier_guidance": 1,
    }
    complete = options.validate("generate", given)
    assert all(complete[name] is value for name, value in given.items())


def test_what_is_not_given_or_none_has_its_default():
    complete = options.validate("generate", {"mask": "m.nii", "device": None, "seed": 3})
    assert set(complete) == set(of("generate"))
    assert complete["mask"] == "m.nii" and complete["seed"] == 3
    assert (complete["device"], complete["retries"], complete["samples"], complete["model"]) == (
        "auto",
        2,
        1,
        "ct-tissue",
    )
    assert options.validate("edit", {"volumeNode": 1, "maskNode": 2, "newMaskNode": 3}, "slicer")["model"] is None


def test_values_have_python_names_whatever_the_surface():
    complete = options.validate("generate", {"noiseHU": 9.0, "bodyFromNode": "node", "maskNode": "m"}, "slicer")
    assert (complete["noise_hu"], complete["body_from"], complete["mask"]) == (9.0, "node", "m")
    assert options.validate("generate", {"input": {"path": "x"}}, "worker")["mask"] == {"path": "x"}


def test_what_was_changed_by_the_names_of_the_surface():
    complete = options.validate("generate", {"noiseHU": 9.0, "samples": 1, "steps": 4, "seed": 7}, "slicer")
    assert changed("generate", complete) == {"noiseHU": 9.0, "steps": 4, "seed": 7}


# Functions


@documented("generate")
def example(mask=None, model: str = "ct-tissue", *, progress=None, **chosen: Unpack[GenerateOptions]) -> dict:
    """Make volumes.

    Parameters
    ----------
    {options}
    progress: called at every step.

    Raises
    ------
    InputError: nothing was done.
    """
    return {"mask": mask, "model": model, "progress": progress, **chosen}


class Example:
    @classmethod
    @documented("generate", "canvas")
    def generate(cls, mask, model="ct-tissue", **chosen):
        return cls, mask, model, chosen

    @documented("generate", "slicer")
    def slicer(self, maskNode=None, model="ct-tissue", seed=None, wait=True, **chosen):
        return maskNode, model, seed, wait, chosen


def test_the_signature_shows_every_option_with_its_default():
    parameters = inspect.signature(example).parameters
    assert list(parameters)[:2] == ["mask", "model"] and list(parameters)[-1] == "progress"
    assert set(parameters) == {*of("generate"), "progress"}
    assert all(parameters[name].default == option.default for name, option in of("generate").items())
    assert parameters["seed"].annotation == int | None and parameters["seed"].kind is inspect.Parameter.KEYWORD_ONLY
    assert set(GenerateOptions.__annotations__) == set(of("generate")) - {"mask", "model"}
    assert "maskNode" in inspect.signature(Example().slicer).parameters
    assert "samples" not in inspect.signature(Example.generate).parameters


def test_the_docstring_describes_every_option():
    described = re.findall(r"^(\w+): ", inspect.getdoc(example), re.MULTILINE)
    assert described == [*of("generate"), "progress", "InputError"]
    flat = " ".join(inspect.getdoc(example).split())
    assert "noise of a CT, for models that take it; by default" in flat and "1 to 50 HU (CT) or a.u. (MR))." in flat
    assert "classifier-free guidance weight w" in flat and "(default: auto)" in flat


def test_a_function_gets_all_options_checked():
    got = example("m.nii", seed=4, progress=print)
    assert set(got) == {*of("generate"), "progress"}
    assert (got["mask"], got["seed"], got["memory"], got["progress"]) == ("m.nii", 4, "auto", print)
    with pytest.raises(InputError, match="use guidance"):
        example("m.nii", guidence=2)
    with pytest.raises(InputError, match="The model is 3; give text"):
        example("m.nii", 3)
    with pytest.raises(TypeError, match="mask"):
        Example.generate()


def test_methods_take_the_names_of_their_surface_and_get_python_names():
    cls, mask, model, chosen = Example.generate("m.nii", guidance=2)
    assert (cls, mask, model, chosen["guidance"]) == (Example, "m.nii", "ct-tissue", 2)
    assert set(chosen) == set(of("generate", "canvas")) - {"mask", "model"}
    node, model, seed, wait, chosen = Example().slicer("node", None, 5, noiseHU=8, anyGrid=True)
    assert (node, model, seed, wait) == ("node", "ct-tissue", 5, True)
    assert chosen["noise_hu"] == 8 and chosen["any_grid"] is True and "seed" not in chosen


def test_an_old_name_still_works_and_warns_where_it_was_written():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = Example().slicer("node", samples=2, spread=True)[-1]
    assert chosen["uncertainty"] is True and "spread" not in chosen
    (warning,) = caught
    assert warning.category is DeprecationWarning and Path(warning.filename) == Path(__file__)
    assert str(warning.message) == "'spread' is now 'uncertainty'; the next version accepts only that."
    with pytest.raises(InputError, match="'spread' of generate is unknown"):
        example(spread=True)


# The command line

FLAGS = {
    "generate": "-o --output --uncertainty --dicom --deidentify --seed --preset --device --memory --preview --report "
    "--accept-license --overwrite --model --samples --sampler --steps --guidance --classifier-guidance --map --fill "
    "--body-from --any-grid --size --spacing --label --modality --noise --style --retries --phase --hu --engine",
    "translate": "-o --output --to --modality --hu-offset --model --series --uncertainty --dicom --deidentify "
    "--seed --preset --device --memory --preview --report --accept-license --overwrite --engine",
    "edit": "-o --output --modality --hu-offset --mask --new-mask --model --map --fill --noise --series --seed "
    "--preset --device --memory --preview --report --accept-license --overwrite",
    "insert_lesion": "-o --output --modality --hu-offset --at --mask --organ --labels --map --fill --shape --size "
    "--label --contrast --texture --mass-effect --grow --doubling-days --days-between --model --series --lesion-mask "
    "--moved-labels --explanation --seed --preset --device --memory --preview --report --accept-license --overwrite",
    "evaluate": "--reference --mask --labels --segmenter --uncertainty --modality --hu-offset --resample --report "
    "--overwrite --device",
}


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_are_those_that_scripts_use(command):
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser, command)
    assert {flag for action in parser._actions for flag in action.option_strings} == set(FLAGS[command].split())
    for action in parser._actions:
        assert action.help.replace("%%", "%").startswith(of(command, "cli")[action.dest].help)


def test_flags_become_the_arguments_of_the_python_function():
    words = [
        "m.nii",
        "-o",
        "o.nii",
        "--seed",
        "7",
        "--noise",
        "9",
        "--size",
        "64",
        "32",
        "16",
        "--map",
        "5=2",
        "--map",
        "liver=fat",
        "--uncertainty",
        "u.nii",
        "--accept-license",
        "--style",
        "ref.nii",
        "--guidance",
        "2",
        "--samples",
        "3",
    ]
    namespace = parsed("generate", *words)
    assert (namespace.output, namespace.uncertainty) == (Path("o.nii"), Path("u.nii"))
    found = from_namespace("generate", namespace, mapping={"5": "2"}, style="the volume")
    expected = {
        "mask": Path("m.nii"),
        "seed": 7,
        "noise_hu": 9.0,
        "size": [64, 32, 16],
        "mapping": {"5": "2"},
        "uncertainty": True,
        "accept_license": True,
        "style": "the volume",
        "guidance": 2.0,
        "samples": 3,
    }
    assert found == {**{name: option.default for name, option in of("generate").items()}, **expected}
    assert namespace.mapping == ["5=2", "liver=fat"]
    options.validate("generate", found)


@pytest.mark.parametrize("command", FLAGS)
def test_flags_that_are_not_given_leave_the_defaults(command):
    needed = [
        word
        for option in of(command, "cli").values()
        if option.default is options.REQUIRED
        for word in ([] if option.positional else [option.flags[-1]]) + ["x"]
    ]
    found = from_namespace(command, parsed(command, *needed), mapping=None)
    for name, option in of(command).items():
        if option.default is not options.REQUIRED:
            assert found[name] == option.default, name


def test_a_place_has_commas():
    words = ("ct.nii", "-o", "o.nii", "--at=-52,10,-120.5", "--size", "12", "--mask", "painted.nii")
    found = from_namespace("insert_lesion", parsed("insert_lesion", *words))
    assert found["at"] == (-52.0, 10.0, -120.5) and found["size_mm"] == 12.0 and found["lesion"] == Path("painted.nii")


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        ("generate", ["m", "-o", "o", "--seed", "-1"], "argument --seed: invalid natural number value: '-1'"),
        ("generate", ["m", "-o", "o", "--samples", "0"], "argument --samples: invalid positive number value: '0'"),
        ("generate", ["m", "-o", "o", "--preset", "x"], "'draft', 'normal', 'best'"),
        ("generate", ["m", "-o", "o", "--guidance", "much"], "argument --guidance: invalid float value: 'much'"),
        ("generate", ["m"], "the following arguments are required: -o/--output"),
        ("translate", ["i", "--to", "CT"], "the following arguments are required: -o/--output"),
        ("insert_lesion", ["i", "-o", "o", "--at", "1,2"], "invalid place (X,Y,Z) value: '1,2'"),
    ],
)
def test_a_wrong_word_is_refused_with_its_flag(command, words, sentence, capsys):
    with pytest.raises(SystemExit):
        parsed(command, *words)
    assert sentence in capsys.readouterr().err


# The documentation


@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_has_every_option(command):
    lines = table(command).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(COMMANDS[command])
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}
    text = "\n".join(rows)
    for option in COMMANDS[command].values():
        assert option.help.replace("|", r"\|") in text
    for surface in SURFACES:
        assert bool(missing(command, surface)) == (f"- Not in {surface}: " in "\n".join(lines))


def test_a_row_of_the_table():
    row = next(line for line in table("generate").splitlines() if "`noise_hu`" in line)
    expected = ["`noise_hu`", "`--noise`", "`noiseHU`", r"`float \| None`", "", "1 to 50 HU (CT) or a.u. (MR)"]
    assert [cell.strip() for cell in re.split(r"(?<!\\)\|", row)][1:7] == expected
    assert "`-o`, `--output`" in table("generate") and "| required |" in table("generate")
