"""The API's settings of who may ask, from where, and how often."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, FilePath, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from downloadjobs_api import key_sets
from downloadjobs_api.client_address import Network, parse_networks
from downloadjobs_api.cors import ANY
from downloadjobs_core.settings import CertificatesFile, CommonSettings

PRODUCTION_REQUESTS: Final = 100
OTHER_REQUESTS: Final = 1_000


class AuthMode(StrEnum):
    """How a request says who its user is."""

    HEADER = "header"
    """By `x-user-id`, which the ingress sets, and strips from what clients send."""

    JWT = "jwt"
    """By a bearer token of an issuer, which is verified."""

    ANONYMOUS = "anonymous"
    """Everybody is one user: for a try-out."""


def _networks(value: object) -> object:
    return parse_networks(value) if isinstance(value, str) else value


def _listed(value: object) -> object:
    """`a, b` as a list."""
    if not isinstance(value, str):
        return value
    return tuple(filter(None, (part.strip() for part in value.split(","))))


def _origins(value: object) -> object:
    """`*`, or origins as browsers write them: scheme, host, and the port if it is not the scheme's own."""
    found = _listed(value)
    if not isinstance(found, tuple):
        return found
    if ANY in found and len(found) > 1:
        raise ValueError("must be * alone, or origins without it")
    for text in found:
        if text != ANY:
            _check_origin(text)
    return found


def _check_origin(text: str) -> None:
    parts = urlsplit(text)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    written = f"{parts.scheme}://{parts.netloc}".lower()
    if default is None or not parts.hostname or text != written or parts.username or parts.port == default:
        raise ValueError(
            "must be * or origins as browsers send them, with commas between, such as https://app.example.com"
        )
    if not text.isascii():
        raise ValueError("must be ASCII: browsers send the xn-- form of other names")


def _algorithms(value: object) -> object:
    found = _listed(value)
    if not isinstance(found, tuple):
        return found
    wrong = [name for name in found if name not in key_sets.KEY_TYPES]
    if wrong or not found:
        raise ValueError(
            f"must be of {', '.join(key_sets.KEY_TYPES)}: others have no public key, or are no signature"
        )
    return found


def _keys_url(value: object) -> object:
    if isinstance(value, str):
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(
                "must be a URL such as https://sso.example.com/realms/main/protocol/openid-connect/certs"
            )
        _ = parts.port  # raises ValueError for a port that is none
    return value


class EdgeSettings(CommonSettings):
    """Who may ask, from where, and how often."""

    rate_limit_window_ms: int = Field(
        60_000, ge=1_000, le=86_400_000, description="requests are counted in it"
    )
    rate_limit_max_requests: Annotated[
        int | None, Field(ge=1, description="of one client in a window; 100 in production, 1,000 else")
    ] = None
    trusted_proxies: Annotated[tuple[Network | str, ...], NoDecode, BeforeValidator(_networks)] = Field(
        (), description="networks whose X-Forwarded-For counts, separated by commas"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)] = Field(
        (ANY,), description="whose pages may read answers; * for all"
    )
    jwt_jwks_url: Annotated[str | None, BeforeValidator(_keys_url)] = Field(
        None, description="where the issuer's public keys are"
    )
    jwt_jwks_file: FilePath | None = Field(None, description="a file with them, instead of the URL")
    jwt_ca_file: CertificatesFile | None = Field(
        None, description="certificates to trust instead of the system's"
    )
    jwt_issuer: str | None = Field(None, description="in the claim iss")
    jwt_audience: str | None = Field(None, description="in the claim aud")
    jwt_user_claim: str = Field("sub", min_length=1, description="the claim that is the user")
    jwt_algorithms: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_algorithms)] = ("RS256", "ES256")
    jwt_leeway_seconds: float = Field(30, ge=0, le=300, description="between the issuer's clock and ours")
    auth_mode: AuthMode = AuthMode.HEADER

    @field_validator("jwt_jwks_file")
    @classmethod
    def _a_key_set(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                _ = key_sets.parse(path.read_bytes())
            except (OSError, key_sets.KeySetError) as error:
                raise ValueError(f"cannot be used: {error}") from None
        return path

    @field_validator("auth_mode")
    @classmethod
    def _tokens_can_be_checked(cls, mode: AuthMode, info: ValidationInfo) -> AuthMode:
        if mode is not AuthMode.JWT:
            return mode
        given = info.data
        faults = [
            f"{name.upper()} must be set"
            for name in ("jwt_issuer", "jwt_audience")
            if name in given and not given[name]
        ]
        if {"jwt_jwks_url", "jwt_jwks_file"} <= given.keys() and (
            bool(given["jwt_jwks_url"]) == bool(given["jwt_jwks_file"])
        ):
            faults.append("either JWT_JWKS_URL or JWT_JWKS_FILE must be set")
        if faults:
            raise ValueError(f"is jwt, so {', and '.join(faults)}")
        return mode

    @property
    def rate_limit(self) -> int:
        """Requests that one client may make in a window."""
        if self.rate_limit_max_requests is not None:
            return self.rate_limit_max_requests
        return PRODUCTION_REQUESTS if self.production else OTHER_REQUESTS
