"""The long form of the tests of files: more damage to every format, more random grids.

    python Testing/benchmarks/damage.py [--count 1000] [--seconds 60] [--seed 1] [--times 20]

A damaged file has to be refused in one sentence or to give what it gave before, within `SECONDS` and
`MEBIBYTES` of `Testing/support/damage_forms.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from common import ROOT, save, table
from damage_forms import FORMATS, complaints, originals

TESTS = ("Testing/library/io/test_properties.py", "Testing/library/pipelines/test_places.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="damaged files of each format (default: 1000)")
    parser.add_argument("--seconds", type=float, default=60, help="most time for each format (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the damage (default: 1; the tests have 0)")
    parser.add_argument("--times", type=int, default=20, help="random grids, as a multiple of the tests' (default: 20)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEDGEN_HOME"] = str(Path(folder) / "home")
        files = originals(Path(folder))
        for name in FORMATS:
            found[name] = complaints(files[name], arguments.count, arguments.seconds, arguments.seed)
    print(table(["format", "complaints"], [[name, len(texts)] for name, texts in found.items()]))
    print("\n".join(text for texts in found.values() for text in texts))
    save("damage", found)
    environment = {**os.environ, "MEDGEN_EXAMPLES": str(arguments.times)}
    command = [sys.executable, "-m", "pytest", "-q", *TESTS, "-k", "not damage"]
    tested = subprocess.run(command, cwd=ROOT, env=environment).returncode
    sys.exit(bool(tested or any(found.values())))


if __name__ == "__main__":
    main()
