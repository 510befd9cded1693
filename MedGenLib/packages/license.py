"""Acceptance of the licences that ask for it, remembered in the user's configuration."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import date

from MedGenLib import home
from MedGenLib.errors import InputError, LicenseError
from MedGenLib.packages.manifest import Manifest

CONFIG_KEY = "accepted_licenses"


def license_notice(manifest: Manifest) -> str:
    """One sentence that tells the user what the licence of the model allows."""
    use = "" if manifest.license.commercial_use else " and must not be used commercially"
    return f"The model '{manifest.name}' is licensed {manifest.license.spdx}{use}."


def is_accepted(manifest: Manifest) -> bool:
    """True when the licence needs no acceptance or this very text was accepted before."""
    if not manifest.license.acceptance_required:
        return True
    accepted = home.read_config().get(CONFIG_KEY)
    entry = accepted.get(manifest.name) if isinstance(accepted, dict) else None
    return isinstance(entry, dict) and entry.get("sha256") == _fingerprint(manifest)


def require_acceptance(manifest: Manifest, accept: bool = False) -> bool:
    """Let the run go on only with an accepted licence.

    Returns
    -------
    True when the licence was accepted by this very call; then show `license_notice` once.

    Raises
    ------
    LicenseError: acceptance is needed, was not given before and `accept` is False.
    InputError: the configuration is not readable.
    """
    if is_accepted(manifest):
        return False
    if not accept:
        raise LicenseError(
            f"{license_notice(manifest).rstrip('.')}; read {manifest.folder / 'LICENSE'} and add "
            "--accept-license (accept_license=True in Python) if you agree."
        )
    # Where nothing can be written, the acceptance holds for this run and the notice comes again.
    with suppress(InputError):
        _remember(manifest)
    return True


def _remember(manifest: Manifest) -> None:
    config = home.read_config()
    accepted = config.get(CONFIG_KEY)
    config[CONFIG_KEY] = {
        **(accepted if isinstance(accepted, dict) else {}),
        manifest.name: {
            "spdx": manifest.license.spdx,
            "sha256": _fingerprint(manifest),
            "date": date.today().isoformat(),
        },
    }
    home.write_config(config)


def _fingerprint(manifest: Manifest) -> str:
    """Of identifier and text: a licence that changes has to be accepted anew."""
    text = f"{manifest.license.spdx}\n{manifest.license_text}"
    return hashlib.sha256(text.encode()).hexdigest()
