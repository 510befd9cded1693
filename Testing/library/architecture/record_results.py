"""Records what the cases of `result_cases.py` compute, for `test_same_results.py`.

    python Testing/library/architecture/record_results.py            # every case
    python Testing/library/architecture/record_results.py lesion     # cases with this word

Use it after a change that is meant to alter results (say in the changelog which and why), for a
new case, or to add the hashes of another machine while nothing has changed. Never use it to make
a failing test pass without knowing why the result differs.

| file in same_results/ | content                                                             |
|-----------------------|---------------------------------------------------------------------|
| coarse.npz            | of each array: means of 6 x 6 x 6 blocks, and every seventh voxel    |
| hashes.json           | machine -> case and array -> SHA-256 of type, shape and voxels       |
| reports.json          | case -> reports and DICOM data sets                                  |
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from result_cases import CASES, Outcome, machine

FOLDER = Path(__file__).parent / "same_results"
BLOCK, STRIDE = 6, 7
MEANS, VOXELS = 1e-3, 1e-2
"""Largest difference of block means and of single voxels on another machine, in standard deviations
of the array. Measured between AVX512, AVX2 and SSE4: 0 for means, at most one rounding for voxels."""
ROUNDING_OF_MEANS, ROUNDING = 0.05, 1.0
"""The same for arrays of whole numbers, where a last digit may round the other way."""
BFLOAT16 = 40
"""Factor on all of these in bfloat16. Measured: 0.2 HU in a block mean, 27 HU in a voxel."""
REPORTED = 1e-2
"""Relative and absolute difference of a number in a report on another machine."""
WORDS = {"sentence", "note"}
"""Keys of reports whose text may be rewritten: only the numbers in it are compared."""


@dataclass
class Record:
    """What was recorded; `hashes` are per machine."""

    coarse: dict[str, NDArray] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Record:
        with np.load(FOLDER / "coarse.npz") as arrays:
            coarse = dict(arrays)
        texts = (FOLDER / f"{name}.json" for name in ("reports", "hashes"))
        return cls(coarse, *(json.loads(text.read_text(encoding="utf-8")) for text in texts))

    def write(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        np.savez_compressed(FOLDER / "coarse.npz", **self.coarse)
        for name in ("reports", "hashes"):
            text = json.dumps(getattr(self, name), indent=1, ensure_ascii=False)
            (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")

    def differences(self, case: str, outcome: Outcome, exact: bool = True) -> list[str]:
        """What differs from the record, a sentence each.

        Parameters
        ----------
        exact: whether to compare with the hashes of this machine, where there are any.
        """
        own = self.hashes.get(machine(), {}) if exact else {}
        known = {key.split("/")[1] for key in self.coarse if key.startswith(f"{case}/")}
        found = [f"the arrays are {sorted(outcome.arrays)}, recorded were {sorted(known)}"]
        found = found if set(outcome.arrays) != known else []
        factor = BFLOAT16 if CASES[case].bfloat16 else 1
        for name in known & set(outcome.arrays):
            key = f"{case}/{name}"
            if key in own and own[key] != digest(outcome.arrays[name]):
                found.append(f"{name}: the voxels are not exactly those recorded on this machine")
            found += self._coarse_differences(key, outcome.arrays[name], factor)
        tolerance = 1e-9 if any(key.startswith(f"{case}/") for key in own) else REPORTED
        now, then = dict(entries(outcome.reports)), dict(entries(self.reports[case]))
        for key in sorted(now.keys() | then.keys()):
            if not same(now.get(key), then.get(key), tolerance):
                found.append(f"{key} is {now.get(key)!r}, recorded was {then.get(key)!r}")
        return found

    def _coarse_differences(self, key: str, array: NDArray, factor: float) -> Iterator[str]:
        whole = array.dtype.kind in "iub"
        limits = {"means": (MEANS, ROUNDING_OF_MEANS), "voxels": (VOXELS, ROUNDING)}
        scale = float(array.std())
        for kind, now in coarse(array).items():
            then = self.coarse[f"{key}/{kind}"]
            if now.shape != then.shape:
                yield f"{key}: {kind} of shape {now.shape}, recorded were {then.shape}"
                continue
            relative, rounding = limits[kind]
            limit = factor * max(relative * scale, rounding if whole else 0)
            off = float(np.abs(now.astype(float) - then.astype(float)).max())
            if not off <= limit:
                yield f"{key}: {kind} differ by up to {off:.4g} (limit {limit:.4g})"


def coarse(array: NDArray) -> dict[str, NDArray]:
    """Block means, and single voxels in their own number format."""
    means = array.astype(np.float64)
    for axis in range(array.ndim):
        starts = np.arange(0, array.shape[axis], BLOCK)
        sizes = np.diff([*starts, array.shape[axis]])
        sums = np.add.reduceat(means, starts, axis)
        means = sums / sizes.reshape([-1 if n == axis else 1 for n in range(array.ndim)])
    voxels = array[tuple(slice(None, None, STRIDE) for _ in array.shape)]
    return {"means": means.astype(np.float32), "voxels": np.ascontiguousarray(voxels)}


def digest(array: NDArray) -> str:
    found = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested JSON under the path of its keys; an empty list or dict is a leaf."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            text = name in WORDS and isinstance(item, str)
            yield from entries(numbers(item) if text else item, f"{key}/{name}")
    elif isinstance(value, (list, tuple)) and value:
        for index, item in enumerate(value):
            yield from entries(item, f"{key}/{index}")
    else:
        yield key, value


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def same(now: Any, then: Any, tolerance: float) -> bool:
    if isinstance(now, float) and isinstance(then, (float, int)):
        return math.isclose(now, then, rel_tol=tolerance, abs_tol=tolerance)
    return type(now) is type(then) and now == then


def main(words: list[str]) -> None:
    record = Record.load() if (FOLDER / "hashes.json").is_file() else Record()
    chosen = [name for name in CASES if not words or any(word in name for word in words)]
    if not chosen:
        sys.exit(f"No case has one of these words; the cases are: {'; '.join(CASES)}.")
    own = record.hashes.setdefault(machine(), {})
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            outcome = CASES[name].run(Path(folder))
        changed = name not in record.reports or record.differences(name, outcome)
        print(f"{'recorded' if changed else 'unchanged'}: {name}")
        if changed:  # hashes of other machines are those of the former result
            for kept in (record.coarse, *record.hashes.values()):
                for key in [key for key in kept if key.startswith(f"{name}/")]:
                    del kept[key]
            record.reports[name] = outcome.reports
        for key, array in outcome.arrays.items():
            own[f"{name}/{key}"] = digest(array)
            for kind, values in coarse(array).items():
                record.coarse.setdefault(f"{name}/{key}/{kind}", values)
    record.write()


if __name__ == "__main__":
    main(sys.argv[1:])
