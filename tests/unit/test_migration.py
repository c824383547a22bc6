"""docs/migration.md: the old service's settings and answers, against the code and the chart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from pydantic_settings import BaseSettings

from downloadjobs_api.settings import ApiSettings
from downloadjobs_core.settings import Environment
from downloadjobs_worker.settings import WorkerSettings

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
VALUES: Final = yaml.safe_load((ROOT / "charts" / "downloadjobs" / "values.yaml").read_text(encoding="utf-8"))

OLD: Final = {
    "NODE_ENV", "PORT", "S3_REGION", "S3_ENDPOINT", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY",
    "S3_BUCKET_NAME", "S3_FORCE_PATH_STYLE", "MINIO_ENDPOINT", "MINIO_PORT", "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY", "REDIS_HOST", "REDIS_PORT", "SENTRY_DSN", "OTEL_EXPORTER_OTLP_ENDPOINT",
    "REQUEST_TIMEOUT_MS", "RATE_LIMIT_WINDOW_MS", "RATE_LIMIT_MAX_REQUESTS", "CORS_ORIGINS",
    "DOWNLOAD_DELAY_ENABLED", "DOWNLOAD_DELAY_MIN_MS", "DOWNLOAD_DELAY_MAX_MS",
}  # fmt: skip
"""What deployments of the old service set."""


def section(title: str) -> str:
    """A part of the page, up to the next heading."""
    return PAGE.partition(f"# {title}\n")[2].partition("\n#")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def ticked(cell: str) -> list[str]:
    """What stands in ticks."""
    return re.findall(r"`([^`]+)`", cell)


def names(model: type[BaseSettings]) -> set[str]:
    """The environment variables that a process reads."""
    found = set()
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = getattr(alias, "choices", [alias] if alias else [name])
        found |= {str(choice).upper() for choice in choices}
    return found


READ: Final = names(ApiSettings) | names(WorkerSettings)


@pytest.mark.contract("settings")
def test_every_old_setting_is_told() -> None:
    """Each setting of the old service is in the table, and a process reads it."""
    moved = {ticked(row[0])[0]: ticked(row[1])[0] for row in rows(section("Settings"))}
    assert set(moved) == OLD
    assert set(moved) <= READ
    assert set(moved.values()) <= READ


def paths(node: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Every path of the chart's values."""
    for name, inner in node.items():
        yield f"{path}{name}"
        if isinstance(inner, dict):
            yield from paths(inner, f"{path}{name}.")


def test_values_are_the_charts() -> None:
    """Each value that the page names is one of the chart's, or a setting under `settings` that is read."""
    known = set(paths(VALUES))
    tops = "|".join(VALUES)
    told = {name for name in ticked(PAGE) if re.fullmatch(rf"({tops})(\.\w+)+", name)}
    assert told
    for name in told:
        head, _, setting = name.rpartition(".")
        assert name in known or (head.endswith("settings") and setting in READ), name


@pytest.mark.parametrize("value", ["production", "development", "test"])
def test_the_old_name_of_the_environment(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NODE_ENV is read where ENVIRONMENT is not set."""
    for name in OLD | {"ENVIRONMENT"}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NODE_ENV", value)
    monkeypatch.setenv("ALLOW_MOCK_STORAGE", "true")
    assert ApiSettings().environment is Environment(value)


def test_an_old_env_file_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old names together make the same connection as the new ones that the page gives for them."""
    for name in [name for name in os.environ if name.startswith(("S3_", "MINIO_", "REDIS_"))]:
        monkeypatch.delenv(name)
    old = {
        "NODE_ENV": "production", "MINIO_ENDPOINT": "minio.example.com", "MINIO_PORT": "9000",
        "MINIO_ACCESS_KEY": "key", "MINIO_SECRET_KEY": "secret", "S3_BUCKET_NAME": "films",
        "REDIS_HOST": "redis.example.com", "REDIS_PORT": "6380", "CORS_ORIGINS": "*",
        "SENTRY_DSN": "https://key@sentry.example.com/1",
    }  # fmt: skip
    for name, value in old.items():
        monkeypatch.setenv(name, value)
    before = WorkerSettings()
    new = {
        "ENVIRONMENT": "production", "S3_ENDPOINT": "http://minio.example.com:9000",
        "S3_ACCESS_KEY_ID": "key", "S3_SECRET_ACCESS_KEY": "secret",
    }  # fmt: skip
    for name in ("NODE_ENV", "MINIO_ENDPOINT", "MINIO_PORT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        monkeypatch.delenv(name)
    for name, value in new.items():
        monkeypatch.setenv(name, value)
    after = WorkerSettings()
    assert before.endpoint == after.endpoint == "http://minio.example.com:9000"
    assert (before.access_key, before.secret_key) == (after.access_key, after.secret_key) == ("key", "secret")
    assert before.environment is after.environment
    assert (after.redis_host, after.redis_port) == ("redis.example.com", 6380)
