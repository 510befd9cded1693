"""A worker that speaks the real protocol and draws at once: what is tested with it is the Slicer side alone.

It draws 100 times the label into the changed voxels and two around them, as an exact rule that a test can repeat. The
file MEDGEN_PLAYED names says how it behaves: {"seconds": of an edit, "fail": sentence, "closed": true, "die": true};
beside it, requests.jsonl tells what it was asked.
"""

import json
import os
import sys
import time
from collections import ChainMap
from pathlib import Path

HALO = 2
SCALE = 100


def main() -> None:
    sys.path.insert(0, os.environ["MEDGEN_ROOT"])
    import numpy as np

    from MedGenLib.errors import InputError
    from MedGenLib.imaging.volume import LabelMap, Volume
    from MedGenLib.worker import server
    from MedGenLib.worker.methods import METHODS
    from MedGenLib.worker.protocol import messages
    from MedGenLib.worker.protocol.transfer import put, take

    behaviour, canvases = Path(os.environ["MEDGEN_PLAYED"]), {}

    def behave(job, **facts):
        chosen = json.loads(behaviour.read_text(encoding="utf-8"))
        with open(behaviour.with_name("requests.jsonl"), "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"method": job.method, **facts}) + "\n")
        time.sleep(chosen.get("seconds", 0))
        if chosen.get("die"):
            os._exit(3)
        if chosen.get("fail"):
            raise InputError(chosen["fail"])
        return chosen

    def initialize(job, folder=None, parent=None):
        job.session.folder = Path(folder)
        job.session.parents.add(int(parent))
        return {
            "protocol": messages.PROTOCOL,
            "pid": os.getpid(),
            "python": sys.executable,
            "versions": {},
            "devices": [{"name": "cpu", "description": "CPU"}],
        }

    def open_canvas(job, input, image, folder, **choices):
        behave(job, choices=choices)
        volume, mask = take(image), take(input)
        canvases[str(job.number)] = {
            "array": volume.array.copy(),
            "mask": mask.array.copy(),
            "affine": volume.affine,
            "past": [],
            "future": [],
        }
        return {
            "canvas": str(job.number),
            "volume": None,
            "report": None,
            "sentences": [],
            "passed": True,
            "halo_voxels": [HALO] * 3,
            "halo_mm": 1.0,
        }

    def answer(job, canvas, folder, box, changed, mask=None):
        affine = canvas["affine"].copy()
        affine[:3, 3] = (canvas["affine"] @ [*(part.start for part in box), 1.0])[:3]
        block = put(Volume(canvas["array"][box].copy(), affine), folder, f"block-{job.number}")
        labels = put(LabelMap(mask.copy(), affine), folder, f"back-{job.number}") if mask is not None else None
        return {
            "block": block,
            "offset": [part.start for part in box],
            "changed": changed,
            "seconds": 0.0,
            "mask": labels,
            "sentences": [],
            "can_undo": bool(canvas["past"]),
            "can_redo": bool(canvas["future"]),
        }

    def edit(job, canvas, mask, folder, offset=None, preset="draft"):
        block = take(mask).array
        if behave(job, offset=offset, shape=list(block.shape), preset=preset).get("closed"):
            behaviour.write_text("{}", encoding="utf-8")
            return {"closed": True}
        if canvas not in canvases:
            return {"closed": True}
        canvas = canvases[canvas]
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
        return answer(job, canvas, folder, box, changed)

    def step(source, target):
        def move(job, canvas, folder):
            behave(job)
            canvas = canvases[canvas]
            if not canvas[source]:
                return {
                    "block": None,
                    "offset": [0, 0, 0],
                    "mask": None,
                    "can_undo": bool(canvas["past"]),
                    "can_redo": bool(canvas["future"]),
                }
            box, array, mask = canvas[source].pop()
            canvas[target].append((box, canvas["array"][box].copy(), canvas["mask"][box].copy()))
            canvas["array"][box], canvas["mask"][box] = array, mask
            return answer(job, canvas, folder, box, 1, mask)

        return move

    def close(job, canvas):
        behave(job)
        canvases.pop(canvas, None)
        return {}

    played = {
        "initialize": initialize,
        "edit/open": open_canvas,
        "edit": edit,
        "edit/close": close,
        "edit/undo": step("past", "future"),
        "edit/redo": step("future", "past"),
    }
    server.main(ChainMap(played, METHODS))


if __name__ == "__main__":
    main()
