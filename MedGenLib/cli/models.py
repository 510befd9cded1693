"""`medgen models`: list | info NAME | install NAME | add PATH | remove NAME | verify [NAME]."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.console import Console
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import broken, catalogue, find
from MedGenLib.packages.hub import install as published
from MedGenLib.packages.license import is_accepted, license_notice
from MedGenLib.packages.text import available_table, model_card, models_table


def list_models(arguments: Namespace, console: Console) -> int:
    """One line per model; packages that cannot be used are named on stderr."""
    if getattr(arguments, "available", False):
        console.say(available_table(published.available()))
        return 0
    console.say(models_table(catalogue()))
    for package in broken():
        console.note(package.reason)
    return 0


def info(arguments: Namespace, console: Console) -> int:
    """The facts of the manifest, then the model card."""
    manifest = find(arguments.name)
    console.say(model_card(manifest))
    if manifest.card:
        console.say(f"\n{manifest.card.strip()}")
    return 0


def install(arguments: Namespace, console: Console) -> int:
    """Shows the licence until it was accepted, then downloads and converts."""
    offer = published.offer(arguments.name, arguments.source)
    if not is_accepted(offer):
        console.say(offer.license_text)
    manifest = published.install(offer, accept_license=arguments.accept_license, progress=console)
    console.say(f"Installed the model '{manifest.name}' {manifest.version} in {manifest.folder}.")
    console.say(license_notice(manifest))
    return 0


def add(arguments: Namespace, console: Console) -> int:
    manifest = store.add(arguments.path, sha256=arguments.sha256, progress=console)
    console.say(f"Added the model '{manifest.name}' {manifest.version} in {manifest.folder}.")
    console.say(license_notice(manifest))
    return 0


def remove(arguments: Namespace, console: Console) -> int:
    console.say(f"Removed {store.remove(arguments.name)}.")
    return 0


def verify(arguments: Namespace, console: Console) -> int:
    """Exit code 1 when a package has a problem."""
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
