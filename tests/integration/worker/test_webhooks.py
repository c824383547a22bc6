"""Webhooks by real processes: from the REST request to a receiver that verifies them over TLS."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from downloadjobs_cli.embedded import LOOPBACK, SeaweedServer, ValkeyServer
from downloadjobs_core.job import job_key
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.webhook_addresses import AddressRules
from support_processes import System, running
from support_servers import killed_after
from support_webhook_queue import Queue
from support_webhooks import Received, Receiver, make_key, receiving, verify
from support_worker import eventually, put_files

INITIATE = "/v1/download/initiate"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver of the test's own."""
    with receiving(tmp_path) as receiver:
        yield receiver


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    """The installation's key; its files are `key.pem` and `key.pub`."""
    return make_key(tmp_path)[0]


def switched_on(system: System, receiver: Receiver, **settings: str) -> System:
    """Webhooks are sent, and the receiver on loopback is allowed."""
    system.settings |= {
        "WEBHOOK_PUBLIC_KEY_FILE": str(system.folder / "key.pub"),
        "WEBHOOK_SIGNING_KEY_FILE": str(system.folder / "key.pem"),
        "WEBHOOK_ALLOWED_HOSTS": f"localhost:{receiver.port}",
        "WEBHOOK_CA_FILE": str(receiver.authority),
        "WEBHOOK_RETRY_SECONDS": "0.2,0.2,0.2,30",
        "WEBHOOK_TIMEOUT_SECONDS": "2",
        **settings,
    }
    return system


def ask(system: System, url: str, *file_ids: int) -> str:
    """Ask for files and a webhook; the job's id."""
    with system.client() as client:
        answer = client.post(INITIATE, json={"file_ids": list(file_ids), "callbackUrl": url})
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return str(answer.json()["jobId"])


def callback(system: System, job_id: str) -> dict[str, object]:
    """What the job's detail says of its webhook."""
    with system.client() as client:
        told: dict[str, object] = client.get(f"/v1/jobs/{job_id}").json()["callback"]
    return told


def arrived(receiver: Receiver, job_id: str, count: int = 1, seconds: float = 30) -> list[Received]:
    """Wait for calls."""
    eventually(lambda: len(receiver.of(job_id)) >= count, seconds, f"webhook {count} of {job_id}")
    return receiver.of(job_id)


@pytest.mark.contract("webhooks")
def test_a_webhook_tells_of_a_jobs_end(system: System, receiver: Receiver, key: Ed25519PrivateKey) -> None:
    """It comes after the end is committed, verifies by the published key, and has no URL in it."""
    switched_on(system, receiver)
    put_files(system.store, {31_001: 1_000})
    seen: list[str] = []

    def look(one: Received) -> tuple[int, dict[str, str]]:
        seen.append(system.status(one.json["data"]["jobId"])["status"])
        return 200, {}

    receiver.answer = look
    system.start_api()
    system.start_worker()
    job_id = ask(system, receiver.url("/hook?key=secret"), 31_001)
    (call,) = arrived(receiver, job_id)
    verify(call.headers, call.body, key.public_key())
    assert call.path == "/hook?key=secret"
    assert abs(time.time() - int(call.headers["webhook-timestamp"])) < 60
    assert call.json["type"] == "job.completed"
    assert b"http" not in call.body
    eventually(lambda: callback(system, job_id)["state"] == "delivered")
    assert seen == ["completed"]
    assert callback(system, job_id) == {
        "state": "delivered",
        "origin": f"https://localhost:{receiver.port}",
        "event": "job.completed",
        "attempts": 1,
        "lastStatus": 200,
        "lastError": None,
        "nextAttemptAt": None,
    }
    assert not any("secret" in child.log_tail() for child in system.children)


@pytest.mark.contract("webhooks")
def test_tries_are_repeated_under_one_id(system: System, receiver: Receiver, key: Ed25519PrivateKey) -> None:
    """Until a 2xx; each try is signed for its own time, with the same id and body."""
    switched_on(system, receiver)
    answers = iter([(404, {}), (302, {"location": "https://localhost/"}), (204, {})])
    receiver.answer = lambda _: next(answers)
    system.start_api()
    system.start_worker()
    job_id = ask(system, receiver.url(), 99_999_998)
    calls = arrived(receiver, job_id, 3)
    assert len({call.headers["webhook-id"] for call in calls}) == 1
    assert len({call.body for call in calls}) == 1
    for call in calls:
        verify(call.headers, call.body, key.public_key())
    eventually(lambda: callback(system, job_id)["state"] == "delivered")
    assert callback(system, job_id)["attempts"] == 3


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(("status", "tries"), [(410, 1), (400, 3)])
def test_a_webhook_is_given_up(system: System, receiver: Receiver, status: int, tries: int) -> None:
    """At once after 410 Gone, else after the last try."""
    switched_on(system, receiver, WEBHOOK_RETRY_SECONDS="0.2,0.2")
    receiver.answer = lambda _: (status, {})
    system.start_api()
    system.start_worker()
    job_id = ask(system, receiver.url(), 99_999_998)
    eventually(lambda: callback(system, job_id)["state"] == "failed")
    told = callback(system, job_id)
    assert (told["attempts"], told["lastStatus"], len(receiver.of(job_id))) == (tries, status, tries)


@pytest.mark.usefixtures("key")
def test_a_worker_that_is_killed_while_it_sends_loses_nothing(system: System, receiver: Receiver) -> None:
    """After kill -9 in the middle of a try, another worker sends the same webhook under the same id."""
    switched_on(system, receiver, WEBHOOK_TIMEOUT_SECONDS="1")
    began, release = threading.Event(), threading.Event()

    def hang(_: Received) -> tuple[int, dict[str, str]]:
        began.set()
        release.wait(60)
        return 204, {}

    receiver.answer = hang
    system.start_api()
    # It could end the try itself in the one second it has; a longer one leaves it to the kill.
    first = system.start_worker(WEBHOOK_TIMEOUT_SECONDS="30")
    job_id = ask(system, receiver.url(), 99_999_998)
    assert began.wait(30)
    first.kill()
    receiver.answer = lambda _: (204, {})
    release.set()
    redis: Any = connect(RedisConfig(system.valkey.url))
    (sending,) = redis.zrange("{downloadjobs}:webhooks:sending", 0, -1)
    redis.zadd("{downloadjobs}:webhooks:sending", {sending: 1})  # its lease runs out
    redis.close()
    system.start_worker()
    calls = arrived(receiver, job_id, 2)
    assert len({call.headers["webhook-id"] for call in calls}) == 1
    assert calls[0].body == calls[1].body
    eventually(lambda: callback(system, job_id)["state"] == "delivered")


@pytest.mark.usefixtures("key")
def test_a_restart_of_redis_loses_no_webhook(
    seaweedfs: SeaweedServer, receiver: Receiver, tmp_path: Path
) -> None:
    """A webhook that waits for its next try is sent after Redis is back, under the same id."""
    with (
        killed_after(ValkeyServer(tmp_path / "valkey", append_only=True)) as valkey,
        running(switched_on(System(valkey, seaweedfs, tmp_path), receiver)) as system,
    ):
        receiver.answer = lambda _: (400, {})
        system.start_api()
        system.start_worker(WEBHOOK_RETRY_SECONDS="3,3,3")
        job_id = ask(system, receiver.url(), 99_999_998)
        arrived(receiver, job_id, 1)
        eventually(lambda: callback(system, job_id)["lastStatus"] == 400)
        valkey.kill()
        valkey.start()
        receiver.answer = lambda _: (204, {})
        calls = arrived(receiver, job_id, 2, 60)
        assert len({call.headers["webhook-id"] for call in calls}) == 1
        eventually(lambda: callback(system, job_id)["state"] == "delivered")


@pytest.mark.usefixtures("key")
def test_dead_receivers_take_no_slot(system: System, receiver: Receiver) -> None:
    """While more receivers hang than a worker has slots, its jobs go on."""
    switched_on(system, receiver, WEBHOOK_TIMEOUT_SECONDS="30", WEBHOOK_CONCURRENCY="4")
    release = threading.Event()

    def hang(_: Received) -> tuple[int, dict[str, str]]:
        release.wait(60)
        return 204, {}

    receiver.answer = hang
    put_files(system.store, {31_002: 10})
    system.start_api()
    system.start_worker(WORKER_CONCURRENCY="1")
    try:
        waiting = [ask(system, receiver.url(), 31_002) for _ in range(3)]
        eventually(
            lambda: len(receiver.received) == 2, what="two hanging webhooks, all that one user may have"
        )
        for job_id in waiting:
            assert system.wait(job_id)["status"] == "completed"
        assert system.wait(system.submit([31_002]))["status"] == "completed"
    finally:
        release.set()


@pytest.mark.usefixtures("key")
def test_a_silent_receiver_holds_up_no_other(system: System, receiver: Receiver) -> None:
    """Beside hundreds of webhooks to it, those of its user to another, and of others, are sent at once."""
    with socket.create_server((LOOPBACK, 0), backlog=128) as silent:
        port = silent.getsockname()[1]
        switched_on(
            system, receiver, WEBHOOK_TIMEOUT_SECONDS="1",
            WEBHOOK_ALLOWED_HOSTS=f"localhost:{receiver.port},localhost:{port}",
        )  # fmt: skip
        system.start_api()
        system.start_worker()
        queue = Queue(system.valkey.url)
        local = AddressRules((f"localhost:{receiver.port}", f"localhost:{port}"))
        for number in range(300):
            queue.submit(f"silent-{number}", user="eve", url=f"https://localhost:{port}/", rules=local)
            queue.scripts.run("cancel", f"silent-{number}", "cancelled", "By hand.", 3_600, 0)
        for user in ("eve", "ada"):
            for number in range(3):  # the first may have to wait for a try that is under way
                job_id = f"{user}-{number}"
                queue.submit(job_id, user=user, url=receiver.url(), rules=local)
                began = time.monotonic()
                queue.scripts.run("cancel", job_id, "cancelled", "By hand.", 3_600, 0)
                arrived(receiver, job_id, seconds=10)
                assert time.monotonic() - began < 5, job_id
        waiting = queue.redis.zcard(f"{{downloadjobs}}:webhooks:lane:eve https://localhost:{port}")
        assert waiting > 200
        queue.redis.close()


@pytest.mark.usefixtures("key")
def test_a_drained_worker_sends_what_its_last_job_ended(system: System, receiver: Receiver) -> None:
    """A job that ends during the drain tells so before the process ends."""
    switched_on(
        system, receiver, DOWNLOAD_DELAY_ENABLED="true", DOWNLOAD_DELAY_MIN_MS="1500",
        DOWNLOAD_DELAY_MAX_MS="1500", DRAIN_SECONDS="30",
    )  # fmt: skip
    system.start_api()
    worker = system.start_worker()
    job_id = ask(system, receiver.url(), 99_999_998)
    eventually(lambda: system.status(job_id)["status"] == "processing")
    worker.ask_to_end()
    arrived(receiver, job_id)
    eventually(lambda: callback(system, job_id)["state"] == "delivered")
    eventually(lambda: worker.exit_code == 0)


def test_a_retry_tells_the_same_receiver(system: System, receiver: Receiver, key: Ed25519PrivateKey) -> None:
    """A job that tries again what failed is told of where the first was, unless its URL is refused by now."""
    switched_on(system, receiver)
    system.start_api()
    system.start_worker()
    first = ask(system, receiver.url(), 99_999_998)
    arrived(receiver, first)
    with system.client() as client:
        again = client.post(f"/v1/jobs/{first}/retry").json()["jobId"]
        (call,) = arrived(receiver, again)
        verify(call.headers, call.body, key.public_key())
        system.children[0].kill()
        system.settings["WEBHOOK_ALLOWED_HOSTS"] = "elsewhere.example.com:443"
        system.start_api()
        refused = client.post(f"/v1/jobs/{first}/retry")
    assert refused.status_code == httpx.codes.ACCEPTED
    assert callback(system, refused.json()["jobId"]) is None


def test_while_keys_are_exchanged_both_verify(
    system: System, receiver: Receiver, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    """With a new key before the old one, who knows either verifies, and the API publishes both."""
    new, new_private, new_public = make_key(tmp_path, "new")
    for name, first in (("key.pem", new_private), ("key.pub", new_public)):
        path = tmp_path / name
        path.write_bytes(first.read_bytes() + path.read_bytes())
    switched_on(system, receiver)
    system.start_api()
    system.start_worker()
    (call,) = arrived(receiver, ask(system, receiver.url(), 99_999_998))
    for one in (new, key):
        verify(call.headers, call.body, one.public_key())
    with system.client() as client:
        published = client.get("/v1/webhooks/key", headers={"x-user-id": ""}).json()["keys"]
    assert [json.dumps(one["jwk"]) for one in published] != []
    assert [one["pem"].encode() for one in published] == [
        new_public.read_bytes(),
        tmp_path.joinpath("key.pub").read_bytes().removeprefix(new_public.read_bytes()),
    ]


@pytest.mark.contract("webhooks")
@pytest.mark.usefixtures("key")
def test_a_receiver_in_the_cluster_is_not_contacted(system: System, receiver: Receiver) -> None:
    """What is not allowed any more when the job ends is refused by the worker, and nobody connects."""
    switched_on(system, receiver)
    system.start_api()
    system.start_worker(WEBHOOK_ALLOWED_HOSTS="other.example")
    job_id = ask(system, receiver.url(), 99_999_998)
    eventually(lambda: callback(system, job_id)["lastError"] == "refused")
    assert not receiver.received


def test_callback_urls_are_refused_at_the_edge(
    system: System, receiver: Receiver, key: Ed25519PrivateKey
) -> None:
    """A hostile URL is a problem of its own; a job is not made of it."""
    del key
    switched_on(system, receiver)
    system.start_api()
    with system.client() as client:
        for url in (
            "https://127.0.0.1/",
            "http://hooks.example.com/",
            f"https://{LOOPBACK}:{receiver.port}/",
        ):
            answer = client.post(INITIATE, json={"file_ids": [10_000], "callbackUrl": url})
            assert (answer.status_code, answer.json()["error"]) == (400, "callback-refused"), url
        for wrong in ("", 7, "https://h.example/" + "a" * 2_100):
            answer = client.post(INITIATE, json={"file_ids": [10_000], "callbackUrl": wrong})
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid-body")
            assert answer.json()["errors"][0]["field"] == "callbackUrl"
        plain = client.post(INITIATE, json={"file_ids": [10_000], "callbackUrl": None})
        assert callback(system, plain.json()["jobId"]) is None
    redis = connect(RedisConfig(system.valkey.url))
    assert redis.hget(job_key(plain.json()["jobId"]), "callback_url") is None
    assert len(redis.keys("{downloadjobs}:job:*")) == 1
    redis.close()


def test_without_a_key_webhooks_are_off(system: System) -> None:
    """A callback URL is refused with a problem that says so, and there is no key to be had."""
    system.start_api()
    with system.client() as client:
        answer = client.post(
            INITIATE, json={"file_ids": [10_000], "callbackUrl": "https://hooks.example.com/"}
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "webhooks-off")
        assert client.get("/v1/webhooks/key").status_code == 404
