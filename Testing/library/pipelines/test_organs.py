"""Organs with their own HU and a contrast phase, on top of a model of tissues."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from MedGenLib import Canvas, generate
from MedGenLib.checks.output import check_generated
from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.labels import organs as table
from MedGenLib.labels.mapping import map_labels
from MedGenLib.labels.organs import PHASES, given_hu, organ_of, organs, parse_hu
from MedGenLib.labels.vocabulary import table as label_table
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.organ_levels import OrganLevels, organ_levels

FAST = {"seed": 1, "steps": 3, "retries": 0, "device": "cpu"}
NAMES = {1: "fat", 2: "liver", 3: "kidney_left", 4: "aorta", 5: "vertebrae_L1", 6: "rib_left_7", 7: "duct", 9: "gas"}
WITHOUT_ROW = {"trachea", "skull"}
"""Structures of TotalSegmentator, besides the lungs, that keep the intensities of the model."""


def turned(spacing: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix() * np.array(spacing)
    return affine


GRIDS = {
    "plain": np.diag([2.0, 2.0, 2.0, 1.0]),
    "oblique": turned((2.0, 2.0, 2.0)),
    "anisotropic": turned((1.1, 1.1, 5.0)),
    "fine": np.diag([0.8, 0.8, 0.8, 1.0]),
    "single slice": np.diag([1.5, 1.5, 4.0, 1.0]),
}


def trunk(affine: np.ndarray = GRIDS["plain"], depth_mm: float = 64.0) -> LabelMap:
    """Organs in fat, 120 x 96 mm, along the last axis; the liver reaches the end of the grid."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    x, y = (np.arange(round(n / s)) * s for n, s in zip((120, 96), spacing, strict=False))
    x, y = np.meshgrid(x, y, indexing="ij")
    slab = np.ones(x.shape, np.uint8)
    slab[(x < 50) & (y > 30)] = 2
    slab[np.hypot(x - 80, y - 30) < 16] = 3
    slab[np.hypot(x - 66, y - 62) < 9] = 4
    slab[np.hypot(x - 95, y - 70) < 18] = 5
    slab[(abs(x - 30) < 12) & (abs(y - 14) < 2)] = 6
    slab[(abs(x - 60) < 4) & (y < 12)] = 7
    slab[np.hypot(x - 112, y - 10) < 5] = 9
    depth = max(1, round(depth_mm / spacing[2]))
    return LabelMap(np.repeat(slab[..., None], depth, 2), affine, NAMES)


def levels_of(mask: LabelMap, phase: str = "portal", **hu: float) -> tuple[LabelMap, OrganLevels]:
    manifest = find("ct-tissue")
    labels, report = map_labels(mask, manifest.input.vocabulary, {"duct": "soft tissue"})
    return organ_levels(mask, labels, report, manifest, {"phase": phase, "hu": hu})


def painted(mask: LabelMap, labels: LabelMap, levels: OrganLevels, sd: float = 20.0) -> Volume:
    """An image as the model makes it: each tissue near its middle, with another error by organ and with noise."""
    rng = np.random.default_rng(3)
    image = np.array(levels.centers, np.float32)[labels.array] + rng.normal(0, sd, labels.shape)
    return Volume((image + 9.0 * (mask.array % 3)).astype(np.float32), labels.affine, "CT", "HU")


def inner(marked: np.ndarray, voxels: int = 2) -> np.ndarray:
    return ndimage.minimum_filter(marked, [2 * voxels + 1 if n > 1 else 1 for n in marked.shape], mode="nearest")


# The table


def test_every_structure_of_totalsegmentator_has_a_row_of_its_tissue():
    for label in label_table("totalsegmentator").labels:
        organ = organ_of(label.name)
        if label.part_of == "lung or gas" or label.name in WITHOUT_ROW:
            assert organ is None, label.name
        else:
            assert organ is not None and organ.tissue == label.part_of, label.name


@pytest.mark.parametrize(
    ("name", "row"),
    [("Left kidney", "kidney"), ("IVC", "inferior vena cava"), ("rectum", "colon"), ("ascending aorta", "artery")],
)
def test_names_of_other_tools_find_their_row(name, row):
    assert organ_of(name).name == row


def test_rows_name_their_sources_and_lie_in_the_range_of_their_tissue():
    content = json.loads((Path(table.__file__).parent / "tables" / "organs.json").read_text("utf-8"))
    known = set(content["sources"])
    for organ in organs():
        assert organ.sources and set(organ.sources) <= known, organ.name
        values = [*organ.hu, *(organ.shell or ())]
        spread = table.MOST * max(organ.sd)
        assert organ.limits[0] <= min(values) - spread and max(values) + spread <= organ.limits[1], organ.name
        assert len(organ.hu) == len(organ.sd) == len(PHASES)
        assert organ_of(organ.names[0]) is organ


def test_people_differ_together():
    people = [[organ_of(n).drawn("portal", seed)[0] for n in ("aorta", "kidney", "gallbladder")] for seed in range(300)]
    correlation = np.corrcoef(np.transpose(people))
    assert correlation[0, 1] > 0.5 and abs(correlation[0, 2]) < 0.2
    aorta = np.array(people)[:, 0]
    row = organ_of("aorta")
    assert abs(aorta.mean() - row.hu[2]) < 0.2 * row.sd[2] and np.ptp(aorta) <= 2 * table.MOST * row.sd[2] + 0.2
    assert organ_of("liver").drawn("portal", 5) == organ_of("liver").drawn("portal", 5)


# Shifts


@pytest.mark.parametrize("grid", GRIDS)
def test_interiors_get_their_hu_and_keep_their_noise(grid):
    mask = trunk(GRIDS[grid], 4 if grid == "single slice" else 64)
    labels, levels = levels_of(mask)
    before, person = painted(mask, labels, levels), levels.of_seed(4)
    after = person.applied(before, (-1024, 3071)).array
    wanted = {part.name: hu for part, hu in zip(levels.parts, person.wanted[1:], strict=True) if not part.shell}
    for value in (2, 3, 4):
        inside = inner(mask.array == value, 1)
        assert np.median(after[inside]) == pytest.approx(wanted[NAMES[value]], abs=4), NAMES[value]
        assert after[inside].std() == pytest.approx(before.array[inside].std(), rel=0.12), NAMES[value]
    for value in (1, 7, 9):  # names of the model, or without a row
        assert np.array_equal(after[mask.array == value], np.rint(before.array[mask.array == value]))


def test_borders_have_neither_halo_nor_step():
    """Mean profile from the liver into the fat: it falls all the way, never beyond both levels."""
    mask = trunk()
    labels, levels = levels_of(mask, liver=140.0)
    person = levels.of_seed(1)
    after = person.applied(painted(mask, labels, levels, sd=0.0), (-1024, 3071)).array
    profile = after[15:35, 40, :].mean(axis=1)
    inside, outside = profile[0], profile[-1]
    assert inside == pytest.approx(140, abs=1) and outside < -80
    steps = np.diff(profile)
    assert (steps <= 0.5).all() and profile.min() >= outside - 1
    assert 40 < profile[9] < profile[8] <= 140 and profile[9] < 130  # the last voxel of the liver is partly fat


def test_marrow_is_soft_tissue_for_the_model_below_a_cortex():
    mask = trunk()
    labels, levels = levels_of(mask, phase="none", vertebrae_L1=120.0)
    soft, bone = 2, 3
    vertebra = mask.array == 5
    depth = ndimage.distance_transform_edt(np.pad(vertebra[..., 5], 1))[1:-1, 1:-1] * 2 - 1
    assert (labels.array[vertebra & (depth > 3)[..., None]] == soft).all()
    assert (labels.array[vertebra & (depth < 2)[..., None]] == bone).all()
    assert (labels.array[mask.array == 6] == bone).all()  # a rib is too thin for marrow
    after = levels.of_seed(1).applied(painted(mask, labels, levels), (-1024, 3071)).array
    assert np.median(after[vertebra & (depth > 5)[..., None]]) == pytest.approx(120, abs=4)
    cortex = after[vertebra & (depth < 2)[..., None]]
    assert 250 < np.median(cortex) < 400 and cortex.min() > 80  # half a millimeter of compact bone in 2 mm, no holes


@pytest.mark.parametrize("turn", [np.diag([1, 1, 1]), np.diag([-1, -1, 1]), [[0, 1, 0], [1, 0, 0], [0, 0, 1]]])
def test_gas_rises_to_the_front_of_a_hollow_organ_unless_its_content_is_given(turn):
    affine = np.eye(4)
    affine[:3, :3] = 2 * np.array(turn)
    mask = trunk(affine)
    mask = mask.with_array(mask.array, {**NAMES, 2: "colon"})
    labels, levels = levels_of(mask, phase="none")
    gas, colon = (labels.array == 4) & (mask.array == 2), mask.array == 2
    assert 0.25 < gas.sum() / colon.sum() < 0.5
    front = (np.argwhere(gas) @ affine[:3, :3].T)[:, 1].min()
    behind = (np.argwhere(colon & ~gas & inner(colon, 2)) @ affine[:3, :3].T)[:, 1].max()
    assert behind <= front and not levels.numbers[gas].any()
    assert not (levels_of(mask, phase="none", colon=40.0)[0].array[colon] == 4).any()


def test_small_organs_are_shifted_from_the_middle_of_their_tissue():
    mask = trunk()
    array = mask.array.copy()
    array[array == 4] = 1
    array[33, 31, 3:20] = 4
    labels, levels = levels_of(mask.with_array(array))
    assert 4 not in levels.medians(painted(mask, labels, levels).array)
    person = levels.of_seed(1)
    person.applied(painted(mask, labels, levels), (-1024, 3071))
    number = next(n for n, part in enumerate(levels.parts, 1) if part.label == 4)
    assert person.shifts[number] == pytest.approx(person.wanted[number] - 40)


# HU of the user


@pytest.mark.parametrize(
    ("hu", "sentence"),
    [
        ({"livr": 60}, "no HU for 'livr' in the table of organs; near are liver"),
        ({"liver": 1200}, "The liver cannot have 1200 HU, as soft tissue has -30 to 600 HU"),
        ({"fat": 20}, "as fat has -200 to -30 HU"),
        ({"pancreas": 60}, "The mask has no pancreas to give 60 HU; it has fat, liver"),
        ({"kidney": 100, "kidney_left": 90}, "The kidney_left has two different HU, 100 and 90"),
        ({"lung": -850}, "no HU for 'lung'"),
        ({"liver": "bright"}, "The HU of the liver are 'bright'; give a number"),
    ],
)
def test_hu_that_cannot_be_are_refused_in_one_sentence(hu, sentence):
    with pytest.raises(InputError, match=sentence):
        levels_of(trunk(), **hu)


def test_hu_are_given_by_narrow_and_wide_names():
    names = {1: "kidney_left", 2: "kidney_right", 3: "liver"}
    assert given_hu({"kidney": 100, "Liver": 90}, names) == {1: 100, 2: 100, 3: 90}
    assert parse_hu("liver=105, spleen = 120,aorta=90") == {"liver": 105, "spleen": 120, "aorta": 90}
    for words in ("liver", "=5", "liver=nan", "liver=bright", ""):
        with pytest.raises(InputError, match="not understood"):
            parse_hu(words)
    with pytest.raises(InputError, match="two different HU, 105 and 90"):
        parse_hu("liver=105,liver=90")


def test_a_phase_needs_a_model_and_a_mask_with_organs():
    tissue = LabelMap(np.ones((8, 8, 8), np.uint8), GRIDS["plain"], {1: "fat"})
    with pytest.raises(InputError, match="names no organ, so it cannot have the phase 'portal'"):
        generate(tissue, phase="portal", **FAST)
    with pytest.raises(InputError, match="'mr-brain' has neither contrast phases nor HU of organs"):
        generate(tissue.with_array(tissue.array, {1: "cortex"}), "mr-brain", phase="portal")
    with pytest.raises(InputError, match="There is no contrast phase 'late'"):
        generate(tissue, phase="late")


def test_a_mapping_names_the_organs_of_a_mask_without_names():
    plain = LabelMap(trunk().array, GRIDS["plain"])
    rules = {1: "fat", 2: "liver", 3: "kidney_left", 4: "aorta", 5: "vertebrae_L1", 6: "bone", 7: "soft tissue", 9: 4}
    labels, report = map_labels(plain, find("ct-tissue").input.vocabulary, rules)
    assert report.mapped == {1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3, 7: 2, 9: 4}
    _, levels = organ_levels(plain, labels, report, find("ct-tissue"), {"phase": "portal", "hu": "liver=90"})
    assert {part.name for part in levels.parts} == {"liver", "kidney_left", "aorta", "vertebrae_L1"}
    with pytest.raises(InputError, match="The mapping 2=livver names a label that the model does not have"):
        map_labels(plain, find("ct-tissue").input.vocabulary, {2: "livver"})


# Runs


@pytest.fixture(scope="module")
def portal():
    return generate(trunk(), phase="portal", hu={"liver": 105}, mapping={"duct": "soft tissue"}, **FAST)


def test_a_run_has_the_phase_and_states_it(portal):
    report, mask = portal.report, trunk()
    assert report.parameters["phase"] == "portal"
    drawn = report.parameters["contrast"]["1"]
    assert drawn["liver"] == 105 and 150 <= drawn["kidney"] <= 220
    array = portal.volume.array
    assert np.median(array[inner(mask.array == 2)]) == pytest.approx(105, abs=2)
    assert np.median(array[inner(mask.array == 3)]) == pytest.approx(drawn["kidney"], abs=8)
    assert portal.provenance([], 0).parameters["contrast"]["1"]["liver"] == 105


def test_checks_judge_tissues_without_the_contrast(portal):
    """The kidney is above the threshold of bone; the check of the mask takes it for what it is."""
    (check,) = portal.report.output_checks
    assert not [f for f in check.findings if f.code in ("mask-fidelity", "tissue-mean", "organ-level")]
    assert check.figures["organs"]["liver"] == pytest.approx(105, abs=2)
    plain = check_generated(portal.volume, portal.source, find("ct-tissue"))
    assert plain.figures["dice"]["bone"] < check.figures["dice"]["bone"]


def test_checks_find_an_organ_without_its_hu(portal):
    labels, levels = levels_of(trunk(), liver=105.0)
    person = levels.of_seed(1)
    faulty = portal.volume.array.astype(np.float32)
    faulty[trunk().array == 2] -= 60
    check = check_generated(portal.volume.with_array(faulty), labels, find("ct-tissue"), person=person)
    assert [f.sentence for f in check.findings if f.code == "organ-level" and "The liver has" in f.sentence]


def test_the_command_line_records_and_repeats(tmp_path, capsys):
    mask = write_volume(trunk(depth_mm=32), tmp_path / "mask.nrrd")
    out = tmp_path / "ct.nii.gz"
    words = ["--phase", "arterial", "--hu", "liver=90,kidney_left=170", "--map", "duct=soft tissue", "--steps", "2"]
    assert main(["generate", str(mask), "-o", str(out), "--seed", "3", "--retries", "0", *words]) in (0, 3)
    array = read_volume(out).array
    assert np.median(array[inner(trunk(depth_mm=32).array == 2)]) == pytest.approx(90, abs=3)
    capsys.readouterr()
    assert main(["repeat", str(out), "--input", str(tmp_path)]) == 0
    assert "Equal" in capsys.readouterr().out


# Filling


def test_the_rest_of_a_body_of_organs_is_filled_in_layers():
    mask = trunk(depth_mm=32)
    array = np.pad(np.where(np.isin(mask.array, (1, 7, 9)), 0, mask.array), ((15, 15), (15, 15), (0, 0)))
    organs_only = LabelMap(array, mask.affine, {v: n for v, n in NAMES.items() if v not in (1, 7, 9)})
    result = generate(organs_only, **FAST)
    made, bone = result.source.array, np.isin(array, (5, 6))
    near = ndimage.distance_transform_edt(array != 5) * 2
    assert [f.code for f in result.report.input_findings if "background" in f.sentence] == ["body-layered"]
    rest = (array == 0) & (made > 0)
    assert (made[rest & (near < 5)] == 2).all() and (made[~bone & (array > 0)] == 2).all()
    line = made[:, 40, 8]  # from outside: air, skin, fat, muscle, liver
    changes = [int(line[0]), *(int(b) for a, b in zip(line[:-1], line[1:], strict=True) if a != b)]
    assert changes[:4] == [0, 2, 1, 2]
    assert 7 <= np.count_nonzero(line[:15]) <= 10  # 18 mm
    empty = generate(organs_only, fill="background", **FAST)
    assert not empty.source.array[array == 0].any()


# Live edits


@pytest.fixture(scope="module")
def canvas():
    with Canvas.generate(trunk(), phase="portal", mapping={"duct": "soft tissue"}, **FAST) as opened:
        yield opened


def test_edits_keep_what_is_far_and_give_new_voxels_the_hu_of_their_organ(canvas):
    before, mask = canvas.volume.array.copy(), canvas.mask.array.copy()
    drawn = canvas.result.report.parameters["contrast"]["1"]
    mask[20:32, 34:44, 10:22] = 3  # kidney in the liver and the fat
    edited = mask != trunk().array
    done = canvas.edit(mask, preset="draft")
    after = canvas.volume.array
    far = ndimage.distance_transform_cdt(~edited, "chessboard") > max(canvas.halo_voxels)
    assert done.changed == np.count_nonzero(edited)
    assert np.array_equal(after[far], before[far])
    assert np.median(after[inner(edited, 1)]) == pytest.approx(drawn["kidney"], abs=25)
    assert np.median(after[inner(trunk().array == 2, 3) & ~edited]) == pytest.approx(drawn["liver"], abs=3)
    canvas.undo()
    assert np.array_equal(canvas.volume.array, before)


def test_an_organ_that_the_mask_did_not_have_gets_its_hu_of_the_table(canvas):
    before, mask = canvas.volume.array.copy(), trunk().array.copy()
    mask[6:18, 24:34, 8:20] = 12
    names = {**NAMES, 12: "spleen"}
    canvas.edit(trunk().with_array(mask, names), preset="draft")
    after, row = canvas.volume.array, organ_of("spleen")
    assert abs(np.median(after[inner(mask == 12)]) - row.hu[2]) < table.MOST * row.sd[2] + 10
    canvas.undo()
    assert np.array_equal(canvas.volume.array, before)


def test_an_image_keeps_the_hu_of_its_organs(portal):
    """A CT with contrast opened with its mask: more liver is as bright as the liver in it."""
    mask = trunk()
    with Canvas.of_image(portal.volume, mask, mapping={"duct": "soft tissue"}, seed=2, device="cpu") as opened:
        changed = mask.array.copy()
        changed[22:30, 20:40, 8:24] = 2
        edited = changed != mask.array
        opened.edit(changed, preset="draft")
        assert np.median(opened.volume.array[inner(edited, 1)]) == pytest.approx(105, abs=12)
