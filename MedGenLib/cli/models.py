"""`medgen models`: list | info NAME | install NAME | add PATH | remove NAME | verify [NAME]."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.arguments import add_arguments
from MedGenLib.cli.commands import Parser, action, command
from MedGenLib.cli.console import Console
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import broken, catalogue, find
from MedGenLib.packages.hub import install as published
from MedGenLib.packages.license import is_accepted, license_notice
from MedGenLib.packages.text import available_table, model_card, models_table

EXAMPLES = """\
examples:
  medgen models list --available
  medgen models install nv-generate-ct
  medgen models install nv-generate-ct --accept-license
  medgen models install nv-generate-ct --from ~/NV-Generate-CTMR/models --accept-license
  medgen models install nv-generate-mr-brain --from https://hub.example.org --accept-license
"""


def arguments_of_list(parser: Parser) -> None:
    parser.add_argument("--available", action="store_true", help="list the published models to install instead")


@command("models", "list and manage models")
@action("models list", "list the models that are installed", extra_arguments=arguments_of_list)
def list_models(arguments: Namespace, console: Console) -> int:
    """One line per model; unusable packages are listed on stderr."""
    if getattr(arguments, "available", False):
        console.say(available_table(published.available()))
        return 0
    console.say(models_table(catalogue()))
    for package in broken():
        console.note(package.reason)
    return 0


def name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the model")


@action("models info", "show what a model is and needs", extra_arguments=name)
def info(arguments: Namespace, console: Console) -> int:
    """Print the manifest's facts, then the model card."""
    manifest = find(arguments.name)
    console.say(model_card(manifest))
    if manifest.card:
        console.say(f"\n{manifest.card.strip()}")
    return 0


def arguments_of_install(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name in `medgen models list --available`")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER|URL",
        help="folder with the published files, or a mirror of the Hugging Face hub (default: huggingface.co, or the "
        "environment variable HF_ENDPOINT)",
    )
    add_arguments(parser, "generate", "accept_license")


@action(
    "models install",
    "download a published model and convert it to a package",
    "Its license is shown first and must be accepted once. The same command resumes an interrupted "
    "download; checksums are verified, and nothing in the files is run as code.",
    arguments_of_install,
    EXAMPLES,
)
def install(arguments: Namespace, console: Console) -> int:
    """Show the license until it is accepted, then download and convert."""
    offer = published.offer(arguments.name, arguments.source)
    if not is_accepted(offer):
        console.say(offer.license_text)
    manifest = published.install(offer, accept_license=arguments.accept_license, progress=console)
    console.say(f"Installed the model '{manifest.name}' {manifest.version} in {manifest.folder}.")
    console.say(license_notice(manifest))
    return 0


def arguments_of_add(parser: Parser) -> None:
    parser.add_argument("path", metavar="PATH", help="package folder, .zip file or its https address")
    parser.add_argument("--sha256", metavar="HEX", help="checksum of the .zip file")


@action(
    "models add", "install a model package", "It is verified first; nothing in it is run as code.", arguments_of_add
)
def add(arguments: Namespace, console: Console) -> int:
    manifest = store.add(arguments.path, sha256=arguments.sha256, progress=console)
    console.say(f"Added the model '{manifest.name}' {manifest.version} in {manifest.folder}.")
    console.say(license_notice(manifest))
    return 0


@action("models remove", "remove a model you have added", extra_arguments=name)
def remove(arguments: Namespace, console: Console) -> int:
    console.say(f"Removed {store.remove(arguments.name)}.")
    return 0


def arguments_of_verify(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="one model (default: all)")


@action("models verify", "check every file of the models against checksums", extra_arguments=arguments_of_verify)
def verify(arguments: Namespace, console: Console) -> int:
    """Exit code 1 if a package has a problem."""
    manifests = [find(arguments.name)] if arguments.name else catalogue()
    problems = [] if arguments.name else [package.reason for package in broken()]
    for manifest in manifests:
        found = store.verify(manifest)
        problems += found
        if not found:
            files = len(manifest.checksums)
            console.say(f"OK       {manifest.name} {manifest.version}: {files} files as published")
    for problem in problems:
        console.say(f"PROBLEM  {problem}")
    return 1 if problems else 0
