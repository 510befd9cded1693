"""Previews: content of the figure, and a readable PNG file."""

import numpy as np
import pytest
from matplotlib.image import imread

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.visual import preview
from MedGenLib.visual.grid import COLORS, label_colors
from MedGenLib.visual.views import BONE, LUNG, SOFT_TISSUE, default_windows

NAMES = {1: "fat", 2: "soft tissue"}
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def affine(orientation="RAS", spacing=(1, 1, 1)):
    result = np.eye(4)
    result[:3, :3] = np.transpose([DIRECTIONS[letter] for letter in orientation]) * spacing
    return result


def stored(ras, orientation, spacing=(1, 1, 1)):
    """Array and affine of a RAS array when it is stored in another orientation."""
    pairs = ["RL", "AP", "SI"]
    order = [next(i for i, pair in enumerate(pairs) if letter in pair) for letter in orientation]
    array = ras.transpose(order)
    flips = [axis for axis, letter in enumerate(orientation) if letter in "LPI"]
    return np.flip(array, flips), affine(orientation, [spacing[axis] for axis in order])


@pytest.fixture
def body():
    """A RAS volume with one bright voxel near right, anterior, superior; mask in the middle."""
    array = np.full((20, 24, 28), -1000.0, np.float32)
    array[3:17, 3:21, 3:25] = 40
    array[15, 19, 23] = 700
    labels = np.zeros(array.shape, np.uint8)
    labels[3:17, 3:21, 3:25] = 1
    labels[6:12, 8:16, 8:20] = 2
    return array, labels


@pytest.fixture
def figure_of(monkeypatch, tmp_path):
    """Makes a preview and returns its figure."""
    import matplotlib.figure

    kept = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda f, *a, **k: (kept.append(f), save(f, *a, **k)))

    def make(source, output, **options):
        preview.preview(source, output, tmp_path / "p.png", **options)
        return kept[-1]

    return make


def texts(figure):
    return [text.get_text() for text in figure.texts]


def images(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


def test_file_is_a_png_without_other_files(body, tmp_path):
    output = Volume(body[0], affine(), "CT", "HU")
    preview.preview(LabelMap(body[1], affine(), NAMES), output, tmp_path / "p.png", title="toy")
    picture = imread(tmp_path / "p.png")
    assert picture.shape[1] == 1500 and picture.shape[2] == 4
    assert picture[..., :3].max() > 0.9
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_rows_captions_legend_and_note(body, figure_of):
    output = Volume(body[0], affine(), "CT", "HU")
    figure = figure_of(LabelMap(body[1], affine(), NAMES), output, title="ct-tissue, seed 7")
    words = texts(figure)
    assert len(figure.axes) == 9
    assert words[:2] == ["ct-tissue, seed 7", "Input: mask"]
    assert "W 400 L 40" in words[2] and "contours" in words[2]
    assert "bone window (W 1800 L 400)" in words[3]
    assert "fat" in words and "soft tissue" in words
    assert "not for diagnosis" in words[-1]


def test_letters_and_scale_bar(body, figure_of):
    output = Volume(body[0], affine(), "CT", "HU")
    figure = figure_of(LabelMap(body[1], affine(), NAMES), output)
    letters = ["".join(text.get_text() for text in axes.texts[:4]) for axes in figure.axes[:3]]
    assert letters == ["RLAP", "RLSI", "APSI"]
    for axes in figure.axes:
        (bar,) = axes.lines
        assert axes.texts[4].get_text() == "5 mm"
        assert np.ptp(bar.get_xdata()) == pytest.approx(5)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LIA", "SAL", "PIR"])
def test_bright_spot_is_in_radiological_orientation(body, figure_of, orientation):
    array, labels = body
    spot = np.argwhere(array == 700)[0]
    labels = np.zeros_like(labels)
    labels[tuple(spot)] = 1  # the planes go through it
    output = Volume(*stored(array, orientation), modality="CT", unit="HU")
    figure = figure_of(LabelMap(*stored(labels, orientation), names=NAMES), output)
    for panel in images(figure)[3:6]:
        row, column = np.argwhere(panel == 700)[0]
        assert row < panel.shape[0] / 2  # anterior or superior is up
        assert column < panel.shape[1] / 2  # right or anterior is on the left


def test_all_panels_have_one_scale_in_mm(body, figure_of):
    array, labels = body
    spacing = (1, 0.5, 3)
    output = Volume(array, affine(spacing=spacing), "CT", "HU")
    figure = figure_of(LabelMap(labels, affine(spacing=spacing), NAMES), output)
    scales = []
    for axes in figure.axes:
        box = axes.get_window_extent()
        scales += [box.width / abs(np.ptp(axes.get_xlim())), box.height / np.ptp(axes.get_ylim())]
    assert np.ptp(np.abs(scales)) < 1e-6 * np.mean(np.abs(scales)) + 1e-9
    left, right = figure.axes[0].get_xlim()
    rows, columns = images(figure)[0].shape[:2]
    assert right - left == pytest.approx(columns * spacing[0])
    assert abs(np.ptp(figure.axes[0].get_ylim())) == pytest.approx(rows * spacing[1])


@pytest.mark.parametrize(("axis", "letters"), [(0, "APSI"), (1, "RLSI"), (2, "RLAP")])
def test_a_single_slice_is_shown_in_its_plane(body, figure_of, axis, letters):
    array = np.take(body[0], [12], axis)
    image = Volume(array, affine(), "T1w")
    figure = figure_of(image, Volume(array, affine(), "CT", "HU"))
    assert len(figure.axes) == 3  # source, and the output in two windows
    assert "".join(text.get_text() for text in figure.axes[0].texts[:4]) == letters


def test_contours_are_those_of_the_mask(body, figure_of):
    array, labels = body
    figure = figure_of(LabelMap(labels, affine(), NAMES), Volume(array, affine(), "CT", "HU"))
    axial = figure.axes[3]
    widths = [np.ptp(path.get_paths()[0].vertices[:, 0]) for path in axial.collections]
    assert widths == pytest.approx([14, 6], abs=0.01)
    assert [len(axes.collections) > 0 for axes in figure.axes[::3]] == [False, True, False]


def test_windows_by_modality(body):
    ct = Volume(body[0], affine(), "CT", "HU")
    assert default_windows(ct) == [SOFT_TISSUE, BONE]
    lungs = body[0].copy()
    lungs[5:12, 5:18, 5:20] = -800
    assert default_windows(ct.with_array(lungs)) == [SOFT_TISSUE, LUNG]
    mr = np.random.default_rng(0).gamma(2, 40, (16, 16, 16))
    (window,) = default_windows(Volume(mr, affine(), "T1w"))
    low, high = window.limits
    assert low == pytest.approx(0) and 0.9 < (mr < high).mean() < 1


def test_many_labels_keep_distinct_colors_and_a_short_legend(figure_of):
    labels = np.zeros((20, 20, 4), np.int32)
    labels[:, :, 1:3] = (np.arange(400).reshape(20, 20, 1) // 10 + 1) * 50
    output = Volume(np.random.default_rng(0).random(labels.shape), affine(), "T1w")
    figure = figure_of(LabelMap(labels, affine()), output)
    assert len(set(label_colors(labels).values())) == 40
    assert sum(word.startswith("label ") for word in texts(figure)) == 20
    assert any(word.endswith(" more") for word in texts(figure))


@pytest.mark.parametrize("values", [range(1, 33), [2, 3, 4, 10, 11, 12, 13, 17, 41, 42, 43, 49, 50, 51, 52, 53]])
def test_colors_of_labels_are_distinct(values):
    """Numbers of models and of FreeSurfer, with ventricle (4, 43) and hippocampus (17, 53)."""
    from matplotlib.colors import to_rgb
    from skimage.color import rgb2lab

    colors = label_colors(np.array([0, *values]))
    lab = rgb2lab(np.array([[to_rgb(color) for color in colors.values()]]))[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)[~np.eye(len(lab), dtype=bool)]
    assert len(colors) == len(values) and distances.min() > 20


def test_labels_beside_stated_colors_are_unlike_them():
    stated = {1: COLORS[1], 5: "#ffffff", 9: "#123456"}
    colors = label_colors(np.array([0, 1, 2, 5]), stated)
    assert colors.keys() == {1, 2, 5} and colors[1] == COLORS[1] and colors[5] == "#ffffff"
    assert len(set(colors.values())) == 3


def test_white_matter_is_not_saturated():
    generator = np.random.default_rng(0)
    brain = np.zeros((40, 40, 40), np.float32)
    brain[5:35, 5:35, 5:35] = generator.normal(65, 6, (30, 30, 30))
    brain[12:28, 12:28, 12:28] = white = generator.normal(108, 5, (16, 16, 16))
    (window,) = default_windows(Volume(brain, affine(), "T1w"))
    assert np.mean(white >= window.limits[1]) < 0.002 and window.limits[1] < 1.5 * 108


def test_extremes_do_not_fail(figure_of):
    flat = Volume(np.zeros((8, 8, 8)), affine(), "T1w")
    assert figure_of(flat, flat).axes
    title = "$not math$ " * 3
    figure = figure_of(LabelMap(np.zeros((8, 8, 8), int), affine()), flat, title=title)
    assert any("$not math$" in word for word in texts(figure))


def test_other_grids_and_single_lines_are_refused(tmp_path):
    line = Volume(np.zeros((8, 1, 1)), affine())
    with pytest.raises(InputError, match="one grid"):
        preview.preview(line, Volume(np.zeros((8, 8, 8)), affine()), tmp_path / "p.png")
    with pytest.raises(InputError, match="no plane"):
        preview.preview(line, line, tmp_path / "p.png")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_one_sentence(body, tmp_path):
    output = Volume(body[0], affine(), "CT", "HU")
    with pytest.raises(InputError):
        preview.preview(output, output, tmp_path / "missing" / "p.png")


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR"])
def test_a_changed_region_is_shown_before_and_after(body, monkeypatch, tmp_path, orientation):
    import matplotlib.figure

    kept = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda f, *a, **k: (kept.append(f), save(f, *a, **k)))
    array, labels = body
    region = (labels == 2).astype(np.uint8)
    old, new = (stored(a, orientation) for a in (array, np.where(region, -60.0, array)))
    before, after = (Volume(a, affine, "CT", "HU") for a, affine in (old, new))
    change = LabelMap(*stored(region, orientation))
    preview.preview_change(before, after, change, tmp_path / "p.png", "a lesion")
    figure = kept[-1]
    words = texts(figure)
    assert words[:2] == ["a lesion", "Before, soft-tissue window (W 400 L 40)"]
    assert len(figure.axes) == 9 and imread(tmp_path / "p.png").shape[1] == 1500
    shown = images(figure)
    for first, second in zip(shown[:3], shown[3:6], strict=True):
        differ = first != second  # the planes through the middle of the region
        assert differ.any() and (first[differ] == 40).all() and (second[differ] == -60).all()
    assert sum(len(axes.collections) > 0 for axes in figure.axes[6:]) == 3  # its outline
    with pytest.raises(InputError, match="on one grid"):
        preview.preview_change(before, after, LabelMap(np.ones((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "q.png")


def test_a_region_of_lung_is_shown_in_the_lung_window(body, monkeypatch, tmp_path):
    array, labels = body
    lung = np.where(labels == 2, -850.0, array).astype(np.float32)
    windows = []

    def draw(rows, *_, **__):
        windows.extend(panels[0].limits for panels in rows)
        raise InputError("enough")

    monkeypatch.setattr(preview, "draw", draw)
    change = LabelMap((labels == 2).astype(np.uint8), affine())
    for pair in ((lung, array), (array, lung), (array, array)):
        before, after = (Volume(a, affine(), "CT", "HU") for a in pair)
        with pytest.raises(InputError, match="enough"):
            preview.preview_change(before, after, change, tmp_path / "p.png")
    assert list(tmp_path.iterdir()) == []
    assert windows == [LUNG.limits] * 6 + [SOFT_TISSUE.limits] * 3
