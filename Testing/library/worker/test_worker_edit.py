"""Live editing through the real worker: canvases, blocks, undo, cancellation."""

import numpy as np
import pytest
from workers import temporary_environment, trunk

from MedGenLib.editing.session import Canvas
from MedGenLib.errors import Cancelled, InputError
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.worker.client import Worker
from MedGenLib.worker.methods import edit
from MedGenLib.worker.protocol.transfer import put, take

HU = np.array([-1000, -100, 40, 400, -800], np.int16)
OPEN = {"model": "ct-tissue", "seed": 3, "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with temporary_environment(MEDGEN_HOME=str(tmp_path_factory.mktemp("home"))):
        yield


@pytest.fixture(scope="module")
def worker(home):
    with Worker() as worker:
        yield worker


@pytest.fixture(scope="module")
def mask():
    return trunk((36, 32, 28))


@pytest.fixture(scope="module")
def image(mask):
    noise = np.random.default_rng(0).normal(0, 15, mask.shape) * (mask.array > 0)
    return Volume((HU[mask.array] + noise).astype(np.int16), mask.affine, "CT", "HU")


class Client:
    """A minimal client of the worker."""

    def __init__(self, worker, folder):
        self.worker, self.folder, self.count = worker, folder, 0

    def put(self, item):
        self.count += 1
        return put(item, self.folder, f"mine-{self.count}")

    def open(self, mask, image=None, **options):
        given = None if image is None else self.put(image)
        options = {"folder": str(self.folder), **OPEN, **options}
        return self.worker.call("edit/open", input=self.put(mask), image=given, **options)

    def edit(self, name, mask, **options):
        item = self.put(mask)
        options = {"folder": str(self.folder), **options}
        return self.worker.call("edit", canvas=name, mask=item, **options)

    def ask(self, what, name):
        place = {} if what == "close" else {"folder": str(self.folder)}
        return self.worker.call(f"edit/{what}", canvas=name, **place)


@pytest.fixture
def client(worker, tmp_path):
    return Client(worker, tmp_path)


def brush(mask, label=3, start=(8, 12, 10), size=4):
    array = mask.array.copy()
    array[tuple(slice(s, s + size) for s in start)] = label
    return mask.with_array(array)


def copied(volume, answer):
    """The client's image with the block copied in."""
    block = take(answer["block"]).array
    array = volume.copy()
    array[tuple(slice(o, o + n) for o, n in zip(answer["offset"], block.shape, strict=True))] = block
    return array


def test_edits_by_blocks_equal_those_of_the_library(client, mask, image):
    opened = client.open(mask, image)
    assert opened["volume"] is None and opened["report"] is None and opened["passed"]
    assert opened["seed"] == 3 and opened["halo_mm"] == 4.0
    now, new = image.array, mask
    with Canvas.of_image(image, mask, seed=3, device="cpu") as canvas:
        for step in range(3):
            new = brush(new, start=(8 + 2 * step, 12, 10))
            start, stop = (4, 6, 7), (28, 26, 20)
            answer = client.edit(opened["canvas"], crop(new, start, stop), offset=list(start), preset="draft")
            done = canvas.edit(new)
            now = copied(now, answer)
            assert answer["changed_beyond"] == done.beyond > 0
            assert answer["largest_change_beyond"] == done.farthest > 0
            assert np.array_equal(now, canvas.volume.array)
            assert answer["changed"] > 0 and answer["can_undo"] and not answer["can_redo"]
            block = take(answer["block"])
            place = image.geometry.moved(answer["offset"], block.shape)
            assert np.allclose(block.affine, place.affine) and block.array.dtype == np.int16
            assert block.array.size < 0.75 * image.array.size, "only a part travels"
    assert client.ask("close", opened["canvas"]) == {}


def test_undo_and_redo_return_image_and_mask(client, mask, image):
    name = client.open(mask, image)["canvas"]
    new = brush(mask)
    after = copied(image.array, client.edit(name, new))
    back = client.ask("undo", name)
    assert np.array_equal(copied(after, back), image.array)
    assert np.array_equal(copied_mask(new, back), mask.array)
    assert back["can_redo"] and not back["can_undo"] and client.ask("undo", name)["block"] is None
    again = client.ask("redo", name)
    assert np.array_equal(copied(image.array, again), after)
    assert np.array_equal(copied_mask(mask, again), new.array)
    unchanged = client.edit(name, new)
    assert unchanged["block"] is None and unchanged["changed"] == unchanged["changed_beyond"] == 0
    client.ask("close", name)


def copied_mask(mask, answer):
    return copied(mask.array, {**answer, "block": answer["mask"]})


def test_a_generated_canvas_answers_as_generate_and_stays_in_memory(client, worker, mask):
    options = {"preset": "draft", "retries": 0}
    opened = client.open(mask, **options)
    made = worker.generate(mask, **OPEN, **options)  # another run in between
    volume = take(opened["volume"])
    assert np.array_equal(volume.array, made.volume.array)
    assert opened["report"]["task"] == "generate" and opened["passed"] == made.passed
    new = brush(mask)
    answer = client.edit(opened["canvas"], new)
    after = copied(volume.array, answer)
    assert after[new.array != mask.array].mean() > 150
    client.ask("close", opened["canvas"])


def test_a_closed_canvas_is_reported_without_an_error(client, mask, image):
    names = [client.open(mask, image)["canvas"] for _ in range(edit.MOST_CANVASES + 1)]
    assert len(set(names)) == len(names)
    assert client.edit(names[0], brush(mask)) == {"closed": True}, "the oldest one went"
    assert client.ask("undo", names[0]) == {"closed": True}
    assert "closed" not in client.ask("undo", names[1])
    for name in names:
        client.ask("close", name)
        assert client.ask("redo", name) == {"closed": True}
    assert client.ask("close", "never there") == {}


def test_bad_input_is_one_sentence_and_keeps_the_canvas(client, mask, image):
    far = mask.affine.copy()
    far[0, 3] += 5
    with pytest.raises(InputError, match="does not lie on the image's grid"):
        client.open(LabelMap(mask.array, far), image)
    with pytest.raises(InputError, match="'sede' of edit is unknown; use "):
        client.open(mask, image, sede=4)
    with pytest.raises(InputError, match="'samples' of generate is not available here.*a canvas holds one volume"):
        client.open(mask, samples=4)
    with pytest.raises(InputError, match="cannot be read"):
        client.worker.call("edit/open", input={"path": "/nowhere.npy", "kind": "labels"})
    name = client.open(mask, image)["canvas"]
    refused = [
        ({"mask": brush(mask, 77)}, "does not know: 77"),
        ({"mask": LabelMap(mask.array, far)}, "does not lie on the image's grid"),
        ({"mask": crop(mask, (0, 0, 0), (9, 9, 9)), "offset": [33, 0, 0]}, "do not lie inside"),
        ({"mask": mask, "preset": "hasty"}, "hasty"),
    ]
    for options, words in refused:
        with pytest.raises(InputError, match=words):
            client.edit(name, **options)
    assert client.edit(name, mask)["can_undo"] is False
    client.ask("close", name)


def test_an_edit_without_answer_is_undone(client, mask, image):
    name = client.open(mask, image)["canvas"]
    full = client.folder / "full"
    full.mkdir()
    for number in range(500):  # no block can be written there
        (full / f"edit-{number}.npy").touch()
    with pytest.raises(InputError, match="cannot be written"):
        client.edit(name, brush(mask), folder=str(full))
    assert client.edit(name, brush(mask)) == {"closed": True}, "the client opens it again"


def test_a_canceled_edit_changes_nothing(client, worker, mask, image):
    name = client.open(mask, image)["canvas"]
    params = {"canvas": name, "mask": client.put(brush(mask)), "folder": str(client.folder)}

    def stop(progress):
        if progress.stage == "sampling":
            raise Cancelled("Enough.")

    job = worker.request("edit", {**params, "preset": "best"}, dict, stop)
    with pytest.raises(Cancelled):
        job.result(60)
    assert client.ask("undo", name)["can_undo"] is False
    answer = client.edit(name, brush(mask))
    with Canvas.of_image(image, mask, seed=3, device="cpu") as canvas:
        canvas.edit(brush(mask))
        assert np.array_equal(copied(image.array, answer), canvas.volume.array)
    client.ask("close", name)


def test_canvases_are_closed_when_memory_is_short(monkeypatch):
    class Warm:
        closed = False

        def close(self):
            self.closed = True

    first, second = Warm(), Warm()
    monkeypatch.setattr(edit, "_canvases", edit.collections.OrderedDict(a=first, b=second))
    monkeypatch.setattr(edit, "_short_of_memory", lambda: True)
    assert edit.warm_canvas("a") is first, "the one in use stays"
    assert second.closed and not first.closed and edit.warm_canvas("b") is None
    edit.forget()
    assert first.closed and edit.warm_canvas("a") is None
