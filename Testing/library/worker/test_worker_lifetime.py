"""A worker never outlives the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import workers
from workers import QUICK, eventually, gone, tree, trunk

from MedGenLib.worker.process import command, descendants, environment, is_alive, kill_tree
from MedGenLib.worker.protocol import messages, transfer
from MedGenLib.worker.server import remove_images

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups")

LIMIT = 2.0
"""Seconds after which all processes must have ended."""

CLIENT = """
import sys, time
sys.path.insert(0, {tests!r})
from workers import QUICK, trunk
from MedGenLib.worker.client import Worker
worker = Worker({python!r}).start()
if {busy}:
    started = []
    worker.submit("generate", trunk((120, 120, 120)), progress=started.append,
                  **{{**QUICK, "steps": 500}})
    while not started or started[-1].stage != "sampling":
        time.sleep(0.01)
print(worker.pid, worker.info["pid"], worker._folder, flush=True)
time.sleep(60)
"""


def client_of(tmp_path, busy: bool, python: str = sys.executable) -> tuple[subprocess.Popen, list]:
    """A process that uses a worker, and what it printed: pid, worker's pid, private folder."""
    code = CLIENT.format(tests=str(Path(workers.__file__).parent), python=python, busy=busy)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "MEDGEN_HOME": str(tmp_path / "home")},
    )
    words = process.stdout.readline().split()
    return process, [int(words[0]), int(words[1]), Path(words[2])]


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_ends_with_a_killed_client(tmp_path, busy):
    process, (_, worker, folder) = client_of(tmp_path, busy)
    assert is_alive(worker) and folder.is_dir()
    process.kill()
    process.wait()
    assert eventually(gone(worker), LIMIT)
    assert not folder.exists(), "the images of an unfinished run are removed"


def test_a_worker_behind_a_launcher_ends_with_its_client(tmp_path):
    """The launcher keeps running; the worker must end with the client."""
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\nsleep 1000 &\n"{sys.executable}" "$@"\nwait\n')
    launcher.chmod(0o755)
    process, (outer, worker, _) = client_of(tmp_path, True, str(launcher))
    family = tree(outer)
    assert worker in family and worker != outer
    process.kill()
    process.wait()
    assert eventually(gone(worker), LIMIT)
    kill_tree(outer)
    assert eventually(gone(*family), LIMIT)


PARENT = """
import subprocess, sys, time
worker = subprocess.Popen({command!r}, stdin=int(sys.argv[1]), stdout=subprocess.DEVNULL)
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_a_killed_parent_is_detected_without_the_end_of_stdin():
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(command=command()), str(reading)],
        stdout=subprocess.PIPE,
        pass_fds=[reading],
        env=environment(),
        text=True,
    )
    os.close(reading)
    worker = int(process.stdout.readline())
    try:
        time.sleep(1.0)
        assert is_alive(worker)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert eventually(gone(worker), LIMIT), "this test still holds the other end of its stdin"
    finally:
        os.close(writing)
        kill_tree(worker)


def test_the_end_of_a_client_that_is_not_the_parent_is_detected_without_the_end_of_stdin():
    client = subprocess.Popen(["sleep", "300"])
    process = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    request = messages.request(1, "initialize", {"folder": None, "parent": client.pid})
    process.stdin.write(messages.encode(request))
    process.stdin.flush()
    while b'"result"' not in process.stdout.readline():
        pass
    assert process.poll() is None
    client.kill()
    client.wait()
    assert process.wait(LIMIT) == 0
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_stdin_ends_the_worker(tmp_path, busy):
    process = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    item = transfer.put(trunk((120, 120, 120)), tmp_path, "in")
    params = {"input": item, "folder": str(tmp_path), **QUICK, "steps": 500}
    process.stdin.write(messages.encode(messages.request(1, "initialize", {"folder": None})))
    if busy:
        process.stdin.write(messages.encode(messages.request(2, "generate", params)))
    process.stdin.flush()
    wanted = b"sampling" if busy else b'"result"'
    while wanted not in process.stdout.readline():
        pass
    start = time.monotonic()
    process.stdin.close()
    assert process.wait(LIMIT) == 0 and time.monotonic() - start < LIMIT
    process.stdout.close()


def test_a_closed_stdout_ends_the_worker(tmp_path):
    """A broken pipe instead of an answer: no endless loop."""
    process = subprocess.Popen(
        command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    process.stdout.close()
    process.stdin.write(messages.encode(messages.request(1, "devices", {})))
    process.stdin.flush()
    assert process.wait(20) == 0
    assert b"Traceback" not in process.stderr.read()
    process.stdin.close()
    process.stderr.close()


def test_a_worker_has_its_own_session():
    process = subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    process.stdin.write(messages.encode(messages.request(1, "models/list", {})))
    process.stdin.flush()
    process.stdout.readline()
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    process.stdin.close()
    assert process.wait(LIMIT) == 0
    process.stdout.close()


def test_a_process_is_killed_with_its_descendants():
    shell = subprocess.Popen(["/bin/sh", "-c", "sh -c 'sleep 300 & sleep 301' & sleep 302 & wait"])
    assert eventually(lambda: len(descendants(shell.pid)) == 4, 5)
    family = tree(shell.pid)
    kill_tree(shell.pid)
    shell.wait()
    assert eventually(gone(*family), LIMIT)
    kill_tree(shell.pid)  # gone already


def test_only_images_are_removed_from_a_private_folder(tmp_path):
    inner = tmp_path / "private" / "1"
    inner.mkdir(parents=True)
    (inner / "x.npy").touch()
    remove_images(tmp_path / "private")
    assert not (tmp_path / "private").exists()

    inner.mkdir(parents=True)
    (inner / "x.npy").touch()
    (inner / "thesis.docx").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "y.npy").touch()
    (inner / "link").symlink_to(tmp_path / "elsewhere")
    remove_images(tmp_path / "private")
    assert sorted(path.name for path in inner.iterdir()) == ["link", "thesis.docx"]
    assert (tmp_path / "elsewhere" / "y.npy").exists()
