"""Bearer tokens: JSON Web Tokens (RFC 7519) of one issuer, for this audience, by its public keys.

What is checked follows RFC 8725: the algorithm is one of ours and fits the key, never one
that the token alone chooses; issuer, audience and end are required.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jwt

from downloadjobs_api.identity import TokenError
from downloadjobs_api.signing_keys import SigningKeys

MAX_TOKEN_CHARACTERS: Final = 16 * 1024

CACHE_SECONDS: Final = 60.0
"""How long a token is good without another look at its signature, which costs 50 to 100 µs."""

MOST_CACHED: Final = 10_000
"""Tokens remembered, of some 200 bytes each."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must be.

    Attributes:
        issuer: in `iss`.
        audience: in `aud`, perhaps beside others.
        user_claim: whose text is the user.
        algorithms: names of asymmetric ones (RFC 7518).
        leeway_seconds: how far the issuer's clock may be from ours.
    """

    issuer: str
    audience: str
    user_claim: str
    algorithms: Sequence[str]
    leeway_seconds: float


class Verified(NamedTuple):
    """What a good token says."""

    user: str
    until: float
    """When it ends, as `time.time` tells it: `exp` and the leeway."""


class Tokens:
    """Verifies tokens. Good ones are remembered by their hash, for a short time, and never past their end."""

    def __init__(self, rules: TokenRules, keys: SigningKeys) -> None:
        self._rules = rules
        self._keys = keys
        self._good: dict[bytes, tuple[Verified, float]] = {}
        self._good_of = keys.version

    async def verified(self, token: str) -> Verified:
        """Who a token is of, and for how long.

        Raises:
            TokenError: it is not good.
            KeysUnavailableError: it cannot be checked, as there are no keys yet.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        self._keys.refresh()
        self._forget_if_keys_changed()
        known = self._good.get(digest)
        if known is not None:
            if time.time() < known[1]:
                return known[0]
            del self._good[digest]
        found = await self._verify(token)
        self._forget_if_keys_changed()
        if len(self._good) >= MOST_CACHED:
            del self._good[next(iter(self._good))]
        self._good[digest] = (found, min(time.time() + CACHE_SECONDS, found.until))
        return found

    def _forget_if_keys_changed(self) -> None:
        """The key of some tokens may be gone."""
        if self._good_of != self._keys.version:
            self._good.clear()
            self._good_of = self._keys.version

    async def _verify(self, token: str) -> Verified:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenError(f"It is longer than {MAX_TOKEN_CHARACTERS} characters.")
        try:
            header = jwt.get_unverified_header(
                token
            )  # refuses unknown critical extensions (RFC 7515, 4.1.11)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenError("It is not a JSON Web Token.") from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._rules.algorithms:
            raise TokenError(f"Its algorithm is not one of {', '.join(self._rules.algorithms)}.")
        if "crit" in header:  # PyJWT knows b64, which is for no token
            raise TokenError("It has a critical extension, and none is known here.")
        for key in await self._keys.get(key_id, algorithm):
            try:
                return self._read(self._claims(token, key))
            except jwt.InvalidSignatureError:
                continue  # with a token that names no key, another may fit
        raise TokenError("No key of the issuer made its signature.")

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        rules = self._rules
        try:
            return jwt.decode(
                token,
                key,
                algorithms=list(rules.algorithms),
                issuer=rules.issuer,
                audience=rules.audience,
                leeway=rules.leeway_seconds,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except jwt.InvalidSignatureError:
            raise
        except jwt.ExpiredSignatureError:
            raise TokenError("It has expired.") from None
        except jwt.ImmatureSignatureError:
            raise TokenError("It is not good yet.") from None
        except jwt.InvalidAudienceError:
            raise TokenError("It is for another audience.") from None
        except jwt.InvalidIssuerError:
            raise TokenError("It is from another issuer.") from None
        except jwt.MissingRequiredClaimError as error:
            raise TokenError(f"It has no {error.claim}.") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenError("It is damaged.") from None

    def _read(self, claims: dict[str, Any]) -> Verified:
        user = claims.get(self._rules.user_claim)
        if not isinstance(user, str):
            raise TokenError(f"It has no {self._rules.user_claim} that is a text.")
        try:
            return Verified(user, float(claims["exp"]) + self._rules.leeway_seconds)
        except OverflowError:  # PyJWT takes whole numbers of any length
            raise TokenError("Its exp is out of range.") from None
