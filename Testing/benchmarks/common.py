"""Helpers of the benchmarks: data folder, tables, results as JSON, jobs in separate processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "out" / "benchmarks"
sys.path.append(str(ROOT / "Testing" / "support"))


def data_folder() -> Path:
    """Folder of the public scans, from the environment variable MEDGEN_DATA."""
    if "MEDGEN_DATA" not in os.environ:
        sys.exit("Set MEDGEN_DATA to the folder with the public scans first.")
    return Path(os.environ["MEDGEN_DATA"])


def table(heads: list[str], rows: list[list[Any]]) -> str:
    """Markdown table; floats have three significant digits."""

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [heads, ["---"] * len(heads), *[[cell(v) for v in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save(name: str, figures: dict[str, Any]) -> None:
    """Write the results as JSON beside the pictures."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(figures, indent=2, default=float))


def in_process(script: str, name: str, threads: int) -> dict[str, Any]:
    """Results that `script --child NAME` prints as JSON in its last line, in a separate process."""
    command = [sys.executable, script, "--child", name, "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
