"""Small federations: sites with balls to segment, and their server in one process."""

from __future__ import annotations

import json
from pathlib import Path

from balls import write_cases

from MedGenLib.errors import MedGenError
from MedGenLib.federated.federation import read_federation
from MedGenLib.federated.flare import site_home
from MedGenLib.federated.server import Coordinator
from MedGenLib.federated.site import Site, write_site
from MedGenLib.training import config as training_config

SHIPPED = Path(training_config.__file__).parent / "configs"


def segmenter_config(folder: Path) -> Path:
    """The configuration of a small segmenter, without data."""
    config = json.loads((SHIPPED / "hippocampus-segmenter.json").read_text())
    config["data"] = {"hold_out": 1, "seed": 0}
    config["segmenter"] = {"patch": [16, 16, 16], "network": {"widths": [4, 8], "blocks": [1, 1], "stem": 4}}
    config["optimisation"]["segmenter"] = {"steps": 8, "batch": 1, "learning_rate": 5e-3, "warmup": 1, "ema": 0.9}
    config["package"]["license_file"] = str(SHIPPED / config["package"]["license_file"])
    config["package"]["metadata"]["name"] = "balls"
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def write_data(folder: Path) -> dict[str, Path]:
    """Cases of site a and, fewer, of site b."""
    return {"a": write_cases(folder / "data-a", range(4)), "b": write_cases(folder / "data-b", range(10, 13))}


def federation_file(folder: Path, config: Path, sites, **changes) -> Path:
    """The file of a federation of the small segmenter, or of another recipe."""
    values = {"recipe": "segmenter", "rounds": 2, "steps": 3, "metric": "dice", "better": "higher", **changes}
    path = folder / "federated.json"
    path.write_text(json.dumps({"config": str(config), "sites": list(sites), **values}))
    return path


def federation_in(home: Path, config: Path, data: dict[str, Path], **changes) -> Path:
    """The folders of a simulation."""
    home.mkdir(exist_ok=True)
    federation = read_federation(federation_file(home, config, data, **changes))
    for name, path in data.items():
        write_site(site_home(home, name), path, "cpu", 1)
        federation.set_up(site_home(home, name))
    federation.set_up(home)
    return home


def run_here(home: Path, change=lambda task, answers: answers, tasks: int = 1000) -> Coordinator:
    """Run a federation, or its next tasks, in this process; ``change`` alters the answers on their way."""
    server, sites = Coordinator(home), {path.name: Site(path) for path in (home / "sites").iterdir()}
    while tasks and (task := server.next(sorted(sites))):
        answers = {}
        for name in task.sites:
            try:
                answers[name] = sites[name].work(task.name, task.number, task.weights)
            except MedGenError as error:
                answers[name] = {"error": str(error)}
        server.take(task, change(task, answers))
        tasks -= 1
    return server
