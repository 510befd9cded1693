"""Several processes that train together: the same weights as one, one sentence where one ends, and a full memory."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hippocampi import small_config
from torch import nn

from MedGenLib import cli
from MedGenLib.cli.console import Console
from MedGenLib.cluster.ray_train import shares
from MedGenLib.errors import InputError, MemoryPlanError
from MedGenLib.trainer.inspection import inspect
from MedGenLib.trainer.pairs import read_data
from MedGenLib.trainer.plan import SHRUNK, make_plan
from MedGenLib.trainer.run import Choices, train_own
from MedGenLib.training import loop, train
from MedGenLib.training.loop import Draw, Objective, OptimizationSettings, Trainer
from MedGenLib.training.ranks import TrainingMemoryError
from MedGenLib.training.recipes.gan import Gan
from MedGenLib.worker.process import descendants


def config(folder: Path, crops: Path, **changes) -> Path:
    settings = {"steps": 6, "batch": 2, "parts": 2, "checkpoint_every": 2, "validate_every": 100, "precision": "fp32"}
    return small_config(folder, crops, autoencoder={**settings, **changes})


def words(path: Path, out: Path, *more: str) -> list[str]:
    return ["train", "autoencoder", "--data", str(path), "--out", str(out), "--device", "cpu", "--threads", "1", *more]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {f"{kind}.{k}": v for kind in ("networks", "averages") for k, v in state[kind]["autoencoder"].items()}


def test_two_processes_give_the_weights_of_one_also_after_one_was_killed(crops, tmp_path):
    """The second process is killed between two checkpoints; the same command goes on."""
    path = config(tmp_path, crops, steps=20, checkpoint_every=3)
    assert cli.main(words(path, tmp_path / "one")) == 0
    command = [sys.executable, "-m", "MedGenLib", *words(path, tmp_path / "two", "--workers", "2")]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "two" / "checkpoint.pt").exists():
        assert run.poll() is None
        time.sleep(0.02)
    children = [pid for pid in descendants(run.pid) if rank_of(pid) == "1"]
    os.kill(children[0], signal.SIGKILL)
    _, errors = run.communicate(timeout=300)
    said = [line for line in errors.splitlines() if line.startswith("medgen: ") and "Estimate" not in line]
    assert run.returncode == 2 and len(said) == 1 and "goes on from the last checkpoint" in said[0], errors
    assert not (tmp_path / "two" / "autoencoder.safetensors").exists()
    subprocess.run(command, check=True, timeout=300)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-5, atol=1e-7), name
    assert (tmp_path / "two" / "autoencoder.safetensors").exists()
    figures = [(tmp_path / run / "losses.jsonl").read_text().splitlines()[-1] for run in ("one", "two")]
    assert json.loads(figures[0]) == pytest.approx(json.loads(figures[1]), rel=1e-4)


def rank_of(pid: int) -> str | None:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((entry.decode()[5:] for entry in variables if entry.startswith(b"RANK=")), None)


@pytest.mark.slow
def test_an_error_of_all_is_said_once_and_one_of_a_follower_with_its_rank(crops, tmp_path):
    """A loss that becomes infinite; then data that only the first process sees, as on two computers."""
    path = config(tmp_path, crops, learning_rate=1e30, warmup=0)
    said = errors_of(words(path, tmp_path / "infinite"), [{}, {}])
    assert len(said) == 1 and re.match("medgen: The reconstruction loss became .* at step 1", said[0])
    settings = json.loads(config(tmp_path, crops).read_text())
    settings["data"]["folder"] = "$CROPS"
    path.write_text(json.dumps(settings))
    said = errors_of(words(path, tmp_path / "unseen"), [{"CROPS": str(crops)}, {}])
    assert any(line.startswith("medgen, process 1 of a training: The path $CROPS") for line in said), said
    assert sum(line.startswith("medgen: Another process") for line in said) == 1 and len(said) == 2


def errors_of(line: list[str], own: list[dict[str, str]]) -> list[str]:
    """What two processes print that fail with exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command, group = [sys.executable, "-m", "MedGenLib", *line], {**os.environ, **group, "LOCAL_RANK": "0"}
    places = [{**group, "RANK": str(rank), **variables} for rank, variables in enumerate(own)]
    processes = [subprocess.Popen(command, env=place, stderr=subprocess.PIPE, text=True) for place in places]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    return "".join(said).splitlines()


@pytest.mark.slow
def test_torchrun_starts_the_processes_too(crops, tmp_path):
    path = config(tmp_path, crops)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command = [*start, "--master-port", "29533", "-m", "MedGenLib", *words(path, tmp_path / "torchrun")]
    subprocess.run(command, check=True, timeout=300)
    assert cli.main(words(path, tmp_path / "one")) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "torchrun")
    assert all(torch.allclose(one[name], two[name], rtol=1e-5, atol=1e-7) for name in one)


@pytest.mark.slow
def test_ray_starts_lost_workers_again(crops, tmp_path, monkeypatch):
    """The first process or its follower is killed, then one of those that were started for them."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install medgen[cluster]")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a token there
    path, out = config(tmp_path, crops, steps=400), tmp_path / "ray"
    command = [sys.executable, "-m", "MedGenLib", *words(path, out, "--workers", "2", "--address", "local")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed: set[int] = set()
    for place in (-1, 0):
        saved = steps_of(out)
        while steps_of(out) == saved or len(found := ray_workers(run.pid) - killed) < 2:
            assert run.poll() is None, run.communicate()
            time.sleep(0.05)
        killed.add(sorted(found)[place])
        os.kill(sorted(found)[place], signal.SIGKILL)
    printed, errors = run.communicate(timeout=600)
    assert run.returncode == 0 and printed == f"Exported {out / 'autoencoder.safetensors'}.\n", errors
    assert re.findall(r"goes on from its last checkpoint \(restart (\d)\)", errors) == ["1", "2"]
    assert cli.main(words(path, tmp_path / "one")) == 0
    one, two = weights(tmp_path / "one"), weights(out)
    assert all(torch.allclose(one[name], two[name], rtol=1e-5, atol=1e-7) for name in one)


def steps_of(folder: Path) -> int:
    file = folder / "checkpoint.pt"
    return torch.load(file, weights_only=True)["step"] if file.exists() else 0


def ray_workers(driver: int) -> set[int]:
    commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in descendants(driver)}
    return {pid for pid, file in commands.items() if file.exists() and b"ray::RankActor" in file.read_bytes()}


def test_a_cluster_that_is_not_there_and_missing_ray_are_one_sentence(tmp_path, monkeypatch, capsys):
    others = (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x16", b"SSH-2.0-OpenSSH_9.6\r\n", b"")
    with socket.create_server(("127.0.0.1", 0)) as other:  # other programs, such as Ray's dashboard, and TLS

        def answer() -> None:
            for said in others:
                link, _ = other.accept()
                with link:
                    link.recv(100)
                    link.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        used = f"127.0.0.1:{other.getsockname()[1]}"
        for address, sentence in (*[(used, "another program")] * len(others), ("127.0.0.1:9", "refused")):
            if find_spec("ray") is not None:
                assert cli.main(words(tmp_path / "c.json", tmp_path, "--workers", "2", "--address", address)) == 2
                error = capsys.readouterr().err
                assert f"no Ray cluster at {address}" in error and sentence in error and error.count("\n") == 1
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(words(tmp_path / "c.json", tmp_path, "--address", "local")) == 2
    assert "Ray is not installed; install it with `pip install medgen[cluster]`." in capsys.readouterr().err


def test_workers_of_ray_share_out_the_computers():
    nodes = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}, {"memory": 1.0}]
    needs = [shares(nodes, count, device) for count, device in ((2, "auto"), (2, "cpu"), (3, "auto"), (24, "cpu"))]
    assert needs == [{"CPU": 8, "GPU": 1}, {"CPU": 8}, {"CPU": 8}, {"CPU": 1}]
    with pytest.raises(InputError, match="24 processors, too few for 25 workers"):
        shares(nodes, 25, "cpu")


class Line:
    """A line fitted to points; a step of more images than `room` does not fit into the memory."""

    def __init__(self, room: int = 100) -> None:
        self.networks: dict[str, nn.Module] = {"line": nn.Linear(1, 1), "unused": nn.Linear(1, 1)}
        self.objectives = [Objective("fit", ("line", "unused"), self._loss)]
        self.room, self.validated = room, 0

    def batch(self, draw: Draw, size: int) -> dict[str, torch.Tensor]:
        return {"x": torch.rand(size, 1, generator=draw.torch)}

    def _loss(self, batch, draw):
        if len(batch["x"]) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        loss = (self.networks["line"](batch["x"]) - 3 * batch["x"]).square().mean()
        return loss, {"fit": float(loss.detach())}

    def validate(self, networks, step, log):
        self.validated += 1
        return {}

    def export(self, networks, step, out):
        return out


def test_the_gradients_of_parts_are_averaged(tmp_path):
    """One step of plain gradient descent by hand, on the points of all parts."""
    recipe = Line()
    before = recipe.networks["line"].weight.item(), recipe.networks["line"].bias.item()
    settings = OptimizationSettings(1, batch=6, parts=3, warmup=0, clip=1e9)
    points = torch.cat([Draw.of(0, 0, part).torch and recipe.batch(Draw.of(0, 0, part), 2)["x"] for part in range(3)])
    assert len(points.unique()) == 6  # each part draws its own
    Trainer(recipe, settings, tmp_path).run()
    slope = (2 * (before[0] * points + before[1] - 3 * points) * points).mean().item()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["optimisers"][0]["state"]
    assert state[0]["exp_avg"].item() == pytest.approx(0.1 * slope, rel=1e-4)  # Adam: (1 - 0.9) times the gradient
    assert 2 not in state  # a network without gradients is left as it is


def test_a_full_memory_is_one_sentence_and_nothing_is_lost(tmp_path):
    settings = OptimizationSettings(4, batch=4)
    with pytest.raises(TrainingMemoryError, match="full at step 0; cut the batch into more parts"):
        Trainer(Line(room=2), settings, tmp_path).run()
    assert not (tmp_path / "checkpoint.pt").exists()
    Trainer(Line(room=2), OptimizationSettings(4, batch=4, parts=2), tmp_path).run()
    assert json.loads((tmp_path / loop.MEMORY).read_text())["peak_mib"] > 50


def test_a_full_memory_makes_the_plan_smaller_and_the_run_goes_on(crops, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))
    judged = Gan.judged

    def with_room_for_one(self, real, fake):
        if len(real) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return judged(self, real, fake)

    monkeypatch.setattr(Gan, "judged", with_room_for_one)
    sizes = {"widths": "[8, 8]", "blocks": "[1, 0]"}
    network = {f"{part}.{key}": value for part in ("network", "discriminator") for key, value in sizes.items()}
    choices = Choices(name="small", recipe="gan", modality="T1w", changes={**network, "steps.gan": "4", "batch": "4"})
    with Console() as console:
        made = train_own(crops, tmp_path / "run", choices, "cpu", progress=console)
    sentences = re.findall(r"The memory was full; the training goes on with (.*)\.", capsys.readouterr().err)
    assert sentences == ["the batch in 2 parts", "the batch in 4 parts"]
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["batch"], plan["parts"], plan["reasons"]["parts"]) == (4, 4, SHRUNK)
    peak = json.loads((tmp_path / "run" / "generator" / loop.MEMORY).read_text())["peak_mib"]
    line = f"Memory of the training (gan), of each process: {peak:.0f} MiB"
    assert line in made.card and line in (tmp_path / "run" / "index.html").read_text()
    assert train_own(crops, tmp_path / "run", choices, "cpu").checksums == made.checksums


def test_a_plan_becomes_smaller_until_nothing_is_left(crops):
    dataset = read_data(crops)
    plan = make_plan(dataset, inspect(dataset)).changed({"patch": "[32, 48, 24]", "batch": "6", "parts": "2"})
    found = []
    while (plan := plan.smaller()) is not None:
        found.append((plan.parts, plan.patch))
    smaller = (16, 24, 16), (16, 16, 16)
    assert found == [(3, (32, 48, 24)), (6, (32, 48, 24)), *((6, patch) for patch in smaller)]
    values = {"patch": "[64, 64, 32]", "batch": "1", "compression": "4", "widths": "[32, 80, 160]"}
    compressed = make_plan(dataset, inspect(dataset)).changed(values)
    assert compressed.smaller().patch == (32, 32, 16)


def test_what_does_not_fit_together_is_refused(crops, tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="A batch of 3 cannot be cut into 2 equal parts"):
        OptimizationSettings(1, batch=3, parts=2)
    path = config(tmp_path, crops, parts=1)
    monkeypatch.setattr("MedGenLib.training.ranks.Ranks.joined", lambda: loop.Ranks(0, 2))
    with pytest.raises(InputError, match="divided among 1, but there are 2 processes"):
        train("autoencoder", path, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    assert issubclass(TrainingMemoryError, MemoryPlanError)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    line = [word for word in words(path, tmp_path / "run", "--workers", "2") if word not in ("--device", "cpu")]
    assert cli.main(line) == 2 and "2 workers need as many GPUs, of which there are 1" in capsys.readouterr().err
