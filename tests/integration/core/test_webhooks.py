"""Calls to callback URLs in the queue: there with the end of their job, leased, retried, and never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.job import job_key
from downloadjobs_core.leases import Outcome
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState
from downloadjobs_core.upkeep import UpkeepStore
from downloadjobs_core.webhooks import Tried, Verdict
from support_webhook_queue import URL, Queue


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[Queue]:
    """An empty queue."""
    queue = Queue(valkey.url)
    yield queue
    queue.redis.close()


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.COMPLETED_WITH_ERRORS, JobState.FAILED])
def test_a_call_is_there_with_its_jobs_end(queue: Queue, state: JobState) -> None:
    """The script that ends a job queues its call, which tells what the job became."""
    queue.finish("one", state)
    assert queue.callback("one").callback_state == "pending"
    call = queue.leased()
    told = json.loads(call.body)
    assert (told["type"], told["data"]["jobId"], told["data"]["state"]) == (f"job.{state}", "one", state)
    assert (call.url, call.origin, call.attempt) == (URL, "https://hooks.example.com", 1)
    assert call.call_id.startswith("msg_one_")
    assert "." not in call.call_id


def test_no_part_of_the_url_is_told(queue: Queue) -> None:
    """Neither the body nor the name of a call has the URL, whose query may be a secret."""
    queue.finish("one")
    call = queue.leased()
    assert b"secret" not in call.body
    assert "secret" not in repr(call) + call.call_id
    record = queue.callback("one")
    assert "secret" not in repr(record)


def test_a_job_without_a_callback_has_no_call(queue: Queue) -> None:
    """Nothing is written for it, in its record or elsewhere."""
    queue.finish("one", url=None)
    assert queue.lease() is None
    assert not queue.left()
    assert not [name for name in queue.redis.hkeys(job_key("one")) if name.startswith("callback")]


def test_cancelling_tells(queue: Queue) -> None:
    """Cancelling a waiting and a running job queues a call each; who withdraws an object cancels as well."""
    for number, cancel in enumerate(("cancel", "withdraw")):
        queue.submit(f"waiting-{number}")
        extra = (0,) if cancel == "withdraw" else ()
        queue.scripts.run(cancel, f"waiting-{number}", "cancelled", "By hand.", 60, 0, *extra)
        call = queue.leased()
        assert json.loads(call.body)["type"] == "job.cancelled"
        assert queue.calls.end(call, Tried(Verdict.DELIVERED, 200))


def test_a_dead_letter_tells(queue: Queue) -> None:
    """A job whose worker was lost too often has failed, and its call says so."""
    queue.submit("one")
    assert queue.jobs.lease("worker")
    queue.redis.zadd(f"{ROOT}:leased", {"one": 1})
    assert queue.jobs.reap() == (0, 1)
    told = json.loads(queue.leased().body)
    assert (told["type"], told["data"]["error"]["code"]) == ("job.failed", "dead-letter")


def test_an_expired_result_tells(queue: Queue) -> None:
    """When a result is removed, a second call says so, under an id of its own."""
    queue.finish("one")
    first = queue.leased()
    assert queue.calls.end(first, Tried(Verdict.DELIVERED, 200))
    assert UpkeepStore(queue.redis).expire_result("one", sweep_seconds=60)
    second = queue.leased()
    assert json.loads(second.body)["type"] == "job.expired"
    assert second.call_id != first.call_id


def test_a_finish_that_comes_twice_queues_one_call(queue: Queue) -> None:
    """A worker whose answer was lost repeats its call; there is one call all the same."""
    job = queue.finish("one")
    queue.jobs.finish(job, Outcome(JobState.COMPLETED))
    assert queue.redis.zcard(f"{ROOT}:webhooks") == 1


def test_a_refused_finish_queues_nothing(queue: Queue) -> None:
    """An attempt that lost its lease ends nothing, so it tells nothing."""
    queue.submit("one")
    job = queue.jobs.lease("worker")
    assert job is not None
    assert not queue.scripts.run("finish", "one", "1", "completed", 0, 60)
    assert queue.lease() is None


def test_a_delivered_call_leaves_nothing_but_the_jobs_word(queue: Queue) -> None:
    """Delivered: no key is left, and the job's record says how it went."""
    queue.finish("one")
    assert queue.calls.end(queue.leased(), Tried(Verdict.DELIVERED, 204))
    assert not queue.left()
    job = queue.callback("one")
    assert (job.callback_state, job.callback_attempts, job.callback_status) == ("delivered", 1, 204)
    assert (job.callback_event, job.callback_due_us) == ("completed", 0)


def test_a_retry_waits_for_its_time_and_keeps_id_and_body(queue: Queue) -> None:
    """A failed try is placed again; the next has the same id and the same bytes."""
    queue.finish("one")
    first = queue.leased()
    assert queue.calls.end(first, Tried(Verdict.RETRY, 500, delay_seconds=60))
    assert queue.lease() is None
    job = queue.callback("one")
    assert (job.callback_state, job.callback_status, job.callback_attempts) == ("pending", 500, 1)
    assert job.callback_due_us > job.finished_us + 50_000_000
    queue.redis.delete(job_key("one"))  # whatever becomes of the job
    queue.pass_time(70, ages=False)  # the body tells the time
    second = queue.leased()
    assert (second.call_id, second.body, second.attempt) == (first.call_id, first.body, 2)
    assert queue.calls.end(second, Tried(Verdict.FAILED, error="timeout"))
    assert not queue.left()
    assert not queue.redis.exists(job_key("one"))


def test_the_try_of_a_killed_process_is_made_again(queue: Queue) -> None:
    """A lease that ran out is taken back, and the late end of the first try changes nothing."""
    queue.finish("one")
    first = queue.leased()
    queue.pass_time(70)
    second = queue.leased()
    assert (second.call_id, second.attempt) == (first.call_id, 2)
    assert not queue.calls.end(first, Tried(Verdict.DELIVERED, 200))
    assert queue.calls.end(second, Tried(Verdict.DELIVERED, 200))
    assert not queue.calls.end(second, Tried(Verdict.DELIVERED, 200))
    assert not queue.left()


def test_a_receiver_in_trouble_is_left_alone_and_tried_by_one_call(queue: Queue) -> None:
    """After a failure the user's other calls to its origin wait; then one tries it, and frees them."""
    for number in range(3):
        queue.finish(f"job-{number}")
    first = queue.leased()
    assert queue.calls.end(first, Tried(Verdict.RETRY, error="connect", delay_seconds=5, peace_seconds=60))
    assert queue.lease() is None
    queue.pass_time(59)
    assert queue.lease() is None
    queue.pass_time(1)
    probe = queue.leased()
    assert queue.lease() is None
    assert queue.calls.end(probe, Tried(Verdict.DELIVERED, 200))
    assert {queue.leased().job_id, queue.leased().job_id} | {probe.job_id} == {"job-0", "job-1", "job-2"}
    queue.check()


def test_what_one_user_makes_a_receiver_answer_holds_up_nobody_else(queue: Queue) -> None:
    """Peace is kept by user and origin: a shared receiver that fails one user's calls gets the others'."""
    queue.finish("one", user="eve")
    assert queue.calls.end(queue.leased(), Tried(Verdict.RETRY, 500, delay_seconds=5, peace_seconds=60))
    queue.finish("two", user="ada")
    assert queue.leased().job_id == "two"


def test_a_user_has_so_many_calls_under_way(queue: Queue) -> None:
    """More wait, cost others nothing, and come when one ends, delivered or lost."""
    for number in range(5):
        queue.finish(f"eve-{number}", user="eve", url=f"https://dead-{number}.example.com/")
    queue.finish("ada-0", user="ada")
    of_ada, first, second = sorted((queue.leased() for _ in range(3)), key=lambda call: call.job_id)
    assert of_ada.job_id == "ada-0"
    assert queue.lease() is None
    assert sum(len(queue.lane("eve", f"https://dead-{number}.example.com/")) for number in range(5)) == 3
    assert queue.calls.end(first, Tried(Verdict.DELIVERED, 200))
    third = queue.leased()
    assert queue.lease() is None
    queue.pass_time(70)  # the leases of the second, the third and ada's run out
    jobs = {call.job_id for call in (queue.leased(), queue.leased(), queue.leased())}
    assert "ada-0" in jobs
    assert not queue.calls.end(third, Tried(Verdict.DELIVERED, 200)) or third.job_id in jobs
    assert second.job_id.startswith("eve")
    assert int(queue.redis.hget(f"{ROOT}:webhooks:sending_by_user", "eve")) == 2


def test_every_call_is_sent_in_the_end(queue: Queue) -> None:
    """Nothing stays behind in any set, however calls were put aside, postponed and lost."""
    for number in range(150):
        queue.finish(f"job-{number}", user=f"user-{number % 3}", url=f"https://h{number % 7}.example.com/")
    sent: set[str] = set()
    for turn in range(3_000):
        call = queue.lease(longest_seconds=10**6)
        if call is None:
            if not queue.left():
                break
            queue.pass_time(70)
        elif turn % 5 == 0:
            queue.calls.end(call, Tried(Verdict.RETRY, 503, delay_seconds=9, peace_seconds=9))
        elif turn % 7:  # else its process was killed
            assert queue.calls.end(call, Tried(Verdict.DELIVERED, 200))
            sent.add(call.job_id)
    assert len(sent) == 150
    assert not queue.left()


def test_a_call_is_given_up_after_its_longest_time(queue: Queue) -> None:
    """A call that was kept too long, whatever by, fails without another try."""
    queue.finish("one")
    (call,) = queue.redis.zrange(f"{ROOT}:webhooks", 0, -1)
    queue.redis.hset(f"{ROOT}:webhook:{call}", "at_us", 1)
    assert queue.lease() is None
    assert queue.callback("one").callback_state == "failed"
    assert not queue.left()


def test_a_worker_without_a_key_takes_only_what_is_long_overdue(queue: Queue) -> None:
    """While webhooks are being switched on, what another worker will send is left to it."""
    queue.finish("one")
    queue.finish("two", url="https://dead.example.com/")
    off = {"overdue_seconds": 3_600, "longest_seconds": 10**6}
    assert queue.lease(**off) is None
    queue.pass_time(3_590)
    assert queue.lease(**off) is None
    sent = queue.leased(longest_seconds=10**6)  # by a worker that has a key
    assert queue.lease(**off) is None
    assert queue.calls.end(sent, Tried(Verdict.DELIVERED, 200))
    assert queue.lease(**off) is None
    queue.pass_time(3_610)
    assert {sent.job_id, queue.leased(**off).job_id} == {"one", "two"}
    assert queue.lease(**off) is None


def test_a_fenced_process_gets_no_call(queue: Queue) -> None:
    """A pod that shall be removed begins nothing."""
    queue.finish("one")
    queue.redis.zadd(f"{ROOT}:fenced", {"pod": 9e15})
    assert queue.lease() is None
    queue.redis.delete(f"{ROOT}:fenced")
    assert queue.lease() is not None


def test_due_calls_are_demand_for_one_slot(queue: Queue) -> None:
    """They need a worker and no slots: however many are due, the autoscaler sees one task."""

    def maintenance() -> int:
        reply = queue.scripts.run("counts")
        return int(dict(zip(reply[::2], reply[1::2], strict=True))["maintenance"])

    assert maintenance() == 0
    for number in range(3):
        queue.finish(f"job-{number}")
    assert maintenance() == 1
    for _ in range(2):
        queue.calls.end(queue.leased(), Tried(Verdict.RETRY, 500, delay_seconds=60))
    call = queue.leased()
    assert maintenance() == 0
    queue.redis.zadd(f"{ROOT}:webhooks:sending", {call.call_id: 1})  # its process was killed
    assert maintenance() == 1


def test_a_dead_letter_that_is_tried_again_tells_again(queue: Queue) -> None:
    """Each end is told: after `dead retry` there is a second call, and the record is about the newer."""
    queue.submit("one")
    assert queue.jobs.lease("worker")
    queue.redis.zadd(f"{ROOT}:leased", {"one": 1})
    queue.jobs.reap()
    first = queue.leased()
    assert queue.scripts.run("dead_retry", "one") == 1
    job = queue.jobs.lease("worker")
    assert job is not None
    queue.jobs.finish(job, Outcome(JobState.COMPLETED, result_key="results/one/1.zip"))
    assert queue.calls.end(first, Tried(Verdict.FAILED, 410))
    assert queue.callback("one").callback_state == "pending"
    second = queue.leased()
    assert json.loads(second.body)["type"] == "job.completed"
    assert second.call_id != first.call_id
