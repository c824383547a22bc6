"""The installation's keys for webhooks: Ed25519, as Standard Webhooks 1.0 writes and uses them.

A file holds one key or several, the current one first: while keys are exchanged, every call is signed by
each, so that receivers may know either. A private key is PEM (PKCS #8) or a line `whsk_<base64>`; a public
one is PEM (a public key, or a certificate, of which nothing else counts) or a line `whpk_<base64>`.
RFC 8032, 8410, 8037.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from downloadjobs_core.errors import WebhookKeyError

PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"
VERSION: Final = "v1a"
"""The scheme of a signature: Ed25519."""

SEED_BYTES: Final = 32
MAX_KEYS: Final = 4
"""In one file: more would make a header that receivers may refuse."""

_BLOCK: Final = re.compile(
    r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----|^\s*(wh[sp]k_\S+)\s*$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key in the forms that receivers ask for."""

    raw: bytes

    @property
    def standard(self) -> str:
        """As Standard Webhooks writes it."""
        return PUBLIC_PREFIX + base64.b64encode(self.raw).decode()

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo (RFC 8410)."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def jwk(self) -> dict[str, str]:
        """A JSON Web Key (RFC 8037)."""
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "x": base64.urlsafe_b64encode(self.raw).rstrip(b"=").decode(),
        }


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs calls with each of the keys."""

    keys: tuple[Ed25519PrivateKey, ...]

    def headers(self, call_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The three headers of a call.

        Args:
            call_id: the same for every try.
            timestamp: of this try, in seconds since 1970.
            body: exactly as it is sent.
        """
        signed = f"{call_id}.{timestamp}.".encode() + body
        signatures = (f"{VERSION},{base64.b64encode(key.sign(signed)).decode()}" for key in self.keys)
        return {
            "webhook-id": call_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }

    @property
    def public(self) -> tuple[PublicKey, ...]:
        """The keys by which receivers verify."""
        return tuple(PublicKey(key.public_key().public_bytes_raw()) for key in self.keys)


def read_signer(path: Path) -> Signer:
    """Read the private keys. Raises `WebhookKeyError`, which never tells what stands in the file."""
    return Signer(tuple(_private(block) for block in _blocks(path)))


def read_public_keys(path: Path) -> tuple[PublicKey, ...]:
    """Read public keys. Raises `WebhookKeyError`."""
    return tuple(_public(block) for block in _blocks(path))


def _blocks(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise WebhookKeyError(f"The key file {path} cannot be read: {type(error).__name__}.") from None
    blocks = [match.group(0).strip() for match in _BLOCK.finditer(text)]
    if not 1 <= len(blocks) <= MAX_KEYS:
        raise WebhookKeyError(f"The key file {path} must have 1 to {MAX_KEYS} keys, and has {len(blocks)}.")
    return blocks


def _private(block: str) -> Ed25519PrivateKey:
    try:
        if block.startswith(PRIVATE_PREFIX):
            raw = _decoded(block.removeprefix(PRIVATE_PREFIX))
            if len(raw) == 2 * SEED_BYTES:  # the public half follows, as NaCl has it
                raw = raw[:SEED_BYTES]
            return Ed25519PrivateKey.from_private_bytes(raw)
        key = load_pem_private_key(block.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise WebhookKeyError("A private key for webhooks is none, or is encrypted.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise WebhookKeyError("A private key for webhooks must be an Ed25519 key.")
    return key


def _public(block: str) -> PublicKey:
    try:
        if block.startswith(PUBLIC_PREFIX):
            raw = _decoded(block.removeprefix(PUBLIC_PREFIX))
            return PublicKey(Ed25519PublicKey.from_public_bytes(raw).public_bytes_raw())
        if "BEGIN CERTIFICATE" in block:
            key: object = x509.load_pem_x509_certificate(block.encode()).public_key()
        else:
            key = load_pem_public_key(block.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise WebhookKeyError("A public key for webhooks is none.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise WebhookKeyError("A public key for webhooks must be an Ed25519 key.")
    return PublicKey(key.public_bytes_raw())


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
