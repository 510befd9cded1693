"""Acceptance of licenses, stored in the user's configuration."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import date
from typing import Protocol

from MedGenLib.errors import InputError, LicenseError
from MedGenLib.io import user_config
from MedGenLib.packages.manifest import LicenseSpec

CONFIG_KEY = "accepted_licenses"


class Licensed(Protocol):
    """An installed (`Manifest`) or published model (`hub.install.Offer`)."""

    @property
    def name(self) -> str: ...

    @property
    def license(self) -> LicenseSpec: ...

    @property
    def license_text(self) -> str: ...

    @property
    def license_place(self) -> str:
        """File or URL of the license."""


def license_notice(model: Licensed) -> str:
    """One sentence on the license of the model."""
    use = "" if model.license.commercial_use else " and allows no commercial use"
    return f"The license of the model '{model.name}' is {model.license.spdx}{use}."


def is_accepted(model: Licensed) -> bool:
    """Whether the license needs no acceptance or its present text was accepted before."""
    if not model.license.acceptance_required:
        return True
    accepted = user_config.read_config().get(CONFIG_KEY)
    entry = accepted.get(model.name) if isinstance(accepted, dict) else None
    return isinstance(entry, dict) and entry.get("sha256") == _fingerprint(model)


def require_acceptance(model: Licensed, accept: bool = False) -> bool:
    """Raise LicenseError unless the license is accepted.

    Returns
    -------
    True if the license was accepted by this call; then show `license_notice` once.

    Raises
    ------
    LicenseError: acceptance is needed, was not given before and `accept` is False.
    InputError: the configuration is not readable.
    """
    if is_accepted(model):
        return False
    if not accept:
        raise LicenseError(
            f"{license_notice(model).rstrip('.')}; read {model.license_place} and add "
            "--accept-license (accept_license=True in Python) if you agree."
        )
    # If nothing can be written, the acceptance is valid for this run and the notice is repeated.
    with suppress(InputError):
        _remember(model)
    return True


def _remember(model: Licensed) -> None:
    config = user_config.read_config()
    accepted = config.get(CONFIG_KEY)
    config[CONFIG_KEY] = {
        **(accepted if isinstance(accepted, dict) else {}),
        model.name: {"spdx": model.license.spdx, "sha256": _fingerprint(model), "date": date.today().isoformat()},
    }
    user_config.write_config(config)


def _fingerprint(model: Licensed) -> str:
    """Hash of identifier and text: a changed license must be accepted again."""
    text = f"{model.license.spdx}\n{model.license_text}"
    return hashlib.sha256(text.encode()).hexdigest()
