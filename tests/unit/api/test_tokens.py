"""Bearer tokens: what is refused, and how keys come and go. RFC 7519, RFC 8725."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from downloadjobs_api import signing_keys, tokens
from downloadjobs_api.identity import KeysUnavailableError, TokenError
from downloadjobs_api.key_sets import KeySetError, parse
from downloadjobs_api.signing_keys import SigningKeys
from downloadjobs_api.tokens import TokenRules, Tokens, Verified

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
EC = ec.generate_private_key(ec.SECP256R1())

RULES = TokenRules("https://sso", "downloadjobs", "sub", ("RS256", "ES256"), leeway_seconds=0)


def jwk(key: Any, key_id: str | None, **more: str) -> dict[str, Any]:  # noqa: ANN401 - of either kind
    """The public half of a key, as issuers publish it."""
    of_kind = (
        jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    )
    named = {"kid": key_id} if key_id is not None else {}
    return {**of_kind.to_jwk(key.public_key(), as_dict=True), **named, **more}


def token(key: Any = RSA, algorithm: str = "RS256", key_id: str | None = "1", **claims: Any) -> str:  # noqa: ANN401
    """A token that is good but for what is given; None takes a claim out."""
    now = int(time.time())
    given = {"iss": "https://sso", "aud": "downloadjobs", "sub": "ada", "exp": now + 60} | claims
    told = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(told, key, algorithm, headers={"kid": key_id} if key_id is not None else {})


def forged(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes | None) -> str:
    """A token put together by hand, with HMAC or without a signature: PyJWT refuses to make such."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    made = hmac.new(secret, text.encode(), hashlib.sha256).digest() if secret is not None else b""
    return f"{text}.{part(made)}"


class Issuer:
    """Serves a key set, or fails, and counts how often it is asked."""

    def __init__(self, *keys: Mapping[str, Any]) -> None:
        self.keys: tuple[Mapping[str, Any], ...] = keys
        self.asked = 0
        self.fault: Exception | None = None
        self.hangs = threading.Event()
        self.hangs.set()

    def load(self) -> bytes:
        self.asked += 1
        self.hangs.wait(10)
        if self.fault is not None:
            raise self.fault
        return json.dumps({"keys": self.keys}).encode()


@pytest.fixture
def issuer() -> Issuer:
    """An issuer with an RSA key and one of an elliptic curve."""
    return Issuer(jwk(RSA, "1"), jwk(EC, "2", alg="ES256", use="sig"))


async def user_of(verifier: Tokens, given: str) -> str:
    """The user of a good token."""
    return (await verifier.verified(given)).user


def verify(issuer: Issuer, *given: str, rules: TokenRules = RULES) -> list[str]:
    """The users of tokens, or what is wrong with them, looked at one after the other."""

    async def look() -> list[str]:
        verifier = Tokens(rules, SigningKeys(issuer.load))
        found = []
        for one in given:
            try:
                found.append(await user_of(verifier, one))
            except TokenError as error:
                found.append(f"refused: {error}")
        return found

    return asyncio.run(look())


def test_a_good_token_is_of_its_user(issuer: Issuer) -> None:
    """Either kind of key signs, and the user is in the claim that the setting names."""
    by_name = TokenRules("https://sso", "downloadjobs", "name", ("RS256",), leeway_seconds=0)
    assert verify(issuer, token(), token(EC, "ES256", "2")) == ["ada", "ada"]
    assert verify(issuer, token(name="Ada"), rules=by_name) == ["Ada"]


PUBLIC_PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
CLAIMS = {"iss": "https://sso", "aud": "downloadjobs", "sub": "ada", "exp": 4_000_000_000}


NO_KEY = "No key of the issuer made its signature."
NOT_OURS = "Its algorithm is not one of RS256, ES256."
NO_TOKEN = "It is not a JSON Web Token."


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (lambda: token(OTHER_RSA), NO_KEY),
        (lambda: token(aud="others"), "It is for another audience."),
        (lambda: token(aud=None), "It has no aud."),
        (lambda: token(iss="https://evil"), "It is from another issuer."),
        (lambda: token(iss=None), "It has no iss."),
        (lambda: token(exp=int(time.time()) - 1), "It has expired."),
        (lambda: token(exp=None), "It has no exp."),
        (lambda: token(exp=10**400), "Its exp is out of range."),
        (lambda: token(exp=math.inf), "It is damaged."),
        (lambda: token(exp="soon"), "It is damaged."),
        (lambda: token(exp=[1]), "It is damaged."),
        (lambda: token(nbf=int(time.time()) + 60), "It is not good yet."),
        (lambda: token(sub=None), "It has no sub that is a text."),
        (lambda: token(key_id="made up"), NO_KEY),
        (lambda: token(EC, "ES256", "1"), NO_KEY),
        (lambda: token()[:-6] + "AAAAAA", NO_KEY),
        (lambda: forged({"alg": "RS256", "kid": "1"}, CLAIMS, PUBLIC_PEM), NO_KEY),
        (lambda: forged({"alg": "HS256", "kid": "1"}, CLAIMS, PUBLIC_PEM), NOT_OURS),
        (lambda: forged({"alg": "none"}, CLAIMS, None), NOT_OURS),
        (lambda: forged({"alg": "NONE", "kid": "1"}, CLAIMS, None), NOT_OURS),
        (lambda: forged({"alg": ["RS256"]}, CLAIMS, None), NOT_OURS),
        (lambda: jwt.encode(CLAIMS, RSA, "PS256", headers={"kid": "1"}), NOT_OURS),
        (lambda: forged({"alg": "RS256", "kid": {}}, CLAIMS, None), NO_TOKEN),
        (lambda: jwt.encode(CLAIMS, RSA, "RS256", headers={"kid": "1", "crit": ["x"], "x": 1}), NO_TOKEN),
        (lambda: "a.b.c", NO_TOKEN),
        (lambda: "x" * 20_000, "It is longer than 16384 characters."),
    ],
)
def test_a_bad_token_is_refused(issuer: Issuer, bad: Callable[[], str], why: str) -> None:
    """Each fault is told, and nothing of the token."""
    given = bad()
    assert verify(issuer, given) == [f"refused: {why}"]


def test_a_key_of_a_symmetric_kind_is_no_key() -> None:
    """A secret in the set is not used, even if a token names it."""
    secret = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(b"k" * 32).decode(), "alg": "RS256"}
    (found,) = verify(Issuer(jwk(RSA, "1"), secret), forged({"alg": "RS256", "kid": "s"}, CLAIMS, b"k" * 32))
    assert found.startswith("refused")


def test_a_short_key_is_refused() -> None:
    """RSA keys below 2,048 bits are none (RFC 7518, 3.3)."""
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        given = token(SMALL_RSA)
    (found,) = verify(Issuer(jwk(SMALL_RSA, "1")), given)
    assert found.startswith("refused")


def test_a_key_is_for_its_own_algorithm() -> None:
    """A key that its issuer means for another algorithm, or for encryption, verifies nothing."""
    for key in (jwk(RSA, "1", alg="RS512"), jwk(RSA, "1", use="enc")):
        assert verify(Issuer(key, jwk(EC, "2")), token())[0].startswith("refused")


def test_a_token_without_a_key_id_is_tried_with_each_key() -> None:
    """An issuer may leave key ids out."""
    issuer = Issuer(jwk(OTHER_RSA, None), jwk(RSA, None))
    assert verify(issuer, token(key_id=None)) == ["ada"]


def test_made_up_key_ids_ask_the_issuer_nothing(issuer: Issuer) -> None:
    """However many unknown keys tokens name, the set is read once in ten seconds."""
    found = verify(issuer, token(), *(token(key_id=f"x{number}") for number in range(50)))
    assert found[0] == "ada"
    assert issuer.asked == 1


def test_the_first_tokens_share_one_reading(issuer: Issuer) -> None:
    """Requests that come at once wait for one answer of the issuer."""

    async def all_at_once() -> list[str]:
        verifier = Tokens(RULES, SigningKeys(issuer.load))
        return await asyncio.gather(*(user_of(verifier, token(sub=f"u{n}")) for n in range(20)))

    assert asyncio.run(all_at_once()) == [f"u{n}" for n in range(20)]
    assert issuer.asked == 1


def test_a_new_key_works_at_once(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rotation, the first token of the new key has the set read again; the old key is then gone."""
    monkeypatch.setattr(signing_keys, "PAUSE_SECONDS", 0)

    async def rotated() -> tuple[str, str]:
        verifier = Tokens(RULES, SigningKeys(issuer.load))
        old = token()
        assert await user_of(verifier, old) == "ada"
        issuer.keys = (jwk(OTHER_RSA, "3"),)
        new = await user_of(verifier, token(OTHER_RSA, key_id="3"))
        with pytest.raises(TokenError) as refused:  # though it was good, and is remembered
            await user_of(verifier, old)
        return new, str(refused.value)

    assert asyncio.run(rotated()) == ("ada", "No key of the issuer made its signature.")


def test_keys_are_kept_while_the_issuer_is_away(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old set that cannot be read again goes on being used."""
    monkeypatch.setattr(signing_keys, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(signing_keys, "FRESH_SECONDS", 0)

    async def away() -> None:
        keys = SigningKeys(issuer.load)
        verifier = Tokens(RULES, keys)
        assert await user_of(verifier, token()) == "ada"
        issuer.fault = OSError("nobody answers")
        for number in range(3):
            assert await user_of(verifier, token(sub=f"u{number}")) == f"u{number}"
            if keys._reading is not None:
                await keys._reading

    asyncio.run(away())
    assert issuer.asked > 2


def test_without_any_keys_nobody_can_tell(issuer: Issuer) -> None:
    """A token may be good although the issuer never answered: that is no refusal of it."""
    issuer.fault = OSError("nobody answers")
    with pytest.raises(KeysUnavailableError):
        verify(issuer, token())


FAULTS = (
    OSError("nobody answers"),
    http.client.BadStatusLine("x" * 1000),
    http.client.LineTooLong("header line"),
    http.client.IncompleteRead(b"", 5),
    ValueError("no length"),
    TimeoutError(),
    RuntimeError("unforeseen"),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_whatever_the_issuer_answers_is_no_fault_of_ours(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Without keys nobody can tell; while some are kept, a token of another is refused. The log says why."""
    monkeypatch.setattr(signing_keys, "PAUSE_SECONDS", 0)

    async def broken() -> None:
        verifier = Tokens(RULES, SigningKeys(issuer.load))
        issuer.fault = fault
        with pytest.raises(KeysUnavailableError):
            await verifier.verified(token())
        issuer.fault = None
        assert await user_of(verifier, token()) == "ada"
        issuer.fault = fault
        with pytest.raises(TokenError, match=NO_KEY):
            await verifier.verified(token(OTHER_RSA, key_id="3"))
        assert await user_of(verifier, token(EC, "ES256", "2")) == "ada"

    with capture_logs() as logged:
        asyncio.run(broken())
    told = [line for line in logged if line["event"] == "the issuer's keys cannot be read"]
    assert [(line["log_level"], line["kept"]) for line in told] == [("error", 0), ("warning", 2)]
    assert all(0 < len(line["error"]) <= 200 for line in told)


def test_an_issuer_that_hangs_is_not_waited_for(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait for a bounded time, and no second thread goes where one hangs; what it brings counts."""
    monkeypatch.setattr(signing_keys, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(signing_keys, "READ_SECONDS", 0.1)
    issuer.hangs.clear()

    async def hanging() -> str:
        verifier = Tokens(RULES, SigningKeys(issuer.load))
        for _ in range(3):
            with pytest.raises(KeysUnavailableError):
                await verifier.verified(token())
        assert issuer.asked == 1
        issuer.hangs.set()
        return await user_of(verifier, token())

    started = time.monotonic()
    assert asyncio.run(hanging()) == "ada"
    assert time.monotonic() - started < 3
    assert issuer.asked <= 2


def test_a_good_token_says_when_it_ends(issuer: Issuer) -> None:
    """At its `exp` and the leeway, also when it is remembered."""
    end = int(time.time()) + 40
    rules = TokenRules("https://sso", "downloadjobs", "sub", ("RS256",), leeway_seconds=5)

    async def look() -> list[Verified]:
        verifier = Tokens(rules, SigningKeys(issuer.load))
        given = token(exp=end)
        return [await verifier.verified(given) for _ in range(2)]

    assert asyncio.run(look()) == [Verified("ada", end + 5)] * 2


def test_a_token_is_verified_once_and_ends_in_time(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good token is remembered, but never past its end."""
    clock = time.time()
    looked = []
    real = Tokens._verify

    async def counted(self: Tokens, given: str) -> Verified:
        looked.append(given)
        return await real(self, given)

    monkeypatch.setattr(Tokens, "_verify", counted)

    async def twice() -> None:
        verifier = Tokens(RULES, SigningKeys(issuer.load))
        given = token(exp=int(clock) + 5)
        for _ in range(3):
            assert await user_of(verifier, given) == "ada"
        assert len(looked) == 1
        monkeypatch.setattr("downloadjobs_api.tokens.time.time", lambda: clock + 6)
        await user_of(verifier, given)
        assert len(looked) == 2

    asyncio.run(twice())


def test_few_tokens_are_remembered(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory is bounded, and holds no token."""
    monkeypatch.setattr(tokens, "MOST_CACHED", 3)

    async def many() -> Tokens:
        verifier = Tokens(RULES, SigningKeys(issuer.load))
        for number in range(10):
            await user_of(verifier, token(sub=f"u{number}"))
        return verifier

    remembered = asyncio.run(many())._good
    assert [found.user for found, _ in remembered.values()] == ["u7", "u8", "u9"]
    assert all(len(digest) == hashlib.sha256().digest_size for digest in remembered)


@given(st.one_of(st.binary(max_size=200), st.just(b'{"keys": 1}'), st.just(b'{"keys": []}')))
def test_what_is_no_key_set_is_refused(data: bytes) -> None:
    """Whatever an issuer answers, it is a set or an error that says so."""
    with pytest.raises(KeySetError):
        parse(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["kty", "kid", "alg", "use", "crv", "n", "e", "x"]), inner, max_size=5
            )
        ),
        max_leaves=10,
    )
)
def test_damaged_keys_stop_no_others(damaged: Any) -> None:  # noqa: ANN401 - any JSON
    """A key that cannot be read is left out, and the rest of its set is used."""
    assert verify(Issuer(damaged, {"kty": "RSA", "kid": "1"}, jwk(RSA, "1")), token()) == ["ada"]
