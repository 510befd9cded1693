import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from federations import federation_file, segmenter_config, write_data

from MedGenLib.cli import main
from MedGenLib.federated.server import read_state
from MedGenLib.packages.manifest import load_manifest

pytest.importorskip("nvflare")


def test_kits_have_certificates_of_their_own_and_run_nothing_else(tmp_path, capsys):
    given = federation_file(tmp_path, segmenter_config(tmp_path), "ab", clip=1.0, noise=2.0)
    assert main(["federate", "provision", str(given), "--out", str(tmp_path / "kits"), "--host", "127.0.0.1"]) == 0
    assert "Privacy of the updates of a site: epsilon 6.57" in capsys.readouterr().out
    kits = sorted(path.name for path in (tmp_path / "kits").iterdir())
    assert kits == ["a", "b", "server"]
    keys = {path.read_bytes() for path in (tmp_path / "kits").rglob("*.key")}
    assert len(keys) == 4 and not list((tmp_path / "kits").rglob("*cert.json"))
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "kits").rglob("*.key")} == {0o600}
    for kit in kits:
        resources = json.loads((tmp_path / "kits" / kit / "local" / "resources.json").read_text())
        assert resources["class_allow_list"] == ["MedGenLib.federated.flare"]
    assert main(["federate", "join", str(tmp_path / "kits" / "a")]) == 2
    assert "--data PATH" in capsys.readouterr().err


@pytest.mark.slow
def test_the_simulator_of_nvflare(tmp_path):
    """In a process of its own, as the simulator changes the one that it runs in."""
    given, data = federation_file(tmp_path, segmenter_config(tmp_path), "ab", steps=1), write_data(tmp_path)
    line = [sys.executable, "-m", "MedGenLib", "federate", "simulate", str(given), "--out", str(tmp_path / "run")]
    subprocess.run([*line, *(f"--site={name}={path}" for name, path in data.items())], check=True, timeout=600)
    assert load_manifest(tmp_path / "run" / "result" / "balls").task == "segment"


def joined(kit, *more):
    """A server or a site as a process, in a group with the processes that it starts."""
    line = [sys.executable, "-m", "MedGenLib", "federate", "join", str(kit), "--device", "cpu", "--threads", "1", *more]
    return subprocess.Popen(line, stdout=(kit / "said.txt").open("a"), stderr=subprocess.STDOUT, start_new_session=True)


def killed(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_killed_site_comes_back_to_the_federation(tmp_path):
    """Server and two sites as processes with certificates over TLS on the loopback interface."""
    given, data = federation_file(tmp_path, segmenter_config(tmp_path), "ab", steps=60), write_data(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    kits = tmp_path / "kits"
    assert main(["federate", "provision", str(given), "--out", str(kits), "--host", "127.0.0.1", "--port", port]) == 0
    running = {"server": joined(kits / "server")}
    running |= {name: joined(kits / name, "--data", str(data[name])) for name in "ab"}
    try:
        until = time.monotonic() + 900
        while len(read_state(kits / "server")["rounds"]) < 1:
            assert time.monotonic() < until and running["server"].poll() is None
            time.sleep(0.2)
        killed(running["b"])  # in its second round
        running["b"] = joined(kits / "b", "--data", str(data["b"]))
        assert running["server"].wait(900) == 0
        assert [running[name].wait(120) for name in "ab"] == [0, 0]
    finally:
        for process in running.values():
            if process.poll() is None:
                killed(process)
    stated = load_manifest(kits / "server" / "result" / "balls").metadata["medgen"]["training"]["federation"]
    assert [entry["sites"] for entry in stated["rounds"]] == [["a", "b"]] * 2
    assert not list(kits.glob("server/**/*case_*"))
