"""What docs/webhooks.md and docs/sign-in.md have one try on one's own machine, done as it stands there.

`make up` is the one thing that is not run: its processes are those of a test's own system, with the settings
that the pages pass to it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer, free_ports
from downloadjobs_cli.stack import without_addresses
from support_pages import code
from support_processes import System, running
from support_tools import require_tool
from support_worker import eventually, put_files

ROOT = Path(__file__).parents[2]
TITLE = "Try it on your machine"
UP = re.compile(r"^((?:\w+=\S+(?: |\s*\\\n\s*))+)make up$", re.MULTILINE)
"""A call of `make up` with its settings."""


def adapted(text: str, ports: dict[str, int]) -> str:
    """A text of a page with other ports, and the interpreter and programs of this environment."""
    for told, port in ports.items():
        text = text.replace(f":{told}", f":{port}").replace(f", {told})", f", {port})")
    return text.replace(".venv/bin/", f"{Path(sys.executable).parent}/").replace("make .venv/.local\n", "")


def shell(text: str, system: System, home: Path) -> str:
    """Run commands in a home of their own; what they print."""
    environment = {
        name: value
        for name, value in without_addresses(system.environment()).items()
        if not name.lower().endswith("_proxy")
    }
    ran = subprocess.run(
        ["bash", "-euc", text], cwd=ROOT, env={**environment, "HOME": str(home)}, capture_output=True,
        check=False, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


def settings_of_up(text: str, home: Path) -> dict[str, str]:
    """The settings that a page passes to `make up`."""
    found = UP.search(text)
    assert found, text
    words = shlex.split(found[1].replace("\\\n", " "))
    return {name: value.replace("~", str(home)) for name, _, value in (word.partition("=") for word in words)}


def test_webhooks_can_be_tried(valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path) -> None:
    """A receiver on localhost gets a genuine call, by the keys and settings of the page."""
    for tool in ("curl", "openssl"):
        require_tool(tool)
    with running(System(valkey, seaweedfs, tmp_path)) as system:
        put_files(system.store, {10_003: 10, 10_010: 10})
        ports = {"3000": system.port, "18443": free_ports(1)[0]}
        prepare, receive, ask = (adapted(text, ports) for text in code("webhooks.md", TITLE, "sh"))
        shell(UP.sub("", prepare), system, tmp_path)
        system.settings |= settings_of_up(prepare, tmp_path)
        folder = tmp_path / "webhooks-try"
        (verify, *_) = code("webhooks.md", "Receive and verify", "python")
        (receiver,) = code("webhooks.md", TITLE, "python")
        (folder / "verify.py").write_text(verify, encoding="utf-8")
        (folder / "receiver.py").write_text(adapted(receiver, ports), encoding="utf-8")
        system.start_api()
        system.start_worker()
        command = shlex.split(receive.replace("~", str(tmp_path)))
        with (
            (tmp_path / "out").open("wb") as out,
            subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process,
        ):
            try:
                eventually(lambda: _listens(ports["18443"]), 20, "the receiver")
                job = re.findall(r'"jobId":"([^"]+)"', shell(ask, system, tmp_path))[0]
                eventually(lambda: "genuine {" in (tmp_path / "out").read_text(), 20, "the call")
            finally:
                process.kill()
        said = (tmp_path / "out").read_text()
        assert "not genuine" not in said
        assert re.search(rf'^genuine {{"type":"job\.completed".*{job}', said, re.MULTILINE)


def _listens(port: int) -> bool:
    try:
        httpx.get(f"https://localhost:{port}", verify=False, trust_env=False)  # noqa: S501 - only whether it is there
    except httpx.ConnectError:
        return False
    except httpx.TransportError:
        return True
    return True


def test_tokens_can_be_tried(valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path) -> None:
    """A token of one's own issuer is good, with the page's keys and settings; none, or another's, is not."""
    for tool in ("curl", "openssl"):
        require_tool(tool)
    with running(System(valkey, seaweedfs, tmp_path)) as system:
        key, start, ask = (adapted(text, {"3000": system.port}) for text in code("sign-in.md", TITLE, "sh"))
        (issuer,) = code("sign-in.md", TITLE, "python")
        shell(key, system, tmp_path)
        folder = tmp_path / "sign-in-try"
        (folder / "issuer.py").write_text(issuer, encoding="utf-8")
        shell(UP.sub("", start), system, tmp_path)
        system.settings |= settings_of_up(start, tmp_path)
        system.start_api()
        said = shell(ask, system, tmp_path)
        assert said.startswith('{"jobId":"')
        token = (folder / "token").read_text().strip()
        (folder / "issuer.pem").unlink()
        shell(key, system, tmp_path)  # another one
        others = subprocess.run(
            [sys.executable, str(folder / "issuer.py"), "ada"], capture_output=True, check=True, text=True
        ).stdout.strip()
        with httpx.Client(base_url=f"http://127.0.0.1:{system.port}", trust_env=False) as client:

            def asked(bearer: str | None) -> httpx.Response:
                return client.get("/v1/jobs", headers={"authorization": f"Bearer {bearer}"} if bearer else {})

            jobs = asked(token).json()["items"]
            assert len(jobs) == 2
            for bad in (None, others):
                answer = asked(bad)
                assert (answer.status_code, answer.json()["error"]) == (401, "unauthenticated")
                assert answer.json()["detail"]
