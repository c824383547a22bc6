"""The local stack's rules that need no process."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from downloadjobs_cli.children import ended
from downloadjobs_cli.errors import SettingsError
from downloadjobs_cli.interrupts import Interrupts
from downloadjobs_cli.restarts import MAX_QUICK_RESTARTS, Restarts
from downloadjobs_cli.stack import Stack, without_addresses
from downloadjobs_cli.stack_folder import StackFolder
from downloadjobs_cli.steps import line
from downloadjobs_cli.up import introduction, operator_line


def test_another_installations_addresses_are_left_out() -> None:
    """What the user's shell says of another Redis or S3 never reaches a local stack; the rest does."""
    mine = {"PATH": "/bin", "LOG_LEVEL": "debug", "DOWNLOAD_DELAY_ENABLED": "true", "HTTP_PROXY": "p"}
    others = {
        "REDIS_URL": "redis://prod", "REDIS_HOST": "prod", "S3_ENDPOINT": "x", "S3_BUCKET_NAME": "b",
        "MINIO_ACCESS_KEY": "k", "AWS_PROFILE": "p", "NODE_ENV": "production", "ENVIRONMENT": "production",
        "PORT": "80", "HOST": "192.0.2.1", "MOCK_STORAGE_DIR": "/m", "GUNICORN_CMD_ARGS": "-w 9",
    }  # fmt: skip
    assert without_addresses({**mine, **others}) == mine


def test_a_process_that_ends_again_and_again_is_given_up() -> None:
    """Quick ends in a row are answered by longer and longer pauses, and the sixth by none."""
    restarts = Restarts()
    pauses = [restarts.pause_seconds(1.0) for _ in range(MAX_QUICK_RESTARTS)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 4.0]
    assert restarts.pause_seconds(1.0) is None


def test_a_process_that_lived_long_is_started_at_once() -> None:
    """A process that ran for a while is started again without a pause, and its count begins anew."""
    restarts = Restarts()
    for _ in range(3):
        restarts.pause_seconds(1.0)
    assert restarts.pause_seconds(60.0) == 0.0
    assert restarts.pause_seconds(1.0) == 0.5


@pytest.mark.parametrize(
    ("mode", "login", "variable"),
    [
        ("", "x-user-id: me", "DOWNLOADJOBS_USER=me"),
        ("jwt", "authorization: Bearer $TOKEN", 'DOWNLOADJOBS_TOKEN="$TOKEN"'),
    ],
)
def test_what_to_try_names_users_as_the_api_does(
    mode: str, login: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines that `up` prints sign in by the header, or by a token where `AUTH_MODE` asks for one."""
    monkeypatch.setenv("AUTH_MODE", mode)
    with StackFolder(None) as folder:
        stack = Stack(folder, port=3000, workers=1)
        stack.valkey.ports, stack.s3.ports = (1,), (2,)
        lines = introduction(stack, folder, "files", "downloadjobs")
    assert sum(login in line for line in lines) == 3
    assert sum(variable in line for line in lines) == 1


def test_a_temporary_folder_goes() -> None:
    """Without a folder of the user's, everything is in one that is removed at the end."""
    with StackFolder(None) as folder:
        (folder.logs / "x.log").write_text("x")
        path = folder.path
    assert not path.exists()


def test_a_folder_that_is_kept_stays(tmp_path: Path) -> None:
    """A folder of the user's stays, as does a temporary one that is to be kept."""
    with StackFolder(tmp_path / "data") as folder:
        assert folder.keep
    assert folder.logs.is_dir()


def test_one_stack_a_folder(tmp_path: Path) -> None:
    """A second stack on the same data is refused."""
    with StackFolder(tmp_path), pytest.raises(SettingsError, match="Another stack uses"):
        StackFolder(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_setting(tmp_path: Path) -> None:
    """A path through a file is refused in a sentence that names --data."""
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="--data"):
        StackFolder(tmp_path / "file" / "data")


def test_keys_are_the_users_alone_and_stay(tmp_path: Path) -> None:
    """credentials.env has mode 0600, whatever it had before, and the next run uses the same keys."""
    with StackFolder(tmp_path) as folder:
        assert folder.keys() != folder.keys()
        folder.credentials_path.touch(mode=0o644)
        folder.write_credentials({"S3_ACCESS_KEY_ID": "a", "S3_SECRET_ACCESS_KEY": "s=1"})
        assert stat.S_IMODE(folder.credentials_path.stat().st_mode) == 0o600
        assert folder.keys() == ("a", "s=1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_to_end_is_ctrl_c(number: signal.Signals) -> None:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt; afterwards the handlers are as before."""
    before = signal.getsignal(number)
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_once_stopping_signals_hurry() -> None:
    """While everything is stopped, a further signal does not break that off, but calls for haste."""
    calls: list[str] = []
    with Interrupts() as interrupts:
        interrupts.hold(lambda: calls.append("hurry"))
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert calls == ["hurry", "hurry"]


def test_an_ignored_signal_stays_ignored() -> None:
    """What nohup ignores is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit code 0"), (2, "exit code 2"), (-9, "killed by SIGKILL"), (-99, "signal 99")]
)
def test_how_a_process_ended_is_said(code: int, text: str) -> None:
    """Exit codes and signals are told apart."""
    assert text in ended(code)


def test_a_step_is_a_line_with_its_time() -> None:
    """Steps stand under each other; a long text goes on under itself."""
    first, second = line(2, "Files", "word " * 20, 0.44).splitlines()
    assert first.startswith("2. Files      word")
    assert first.endswith("0.4 s")
    assert second == " " * 14 + "word word word"
    assert len(first) <= 110


def test_the_operators_line_is_whole() -> None:
    """What starts an operator beside the stack can be copied as it is: the queue, the bucket, a namespace."""
    assert operator_line("redis://127.0.0.1:7/0", "downloads") == (
        "REDIS_URL=redis://127.0.0.1:7/0 S3_BUCKET_NAME=downloads WATCH_NAMESPACES=default make operator"
    )
