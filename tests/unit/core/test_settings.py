"""Settings from the environment."""

import pytest
from pydantic_settings import BaseSettings

from downloadjobs_api.settings import ApiSettings
from downloadjobs_core.settings import load, refuse_arguments
from downloadjobs_worker.settings import WorkerSettings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the shell it was started from."""
    for model in (ApiSettings, WorkerSettings):
        for name in model.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("NODE_ENV", raising=False)


def refused(
    model: type[BaseSettings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **env: str
) -> list[str]:
    """What a process says that refuses its settings."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as exit_:
        load(model, "some-process")
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_defaults_are_enough_to_begin() -> None:
    """With nothing set, every process starts, on mock storage."""
    assert load(ApiSettings, "api").mock_storage
    assert load(WorkerSettings, "worker").lease_seconds == 30


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--port=1", 2)])
def test_arguments_start_nothing(
    argument: str, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process asked for help, or given what it does not take, says where its settings are, and ends."""
    monkeypatch.setattr("sys.argv", ["downloadjobs-worker", argument])
    with pytest.raises(SystemExit) as exit_:
        refuse_arguments("downloadjobs-worker")
    assert exit_.value.code == code
    assert "environment variables" in "".join(capsys.readouterr())


def test_every_fault_is_named_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All faults are listed in one go, faults between settings among them, with exit code 2."""
    lines = refused(
        WorkerSettings, capsys, monkeypatch,
        LEASE_SECONDS="soon", WORKER_CONCURRENCY="0", REDIS_PORT="99999", REDIS_URL="http://x",
        S3_ENDPOINT="s3.example.com", S3_PUBLIC_ENDPOINT="https://s3.example.com/bucket",
        NODE_ENV="production", S3_ACCESS_KEY_ID="only-half", RECORD_TTL_SECONDS="100",
    )  # fmt: skip
    assert lines[0] == "some-process: 9 settings are wrong:"
    named = {line.split(":")[0].strip() for line in lines[1:]}
    assert named == {
        "LEASE_SECONDS", "WORKER_CONCURRENCY", "REDIS_PORT", "REDIS_URL", "S3_ENDPOINT", "S3_PUBLIC_ENDPOINT",
        "S3_BUCKET_NAME", "S3_SECRET_ACCESS_KEY", "RECORD_TTL_SECONDS",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (ApiSettings, "REDIS_CA_FILE"),
        (ApiSettings, "S3_CA_FILE"),
        (ApiSettings, "JWT_CA_FILE"),
        (WorkerSettings, "WEBHOOK_CA_FILE"),
    ],
)
def test_files_of_certificates_hold_some(
    model: type[BaseSettings], name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without a certificate is refused at the start, not by the first connection."""
    (line,) = refused(model, capsys, monkeypatch, **{name: __file__})[1:]
    assert line.strip().startswith(f"{name}: must be a file of certificates in PEM format")


@pytest.mark.parametrize("name", ["REDIS_URL", "S3_SECRET_ACCESS_KEY"])
def test_secrets_are_never_shown(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of a secret names the setting, not its value."""
    lines = refused(WorkerSettings, capsys, monkeypatch, **{name: "hunter2"})
    assert name in lines[1]
    assert "hunter2" not in "".join(lines)


def test_s3_names_win_over_minio_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments that set MINIO_* go on; S3_* wins where both are set."""
    monkeypatch.setenv("MINIO_ENDPOINT", "minio")
    monkeypatch.setenv("MINIO_PORT", "9000")
    monkeypatch.setenv("MINIO_ACCESS_KEY", "a")
    monkeypatch.setenv("MINIO_SECRET_KEY", "b")
    settings = load(WorkerSettings, "worker")
    assert (settings.endpoint, settings.access_key, settings.secret_key) == ("http://minio:9000", "a", "b")
    monkeypatch.setenv("S3_ENDPOINT", "https://s3.example.com")
    monkeypatch.setenv("S3_ACCESS_KEY_ID", "c")
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "d")
    settings = load(WorkerSettings, "worker")
    assert (settings.endpoint, settings.access_key, settings.secret_key) == (
        "https://s3.example.com",
        "c",
        "d",
    )


def test_node_env_still_names_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """NODE_ENV goes on to work, and ENVIRONMENT wins over it."""
    monkeypatch.setenv("NODE_ENV", "test")
    assert load(ApiSettings, "api").environment == "test"
    monkeypatch.setenv("ENVIRONMENT", "development")
    assert load(ApiSettings, "api").environment == "development"


def test_mock_storage_is_refused_in_production(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In production a forgotten bucket is a fault, unless mock storage is allowed by name."""
    lines = refused(ApiSettings, capsys, monkeypatch, ENVIRONMENT="production")
    assert "S3_BUCKET_NAME" in lines[1]
    assert "ALLOW_MOCK_STORAGE" in lines[1]
    monkeypatch.setenv("ALLOW_MOCK_STORAGE", "true")
    assert load(ApiSettings, "api").mock_storage


def test_empty_values_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chart that renders an empty value means the default."""
    monkeypatch.setenv("LEASE_SECONDS", "")
    monkeypatch.setenv("S3_ENDPOINT", "")
    settings = load(WorkerSettings, "worker")
    assert (settings.lease_seconds, settings.endpoint) == (30, None)


def test_the_memory_for_parts_follows_what_they_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 128 MiB, or as much as the set parts and threads take; and exactly what is set, if it is."""
    assert load(WorkerSettings, "worker").upload_memory == 128 << 20
    monkeypatch.setenv("PART_BYTES", str(64 << 20))
    assert load(WorkerSettings, "worker").upload_memory == (64 << 20) * (2 + 3)
    monkeypatch.setenv("UPLOAD_MEMORY_BYTES", str(3 * 64 << 20))
    assert load(WorkerSettings, "worker").upload_memory == 3 * 64 << 20


def test_the_memory_for_parts_holds_three_of_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less no result could be made, so it is refused at the start."""
    lines = refused(
        WorkerSettings, capsys, monkeypatch,
        PART_BYTES=str(64 << 20), UPLOAD_MEMORY_BYTES=str((3 * 64 << 20) - 1),
    )  # fmt: skip
    assert "UPLOAD_MEMORY_BYTES: must be at least 3 times PART_BYTES" in "\n".join(lines)


def test_the_parts_of_redis_make_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password with any character survives in the URL, and TLS changes its scheme."""
    monkeypatch.setenv("REDIS_HOST", "::1")
    monkeypatch.setenv("REDIS_PASSWORD", "p@ss/word")
    monkeypatch.setenv("REDIS_TLS", "true")
    assert load(WorkerSettings, "worker").redis.url == "rediss://:p%40ss%2Fword@[::1]:6379/0"


def test_anonymous_start_is_for_tryouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` without a user is open in development, closed in production, and as set otherwise."""
    assert load(ApiSettings, "api").anonymous_start
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("S3_BUCKET_NAME", "bucket")
    assert not load(ApiSettings, "api").anonymous_start
    monkeypatch.setenv("ALLOW_ANONYMOUS_START", "true")
    assert load(ApiSettings, "api").anonymous_start
