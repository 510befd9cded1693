"""Failed installations in one sentence, from what the installers wrote."""

from __future__ import annotations

import re

from slicer.i18n import tr as _


def explain(log: str, folder: str, wheelFolder: str | None = None) -> str:
    """One sentence about a failed installation, with what to do.

    Parameters
    ----------
    folder: where packages are installed.
    wheelFolder: of wheels that were installed from, None for the network.
    """
    # The order matters: without a network pip ends with "no matching distribution" too.
    for pattern, sentence in {**_disk(), **_network(), **_packages(wheelFolder)}.items():
        if match := re.search(pattern, log, re.IGNORECASE):
            return sentence.format(folder=folder, wheels=wheelFolder, name=(match.groups() or ("",))[0])
    return _("The installation failed; see the log, and send it with Copy diagnostics if it happens again.")


def _disk() -> dict[str, str]:
    return {
        r"No space left on device|Errno 28|not enough space|disk quota exceeded|File too large": _(
            "The disk of '{folder}' is full; free some space and press Install again."
        ),
        r"Permission denied|Access is denied|Errno 13|Read-only file system|Operation not permitted|WinError 5\b": _(
            "The folder '{folder}' cannot be written; start Slicer from a place where you may write, or ask your "
            "administrator."
        ),
        r"being used by another process|WinError 32\b": _(
            "A file that has to be replaced is in use; restart Slicer and press Install before anything else."
        ),
    }


def _network() -> dict[str, str]:
    return {
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError": _(
            "The package server's certificate was not accepted, as happens behind a company proxy; set PIP_CERT "
            "to your organization's certificate file, or install from a folder of wheels."
        ),
        r"ProxyError|407 Proxy": _(
            "The proxy refused the connection; set HTTPS_PROXY with user and password, or install from a folder of "
            "wheels."
        ),
        r"NewConnectionError|Name or service not known|name resolution|getaddrinfo|Network is unreachable|"
        r"ConnectTimeout|ReadTimeout|timed out|Connection refused|ConnectionError|ConnectionResetError|"
        r"Could not fetch URL|Max retries exceeded": _(
            "The package server cannot be reached; check the network connection and the proxy (HTTPS_PROXY), or "
            "install from a folder of wheels."
        ),
    }


def _packages(wheelFolder: str | None) -> dict[str, str]:
    noMatch = _(
        "There is no version of '{name}' for this Python and the versions that Slicer needs; update Slicer, "
        "or see the log."
    )
    if wheelFolder:
        noMatch = _(
            "The folder '{wheels}' lacks a wheel of '{name}' for this Python; copy it there (pip download) and "
            "press Install again."
        )
    return {
        r"ResolutionImpossible|conflicting dependencies": _(
            "The packages conflict with versions that Slicer needs; update Slicer, or see the log."
        ),
        r"No matching distribution found for ([\w.-]+)": noMatch,
        r"Could not find a version that satisfies the requirement ([\w.-]+)": noMatch,
        r"No module named pip|Python(?:Slicer)? executable not found": _(
            "Slicer's Python cannot run pip; install Slicer again."
        ),
    }
