"""Settings from the environment: typed, validated, every fault named at once.

Only a process' composition root reads the environment, through `load`. Each
process has a model of its own, put together from the groups below, so that it
reads only what it needs. Names and defaults: `docs/settings.md`.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from downloadjobs_core.leases import QueuePolicy
from downloadjobs_core.redis_client import RedisConfig
from downloadjobs_core.states import Priority
from downloadjobs_core.webhook_addresses import AddressRules

Settings = TypeVar("Settings", bound=BaseSettings)

SENTINEL_PORT: Final = 26379
"""Where a Sentinel listens by default."""

METRICS_PORT: Final = 9090
"""Where the API and the workers serve their metrics by default."""

EXIT_SETTINGS: Final = 2
"""Exit code of every process whose settings are wrong."""


class Environment(StrEnum):
    """Where the process runs; `production` refuses what only suits a try-out."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"
    TEST = "test"


def _origin(value: str) -> str:
    """Accept `http(s)://host[:port]` and nothing more: presigned URLs are signed for this host."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL such as https://s3.example.com")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
        raise ValueError("must be scheme and host only, without a path, query or user")
    _ = parts.port  # raises ValueError for a port that is none
    return f"{parts.scheme}://{parts.netloc}"


def _with_scheme(value: str) -> str:
    """`MINIO_ENDPOINT` names a host, and sometimes a whole URL."""
    return _origin(value if "://" in value else f"http://{value}")


def _redis_url(value: str) -> str:
    """The scheme decides how to connect, so it must be one that redis-py knows."""
    parts = urlsplit(value)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must begin with redis://, rediss:// or unix://")
    if parts.scheme != "unix":
        _ = parts.port  # raises ValueError for a port that is none
        if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
            raise ValueError("must end with the number of a database, or nothing, after the host")
    return value


def _sentinels(value: object) -> object:
    """`host:port,host:port`; the port is 26379 where it is not given."""
    if not isinstance(value, str):
        return value
    found = []
    for text in filter(None, (part.strip() for part in value.split(","))):
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.path or parts.username:
            raise ValueError("must be host:port, and more of them after commas")
        found.append((parts.hostname, parts.port or SENTINEL_PORT))
    return tuple(found)


def _bucket(value: str) -> str:
    """The rules that all S3 servers share."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError(
            "must be a bucket's name: 3 to 63 lower-case letters, digits, dots and hyphens,"
            " a letter or digit at both ends"
        )
    return value


def _ceilings(value: object) -> object:
    """One class for everybody, or JSON: the class by user, `*` for everybody else."""
    if not isinstance(value, str):
        return value
    if value in set(Priority):
        return {"*": value}
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(
            'must be low, normal or high, or JSON such as {"*": "normal", "ada": "high"}'
        ) from None


def _certificates(path: Path) -> Path:
    """A file that nobody can use must show before the first connection fails by it."""
    try:
        _ = ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        raise ValueError("must be a file of certificates in PEM format, each from BEGIN to END") from None
    return path


CertificatesFile = Annotated[FilePath, AfterValidator(_certificates)]
Ceilings = Annotated[dict[str, Priority], NoDecode, BeforeValidator(_ceilings)]
Origin = Annotated[str, BeforeValidator(_origin)]
Port = Annotated[int, Field(ge=0, le=65535)]
Bucket = Annotated[str, BeforeValidator(_bucket)]


class CommonSettings(BaseSettings):
    """What every process reads.

    Rules between settings are validators of the later field, not of the model:
    a model's validators run only when each field is right, and would hide faults.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", populate_by_name=True, frozen=True, validate_default=True
    )

    environment: Environment = Field(
        Environment.DEVELOPMENT, validation_alias=AliasChoices("ENVIRONMENT", "NODE_ENV")
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] | None = Field(
        None, description="json, or text for people; by default text on a terminal"
    )

    build_commit: str | None = Field(None, description="the commit that was built; its image sets it")

    @property
    def production(self) -> bool:
        """Whether this is a production environment."""
        return self.environment is Environment.PRODUCTION


class RedisSettings(BaseSettings):
    """Where the queue is: one URL, or its parts."""

    redis_url: Annotated[SecretStr, BeforeValidator(_redis_url)] | None = None
    redis_host: str = "localhost"
    redis_port: Port = 6379
    redis_username: str | None = None
    redis_password: SecretStr | None = None
    redis_tls: bool = False
    redis_ca_file: CertificatesFile | None = None
    redis_sentinels: Annotated[tuple[tuple[str, int], ...] | None, NoDecode, BeforeValidator(_sentinels)] = (
        Field(None, description="host:port of each Sentinel, separated by commas")
    )
    redis_sentinel_master: str | None = Field(
        None, description="the name that the Sentinels know the master by"
    )

    @field_validator("redis_sentinel_master")
    @classmethod
    def _sentinels_with_a_master(cls, master: str | None, info: ValidationInfo) -> str | None:
        if bool(master) != bool(info.data.get("redis_sentinels", master)):
            raise ValueError("must be set together with REDIS_SENTINELS, or neither of them")
        return master

    @property
    def redis(self) -> RedisConfig:
        """The connection these settings describe."""
        ca_file = str(self.redis_ca_file) if self.redis_ca_file else None
        sentinels, master = self.redis_sentinels or (), self.redis_sentinel_master or ""
        if self.redis_url is not None:
            return RedisConfig(self.redis_url.get_secret_value(), ca_file, sentinels, master)
        user = quote(self.redis_username or "", safe="")
        password = quote(self.redis_password.get_secret_value(), safe="") if self.redis_password else ""
        login = f"{user}:{password}@" if user or password else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        scheme = "rediss" if self.redis_tls else "redis"
        return RedisConfig(f"{scheme}://{login}{host}:{self.redis_port}/0", ca_file, sentinels, master)


class StorageSettings(CommonSettings):
    """Where files and results are. Without `S3_BUCKET_NAME`, mock storage stands in."""

    minio_endpoint: Annotated[str, BeforeValidator(_with_scheme)] | None = None
    minio_port: Port | None = None
    minio_access_key: str | None = None
    minio_secret_key: SecretStr | None = None
    s3_endpoint: Origin | None = None
    s3_region: str = "us-east-1"
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    allow_mock_storage: bool = False
    mock_storage_dir: Path | None = None
    s3_bucket_name: Bucket | None = None
    s3_results_bucket: Bucket | None = None
    s3_force_path_style: bool | None = None
    s3_ca_file: CertificatesFile | None = None
    s3_public_endpoint: Origin | None = None
    s3_key_prefix: str = "downloads/"
    s3_results_prefix: str = "results/"

    @field_validator("s3_bucket_name")
    @classmethod
    def _no_mock_in_production(cls, bucket: str | None, info: ValidationInfo) -> str | None:
        in_production = info.data.get("environment") is Environment.PRODUCTION
        if bucket is None and in_production and not info.data.get("allow_mock_storage"):
            raise ValueError(
                "is not set, and mock storage is refused in production:"
                " set it, or ALLOW_MOCK_STORAGE=true for a try-out"
            )
        return bucket

    @field_validator("s3_secret_access_key")
    @classmethod
    def _whole_pair_of_keys(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        access = info.data.get("s3_access_key_id") or info.data.get("minio_access_key")
        if bool(access) != bool(secret or info.data.get("minio_secret_key")):
            raise ValueError("must be set together with S3_ACCESS_KEY_ID, or neither of them")
        return secret

    @property
    def mock_storage(self) -> bool:
        """Whether files are generated and results lie in a folder."""
        return self.s3_bucket_name is None

    @property
    def mock_dir(self) -> Path:
        """The folder of mock storage."""
        return self.mock_storage_dir or Path(tempfile.gettempdir()) / "downloadjobs-mock"

    @property
    def endpoint(self) -> str | None:
        """The S3 server's origin, or None for AWS. `S3_ENDPOINT` wins over `MINIO_ENDPOINT`."""
        if self.s3_endpoint is not None or self.minio_endpoint is None:
            return self.s3_endpoint
        if self.minio_port is not None and urlsplit(self.minio_endpoint).port is None:
            return f"{self.minio_endpoint}:{self.minio_port}"
        return self.minio_endpoint

    @property
    def access_key(self) -> str | None:
        """The static access key, if there is one; `S3_*` wins over `MINIO_*`."""
        return self.s3_access_key_id or self.minio_access_key

    @property
    def secret_key(self) -> str | None:
        """The static secret key, if there is one; `S3_*` wins over `MINIO_*`."""
        secret = self.s3_secret_access_key or self.minio_secret_key
        return secret.get_secret_value() if secret else None


class QueueSettings(BaseSettings):
    """The queue's policy. Durations are in seconds."""

    lease_seconds: float = Field(30, ge=3, le=3600)
    max_deliveries: int = Field(5, ge=1, le=100)
    user_max_running: int = Field(10, ge=1, description="jobs that one user may run at once")
    user_max_queued: int = Field(10_000, ge=1, description="jobs of one user that may wait")
    orphan_grace_seconds: float = Field(
        3_600, ge=0, description="after which what a lost attempt left is swept"
    )
    result_ttl_seconds: int = Field(86_400, ge=60)
    record_ttl_seconds: int = Field(604_800, ge=60)

    @field_validator("record_ttl_seconds")
    @classmethod
    def _records_outlive_results(cls, seconds: int, info: ValidationInfo) -> int:
        if seconds < info.data.get("result_ttl_seconds", 0):
            raise ValueError("must be at least RESULT_TTL_SECONDS, or results outlive their jobs")
        return seconds

    @property
    def policy(self) -> QueuePolicy:
        """The queue's policy as the lease store takes it."""
        return QueuePolicy(
            lease_seconds=self.lease_seconds,
            max_deliveries=self.max_deliveries,
            result_ttl_seconds=self.result_ttl_seconds,
            record_ttl_seconds=self.record_ttl_seconds,
            user_max_running=self.user_max_running,
            user_max_queued=self.user_max_queued,
            orphan_grace_seconds=self.orphan_grace_seconds,
        )


def _allowed_hosts(value: object) -> object:
    """`host`, `host:port` or `*.suffix`, with commas between."""
    if not isinstance(value, str):
        return value
    entries = tuple(dict.fromkeys(filter(None, (part.strip().lower() for part in value.split(",")))))
    for entry in entries:
        if not _ALLOWED_HOST.fullmatch(entry):
            raise ValueError(f"{entry!r} is no host, host:port or *.suffix")
    return entries


def _networks(value: object) -> object:
    """Networks in CIDR notation, with commas between."""
    if not isinstance(value, str):
        return value
    return tuple(ip_network(text) for text in filter(None, (part.strip() for part in value.split(","))))


_ALLOWED_HOST: Final = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9._-]*[a-z0-9])?(:[0-9]{1,5})?", re.ASCII)


class WebhookAddressSettings(BaseSettings):
    """Where webhooks may go beside the world's public addresses: the API, the operator and workers agree."""

    webhook_allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_allowed_hosts)] = Field(
        (), description="names that may have private addresses, as host, host:port or *.suffix, with commas"
    )
    webhook_allowed_networks: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)
    ] = Field((), description="networks that count as public ones do, as 10.1.0.0/16, with commas")

    @property
    def address_rules(self) -> AddressRules:
        """By which callback URLs and addresses are judged."""
        return AddressRules(self.webhook_allowed_hosts, self.webhook_allowed_networks)


def faults(error: ValidationError) -> list[str]:
    """One line for each fault, with the setting's name and never a secret's value."""
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in fault["loc"]).upper()
        message = fault["msg"].removeprefix("Value error, ")
        secret = any(word in name for word in ("SECRET", "PASSWORD", "URL", "KEY", "DSN"))
        tell = name and not secret and fault["input"] is not None
        given = f" (it is {fault['input']!r})" if tell else ""
        lines.append(f"{name}: {message}{given}" if name else message)
    return lines


def refuse(process: str, found: Sequence[str]) -> int:
    """Tell a person which settings are wrong, one a line; the exit code to end with."""
    noun = "setting is" if len(found) == 1 else "settings are"
    sys.stderr.write(f"{process}: {len(found)} {noun} wrong:\n")
    sys.stderr.writelines(f"  {line}\n" for line in found)
    return EXIT_SETTINGS


def refuse_arguments(process: str) -> None:
    """End a process that was given arguments: `--help` must not start it."""
    if len(sys.argv) > 1:
        asked = {"-h", "--help"} & set(sys.argv[1:])
        (sys.stdout if asked else sys.stderr).write(
            f"{process} takes no arguments: its settings are environment variables (docs/settings.md).\n"
        )
        raise SystemExit(0 if asked else EXIT_SETTINGS)


def load(model: type[Settings], process: str) -> Settings:
    """Read and validate a process' settings, or end it with code 2 and every fault named."""
    try:
        return model()
    except ValidationError as error:
        raise SystemExit(refuse(process, faults(error))) from None
