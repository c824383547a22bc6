"""Settings of who may ask, from where and how often: faults are found at the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from downloadjobs_api.settings import ApiSettings
from downloadjobs_core.settings import faults

JWT = {
    "AUTH_MODE": "jwt",
    "JWT_ISSUER": "https://sso",
    "JWT_AUDIENCE": "us",
    "JWT_JWKS_URL": "https://sso/keys",
}


def read(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> ApiSettings:
    """The settings of an environment."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return ApiSettings()


def test_the_limit_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 in production, 1,000 else, or what is set."""
    assert read(monkeypatch, {}).rate_limit == 1000
    production = {"NODE_ENV": "production", "ALLOW_MOCK_STORAGE": "true"}
    assert read(monkeypatch, production).rate_limit == 100
    assert read(monkeypatch, {"RATE_LIMIT_MAX_REQUESTS": "7"}).rate_limit == 7


def test_tokens_are_set_up_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """With issuer, audience and keys, the mode jwt is accepted; the algorithms are asymmetric."""
    settings = read(monkeypatch, JWT)
    assert settings.jwt_algorithms == ("RS256", "ES256")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"JWT_ISSUER": ""}, "AUTH_MODE: is jwt, so JWT_ISSUER must be set"),
        ({"JWT_AUDIENCE": ""}, "AUTH_MODE: is jwt, so JWT_AUDIENCE must be set"),
        ({"JWT_JWKS_URL": ""}, "either JWT_JWKS_URL or JWT_JWKS_FILE"),
        ({"JWT_JWKS_URL": "file:///etc/passwd"}, "JWT_JWKS_URL: must be a URL"),
        ({"JWT_ALGORITHMS": "none"}, "JWT_ALGORITHMS: must be of"),
        ({"JWT_ALGORITHMS": "RS256,HS256"}, "JWT_ALGORITHMS: must be of"),
        ({"JWT_ALGORITHMS": ","}, "JWT_ALGORITHMS: must be of"),
        ({"JWT_LEEWAY_SECONDS": "301"}, "JWT_LEEWAY_SECONDS"),
        ({"CORS_ORIGINS": "*,https://a.example"}, "CORS_ORIGINS: must be * alone"),
        ({"CORS_ORIGINS": "https://a.example/"}, "CORS_ORIGINS: must be * or origins"),
        ({"CORS_ORIGINS": "https://a.example:443"}, "CORS_ORIGINS: must be * or origins"),
        ({"CORS_ORIGINS": "a.example"}, "CORS_ORIGINS: must be * or origins"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES: must be networks"),
        ({"RATE_LIMIT_MAX_REQUESTS": "0"}, "RATE_LIMIT_MAX_REQUESTS"),
        ({"RATE_LIMIT_WINDOW_MS": "0"}, "RATE_LIMIT_WINDOW_MS"),
    ],
)
def test_a_fault_is_named(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], fault: str) -> None:
    """Each wrong setting is told by its name, before anything starts."""
    with pytest.raises(ValidationError) as error:
        read(monkeypatch, JWT | changed)
    (line,) = faults(error.value)
    assert fault in line


@pytest.mark.parametrize(
    "text", ["", "{}", '{"keys": []}', json.dumps({"keys": [{"kty": "oct", "k": "eA"}]})]
)
def test_a_file_without_keys_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """A file that has no public key is found at the start, not by the first user."""
    (tmp_path / "keys.json").write_text(text)
    given = JWT | {"JWT_JWKS_URL": "", "JWT_JWKS_FILE": str(tmp_path / "keys.json")}
    with pytest.raises(ValidationError) as error:
        read(monkeypatch, given)
    assert "JWT_JWKS_FILE: cannot be used" in faults(error.value)[0]


def test_origins_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several origins stand with commas between; spaces do not matter."""
    given = read(monkeypatch, {"CORS_ORIGINS": "https://a.example, http://localhost:5173"})
    assert given.cors_origins == ("https://a.example", "http://localhost:5173")
