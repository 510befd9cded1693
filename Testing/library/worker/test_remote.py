"""An engine on another computer: real processes on the loopback interface, from honest clients to attacks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import socket
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
from engines import MEDGEN, answer, ask, served, upload
from websockets.exceptions import ConnectionClosed, InvalidStatus
from workers import QUICK, at_start, eventually, gone, temporary_environment, trunk

import MedGenLib
from MedGenLib import cli
from MedGenLib.errors import Cancelled, InputError, WorkerError
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.options import of
from MedGenLib.worker.client import connect
from MedGenLib.worker.methods import METHODS
from MedGenLib.worker.process import descendants, kill_tree
from MedGenLib.worker.protocol.transfer import put, take
from MedGenLib.worker.remote import access, certificate, frames, serving

LONG = {**QUICK, "steps": 1000}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """One engine with TLS for all tests; each must leave it usable."""
    folder = tmp_path_factory.mktemp("engine")
    with temporary_environment(MEDGEN_HOME=str(folder / "home"), OMP_NUM_THREADS="1"):
        token = access.create_token("anna")
        with served(folder, "--secure", "--upload", "1", "--clients", "6", token=token) as found:
            certificate.remember(found.address, token=token)
            yield found


@pytest.fixture(scope="module")
def worker(engine):
    with connect(engine.address) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_left(engine):
    yield
    assert eventually(lambda: engine.files == [], 10)


# Runs


def test_a_run_equals_one_of_this_machine_bit_by_bit(engine, worker, tmp_path):
    seen = []
    remote = worker.generate(trunk(), progress=seen.append, **QUICK)
    local = MedGenLib.generate(trunk(), **QUICK)
    assert remote.volume.array.dtype == local.volume.array.dtype
    assert np.array_equal(remote.volume.array, local.volume.array)
    assert np.array_equal(remote.volume.affine, local.volume.affine)
    assert remote.report["parameters"] == json.loads(json.dumps(local.report.to_dict()))["parameters"]
    assert remote.sentences == local.report.sentences and remote.volume.unit == "HU"
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert {"sending the input", "sampling", "writing"} <= set(stages)
    assert str(engine.folder) not in json.dumps([remote.report, worker.info])
    path = write_volume(trunk(), tmp_path / "mask.nii.gz")  # read on this side
    assert np.array_equal(worker.generate(path, **QUICK).volume.array, local.volume.array)
    assert list(worker._folder.iterdir()) == []


@pytest.mark.parametrize("command", ["generate", "enhance"])
def test_the_command_line_runs_on_the_engine_as_here(engine, tmp_path, capsys, command):
    mask = trunk()
    if command == "generate":
        words = ["--seed", "1", "--steps", "2", "--retries", "0", "--map", "lung=lung or gas"]
        mask = mask.with_array(mask.array, {1: "fat", 2: "soft tissue", 4: "lung"})
    else:
        values = np.array([-1000, -95, 40, 400, -830])[mask.array] + np.random.default_rng(0).normal(0, 30, mask.shape)
        mask = Volume(values.astype(np.int16), mask.affine, "CT", "HU")
        words = ["--task", "denoise", "--modality", "CT"]
    words = [command, str(write_volume(mask, tmp_path / "in.nii.gz")), *words, "--device", "cpu"]
    found = {}
    for place, more in (("here", []), ("there", ["--engine", engine.address.replace("wss", "https")])):
        out, report = tmp_path / place / "out.nii.gz", tmp_path / place / "report.json"
        code = cli.main([*words, "-o", str(out), "--report", str(report), "--preview", f"{out}.png", *more])
        printed, errors = capsys.readouterr()
        assert code in (0, 3), errors
        printed = printed.replace(str(out.parent), "")
        known = json.loads(report.read_text())
        [known.pop(name) for name in ("timings", "peak_memory_mib", "device")]  # the engine has one thread
        found[place] = (code, printed, known, read_volume(out).array.tobytes(), Path(f"{out}.png").read_bytes())
        assert sorted(path.name for path in out.parent.iterdir()) == sorted(
            [out.name, f"{out.name}.png", "out.medgen.json", report.name]
        )
    assert found["here"] == found["there"]


def test_this_computer_needs_no_pytorch(engine, tmp_path):
    others = ("torch", "scipy", "skimage", "jsonschema", "safetensors", "psutil", "monai", "SimpleITK", "nibabel")
    missing = at_start(tmp_path, f"import sys; sys.modules |= dict.fromkeys({others!r})")
    with temporary_environment(**missing), connect(engine.address) as found:
        assert found.generate(trunk(), **QUICK).volume.shape == trunk().shape


def test_measuring_stays_on_this_machine_and_models_on_the_other(engine, worker, tmp_path):
    volume = Volume(trunk().array.astype(np.float32), trunk().affine)
    sent = engine.metric('medgen_bytes_total{direction="received"}')
    found = worker.evaluate(volume, volume, report=tmp_path / "report")
    assert Path(found["report"]).is_file()
    assert engine.metric('medgen_bytes_total{direction="received"}') == sent
    assert "ct-tissue" in [model["name"] for model in worker.call("models/list")["models"]]
    with pytest.raises(InputError, match="does not run 'models/remove' for its clients"):
        worker.call("models/remove", name="ct-tissue")


def test_an_edited_block_equals_one_of_this_machine(engine, worker, tmp_path):
    from MedGenLib.editing.session import Canvas

    mask = trunk()
    painted = mask.array.copy()
    painted[8:12, 8:12, 6:9] = 3
    box = tuple(slice(start, start + 8) for start in (6, 6, 4))
    image = MedGenLib.generate(mask, **QUICK).volume
    canvas = Canvas.of_image(image, mask, "ct-tissue", seed=1, device="cpu")
    canvas.edit(mask.with_array(painted))
    given = {"image": put(image, tmp_path, "image"), "input": put(mask, tmp_path, "mask")}
    opened = worker.call("edit/open", model="ct-tissue", seed=1, device="cpu", folder=str(tmp_path), **given)
    block = put(crop(mask.with_array(painted), (6, 6, 4), (14, 14, 12)), tmp_path, "block")
    edit = {"canvas": opened["canvas"], "mask": block, "offset": [6, 6, 4], "folder": str(tmp_path)}
    done = worker.call("edit", **edit)
    box = tuple(slice(a, a + n) for a, n in zip(done["offset"], take(done["block"]).shape, strict=True))
    assert done["changed"] == 48 and np.array_equal(take(done["block"]).array, canvas.volume.array[box])
    with engine.raw() as other:
        ask(other, 1, "edit/undo", canvas=opened["canvas"])
        assert answer(other, 1)["result"] == {"closed": True}, "a canvas belongs to one client"
    assert worker.call("edit/undo", canvas=opened["canvas"], folder=str(tmp_path))["can_redo"]
    worker.call("edit/close", canvas=opened["canvas"])
    assert worker.call("edit", **edit) == {"closed": True}


def test_a_cancelled_run_stops_and_the_next_one_works(engine, worker):
    job = worker.submit("generate", trunk(), progress=lambda progress: steps.append(progress.stage), **LONG)
    steps = []
    assert eventually(lambda: "sampling" in steps, 60)
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(60)
    assert worker.generate(trunk(), **QUICK).passed in (True, False)


def test_clients_take_turns(engine, worker):
    headers = {"Authorization": f"Bearer {access.create_token('ben')}"}
    with engine.raw() as first, engine.raw(headers) as second:
        start_long_run(engine, first)
        for number in (2, 3, 4):
            ask(first, number, "devices")
        assert eventually(lambda: engine.metric("medgen_waiting") == 3, 60)
        for number in (1, 2, 3):
            ask(second, number, "models/list")
        cancel(second, 3)  # answered before the others, as it waits
        assert answer(second, 3)["error"]["data"]["kind"] == "Cancelled"
        assert eventually(lambda: engine.metric("medgen_waiting") == 5, 60)
        with connect(engine.address) as third:
            assert third.info["devices"], "a busy engine lets clients in"
        assert engine.metric("medgen_running") == 1
        before = len(engine.log)
        cancel(first, 1)
        assert answer(first, 1)["error"]["data"]["kind"] == "Cancelled"
        assert answer(first, 4)["result"]["devices"] and answer(second, 2)["result"]["models"]
        order = [line.split()[3:5] for line in engine.log[before:]]
    anna, ben = ["anna:", "devices"], ["ben:", "models/list"]
    assert order[:6] == [["anna:", "generate"], ben, anna, ben, anna, anna]


def test_a_dead_worker_is_replaced_and_a_lost_client_ends_its_run(engine, worker):
    with engine.raw() as link:
        start_long_run(engine, link)
    done = 'medgen_runs_total{method="generate",outcome="failed"}'
    failed = engine.metric(done)
    assert eventually(lambda: engine.metric("medgen_running") == 0, 60)
    seen = []
    job = worker.submit("generate", trunk(), progress=lambda progress: seen.append(progress.stage), **LONG)
    assert eventually(lambda: "sampling" in seen, 60)
    processes = descendants(engine.process.pid)
    kill_tree(processes[0])
    with pytest.raises(WorkerError, match="ended unexpectedly"):
        job.result(60)
    assert worker.generate(trunk(), **QUICK).volume.shape == trunk().shape
    assert gone(*processes)() and engine.metric("medgen_worker_starts_total") == 2
    assert engine.metric(done) >= failed + 1


# Who is let in


def test_tokens_that_are_wrong_missing_or_expired(engine, tmp_path, monkeypatch, capsys):
    """Fewer than `access.MOST_FAILURES` in all tests of the engine, which then would let nobody in for a minute."""
    with pytest.raises(WorkerError, match="refuses: .*has expired"):
        connect(engine.address, access.create_token("former", days=0)).start()
    monkeypatch.setenv("MEDGEN_ENGINE_TOKEN", "wrong")
    mask = write_volume(trunk(), tmp_path / "mask.nii.gz")
    out = tmp_path / "no" / "out.nii.gz"
    assert cli.main(["generate", str(mask), "-o", str(out), "--engine", engine.address]) == 2
    assert "does not know the token" in capsys.readouterr().err and not out.parent.exists()
    with pytest.raises(InvalidStatus, match="401"), engine.raw({}):
        pass
    assert engine.token not in (engine.folder.parent / "home" / access.TOKENS).read_text()
    assert (engine.folder.parent / "home" / access.TOKENS).stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="not usable"):
        access.create_token("../anna")


def test_many_attempts_have_to_wait():
    door = access.Door()
    for _ in range(access.MOST_FAILURES):
        with pytest.raises(access.Refused) as caught:
            door.owner("10.0.0.1", "Bearer guess")
        assert caught.value.status == 401
    good = f"Bearer {access.create_token('carl')}"
    with pytest.raises(access.Refused, match="Too many attempts"):
        door.owner("10.0.0.1", good)
    assert door.owner("10.0.0.2", good) == "carl"


def test_a_token_that_was_replaced_is_not_taken_again():
    old, new = (access.create_token("dora") for _ in range(2))
    door = access.Door()
    with pytest.raises(access.Refused, match="does not know the token"):
        door.owner("10.0.0.3", f"Bearer {old}")
    assert door.owner("10.0.0.3", f"Bearer {new}") == "dora"


def test_a_changed_certificate_is_refused_before_the_token_is_sent(engine, worker, tmp_path):
    pinned = certificate.recall(engine.address)["certificate"]
    shown = certificate.fingerprint(pinned)
    assert engine.first_lines == [f"Fingerprint (SHA-256) of the certificate: {shown}"]
    refused = engine.metric('medgen_refused_total{reason="401"}')
    with temporary_environment(MEDGEN_HOME=str(tmp_path)):
        certificate.server_context()
    other = (tmp_path / certificate.CERTIFICATE).read_text()
    certificate.remember(engine.address, certificate=other[other.index("-----BEGIN CERTIFICATE") :])
    try:
        with pytest.raises(
            WorkerError, match=r"another certificate than before, .*remove its entry from .*engines\.json"
        ):
            connect(engine.address, "guess").start()
    finally:
        certificate.remember(engine.address, certificate=pinned)
    assert engine.metric('medgen_refused_total{reason="401"}') == refused
    home = engine.folder.parent / "home"
    assert all((home / name).stat().st_mode & 0o777 == 0o600 for name in (certificate.CERTIFICATE, certificate.KNOWN))


def test_a_certificate_is_kept_only_of_an_engine_that_let_one_in(engine):
    kept = certificate.recall(engine.address)
    address = engine.address.replace("127.0.0.1", "localhost")
    with pytest.raises(WorkerError, match="refuses"):
        connect(address, "guess").start()
    assert "certificate" not in certificate.recall(address)
    assert certificate.recall(engine.address) == kept


def test_web_pages_and_unknown_pages_are_refused(engine):
    for headers in ({"Origin": "https://example.org"}, {**engine.headers, "Origin": "https://example.org"}):
        with pytest.raises(InvalidStatus, match="403"), engine.raw(headers):
            pass
    with pytest.raises(OSError, match="404"):
        engine.page("/tokens")
    assert engine.page("/health") == "ok\n"


@pytest.mark.parametrize(
    "address, words",
    [
        ("ftp://workstation", "is no address of an engine"),
        ("wss://workstation:many", "is no address of an engine"),
        ("ws://192.0.2.1:7450", "has no encryption"),
        ("ws://127.0.0.1:9", r"No engine answers at ws://127\.0\.0\.1:9 "),
    ],
)
def test_addresses_that_cannot_be_used(engine, address, words):
    with pytest.raises((InputError, WorkerError), match=words):
        connect(address).start()


# Attacks


def test_paths_of_a_client_are_not_opened(engine, tmp_path):
    secret = put(trunk(), tmp_path, "secret")
    names = [secret["path"], f"file:{secret['path']}", "file:../../secret", "/etc/passwd", ""]
    with engine.raw() as link:
        for number, path in enumerate(names, 1):
            ask(link, number, "generate", input={**secret, "path": path}, model="ct-tissue", **QUICK)
            assert "opens no path of a client" in answer(link, number)["error"]["message"]
        ask(link, 10, "generate", input=secret["path"], model="ct-tissue", **QUICK)
        assert "error" in answer(link, 10)
        for number, wrapped in enumerate(({"path": secret["path"]}, [secret], {"deep": {"in": [secret]}}), 11):
            ask(link, number, "generate", input=wrapped, model="ct-tissue", **QUICK)
            assert "opens no path of a client" in answer(link, number)["error"]["message"]
        for number, shape in enumerate((secret["path"], "nothing.nii.gz", [secret["path"]]), 15):
            ask(link, number, "insert_lesion", volume=secret, shape=shape)
            assert "shapes of lesions by their names only" in answer(link, number)["error"]["message"]
        ask(link, 18, "edit/undo", canvas=[])
        assert "canvas is not a text" in answer(link, 18)["error"]["message"]
        for number, method in enumerate(("dicom", "reader_study/make", "models/add", "cohort/case", "shutdown"), 20):
            ask(link, number, method, folder=str(tmp_path))
            assert f"does not run '{method}'" in answer(link, number)["error"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["secret.npy"]


def test_each_method_of_the_worker_runs_on_one_of_the_computers():
    here = {"breathe", "evaluate", "dicom", "cohort/case", "reader_study/make", "reader_study/score"}
    managed = {f"models/{name}" for name in ("add", "remove", "available", "license", "install")}
    assert set(METHODS) == frames.FORWARDED | here | managed


def test_no_option_of_a_forwarded_command_is_a_path():
    commands = {"edit/open": "live_edit", "edit": "redraw"}
    for method in frames.WITH_FOLDER - {"edit/undo", "edit/redo"}:
        for name, option in of(commands.get(method, method), "worker").items():
            assert option.image or Path not in option.kinds, f"{name} of {method} would be opened on the other computer"


def test_the_folder_of_a_request_is_the_engine_s(engine, tmp_path):
    with engine.raw() as link:
        item = {"path": f"file:{upload(link, 1, mask_file())}", "kind": "labels", "affine": np.eye(4).tolist()}
        ask(link, 1, "generate", input=item, model="ct-tissue", folder=str(tmp_path), **QUICK)
        assert "/" not in answer(link, 1)["result"]["volumes"][0]["path"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "facts, content, words",
    [
        ({"id": 1, "sha256": "0" * 64, "bytes": 2**20 + 1}, b"", "limit of the engine"),
        ({"id": 1, "sha256": "../../../../x", "bytes": 4}, b"1234", "not announced as it has to be"),
        ({"id": 1, "sha256": "0" * 64, "bytes": -1}, b"", "not announced as it has to be"),
        ({"id": None, "sha256": "0" * 64, "bytes": 4}, b"1234", "belongs to no run"),
        ({"id": 1, "sha256": "0" * 64, "bytes": 4}, b"12345", "More data came"),
        ({"id": 1, "sha256": "0" * 64, "bytes": 4}, b"1234", "damaged on its way"),
    ],
)
def test_uploads_that_are_not_what_they_say(engine, facts, content, words):
    with engine.raw() as link, pytest.raises(ConnectionClosed, match=words):
        link.send(json.dumps({"jsonrpc": "2.0", "method": "upload", "params": facts}))
        link.send(content)
        answer(link, None)


def test_an_image_beyond_the_limit_is_refused_in_words(engine, worker):
    with pytest.raises(WorkerError, match="more than 1 MiB, the limit of the engine; crop them"):
        worker.generate(trunk((128, 128, 80)), **QUICK)


def test_half_a_request_and_nonsense(engine):
    with engine.raw() as link:
        for text in ('{"jsonrpc": "2.0", "id":', "[1]", '{"id": 1, "params": 3}', '{"id": {}, "method": "devices"}'):
            link.send(text)
            assert answer(link, None if "params" not in text else 1)["error"]["code"] in (-32700, -32600)
        ask(link, 2, "generate", nothing=1)
        assert "nothing" in answer(link, 2)["error"]["message"]
        link.send(json.dumps({"method": "upload", "params": {"id": 3, "sha256": "0" * 64, "bytes": 9}}))
        link.send(b"1234")
        assert eventually(lambda: len(engine.files) == 1, 10)
    with engine.raw() as link, pytest.raises(ConnectionClosed):  # longer than a request may be
        link.send("x" * (2**20 + 1))
        answer(link, None)


def test_slow_and_many_connections_are_closed(engine):
    silent = [socket.create_connection(("127.0.0.1", engine.port)) for _ in range(serving.MOST_SOCKETS + 50)]
    try:
        silent[0].sendall(b"\x16\x03")  # TLS that never goes on
        assert eventually(lambda: sum(map(is_closed, silent)) >= 50, 60), "those beyond the limit at once"
        assert eventually(lambda: all(map(is_closed, silent)), 60), "the others when they do not go on"
    finally:
        for line in silent:
            line.close()
    assert engine.page("/health") == "ok\n"


@pytest.mark.slow
def test_ten_thousand_connections_are_refused_cleanly(tmp_path):
    """As many as the hard limit of file descriptors allows here; the engine keeps to the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        own = stack.enter_context(served(tmp_path))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        program = psutil.Process(own.process.pid)
        with connect(own.address) as worker:  # which waits until its worker is warm
            assert worker.info["devices"]
        known, before = program.num_fds(), program.memory_info().rss / 2**20

        def flood() -> float:
            """Open all at once; MiB of the engine after they are closed."""
            lines = [socket.create_connection(("127.0.0.1", own.port)) for _ in range(count)]
            assert eventually(lambda: sum(map(is_closed, lines)) >= count - serving.MOST_SOCKETS, 120)
            assert program.num_fds() <= known + serving.MOST_SOCKETS + 5
            assert eventually(lambda: all(map(is_closed, lines)), 120)
            for line in lines:
                line.close()
            assert eventually(lambda: program.num_fds() <= known, 30), "no descriptor stays open"
            return program.memory_info().rss / 2**20

        first, second = flood(), flood()
        print(f"{count} connections, twice: {before:.1f}, {first:.1f}, {second:.1f} MiB; {known} descriptors")
        assert second - first < 5
        with connect(own.address) as worker:
            assert worker.generate(trunk(), **QUICK).volume.shape == trunk().shape


def test_more_clients_than_accepted_and_more_runs_than_may_wait(engine):
    with engine.raw() as first, engine.raw(), engine.raw(), engine.raw(), engine.raw():
        with pytest.raises(InvalidStatus, match="503"), engine.raw(), engine.raw():
            pass
        start_long_run(engine, first)
        with pytest.raises(ConnectionClosed, match="Too many runs"):
            for number in range(2, 10):
                ask(first, number, "devices")
            answer(first, 10)
    assert eventually(lambda: engine.metric("medgen_running") == 0, 60)


# An engine of one's own


def test_without_token_on_this_computer_with_limits(engine, tmp_path):
    kept = tmp_path / "kept"
    options = ("--keep", str(kept), "--minutes", "0.0001", "--idle", "0.01")
    with served(tmp_path, *options) as own, connect(own.address) as worker:
        assert own.address.startswith("ws://127.0.0.1:") and worker.info["devices"]
        with pytest.raises(InputError, match=r"took more than 0\.006 s, the limit"):
            worker.generate(trunk(), **LONG)
        assert [path.suffix for path in kept.glob("*/*")] == [".npy"], "the mask stays, as it was asked for"
        assert eventually(lambda: own.metric("medgen_worker_up") == 0, 60), "the idle worker is ended"


@pytest.mark.parametrize("package, options", [("websockets", []), ("cryptography", ["--secure"])])
def test_a_missing_package_is_named_with_its_extra(package, options, tmp_path):
    variables = at_start(tmp_path, f"import sys; sys.modules[{package!r}] = None")
    environment = {**os.environ, **variables, "MEDGEN_HOME": str(tmp_path / "home")}
    found = subprocess.run([*MEDGEN, "serve", *options], env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2 and f"package {package}; install it with: pip install medgen[serve]" in found.stderr


def start_long_run(engine, link):
    """Request 1 of the connection is a run that ends when it is cancelled; it has begun when this returns."""
    name = upload(link, 1, mask_file())
    item = {"path": f"file:{name}", "kind": "labels", "affine": np.eye(4).tolist()}
    ask(link, 1, "generate", input=item, model="ct-tissue", **LONG)
    assert eventually(lambda: engine.metric("medgen_running") == 1 and engine.metric("medgen_waiting") == 0, 60)


def mask_file() -> bytes:
    stream = io.BytesIO()
    np.save(stream, trunk().array)
    return stream.getvalue()


def cancel(link, number):
    link.send(json.dumps({"jsonrpc": "2.0", "method": "cancel", "params": {"id": number}}))


def is_closed(line: socket.socket) -> bool:
    line.setblocking(False)
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
