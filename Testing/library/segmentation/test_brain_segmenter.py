"""brain-segmenter: its network, its input, and which masks of mr-brain it judges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from MedGenLib.checks import output
from MedGenLib.checks.output import check_generated
from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import BrainLevel
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.io.samples import sample
from MedGenLib.labels.mapping import map_labels
from MedGenLib.metrics.image import dice
from MedGenLib.networks import build
from MedGenLib.packages.catalogue import find
from MedGenLib.segmentation.segmenters import names, segmenter

SEGMENTER, MODEL = "brain-segmenter", "mr-brain"
WHITE, HIPPOCAMPUS, FLUID, BRAIN = 1, 11, 15, 18


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("MeshNet", {"classes": [3, 1, 2, 2], "width": 4, "dilations": [1, 2, 1]}).eval()


def shares(network, image: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.softmax(network(torch.from_numpy(image)[None, None]), 1)[0].numpy()


def test_margins_of_background_change_nothing(network):
    image = np.random.default_rng(0).uniform(0.1, 1, (7, 8, 9)).astype(np.float32)
    wide = shares(network, np.pad(image, [(3, 5), (0, 2), (4, 4)]))
    assert wide.shape == (4, 15, 10, 17)
    assert np.allclose(wide[:, 3:10, :8, 4:13], shares(network, image), atol=1e-6)
    outside = np.pad(np.zeros_like(image, bool), [(3, 5), (0, 2), (4, 4)], constant_values=True)
    assert (wide[0][outside] == 1).all() and wide[0][~outside].max() < 1e-9
    assert (shares(network, np.zeros((4, 4, 4), np.float32))[0] == 1).all()


def test_slabs_give_what_the_whole_gives(network):
    image = torch.rand(1, 1, 37, 6, 5) + 0.1
    with torch.inference_mode():
        slabs = network(image)
    assert torch.allclose(slabs, network(image).detach(), atol=1e-5)


def test_classes_of_one_label_add_their_probabilities(network):
    image = torch.rand(1, 1, 5, 5, 5) + 0.1
    apart = build("MeshNet", network.arguments | {"classes": [3, 1, 2, 4]}).eval()
    apart.load_state_dict(network.state_dict())
    with torch.inference_mode():
        together, alone = (torch.softmax(net(image), 1)[0] for net in (network, apart))
    assert torch.allclose(together[2], alone[2] + alone[4], atol=1e-6)
    assert torch.allclose(together[[1, 3]], alone[[1, 3]], atol=1e-6)


def test_white_matter_is_scaled_to_a_half():
    values = np.concatenate([np.zeros(500), np.full(70, 300.0), np.full(30, 800.0)])
    found = BrainLevel().encode(values)
    assert found[-1] == pytest.approx(0.5) and found.max() <= 1 and found.dtype == np.float32
    assert (BrainLevel().encode(np.zeros(9)) == 0).all()


def test_its_labels_are_those_of_the_generator():
    """So that the masks of one are read by the other, by number and by name."""
    mine, theirs = find(SEGMENTER).output.labels, find(MODEL).input.labels
    assert list(mine) == list(range(1, 16)) and all(mine[value] == theirs[value] for value in mine)
    assert segmenter(MODEL).name == SEGMENTER
    assert MODEL not in dict(names()) and SEGMENTER in dict(names())
    limits = find(MODEL).statistics.segmenter.minimum_dice
    assert set(limits) == {1, 2, 3, 5, 6, 7, 8, 10, 11} and min(limits.values()) > 0.5
    assert "neuroneural/brainchop" in find(SEGMENTER).license_text and find(SEGMENTER).license.spdx == "MIT"


@pytest.fixture
def judged(monkeypatch):
    """Checks an image of white matter with a hippocampus, in which the segmenter finds these labels."""

    def judge(found: np.ndarray, mask: np.ndarray, covers: bool = True):
        class StandIn:
            labels = find(SEGMENTER).output.vocabulary

            def covers(self, volume: Volume) -> bool:
                return covers

            def __call__(self, volume: Volume) -> LabelMap:
                return LabelMap(found, np.eye(4))

        monkeypatch.setattr(output, "segmenter", lambda name, device: StandIn())
        image = Volume(np.where(mask > 0, 107, 0).astype(np.float32), np.eye(4), "T1w")
        return check_generated(image, LabelMap(mask, np.eye(4)), find(MODEL), own_grid=False)

    return judge


def brain_of(rest: int) -> np.ndarray:
    mask = np.full((20, 20, 20), rest, np.uint8)
    mask[5:15, 5:15, 5:15] = HIPPOCAMPUS
    return mask


def test_a_structure_that_is_not_found_fails(judged):
    mask = brain_of(WHITE)
    assert judged(mask, mask).figures["segmented"] == {"white matter": 1, "hippocampus": 1}
    check = judged(np.roll(mask, 6, 0), mask)
    assert check.figures["segmented"]["hippocampus"] == pytest.approx(0.4)
    assert any("hippocampus of the output does not follow" in finding.sentence for finding in check.findings)


def test_parts_of_a_brain_and_little_specified_ones_are_not_judged(judged):
    """The network knows whole brains, and an image has no folds where the mask states only "brain"."""
    for mask, covers in ((brain_of(WHITE), False), (brain_of(BRAIN), True)):
        check = judged(np.zeros_like(mask), mask, covers)
        assert "segmented" not in check.figures
        assert not any("hippocampus" in finding.sentence for finding in check.findings)


@pytest.mark.slow
def test_structures_of_a_painted_brain_are_found_in_any_orientation():
    """Levels of real tissues, blurred: what the mask of the sample would look like without texture."""
    manifest = find(MODEL)
    mask, _ = map_labels(read_label_map(sample("brain_labels.seg.nrrd")), manifest.input.vocabulary)
    mask = resample(mask, (1.25,) * 3)
    levels = np.array([0, *(manifest.statistics.tissues[value].mean for value in range(1, 19))], np.float32)
    values = np.where(mask.array > 0, ndimage.gaussian_filter(levels[mask.array], 0.6), 0)
    turned = Volume(values[::-1].transpose(2, 1, 0), mask.affine @ _turned(mask.shape[0]), "T1w")
    found = segmenter(SEGMENTER, "cpu")(turned).array.transpose(2, 1, 0)[::-1]
    assert ((found > 0) == (mask.array > 0)).all()
    for value in (WHITE, 2, 3, 6, FLUID):
        assert dice(found == value, mask.array == value) > 0.6, value


def _turned(n: int) -> np.ndarray:
    """From indices of an array with flipped and exchanged first and last axes to those of the original."""
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = n - 1
    return flipped @ np.eye(4)[[2, 1, 0, 3]]


def test_a_head_with_its_skull_is_refused():
    head = read_volume(sample("head_t1.nii.gz"))
    with pytest.raises(InputError, match=r"reads a brain without skull, .* liters above 0; remove the skull first"):
        segmenter(SEGMENTER)(head)
