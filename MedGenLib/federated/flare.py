"""A federation on NVFlare: its controller on the server, its executor at each site, and the simulator.

A job of NVFlare holds no code, only the names of `controller` and `executor`: a site runs what is installed there, with
the federation in its own folder. ``home`` is the folder of a simulation; by default it is the startup kit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedGenLib.errors import Cancelled, MedGenError
from MedGenLib.federated.federation import read_federation
from MedGenLib.io.atomic import write_json

CLOSE = "close"
"""File in the server's folder that ends a job: a site was lost or came back."""
POLL, KEY = 0.2, "medgen"


def controller(home: str = "") -> Any:
    """The controller of NVFlare's server."""
    from nvflare.apis.controller_spec import Task as FlareTask
    from nvflare.apis.impl.controller import Controller
    from nvflare.apis.shareable import Shareable

    from MedGenLib.federated.server import Coordinator, Task

    class Rounds(Controller):
        def start_controller(self, fl_ctx: Any) -> None:
            self.home = Path(home or fl_ctx.get_engine().get_workspace().get_root_dir())

        def stop_controller(self, fl_ctx: Any) -> None:
            """Nothing is left open."""

        def control_flow(self, abort_signal: Any, fl_ctx: Any) -> None:
            sites = sorted(client.name for client in fl_ctx.get_engine().get_clients())
            try:
                server, lost = Coordinator(self.home), False
                while not lost and (task := server.next(sites)):
                    answers = self.ask(task, abort_signal, fl_ctx)
                    if abort_signal.triggered:
                        return
                    lost = len(answers) < len(task.sites)  # the next job has the sites that are there then
                    if not lost or (task.name == "train" and len(answers) >= server.federation.fewest):
                        server.take(task, answers)
            except MedGenError as error:
                self.system_panic(str(error), fl_ctx)

        def ask(self, task: Task, abort_signal: Any, fl_ctx: Any) -> dict[str, Mapping[str, Any]]:
            answers: dict[str, Mapping[str, Any]] = {}

            def keep(client_task: Any, fl_ctx: Any) -> None:
                found = client_task.result.get(KEY)
                answers[client_task.client.name] = (
                    found if found and isinstance(found, dict) else {"error": "its software failed; see its log"}
                )
                client_task.result = None

            data = Shareable({KEY: {"number": task.number, "weights": task.weights}})
            asked = FlareTask(name=task.name, data=data, result_received_cb=keep)
            self.broadcast(asked, fl_ctx, targets=list(task.sites), min_responses=len(task.sites))
            while asked.completion_status is None and not abort_signal.triggered:
                if (self.home / CLOSE).exists():
                    self.cancel_task(asked)
                time.sleep(POLL)
            return answers

    return Rounds()


def executor(home: str = "") -> Any:
    """The executor of a site."""
    from nvflare.apis.executor import Executor
    from nvflare.apis.fl_constant import ReturnCode
    from nvflare.apis.shareable import make_reply

    from MedGenLib.federated.site import Site

    class SiteExecutor(Executor):
        site: Site | None = None

        def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
            def stop(_: Any) -> None:
                if abort_signal.triggered:
                    raise Cancelled("The server ended the round.")

            kit = fl_ctx.get_engine().get_workspace().get_root_dir()
            reply = make_reply(ReturnCode.OK)
            try:
                self.site = self.site or Site(site_home(Path(home), fl_ctx.get_identity_name()) if home else Path(kit))
                self.site.progress = stop
                reply[KEY] = self.site.work(task_name, shareable[KEY]["number"], shareable[KEY]["weights"])
            except MedGenError as error:
                self.log_warning(fl_ctx, str(error), fire_event=False)
                # The sentence can name a file, and so a patient.
                reply[KEY] = {"error": str(error) if home else "it stopped with an error, which its own log names"}
            return reply

    return SiteExecutor()


def site_home(home: Path, name: str) -> Path:
    """The folder of a site in that of a simulation."""
    return home / "sites" / name


def write_job(folder: Path, sites: Sequence[str], args: Mapping[str, Any]) -> Path:
    """Write a job of NVFlare; ``args`` are those of `controller` and `executor`."""
    work = {"tasks": ["*"], "executor": {"path": f"{__name__}.executor", "args": args}}
    sides = {
        "server": {"workflows": [{"id": "rounds", "path": f"{__name__}.controller", "args": args}]},
        "client": {"executors": [work], "task_data_filters": [], "task_result_filters": []},
    }
    config = folder / "app" / "config"
    config.mkdir(parents=True, exist_ok=True)
    for side, content in sides.items():
        write_json(config / f"config_fed_{side}.json", {"format_version": 2, "components": [], **content})
    places = {"name": "medgen", "resource_spec": {}, "min_clients": 1, "deploy_map": {"app": ["server", *sites]}}
    write_json(folder / "meta.json", places)
    return folder


def simulate(home: Path) -> None:
    """Run the federation of a folder on this computer; each site is a process."""
    from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

    sites, workspace = read_federation(home).sites, home / "nvflare"
    (workspace / "local").mkdir(parents=True, exist_ok=True)
    write_json(workspace / "local" / "resources.json", {"format_version": 2, "class_allow_list": [__name__]})
    job = write_job(home / "job", sites, {"home": str(home)})
    SimulatorRunner(str(job), str(workspace), ",".join(sites), threads=len(sites), log_config="concise").run()
