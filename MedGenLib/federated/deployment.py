"""The distributed form: folders with certificates for server and sites, and the processes that run them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.federated import flare
from MedGenLib.federated.federation import Federation, read_federation
from MedGenLib.federated.server import read_state
from MedGenLib.io.atomic import hidden_folder, write_json

ORGANIZATION, ADMIN, ADMIN_KIT = "medgen", "coordinator@medgen.local", "coordinator"
SILENCE = 60
"""Seconds without a sign of life after which a site counts as lost."""
POLL, START, TRIES = 2.0, 240.0, 3
"""Seconds between looks at a job, seconds for the start of a process, and jobs without any progress."""
LOG = "nvflare.log"
BUILDERS: dict[str, dict[str, Any]] = {
    "workspace.WorkspaceBuilder": {"template_file": ["master_template.yml"]},
    "static_file.StaticFileBuilder": {"config_folder": "config"},
    "cert.CertBuilder": {},
    "signature.SignatureBuilder": {},
}


def provision(out: Path, federation: Federation, host: str, port: int) -> list[Path]:
    """Write a folder for the server and one for each site; returns their paths.

    One authority signs all certificates. Its key is thrown away, so that nobody can join later.
    """
    names = ("server", *federation.sites)
    with hidden_folder(out) as workshop:
        made = _certified(workshop, federation, host, port)
        shutil.move(made / ADMIN, made / "server" / ADMIN_KIT)
        for name in names:
            federation.set_up(made / name)
            _restrict(made / name / "local", out / name)
            for key in (made / name).rglob("*.key"):
                key.chmod(0o600)
        for name in names:
            os.replace(made / name, out / name)
    return [out / name for name in names]


def _certified(workshop: Path, federation: Federation, host: str, port: int) -> Path:
    """The startup kits of NVFlare."""
    from nvflare.lighter.prov_utils import prepare_builders
    from nvflare.lighter.provision import prepare_project
    from nvflare.lighter.provisioner import Provisioner

    people: list[dict[str, Any]] = [{"name": name, "type": "client"} for name in federation.sites]
    people.append({"name": "server", "type": "server", "fed_learn_port": port, "default_host": host})
    people.append({"name": ADMIN, "type": "admin", "role": "project_admin"})
    project = {
        "api_version": 3,
        "name": "federation",
        "description": "MedGen",
        "participants": [{**item, "org": ORGANIZATION} for item in people],
        "builders": [{"path": f"nvflare.lighter.impl.{name}", "args": args} for name, args in BUILDERS.items()],
    }
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        context = Provisioner(str(workshop), prepare_builders(project)).provision(prepare_project(project))
    if context.get("build_error"):
        raise InputError(f"NVFlare could not make the certificates: {printed.getvalue().strip()[-300:]}")
    return workshop / "federation" / "prod_00"


def _restrict(local: Path, kit: Path) -> None:
    """Allow this package only, and keep NVFlare's files in the kit instead of a folder that all users share."""
    known = next(path for path in (local / "resources.json", local / "resources.json.default") if path.is_file())
    resources = json.loads(known.read_text(encoding="utf-8"))
    # Logs can hold names of cases, and are not sent.
    resources |= {"class_allow_list": [flare.__name__], "allow_log_streaming": False}
    resources["components"] = [item for item in resources["components"] if "log" not in item["id"]]
    if "servers" in resources:
        resources["servers"][0]["heart_beat_timeout"] = SILENCE
        resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(kit / "nvflare" / "snapshots")
        manager = next(item for item in resources["components"] if item["id"] == "job_manager")
        manager["args"]["uri_root"] = str(kit / "nvflare" / "jobs")
    write_json(local / "resources.json", resources)


def is_server(kit: Path) -> bool:
    return (kit / "startup" / "fed_server.json").is_file()


@contextlib.contextmanager
def _process(kit: Path, role: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """NVFlare's process of a kit, which ends with this one."""
    _restrict(kit / "local", kit)  # a kit can have been moved
    module = f"nvflare.private.fed.app.{role}.{role}_train"
    values = ("secure_train=true", "config_folder=config", f"org={ORGANIZATION}", *more)
    line = [sys.executable, "-m", module, "-m", str(kit), "-s", f"fed_{role}.json", "--set", *values]
    with (kit / LOG).open("ab") as log:
        process = subprocess.Popen(line, cwd=kit, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(SILENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def run_site(kit: Path) -> None:
    """Take part until the server ends the federation. Raises InputError if NVFlare ends with an error."""
    with _process(kit, "client", f"uid={kit.name}") as process:
        if code := process.wait():
            raise InputError(f"The site {kit.name} ended with the code {code}; see {kit / LOG}.")


def run_server(kit: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run a federation from its server's kit, or go on with it; returns its state.

    Raises InputError if NVFlare's server does not start, or its jobs do nothing.
    """
    federation, idle = read_federation(kit), 0
    shutil.rmtree(kit / "nvflare", ignore_errors=True)  # jobs of a server that crashed must not begin again
    with _process(kit, "server") as process, _session(kit, process) as session:
        while not (state := read_state(kit)).get("ended"):
            _run_job(session, kit, federation, _gathered(session, federation, say), say)
            idle = idle + 1 if read_state(kit) == state else 0
            if idle == TRIES:
                raise InputError(f"The last {TRIES} jobs did nothing; see {kit / LOG} and those of the sites.")
        session.shutdown("all", wait=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SILENCE)
    return state


@contextlib.contextmanager
def _session(kit: Path, process: subprocess.Popen[bytes]) -> Iterator[Any]:
    """A session of the coordinator with the server that was just started."""
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    begun, session = time.monotonic(), None
    logging.disable()  # NVFlare complains about each attempt
    try:
        while session is None:
            if process.poll() is not None or time.monotonic() - begun > START:
                raise InputError(f"The server did not start; see {kit / LOG}.")
            with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
                session = new_secure_session(ADMIN, str(kit / ADMIN_KIT))
        yield session
    finally:
        logging.disable(logging.NOTSET)
        with contextlib.suppress(Exception):
            session.close()


def _connected(session: Any, federation: Federation) -> set[str]:
    return {item.name for item in session.get_connected_client_list()} & set(federation.sites)


def _gathered(session: Any, federation: Federation, say: Callable[[str], None]) -> list[str]:
    """The sites that are connected: all of them, or enough after a while."""
    begun, said = time.monotonic(), set()
    while True:
        there = _connected(session, federation)
        missing = set(federation.sites) - there
        if not missing or (len(there) >= federation.fewest and time.monotonic() - begun > federation.wait):
            return sorted(there)
        if missing != said:
            say(f"Waiting for {', '.join(sorted(missing))}.")
        said = missing
        time.sleep(POLL)


def _run_job(session: Any, kit: Path, federation: Federation, sites: list[str], say: Callable[[str], None]) -> None:
    """One job of NVFlare: rounds with the same sites, until one of them is lost, or another one comes."""
    (kit / flare.CLOSE).unlink(missing_ok=True)
    said, begun, seen, before = len(read_state(kit)["log"]), time.monotonic(), set(), set()
    job = session.submit_job(str(flare.write_job(kit / "job", sites, {})))
    while True:
        ended = str(session.get_job_meta(job)["status"]).startswith("FINISHED")
        lines = read_state(kit)["log"]
        for line in lines[said:]:
            say(line)
        said = len(lines)
        if ended:
            return
        running = {row["client_name"] for row in session.get_client_job_status() or () if row.get("job_id") == job}
        seen |= set(sites) if time.monotonic() - begun > START else running
        missing = seen - running
        if missing & before or _connected(session, federation) - set(sites):  # a busy site can miss one question
            (kit / flare.CLOSE).touch()
        before = missing
        time.sleep(POLL)
