"""The worker's messages and the client's side of the protocol, without a process."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from MedGenLib import errors
from MedGenLib.worker.protocol import messages
from MedGenLib.worker.protocol.connection import Connection

KINDS = [
    (errors.InputError, -32001),
    (errors.PackageError, -32002),
    (errors.LicenseError, -32003),
    (errors.MemoryPlanError, -32004),
    (errors.Cancelled, -32005),
    (errors.DiskFullError, -32006),
    (errors.WorkerError, -32010),
]
LIBRARY = Path(messages.__file__).parents[2]


@pytest.mark.parametrize(("kind", "code"), KINDS)
def test_an_error_keeps_its_class(kind, code):
    error = kind("The mask\nis empty.")
    error.detail = "line 1\nline 2"
    carried = json.loads(json.dumps(messages.error_of(error)))
    back = messages.exception_of(carried)
    assert carried["code"] == code and type(back) is kind
    assert (str(back), back.detail) == ("The mask is empty.", "line 1\nline 2")


def test_a_full_disk_is_an_input_error_too():
    assert isinstance(messages.exception_of({"code": -32006, "message": "x"}), errors.InputError)


def test_an_unexpected_error_is_one_sentence_with_the_traceback_as_detail():
    try:
        {}["no\nsuch key"]
    except KeyError as fault:
        back = messages.exception_of(messages.error_of(fault))
    assert type(back) is errors.WorkerError
    assert "KeyError" in str(back) and "\n" not in str(back)
    assert "Traceback" in back.detail and "test_worker_messages" in back.detail


@pytest.mark.parametrize("error", [None, {}, {"message": None}, {"code": "x", "data": 3}])
def test_a_malformed_error_is_still_an_error(error):
    back = messages.exception_of(error)
    assert isinstance(back, errors.WorkerError) and str(back) and back.detail == ""


def test_every_message_is_one_line_of_utf8():
    message = {"text": 'Łódź\n"quoted"\r\u2028', "n": 1.5}
    line = messages.encode(message)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert messages.decode(line) == message
    messages.encode({"path": "caf\udce9.nii"}).decode("utf-8")
    with pytest.raises(ValueError):
        messages.encode({"x": float("nan")})


@pytest.mark.parametrize("line", [b"hello", b"[1, 2]", b"\xff\xfe", b"3", b"{", b"[" * 100_000])
def test_invalid_messages_are_refused(line):
    with pytest.raises(errors.WorkerError) as caught:
        messages.decode(line)
    assert caught.value.code in (messages.PARSE_ERROR, messages.INVALID_REQUEST)


class Conversation:
    """A connection with the test in place of the worker."""

    def __init__(self) -> None:
        self.now, self.sent, self.logs, self.events = 100.0, [], [], []
        self.connection = Connection(self.write, self.logs.append, lambda: self.now)

    def write(self, line):
        self.sent.append(json.loads(line))

    def ask(self, method="generate", **params):
        return self.connection.request(
            method,
            params,
            on_result=lambda result: self.events.append(("result", result)),
            on_error=lambda error: self.events.append(("error", error)),
            on_progress=lambda progress: self.events.append(("progress", progress["step"])),
        )

    def say(self, **message):
        self.connection.feed(messages.encode({"jsonrpc": "2.0", **message}))


@pytest.fixture
def talk():
    return Conversation()


def test_requests_are_json_rpc_with_unique_numbers(talk):
    first, second = talk.ask(model="ct-tissue"), talk.ask("translate", to="CT")
    assert first != second and talk.connection.pending == (first, second)
    assert talk.sent[0] == {"jsonrpc": "2.0", "id": first, "method": "generate", "params": {"model": "ct-tissue"}}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_bytes_arrive_in_pieces_of_any_size(talk, size):
    number = talk.ask()
    data = b"".join(
        messages.encode(m)
        for m in (
            messages.request(None, "progress", {"id": number, "step": 1}),
            messages.request(None, "log", {"level": "info", "text": "naïve"}),
            messages.answer(number, {"ok": "Łódź"}),
        )
    )
    for start in range(0, len(data), size):
        talk.connection.feed(data[start : start + size])
    assert talk.events == [("progress", 1), ("result", {"ok": "Łódź"})]
    assert talk.logs == ["naïve"] and talk.connection.pending == ()


def test_answers_find_their_request_in_any_order(talk):
    first, second = talk.ask(), talk.ask()
    talk.say(id=second, error={"code": -32003, "message": "Accept it first."})
    talk.say(id=first, result={})
    kinds = [(kind, type(value)) for kind, value in talk.events]
    assert kinds == [("error", errors.LicenseError), ("result", dict)]


def test_late_and_unknown_answers_are_ignored(talk):
    number = talk.ask()
    talk.say(id=number, result={})
    talk.say(id=number, result={})
    talk.say(id=99, result={})
    talk.say(method="progress", params={"id": number, "step": 3})
    talk.say(method="something-new", params={})
    assert len(talk.events) == 1


@pytest.mark.parametrize(
    "data", [b"Segmentation fault\n", b"[]\n", b'{"jsonrpc": "2.0"}\n', b'{"method": "progress"}\n']
)
def test_garbage_raises_with_its_beginning_as_detail(talk, data):
    talk.ask()
    with pytest.raises(errors.WorkerError, match="an invalid message") as caught:
        talk.connection.feed(data)
    assert data[:2].decode() in caught.value.detail and "\n" not in str(caught.value)


def test_endless_garbage_without_a_line_break_is_detected(talk, monkeypatch):
    monkeypatch.setattr(messages, "LONGEST_LINE", 1000)
    with pytest.raises(errors.WorkerError):
        for _ in range(20):
            talk.connection.feed(b"x" * 100)


def test_cancel_is_sent_for_pending_requests_only(talk):
    number = talk.ask()
    talk.connection.cancel(number + 5)
    talk.connection.cancel(number)
    assert [m["method"] for m in talk.sent] == ["generate", "cancel"]
    assert talk.sent[-1]["params"] == {"id": number} and "id" not in talk.sent[-1]


def test_the_end_of_the_transport_reaches_every_request_once(talk):
    talk.ask(), talk.ask()
    talk.connection.fail(errors.WorkerError("gone"))
    talk.connection.fail(errors.WorkerError("gone again"))
    assert [str(error) for _, error in talk.events] == ["gone", "gone"]


def test_an_error_without_a_number_ends_every_request(talk):
    talk.ask()
    talk.say(id=None, error={"code": -32700, "message": "A message is not JSON."})
    assert [kind for kind, _ in talk.events] == ["error"]


def test_a_result_that_is_not_an_object_is_an_error(talk):
    talk.say(id=talk.ask(), result=[1, 2])
    assert isinstance(talk.events[0][1], errors.WorkerError)


def test_silence_counts_from_the_last_message(talk):
    assert talk.connection.silent_for == 0
    talk.now += 50
    number = talk.ask()
    assert talk.connection.silent_for == 0, "idle time is no silence"
    talk.now += 7
    assert talk.connection.silent_for == 7
    talk.say(method="progress", params={"id": number, "step": 1})
    assert talk.connection.silent_for == 0
    talk.now += 3
    talk.say(id=number, result={})
    talk.now += 50
    assert talk.connection.silent_for == 0


def test_a_request_that_cannot_be_written_is_not_pending():
    def broken(_):
        raise errors.WorkerError("gone")

    connection = Connection(broken)
    with pytest.raises(errors.WorkerError, match="gone"):
        connection.request("devices", on_result=print, on_error=print)
    assert connection.pending == ()


@pytest.mark.parametrize("name", ["__init__.py", "worker/__init__.py", "worker/__main__.py"])
def test_an_old_python_can_parse_the_files_that_refuse_it(name):
    ast.parse((LIBRARY / name).read_text(encoding="utf-8"), feature_version=(3, 7))
