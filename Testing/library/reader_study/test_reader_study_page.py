"""The reading page: a real process with HTTP requests as from a browser."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import write_volume
from MedGenLib.reader_study.page import ReadingPage
from MedGenLib.reader_study.preparation import make
from MedGenLib.reader_study.reading import Reading, read_answers
from MedGenLib.reader_study.study import Study


def image(seed) -> Volume:
    values = np.random.default_rng(seed).normal(100, 30, (24, 20, 18))
    return Volume(np.float32(values), np.diag([1.0, 1, 2, 1]), "T1w")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("a", "b")):
        write_volume(image(seed), folder / f"{name}.nrrd")
    real, synthetic = [folder / "a.nrrd"], [folder / "b.nrrd"]
    make(real, synthetic, folder / "slices", per_volume=2, seed=0)
    make(real, synthetic, folder / "volumes", items="volumes", seed=0)
    return folder


@pytest.fixture
def study(made, tmp_path):
    return shutil.copytree(made / "slices", tmp_path / "study")


class Run:
    """`medgen reader-study run`, and requests to its page."""

    def __init__(self, study, reader="A", *more):
        command = [sys.executable, "-m", "MedGenLib", "reader-study", "run", str(study)]
        command += ["--reader", reader, "--no-browser", *more]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"},
        )
        self.line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)(/\S+/)", self.line)
        assert found, self.line + self.process.stderr.read()
        self.port, self.path = int(found[1]), found[2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ask(self, path, body=None, host=None, **headers):
        """Status, headers and body of the answer to a request below the token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers["Host"] = host or f"127.0.0.1:{self.port}"
        full = path if path.startswith("/") else self.path + path
        connection.request("GET" if body is None else "POST", full, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    def json(self, path, body=None):
        status, _, content = self.ask(path, body and json.dumps(body))
        return status, json.loads(content)

    def answer(self, item, synthetic=True, confidence=3, seconds=1.5):
        return self.json("answer", {"item": item, "synthetic": synthetic, "confidence": confidence, "seconds": seconds})

    def ended(self):
        out, error = self.process.communicate(timeout=20)
        return self.process.returncode, self.line + out, error


def test_a_whole_reading(study):
    with Run(study) as run:
        status, state = run.json("state")
        assert (status, state["done"], state["total"], state["reader"]) == (200, 0, 4, "A")
        names = []
        while state["item"] is not None:
            names.append(state["item"]["name"])
            depth, height, width = state["item"]["shape"]
            status, headers, grays = run.ask(f"image/{names[-1]}")
            assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
            expected = next(i for i in Study.open(study).items if i.name == names[-1]).image().array
            assert depth == 1 and grays == expected.tobytes()
            status, state = run.answer(names[-1], synthetic=len(names) % 2 == 0, seconds=2)
            assert (status, state["done"]) == (200, len(names))
        code, out, error = run.ended()
    assert (code, error) == (0, "")
    assert "All 4 images have an answer" in out
    reading = Reading(study, "A")
    assert names == [item.name for item in reading.items]
    assert [a.synthetic for a in reading.answers.values()] == [False, True, False, True]


def test_ctrl_c_pauses_and_the_same_command_resumes(study):
    with Run(study) as run:
        first = run.json("state")[1]["item"]["name"]
        run.answer(first)
        run.process.send_signal(signal.SIGINT)
        code, _, error = run.ended()
    assert code == 130
    assert error == "medgen: Paused after 1 of 4 images; the same command continues from there.\n"
    with Run(study) as run:
        state = run.json("state")[1]
        assert state["done"] == 1 and state["item"]["name"] != first


def test_a_killed_reading_keeps_its_answers(study):
    with Run(study) as run:
        run.answer(run.json("state")[1]["item"]["name"])
        run.process.kill()
        run.ended()
    assert Reading(study, "A").progress == (1, 4)


def test_volumes_come_as_grays_of_their_window(made, tmp_path):
    study = shutil.copytree(made / "volumes", tmp_path / "study")
    with Run(study) as run:
        item = run.json("state")[1]["item"]
        grays = np.frombuffer(run.ask(f"image/{item['name']}")[2], np.uint8)
        assert item["spacing_mm"] == [1, 1, 2]
        array = next(i for i in Study.open(study).items if i.name == item["name"]).image().array
        assert array.shape == tuple(item["shape"]) == (18, 20, 24)
        np.testing.assert_array_equal(grays.reshape(array.shape), np.round(array * np.float32(255 / 4095)))


def test_only_requests_of_the_page_are_answered(study):
    with Run(study) as run:
        name = run.json("state")[1]["item"]["name"]
        other = next(i.name for i in Study.open(study).items if i.name != name)
        for path in (
            "/",
            "/state",
            f"{run.path[:-3]}xx/state",
            f"{run.path}../study.json",
            f"{run.path}study.json",
            f"{run.path[:-1]}",
        ):
            assert run.ask(path)[0] == 404, path
        assert run.ask("state", host="bent.example:80")[0] == 404
        assert run.ask("state", Origin="http://bent.example")[0] == 404
        assert run.ask("state", Origin=f"http://127.0.0.1:{run.port}")[0] == 200
        status, answer = run.json(f"image/{other}")
        assert (status, answer["error"]) == (409, "This image is not the next one; reload the page.")
        # It is not reachable from other computers.
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((own, run.port), timeout=5).close()


NO_ANSWERS = (
    "",
    "[]",
    "{",
    "x" * 5000,
    '{"item": "item_001"}',
    '{"item": 1, "synthetic": true, "confidence": 3, "seconds": 1}',
    '{"item": "item_001", "synthetic": "yes", "confidence": 3, "seconds": 1}',
    '{"item": "item_001", "synthetic": true, "confidence": true, "seconds": 1}',
)


def test_malformed_answers_are_refused(study):
    with Run(study) as run:
        for body in NO_ANSWERS:
            assert run.ask("answer", body)[0] == 400, body
        assert run.ask("state", "{}")[0] == 404
        assert run.json("state")[1]["done"] == 0


def test_errors_reach_the_page_and_the_terminal(study):
    with Run(study) as run:
        name = run.json("state")[1]["item"]["name"]
        assert run.answer(name, confidence=7)[0] == 409
        run.answer(name)
        status, answer = run.answer(name)
        assert (status, "has an answer already" in answer["error"]) == (409, True)
        path = study / "study.json"
        path.write_text(path.read_text() + " ")
        status, answer = run.answer(run.json("state")[1]["item"]["name"])
        assert (status, "is not the one of the answers so far" in answer["error"]) == (409, True)
        run.process.send_signal(signal.SIGINT)
        code, _, error = run.ended()
    assert code == 130
    assert [line for line in error.splitlines() if "is not the one" in line]
    assert len(error.splitlines()) == 4


def test_an_image_changed_during_the_reading_is_reported(study):
    first, second, *_ = Reading(study, "A").items
    with Run(study) as run:
        second.path.write_bytes(b"other")
        status, state = run.answer(first.name)
        assert (status, state["done"], state["item"]) == (200, 1, None)
        assert "was changed after the reader study" in state["error"]
        assert run.json(f"image/{second.name}")[0] == 409
    assert len(read_answers(study / "answers" / "A.csv", Study.open(study))) == 1


def test_a_port_can_be_given_and_must_be_free(study):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot use port {port}: .*; give another --port"):
            ReadingPage(Reading(study, "A"), port)
    with pytest.raises(InputError, match=r"cannot use port 99999: .*[^.]; give"):
        ReadingPage(Reading(study, "A"), 99999)
    with Run(study, "A", "--port", str(port)) as run:
        assert run.port == port


def test_two_pages_have_two_tokens(study):
    with ReadingPage(Reading(study, "A")) as a, ReadingPage(Reading(study, "B")) as b:
        assert a.token != b.token and len(a.token) == 32


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_the_page_is_self_contained_and_usable_by_keyboard(study):
    with Run(study) as run:
        status, headers, content = run.ask("")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert headers["Cache-Control"] == "no-store"
    parser = Elements()
    parser.feed(content.decode())
    elements = parser.found
    assert not [a for _, a in elements if {"src", "srcset", "action"} & set(a)]
    assert [a["href"] for tag, a in elements if tag == "link"] == ["data:,"]
    assert "http" not in content.decode()
    radios = [a for tag, a in elements if tag == "input" and a["type"] == "radio"]
    assert [a["value"] for a in radios] == ["real", "synthetic", "1", "2", "3", "4", "5"]
    assert len([tag for tag, _ in elements if tag in ("fieldset", "legend")]) == 4
    roles = {a["role"] for _, a in elements if "role" in a}
    assert roles == {"status", "img", "alert"}
    assert ("html", {"lang": "en"}) in elements
    ids = {a["id"] for _, a in elements if "id" in a}
    assert set(re.findall(r'by\("(\w+)"\)', content.decode())) <= ids
