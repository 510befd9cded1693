"""A worker that speaks the real protocol and draws at once: what is tested with it is the Slicer side alone.

It draws 100 times the label into the changed voxels and two around them, as an exact rule that a test can repeat. The
file MEDGEN_PLAYED names says how it behaves: {"seconds": of an edit, "fail": sentence, "closed": true, "die": true};
beside it, requests.jsonl lists its requests.
"""

import json
import os
import sys
import time
from collections import ChainMap
from pathlib import Path

import numpy as np

HALO = 2
SCALE = 100


class Played:
    """The methods of the worker that live editing calls."""

    def __init__(self) -> None:
        self.behavior = Path(os.environ["MEDGEN_PLAYED"])
        self.canvases: dict[str, dict] = {}

    def behave(self, job, **facts) -> dict:
        from MedGenLib.errors import InputError

        chosen = json.loads(self.behavior.read_text(encoding="utf-8"))
        with open(self.behavior.with_name("requests.jsonl"), "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"method": job.method, **facts}) + "\n")
        time.sleep(chosen.get("seconds", 0))
        if chosen.get("die"):
            os._exit(3)
        if chosen.get("fail"):
            raise InputError(chosen["fail"])
        return chosen

    def initialize(self, job, folder=None, parent=None) -> dict:
        from MedGenLib.worker.protocol import messages

        job.session.folder = Path(folder)
        job.session.parents.add(int(parent))
        return {
            "protocol": messages.PROTOCOL,
            "pid": os.getpid(),
            "python": sys.executable,
            "versions": {},
            "devices": [{"name": "cpu", "description": "CPU"}],
        }

    def openCanvas(self, job, input, image, folder, **choices) -> dict:
        from MedGenLib.worker.protocol.transfer import take

        self.behave(job, choices=choices)
        volume, mask = take(image), take(input)
        self.canvases[str(job.number)] = {
            "array": volume.array.copy(),
            "mask": mask.array.copy(),
            "affine": volume.affine,
            "past": [],
            "future": [],
        }
        halo = {"halo_voxels": [HALO] * 3, "halo_mm": 1.0}
        return {"canvas": str(job.number), "volume": None, "report": None, "sentences": [], "passed": True, **halo}

    def edit(self, job, canvas, mask, folder, offset=None, preset="draft") -> dict:
        from MedGenLib.worker.protocol.transfer import take

        block = take(mask).array
        if self.behave(job, offset=offset, shape=list(block.shape), preset=preset).get("closed"):
            self.behavior.write_text("{}", encoding="utf-8")
            return {"closed": True}
        if canvas not in self.canvases:
            return {"closed": True}
        canvas = self.canvases[canvas]
        offset = offset or [0, 0, 0]
        place = tuple(slice(first, first + count) for first, count in zip(offset, block.shape, strict=True))
        changed = int((canvas["mask"][place] != block).sum())
        box = tuple(
            slice(max(0, part.start - HALO), min(part.stop + HALO, count))
            for part, count in zip(place, canvas["mask"].shape, strict=True)
        )
        canvas["past"].append((box, canvas["array"][box].copy(), canvas["mask"][box].copy()))
        canvas["future"] = []
        canvas["mask"][place] = block
        canvas["array"][box] = SCALE * canvas["mask"][box].astype(np.int32)
        return _answer(job, canvas, folder, box, changed)

    def undo(self, job, canvas, folder) -> dict:
        return self._step(job, canvas, folder, "past", "future")

    def redo(self, job, canvas, folder) -> dict:
        return self._step(job, canvas, folder, "future", "past")

    def close(self, job, canvas) -> dict:
        self.behave(job)
        self.canvases.pop(canvas, None)
        return {}

    def _step(self, job, canvas, folder, source, target) -> dict:
        self.behave(job)
        canvas = self.canvases[canvas]
        if not canvas[source]:
            return {"block": None, "offset": [0, 0, 0], "mask": None, **_possible(canvas)}
        box, array, mask = canvas[source].pop()
        canvas[target].append((box, canvas["array"][box].copy(), canvas["mask"][box].copy()))
        canvas["array"][box], canvas["mask"][box] = array, mask
        return _answer(job, canvas, folder, box, 1, mask)


def _answer(job, canvas, folder, box, changed, mask=None) -> dict:
    from MedGenLib.imaging.volume import LabelMap, Volume
    from MedGenLib.worker.protocol.transfer import put

    affine = canvas["affine"].copy()
    affine[:3, 3] = (canvas["affine"] @ [*(part.start for part in box), 1.0])[:3]
    return {
        "block": put(Volume(canvas["array"][box].copy(), affine), folder, f"block-{job.number}"),
        "offset": [part.start for part in box],
        "changed": changed,
        "seconds": 0.0,
        "mask": None if mask is None else put(LabelMap(mask.copy(), affine), folder, f"back-{job.number}"),
        "sentences": [],
        **_possible(canvas),
    }


def _possible(canvas) -> dict:
    return {"can_undo": bool(canvas["past"]), "can_redo": bool(canvas["future"])}


def main() -> None:
    sys.path.insert(0, os.environ["MEDGEN_ROOT"])
    from MedGenLib.worker import server
    from MedGenLib.worker.methods import METHODS

    played = Played()
    methods = {
        "initialize": played.initialize,
        "edit/open": played.openCanvas,
        "edit": played.edit,
        "edit/close": played.close,
        "edit/undo": played.undo,
        "edit/redo": played.redo,
    }
    server.main(ChainMap(methods, METHODS))


if __name__ == "__main__":
    main()
