"""The words of `medgen models install`."""

from __future__ import annotations

from collections.abc import Callable

EXAMPLES = """\
examples:
  medgen models list --available
  medgen models install nv-generate-ct
  medgen models install nv-generate-ct --accept-license
  medgen models install nv-generate-ct --from ~/NV-Generate-CTMR/models --accept-license
  medgen models install nv-generate-mr-brain --from https://hub.example.org --accept-license
"""


def add_install(actions, add_command: Callable) -> None:
    """Add the action to the actions of `medgen models`."""
    parser = add_command(
        actions,
        "install",
        "cli.models:install",
        "download a published model and make it a package",
        "Its licence is shown first and has to be accepted once. A download that was cut off is "
        "continued by the same command; files are checked, and nothing in them is run as code.",
    )
    parser.epilog = EXAMPLES
    parser.add_argument("name", metavar="NAME", help="as `medgen models list --available` says")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER|URL",
        help="folder with the published files, or a mirror of the Hugging Face hub (default: "
        "huggingface.co, or the environment variable HF_ENDPOINT)",
    )
    parser.add_argument(
        "--accept-license", action="store_true", help="accept the model's licence; remembered for this user"
    )


def add_available(parser) -> None:
    """Add the option to `medgen models list`."""
    parser.add_argument("--available", action="store_true", help="list the published models to install instead")
