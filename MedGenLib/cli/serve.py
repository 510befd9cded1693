"""`medgen serve`: run models for other computers; `medgen serve token` lets somebody use the engine."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

from MedGenLib.cli.arguments import above_zero, positive
from MedGenLib.cli.commands import Parser, action, command
from MedGenLib.cli.console import Console
from MedGenLib.errors import InputError


def arguments_of_serve(parser: Parser) -> None:
    parser.add_argument("--secure", action="store_true", help="require token and TLS on the loopback interface, too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the images of all runs in this folder")
    values = {
        "host": (str, "127.0.0.1", "address to listen at"),
        "port": (int, 7450, "port to listen at, 0 for any that is free"),
        "upload": (positive, 2048, "most MiB of the images of one run"),
        "minutes": (above_zero, 60, "longest time of one run"),
        "idle": (above_zero, 10, "minutes after which an unused worker gives its memory back"),
        "clients": (positive, 32, "most connections at a time"),
    }
    for name, (kind, value, text) in values.items():
        metavar = "HOST" if kind is str else "N"
        parser.add_argument(f"--{name}", type=kind, default=value, metavar=metavar, help=f"{text} (default: {value})")


@command(
    "serve",
    "run models for other computers",
    "Clients connect to wss://HOST:PORT with a token; on the loopback interface to ws:// without one. Ctrl-C ends it.",
    arguments_of_serve,
)
def serve(arguments: Namespace, console: Console) -> int:
    from MedGenLib.worker.remote.certificate import server_context
    from MedGenLib.worker.remote.engine import Limits
    from MedGenLib.worker.remote.frames import LOOPBACK
    from MedGenLib.worker.remote.serving import Service

    if find_spec("websockets") is None:
        raise InputError("The engine needs the Python package websockets; install it with: pip install medgen[serve].")
    context, scheme = None, "ws"
    if arguments.secure or arguments.host not in LOOPBACK:
        context, shown = server_context()
        console.say(f"Fingerprint (SHA-256) of the certificate: {shown}")
        scheme = "wss"
    limits = Limits(arguments.upload * 2**20, arguments.minutes * 60, arguments.idle * 60, arguments.clients)
    service = Service(limits, context, arguments.keep, lambda line: console.note(f"{time.strftime('%F %T')} {line}"))

    def say(port: int) -> None:
        console.say(f"The engine listens at {scheme}://{arguments.host}:{port}")

    asyncio.run(service.run(arguments.host, arguments.port, say))
    return 0


def arguments_of_token(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="who it is for; shown in the log")
    parser.add_argument("--days", type=float, metavar="N", help="after which it expires (default: never)")


@action(
    "serve token",
    "create a token",
    "It is printed once, as the engine keeps only its hash, and replaces one of the same name: --days 0 revokes that.",
    arguments_of_token,
)
def token(arguments: Namespace, console: Console) -> int:
    from MedGenLib.worker.remote.access import create_token

    console.say(create_token(arguments.name, arguments.days))
    return 0
