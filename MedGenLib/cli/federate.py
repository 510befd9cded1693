"""`medgen federate simulate | provision | join | status`: sites train one model, and their images stay with them."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.cli.arguments import add_arguments, positive
from MedGenLib.cli.commands import Parser, action, command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError

if TYPE_CHECKING:
    from MedGenLib.federated.federation import Federation


@command("federate", "train one model at several sites, whose images stay there")
def explain(arguments: Namespace, console: Console) -> int:
    """Raise InputError, as an action is missing."""
    raise InputError("A federation needs an action; give simulate, provision, join or status after federate.")


def named(text: str) -> tuple[str, Path]:
    """NAME=PATH."""
    name, _, path = text.partition("=")
    if not path:
        raise ArgumentTypeError(f"'{text}' is no site with its data; give NAME=PATH")
    return name, Path(path)


def _new(arguments: Namespace, console: Console) -> tuple[Federation, Path]:
    """The federation and the new folder of `simulate` and `provision`."""
    from MedGenLib.federated.federation import read_federation, require_nvflare
    from MedGenLib.federated.updates import epsilon

    require_nvflare()
    federation, out = read_federation(arguments.federation), arguments.out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; give a new folder.")
    if federation.noise:
        found = epsilon(federation.noise, federation.rounds, federation.delta)
        console.say(f"Privacy of the updates of a site: epsilon {found:.3g} at delta {federation.delta:g}.")
    return federation, out


def _shared(parser: Parser) -> None:
    parser.add_argument("federation", metavar="FEDERATION.json", type=Path, help="recipe, sites, rounds and more")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new folder")


def _machine(parser: Parser) -> None:
    add_arguments(parser, "generate", "device")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of a site")


def arguments_of_simulate(parser: Parser) -> None:
    _shared(parser)
    parser.add_argument(
        "--site",
        type=named,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the data of a site: a folder, or a JSON file with the section data of the configuration; repeatable",
    )
    _machine(parser)


@action("federate simulate", "run a federation on this computer, each site a process", "", arguments_of_simulate)
def simulate(arguments: Namespace, console: Console) -> int:
    from MedGenLib.federated.flare import simulate, site_home
    from MedGenLib.federated.server import read_state
    from MedGenLib.federated.site import require_data, write_site

    federation, home = _new(arguments, console)
    for _, data in arguments.site:
        require_data(data)
    if sorted(name for name, _ in arguments.site) != sorted(federation.sites):
        raise InputError(f"Give the data of each site: {' '.join(f'--site {name}=PATH' for name in federation.sites)}.")
    for name, data in arguments.site:
        write_site(site_home(home, name), data, arguments.device, arguments.threads)
        federation.set_up(site_home(home, name))
    federation.set_up(home)
    simulate(home)
    return _end(read_state(home), console, tell=True)


def _end(state: dict[str, Any], console: Console, tell: bool = False) -> int:
    for line in state["log"] if tell else ():
        console.say(line)
    if state.get("ended") != "done":
        raise InputError(state.get("ended", "The federation did not end; see the logs of NVFlare in its folder."))
    console.say(f"The best round is {state['best']['round']}.")
    console.wrote(state["result"])
    return 0


def arguments_of_provision(parser: Parser) -> None:
    _shared(parser)
    parser.add_argument("--host", required=True, metavar="HOST", help="address at which the sites reach the server")
    parser.add_argument("--port", type=positive, default=8002, metavar="N", help="its port (default: 8002)")


@action(
    "federate provision",
    "make the folders of server and sites, with their certificates",
    "Give each site its folder by a safe way: with its key, anybody can take part as that site.",
    arguments_of_provision,
)
def provision(arguments: Namespace, console: Console) -> int:
    from MedGenLib.federated.deployment import provision

    federation, out = _new(arguments, console)
    out.mkdir(parents=True, exist_ok=True)
    console.wrote(*provision(out, federation, arguments.host, arguments.port))
    return 0


def arguments_of_join(parser: Parser) -> None:
    parser.add_argument("kit", metavar="FOLDER", type=Path, help="folder of `medgen federate provision`")
    parser.add_argument("--data", type=Path, metavar="PATH", help="the data of this site, as in simulate")
    _machine(parser)


@action(
    "federate join",
    "run the server or a site until the federation ends",
    "After an interruption the same command goes on.",
    arguments_of_join,
)
def join(arguments: Namespace, console: Console) -> int:
    from MedGenLib.federated.deployment import is_server, run_server, run_site
    from MedGenLib.federated.federation import read_federation, require_nvflare
    from MedGenLib.federated.site import write_site

    require_nvflare()
    kit = arguments.kit.resolve()
    own = read_federation(kit)
    if is_server(kit):
        return _end(run_server(kit, console.say), console)
    if kit.name not in own.sites:
        raise InputError(f"The folder {kit.name} is none of the sites {', '.join(own.sites)}; name it as before.")
    if arguments.data is None:
        raise InputError(f"Give the data of the site {kit.name} as --data PATH.")
    write_site(kit, arguments.data, arguments.device, arguments.threads)
    console.say(f"{kit.name} trains {own.recipe} in {own.rounds} rounds of {own.steps} steps; its images stay here.")
    run_site(kit)
    return 0


def arguments_of_status(parser: Parser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the server, or of a simulation")


@action("federate status", "print what happened in each round, and at which site", "", arguments_of_status)
def status(arguments: Namespace, console: Console) -> int:
    from MedGenLib.federated.federation import read_federation
    from MedGenLib.federated.server import read_state

    read_federation(arguments.folder)
    state = read_state(arguments.folder)
    for site, item in state["sites"].items():
        console.say(f"{site}: {item.get('cases', 0)} cases, {item.get('releases', 0)} updates")
    ended = state.get("ended", "It goes on.")
    for line in (*state["log"], "It has ended." if ended == "done" else ended):
        console.say(line)
    return 0
