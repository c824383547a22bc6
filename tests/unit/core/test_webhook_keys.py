"""Keys and signatures, checked by the cryptography library alone."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from downloadjobs_core.errors import WebhookKeyError
from downloadjobs_core.webhook_keys import MAX_KEYS, read_public_keys, read_signer
from support_webhooks import make_key, verify

BODY = b'{"type":"job.completed"}'


def test_a_call_is_signed_as_standard_webhooks_has_it(tmp_path: Path) -> None:
    """What is signed is id, timestamp and body with dots between; the scheme is v1a."""
    key, private, _ = make_key(tmp_path)
    headers = read_signer(private).headers("msg_1", 1_795_498_075, BODY)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", "1795498075")
    scheme, signature = headers["webhook-signature"].split(",")
    assert scheme == "v1a"
    key.public_key().verify(base64.b64decode(signature), b"msg_1.1795498075." + BODY)


@pytest.mark.parametrize(("header", "value"), [("webhook-id", "msg_2"), ("webhook-timestamp", "1795498076")])
def test_a_changed_header_breaks_the_signature(tmp_path: Path, header: str, value: str) -> None:
    """Neither id nor time can be changed."""
    key, private, _ = make_key(tmp_path)
    headers = read_signer(private).headers("msg_1", 1_795_498_075, BODY) | {header: value}
    with pytest.raises(InvalidSignature):
        verify(headers, BODY, key.public_key())


def test_while_keys_are_exchanged_each_signs(tmp_path: Path) -> None:
    """A file with two keys gives two signatures, so that who knows either verifies; a stranger's does not."""
    new, new_file, _ = make_key(tmp_path, "new")
    old, old_file, _ = make_key(tmp_path, "old")
    both = tmp_path / "both.pem"
    both.write_bytes(new_file.read_bytes() + old_file.read_bytes())
    headers = read_signer(both).headers("msg_1", 1, BODY)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for key in (new, old):
        verify(headers, BODY, key.public_key())
    with pytest.raises(InvalidSignature):
        verify(headers, BODY, Ed25519PrivateKey.generate().public_key())


def test_all_notations_of_a_key_are_read(tmp_path: Path) -> None:
    """PEM and whsk_ (32 or 64 bytes) are the same private key; PEM and whpk_ the same public one."""
    key, private, public = make_key(tmp_path)
    wanted = read_signer(private).public
    raw, half = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    for secret in (raw, raw + half):
        (tmp_path / "text").write_text(f"  whsk_{base64.b64encode(secret).decode()}\n", encoding="ascii")
        assert read_signer(tmp_path / "text").public == wanted
    assert read_public_keys(public) == wanted
    (tmp_path / "text").write_text(wanted[0].standard, encoding="ascii")
    assert read_public_keys(tmp_path / "text") == wanted


def test_a_public_key_is_told_in_three_forms(tmp_path: Path) -> None:
    """whpk_, PEM and JWK are of one key."""
    key, _, public = make_key(tmp_path)
    raw = key.public_key().public_bytes_raw()
    (told,) = read_public_keys(public)
    assert base64.b64decode(told.standard.removeprefix("whpk_")) == raw
    read = load_pem_public_key(told.pem.encode())
    assert isinstance(read, Ed25519PublicKey)
    assert read.public_bytes_raw() == raw
    assert (told.jwk["kty"], told.jwk["crv"]) == ("OKP", "Ed25519")
    assert base64.urlsafe_b64decode(told.jwk["x"] + "=") == raw


def pem(key: object, **how: object) -> bytes:
    """A private key as PEM."""
    encryption = how.get("encryption", NoEncryption())
    encoded: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined]
    return encoded


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        b"whsk_",
        b"whsk_AAAA",
        b"whsk_!!!!",
        b"whpk_" + base64.b64encode(b"x" * 32),
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem(generate_private_key(65_537, 2_048)),
        pem(Ed25519PrivateKey.generate(), encryption=BestAvailableEncryption(b"x")),
        pem(Ed25519PrivateKey.generate()) * (MAX_KEYS + 1),
        b"\xff\xfe",
    ],
)
def test_what_is_no_key_to_sign_with_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty, foreign, encrypted or public key, or too many, are refused, and nothing of it is told."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(WebhookKeyError) as refused:
        read_signer(tmp_path / "key")
    assert not content.strip() or content.decode("latin-1").strip()[:40] not in str(refused.value)


def test_the_api_refuses_a_private_key(tmp_path: Path) -> None:
    """A private key where the public one belongs is refused: the API must not hold it."""
    _, private, _ = make_key(tmp_path)
    with pytest.raises(WebhookKeyError):
        read_public_keys(private)
