"""What an engine on another computer adds to the time of a run, on the loopback interface.

    python Testing/benchmarks/remote.py [--runs 5] [--edits 40] [--clients 8]

The same requests go alternately to a local worker and to `medgen serve --secure`.

- run: a lesion of 10 mm in a CT of 256 x 256 x 128 voxels (33.6 MB up, 42 MB down). The overhead is the wall time at
  the client less the time in which the engine's worker ran.
- edit: a block of 64^3 labels of an open canvas; the same, less the seconds that the worker states.
- clients: that many at once, each with four requests in a row that wait; the most turns of others between two of one
  client.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from common import save, table

SHAPE = (256, 256, 128)


def images():
    """A trunk of soft tissue with noise, and its mask."""
    from MedGenLib.imaging.volume import LabelMap, Volume

    labels = np.zeros(SHAPE, np.uint8, order="F")
    labels[40:216, 40:216] = 1
    labels[60:196, 60:196] = 2
    noise = np.random.default_rng(0).normal(0, 10, SHAPE).astype(np.float32)
    image = np.asfortranarray(np.array([-1000, -100, 40], np.float32)[labels] + noise)
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    return Volume(image, affine, "CT", "HU"), LabelMap(labels, affine)


def runs(engine, workers: dict, count: int, folder: Path) -> dict[str, float]:
    from MedGenLib.worker.protocol.transfer import put

    image, _ = images()
    params = {"image": put(image, folder, "image"), "at": [150, 150, 100], "size_mm": 10.0, "contrast": -40.0}
    seconds = {name: [] for name in workers}
    overheads = []
    for number in range(count + 1):
        for name, worker in workers.items():
            out = folder / f"{name}-{number}"
            out.mkdir()
            busy, start = engine.metric("medgen_run_seconds_total"), time.perf_counter()
            worker.call("insert_lesion", model="ct-tissue", seed=1, device="cpu", folder=str(out), **params)
            wall = time.perf_counter() - start
            for path in out.iterdir():
                path.unlink()
            if number:  # the first loads the model
                seconds[name].append(wall)
                if name == "remote":
                    overheads.append(wall - (engine.metric("medgen_run_seconds_total") - busy))
    found = {f"{name}: median s": float(np.median(values)) for name, values in seconds.items()}
    return {"runs": count, **found, "overhead: median s": float(np.median(overheads)), "worst s": max(overheads)}


def edits(workers: dict, count: int, folder: Path) -> dict[str, float]:
    from MedGenLib.imaging.volume import crop
    from MedGenLib.worker.protocol.transfer import put, take

    image, mask = images()
    given = {"image": put(image, folder, "volume"), "input": put(mask, folder, "mask")}
    canvases, around = {}, {name: [] for name in workers}
    for name, worker in workers.items():
        opened = worker.call("edit/open", model="ct-tissue", seed=1, device="cpu", folder=str(folder), **given)
        canvases[name] = opened["canvas"]
    block = crop(mask, (96, 96, 32), (160, 160, 96))
    for number in range(count + 3):
        for name, worker in workers.items():
            painted = block.array.copy()
            painted[20 + number % 20, 20:30, 20:30] = 1
            item = put(block.with_array(painted), folder, f"block-{name}-{number}")
            edit = {"canvas": canvases[name], "mask": item, "offset": [96, 96, 32], "folder": str(folder)}
            start = time.perf_counter()
            answer = worker.call("edit", **edit)
            np.array(take(answer["block"]).array)
            if number >= 3:  # the first edits prepare kernels
                around[name].append(time.perf_counter() - start - answer["seconds"])
    beside = {name: float(np.median(values)) for name, values in around.items()}
    added = beside["remote"] - beside["local"]
    return {"edits": count, **{f"{name}: beside the edit, median s": v for name, v in beside.items()}, "added s": added}


def turns(engine, clients: int, folder: Path) -> dict[str, float]:
    """Whether anybody starves while all clients wait."""
    from engines import answer, ask, upload
    from workers import eventually, trunk

    from MedGenLib.worker.protocol.transfer import put
    from MedGenLib.worker.remote.access import create_token

    item = put(trunk(), folder, "long")
    with contextlib.ExitStack() as stack:
        names = [f"client-{number}" for number in range(clients)]
        tokens = [{"Authorization": f"Bearer {create_token(name)}"} for name in names]
        links = [stack.enter_context(engine.raw(headers)) for headers in tokens]
        item["path"] = f"file:{upload(links[0], 1, Path(item['path']).read_bytes())}"
        ask(links[0], 1, "generate", input=item, model="ct-tissue", device="cpu", steps=1000)
        for link in links:
            for number in range(2, 6):
                ask(link, number, "devices")
        assert eventually(lambda: engine.metric("medgen_waiting") == 4 * clients, 60)
        before = len(engine.log)
        links[0].send(json.dumps({"jsonrpc": "2.0", "method": "cancel", "params": {"id": 1}}))
        for link in links:
            answer(link, 5)
    order = [line.split()[3] for line in engine.log[before:] if " devices " in line]
    gaps = [np.diff([n for n, who in enumerate(order) if who == f"{name}:"]) for name in names]
    return {"clients": clients, "answers": len(order), "turns of others between two of one": int(np.max(gaps)) - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    from engines import served

    from MedGenLib.worker.client import Worker, connect
    from MedGenLib.worker.remote.access import create_token

    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, MEDGEN_HOME=folder):
        token, place = create_token("benchmark"), Path(folder)
        with served(place, "--secure", token=token) as engine, connect(engine.address, token) as remote:
            with Worker() as local:
                workers = {"local": local, "remote": remote}
                found = {
                    "a run of 256 x 256 x 128": runs(engine, workers, arguments.runs, place),
                    "an edit of 64^3": edits(workers, arguments.edits, place),
                }
            found["clients at once"] = turns(engine, arguments.clients, place)
    found["load of the machine"] = {"1 min, 5 min": " and ".join(f"{value:.1f}" for value in os.getloadavg()[:2])}
    save("remote", found)
    rows = [[part, name, value] for part, values in found.items() for name, value in values.items()]
    print(table(["part", "measure", "measured"], rows))


if __name__ == "__main__":
    main()
