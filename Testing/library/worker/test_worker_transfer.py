"""Image transfer between processes: voxels, geometry, full disks."""

from __future__ import annotations

import contextlib
import errno
import os
import re

import numpy as np
import pytest

from MedGenLib.errors import Cancelled, DiskFullError, InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import write_volume
from MedGenLib.worker.protocol import transfer

AFFINE = np.array([[-0.7, 0.1, 0.0, 31.2], [-0.1, -0.7, 0.0, -7.7], [0, 0, 2.5, 1 / 3], [0, 0, 0, 1]])


def image(dtype=np.int16, shape=(7, 5, 3)) -> Volume:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    return Volume(array, AFFINE, "CT", "HU", ("tilted",))


@contextlib.contextmanager
def largest_file(size: int):
    """Limit of the file size; writing more fails as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("order", ["C", "F", "neither"])
def test_a_volume_is_transferred_exactly(tmp_path, dtype, order):
    given = image(dtype)
    array = {
        "C": np.ascontiguousarray(given.array),
        "F": np.asfortranarray(given.array),
        "neither": np.repeat(given.array, 2, axis=1)[:, ::2],
    }[order]
    back = transfer.take(transfer.put(given.with_array(array), tmp_path, "x"))
    assert isinstance(back, Volume) and back.array.dtype == dtype
    assert np.array_equal(back.array, given.array)
    assert np.array_equal(back.affine, given.affine), "not one digit is lost"
    assert (back.modality, back.unit, back.notes) == ("CT", "HU", ("tilted",))
    assert not back.array.flags.writeable


def test_a_label_map_keeps_its_names(tmp_path):
    given = LabelMap(image(np.uint8).array, AFFINE, {3: "Łebek", 70: "liver"})
    back = transfer.take(transfer.put(given, tmp_path, "x"))
    assert isinstance(back, LabelMap) and back.names == given.names
    assert np.array_equal(back.array, given.array)


def test_the_description_is_json_without_voxels(tmp_path):
    import json

    item = json.loads(json.dumps(transfer.put(image(shape=(60, 60, 60)), tmp_path, "x")))
    assert len(json.dumps(item)) < 1000
    assert np.array_equal(transfer.take(item).affine, AFFINE)


def test_files_of_other_formats_are_read_as_the_library_does(tmp_path):
    path = write_volume(image(np.float32), tmp_path / "x.nii.gz")
    volume = transfer.take({"path": str(path), "kind": "volume", "modality": "CT"})
    assert np.array_equal(volume.array, image().array) and volume.unit == "HU"
    labels = transfer.take({"path": str(path), "kind": "labels"})
    assert isinstance(labels, LabelMap)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    with largest_file(100_000), pytest.raises(DiskFullError, match="disk is full.*free") as caught:
        transfer.put(image(shape=(80, 80, 80)), tmp_path, "x")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(InputError, match="cannot be written.*another folder"):
            transfer.put(image(), folder, "x")


def test_nothing_is_overwritten(tmp_path):
    first = transfer.put(image(), tmp_path, "x")
    with pytest.raises(InputError, match=re.escape(os.strerror(errno.EEXIST))):
        transfer.put(image(np.float32), tmp_path, "x")
    assert transfer.take(first).array.dtype == np.int16


def test_writing_can_be_stopped_between_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "BLOCK", 1000)
    blocks = []

    def stop():
        blocks.append(1)
        if len(blocks) == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        transfer.put(image(shape=(30, 30, 30)), tmp_path, "x", stop)
    assert len(blocks) == 3 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"path": "/nowhere/x.npy"}, {"affine": None}, {"affine": [[1, 2], [3, 4]]}, {"affine": "north"}]
)
def test_a_wrong_description_is_one_sentence(tmp_path, change):
    item = {**transfer.put(image(), tmp_path, "x"), **change}
    with pytest.raises(InputError) as caught:
        transfer.take(item)
    assert "\n" not in str(caught.value)


def test_missing_parts_and_damaged_files_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="path"):
        transfer.take({})
    path = tmp_path / "x.npy"
    for content in (b"", b"\x80\x04no array", b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            transfer.take({"path": str(path), "affine": AFFINE.tolist()})


def test_objects_are_refused_on_both_sides(tmp_path):
    array = np.full((2, 2, 2), None)
    with pytest.raises(InputError, match="objects"):
        transfer.put(Volume(array, AFFINE), tmp_path, "x")
    path = tmp_path / "pickle.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        transfer.take({"path": str(path), "affine": AFFINE.tolist()})
