"""Certificates: the engine's own, made once, and what clients remember of engines."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.io.user_config import config_path, read_config, write_config

CERTIFICATE, KNOWN = "engine-certificate.pem", "engines.json"
DAYS = 3650
CONNECT_SECONDS = 10.0


def server_context() -> tuple[ssl.SSLContext, str]:
    """TLS of the engine and the fingerprint of its certificate, which is made at the first use.

    Raises InputError if the file cannot be used or the library for making one is missing.
    """
    path = config_path(CERTIFICATE)
    if not path.exists():
        _make(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(path)
        text = re.search("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", path.read_text(), re.DOTALL)[0]
    except (OSError, TypeError) as error:
        raise InputError(f"The certificate {path} cannot be used ({error}); remove it to get another one.") from error
    return context, fingerprint(text)


def client_context(address: str, host: str, port: int) -> tuple[ssl.SSLContext, str]:
    """TLS that trusts only the certificate that the engine showed at the first use; the certificate if that is now.

    The caller remembers a new certificate once the engine has let it in.
    """
    pem, new = recall(address).get("certificate"), ""
    if pem is None:
        pem = new = ssl.get_server_certificate((host, port), timeout=CONNECT_SECONDS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate says more than a name
    context.load_verify_locations(cadata=pem)
    return context, new


def fingerprint(pem: str) -> str:
    """SHA-256 of a certificate, in the usual form AB:CD:..."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest().hex(":").upper()


def remember(address: str, **facts: str) -> None:
    """Keep the token or the certificate of an engine, in a file that only the user may read."""
    write_config({**read_config(KNOWN), address: {**recall(address), **facts}}, KNOWN, private=True)


def recall(address: str) -> dict[str, str]:
    """What is kept of an engine."""
    return read_config(KNOWN).get(address, {})


def _make(path: Path) -> None:
    """Write a key and a certificate signed with it."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ModuleNotFoundError as error:
        raise InputError(
            "Making a certificate needs the Python package cryptography; install it with: pip install medgen[serve]."
        ) from error
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "MedGen engine")])
    start, end = now - timedelta(days=1), now + timedelta(days=DAYS)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, end)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(pem)
