"""The panel grid of all pictures: planes, scales, legends, and downsampled volumes."""

import numpy as np
import pytest

from MedGenLib.imaging.volume import Volume
from MedGenLib.metrics.compare import compare
from MedGenLib.metrics.features import Features
from MedGenLib.visual import cohorts, figures, planes
from MedGenLib.visual.grid import COLORS, draw, row
from MedGenLib.visual.views import PLANES, View


@pytest.fixture
def ball():
    """A CT of 40 HU in a ball that touches the left, front and lower sides of the image, air elsewhere."""
    index = np.indices((30, 40, 20))
    inside = sum((i - n) ** 2 for i, n in zip(index, (10, 10, 10), strict=True)) <= 100
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    return Volume(np.where(inside, 40, -1000).astype(np.float32), affine, "CT", "HU"), inside


def test_a_view_is_the_box_of_the_body_and_goes_through_its_middle(ball):
    image, inside = ball
    view = View.of(image)
    assert [(part.start, part.stop) for part in view.box] == [(0, 23), (0, 23), (0, 20)]
    assert view.point.tolist() == [10, 10, 10]
    assert view.size(PLANES[0]) == (23, 46) and view.size(PLANES[2]) == (46, 60)
    assert np.shares_memory(view.array(image.array), image.array)
    axial = view.cut(inside, PLANES[0])
    assert axial.shape == (23, 23) and np.array_equal(axial, inside[22::-1, 22::-1, 10].T)


def test_a_view_shows_the_planes_of_the_largest_weight(ball):
    image, inside = ball
    weight = np.where(inside, 1.0, 0.0)
    weight[3, 9, 15] = 1000
    assert View.of(image, inside, weight=weight).point.tolist() == [3, 9, 15]


def test_pixels_of_a_report_have_the_size_of_the_voxels(ball, monkeypatch):
    """Also where the margin around the body ends at the image border."""
    monkeypatch.setattr(figures, "png", lambda figure: figure)
    image, _ = ball
    figure = planes.difference_planes(image, compare(image.with_array(image.array + 5), image))
    for axes, (across, down) in zip(figure.axes[:3], ((1, 2), (1, 3), (2, 3)), strict=True):
        rows, columns = axes.images[0].get_array().shape
        assert axes.get_xlim()[1] == pytest.approx(columns * across)
        assert axes.get_ylim()[0] == pytest.approx(rows * down)


def test_a_legend_lists_visible_labels_and_counts_the_rest(ball):
    image, inside = ball
    labels = np.where(inside, 2, 0)
    labels[0, 0, 0] = 5  # in none of the planes shown
    panels = row(View.of(image), "Mask", labels=labels, opacity=1)
    words = [text.get_text() for text in draw([panels], {2: COLORS[0], 5: COLORS[1]}, {2: "liver", 5: "lung"}).texts]
    assert words == ["Mask", "liver"]
    many = np.arange(image.array.size).reshape(image.shape) % 40
    panels = row(View.of(image), "", labels=many, opacity=1)
    words = [text.get_text() for text in draw([panels], dict.fromkeys(range(40), "red"), {}).texts]
    assert words[0] == "label 1" and words[-1] == "and 19 more" and len(words) == 21


def test_values_not_measured_have_no_color(ball):
    image, inside = ball
    measured = np.ma.array(image.array, mask=~inside)
    panels = row(View.of(image), "Error", measured, (-50, 50), color_map="RdBu_r")
    figure = draw([panels], color_bar="error in HU")
    shown = figure.axes[0].images[0]
    assert shown.get_array().mask.any() and shown.get_clim() == (-50, 50)
    assert shown.to_rgba(np.ma.array([0.0], mask=[True]))[0] == pytest.approx([0xE9 / 255, 0xED / 255, 0xF0 / 255, 1])
    assert figure.axes[-1].get_ylabel() == "error in HU"


def test_pairs_of_a_cohort_are_in_radiological_orientation(monkeypatch):
    """A bright corner at the patient's right and anterior side is at the upper left."""
    from MedGenLib.metrics.memorization import Memorization, Neighbor

    monkeypatch.setattr(cohorts, "png", lambda figure: figure)
    cube = np.zeros((32, 32, 32), np.float32)
    cube[28:, 28:] = 1
    copy, original = (Features(f"{kind}/$a$", (), cube) for kind in ("synthetic", "training"))
    neighbor = Neighbor(copy.name, original.name, 0.1, original.name, 0.987, None)
    figure = cohorts.pairs_picture(Memorization((neighbor,), np.zeros((0, 2)), None, None, ""), [copy], [original])
    for axes in figure.axes:
        assert axes.images[0].get_array()[:4, :4].min() == 1 and axes.images[0].get_array().sum() == 16
        assert "".join(text.get_text() for text in axes.texts) == "RLAP" and not axes.lines
    assert [text.get_text() for text in figure.texts] == ["$a$", "$a$\nr = 0.987"]
