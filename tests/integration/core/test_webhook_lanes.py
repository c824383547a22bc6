"""Calls that wait for their turn: no receiver or user holds up another, and none is lost or sent twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.job import job_key
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.webhooks import PARKED, Call, Tried, Verdict
from support_webhook_queue import Queue

SILENT = "https://silent.example.com/"
HEALTHY = "https://healthy.example.com/"
NO_ANSWER = Tried(Verdict.RETRY, error="timeout", delay_seconds=60, peace_seconds=60)
DELIVERED = Tried(Verdict.DELIVERED, 204)


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[Queue]:
    """An empty queue."""
    queue = Queue(valkey.url)
    yield queue
    queue.redis.close()


def many(queue: Queue, number: int, *, user: str = "eve", url: str = SILENT) -> list[str]:
    """Jobs that end; their ids, in order."""
    jobs = [f"{user}-{one:03}" for one in range(number)]
    for job_id in jobs:
        queue.finish(job_id, user=user, url=url)
    return jobs


def park(queue: Queue, user: str) -> int:
    """Put a user's calls aside as a release without lanes did; how many."""
    calls = [
        call
        for call in queue.redis.zrange(f"{ROOT}:webhooks", 0, -1)
        if queue.redis.hget(f"{ROOT}:webhook:{call}", "user") == user
    ]
    for call in calls:
        queue.redis.zrem(f"{ROOT}:webhooks", call)
        queue.redis.zadd(f"{PARKED}{user}", {call: queue.redis.time()[0] * 1_000_000})
    return len(calls)


def test_a_silent_receiver_holds_up_no_other_of_its_user(queue: Queue) -> None:
    """Beside hundreds of calls to it, one to another receiver is the next that is sent."""
    many(queue, 300)
    held = [queue.leased(), queue.leased()]
    queue.finish("healthy", user="eve", url=HEALTHY)
    assert queue.lease() is None  # both of the user's calls hang
    assert queue.calls.end(held[0], NO_ANSWER)
    call = queue.leased()
    assert call.job_id == "healthy"
    assert queue.calls.end(call, DELIVERED)
    queue.finish("later", user="eve", url=HEALTHY)
    assert queue.leased().job_id == "later"
    assert len(queue.lane("eve", SILENT)) == 298


def test_while_one_call_tries_a_silent_receiver_others_of_its_user_are_sent(queue: Queue) -> None:
    """It has no more than one of the user's calls under way, once it is known."""
    many(queue, 200)
    assert queue.calls.end(queue.leased(), NO_ANSWER)
    for turn in range(20):
        queue.pass_time(61)
        assert queue.leased().origin == SILENT.rstrip("/")
        queue.finish(f"healthy-{turn}", user="eve", url=HEALTHY)
        call = queue.leased()
        assert call.job_id == f"healthy-{turn}"
        assert queue.calls.end(call, DELIVERED)
        assert queue.lease() is None
    queue.check()


def test_a_silent_receiver_holds_up_no_other_user(queue: Queue) -> None:
    """Hundreds of calls of one user are looked at, and then another's that came last is sent."""
    many(queue, 300)
    held = [queue.leased(), queue.leased()]
    queue.finish("of-ada", user="ada", url=SILENT)
    assert queue.leased().job_id == "of-ada"
    assert held[0].job_id != held[1].job_id


def test_receivers_and_users_take_turns(queue: Queue) -> None:
    """Who has more calls does not get more of them sent: a call waits for one of each other receiver."""
    for user in ("eve", "ada"):
        for host in "abc":
            for number in range(5):
                queue.finish(f"{user}-{host}{number}", user=user, url=f"https://{host}.example.com/")
    many(queue, 100)
    sent = []
    for _ in range(16):
        call = queue.leased()
        sent.append((call.job_id.split("-")[0], call.origin))
        assert queue.calls.end(call, DELIVERED)
    assert Counter(user for user, _ in sent) == {"eve": 8, "ada": 8}
    assert set(Counter(origin for user, origin in sent if user == "eve").values()) == {2}


def test_the_oldest_call_of_a_receiver_is_sent_first(queue: Queue) -> None:
    """Its calls come in the order of what they tell, also the one that is tried again."""
    jobs = many(queue, 4)
    assert queue.calls.end(queue.leased(), NO_ANSWER)
    queue.pass_time(61)
    for job_id in jobs:
        call = queue.leased()
        assert call.job_id == job_id
        assert queue.calls.end(call, DELIVERED)


def test_calls_that_wait_for_a_receiver_are_left_alone(queue: Queue) -> None:
    """However many they are, only the first is looked at when its receiver's time comes."""
    many(queue, 200)
    assert queue.calls.end(queue.leased(), NO_ANSWER)
    assert queue.lease() is None
    queue.pass_time(61)
    assert queue.calls.end(queue.leased(), NO_ANSWER)
    assert queue.lease() is None
    assert queue.redis.zcard(f"{ROOT}:webhooks") == 1
    assert len(queue.lane("eve", SILENT)) == 199


def test_a_job_says_when_the_receiver_is_tried_next(queue: Queue) -> None:
    """So do the call that will try it, each time anew, and the one that begins to wait for it."""

    def waits(job_id: str) -> float:
        return queue.callback(job_id).callback_due_us / 1_000_000 - float(queue.redis.time()[0])

    many(queue, 3)
    for _ in range(2):
        assert queue.calls.end(
            queue.leased(), Tried(Verdict.RETRY, 503, delay_seconds=3_000, peace_seconds=60)
        )
        assert queue.lease() is None
        queue.pass_time(61)
    assert 55 < waits("eve-002") < 61
    assert queue.calls.end(queue.leased(), Tried(Verdict.RETRY, 503, delay_seconds=3_000, peace_seconds=90))
    queue.finish("new", user="eve", url=SILENT)
    assert queue.lease() is None
    assert 85 < waits("new") < 91


def test_calls_that_wait_are_given_up_by_age(queue: Queue) -> None:
    """Calls behind a receiver that never answers fail in the end, and their jobs say so; nothing is left."""
    jobs = many(queue, 200)
    held = [queue.leased(), queue.leased()]
    assert queue.lease() is None
    for call in held:
        assert queue.calls.end(call, NO_ANSWER)
    assert queue.lease() is None
    queue.pass_time(3_601)
    queue.finish("young", user="eve", url=HEALTHY)
    assert queue.leased().job_id == "young"
    assert queue.lease() is None
    assert {queue.callback(job_id).callback_state for job_id in jobs} == {"failed"}
    assert {queue.callback(job_id).callback_due_us for job_id in jobs} == {0}
    assert len(queue.redis.keys(f"{ROOT}:webhook:*")) == 1
    queue.check()


def test_calls_are_given_up_while_their_receiver_is_left_in_peace(queue: Queue) -> None:
    """A receiver that asks for hours of peace does not keep calls beyond their time."""
    jobs = many(queue, 10)
    assert queue.calls.end(
        queue.leased(), Tried(Verdict.RETRY, 503, delay_seconds=21_600, peace_seconds=21_600)
    )
    assert queue.lease() is None
    queue.pass_time(3_601)
    assert queue.lease() is None
    states = Counter(queue.callback(job_id).callback_state for job_id in jobs)
    assert states == {"failed": 9, "pending": 1}  # the one that waits for its own next try


def test_what_one_run_gives_up_is_bounded(queue: Queue) -> None:
    """Redis is never blocked for long: a run ends after so many, and asks for another."""
    many(queue, 200)
    held = queue.leased()
    assert queue.calls.end(held, NO_ANSWER)
    assert queue.lease() is None
    queue.pass_time(10_000)
    runs, left = 0, 200
    while left:
        reply = queue.scripts.run("lease_webhook", 30_000_000, 2, 3_600_000_000, 0, "pod")
        now_left = len(queue.redis.keys(f"{ROOT}:webhook:*"))
        assert 0 <= left - now_left <= 64
        assert reply == 1 or not now_left
        runs, left = runs + 1, now_left
        assert runs < 10
    assert queue.lease() is None
    assert queue.left() == {f"{ROOT}:webhooks:troubled"}


def test_a_user_is_looked_at_again_though_nobody_says_so(queue: Queue) -> None:
    """If a try ends unnoticed, as one of an older release may, what waits is found by time."""
    many(queue, 3, url=HEALTHY)
    first = queue.leased(lease_seconds=600)
    queue.leased(lease_seconds=600)
    assert queue.lease() is None
    queue.redis.zrem(f"{ROOT}:webhooks:sending", first.call_id)  # and nothing else is told
    queue.redis.delete(f"{ROOT}:webhook:{first.call_id}")
    queue.redis.hincrby(f"{ROOT}:webhooks:sending_by_user", "eve", -1)
    assert queue.lease() is None
    queue.pass_time(60)
    assert queue.leased().job_id == "eve-002"


def test_the_end_of_a_try_wakes_a_courier_if_its_user_has_more(queue: Queue) -> None:
    """The slot is handed on at once, whatever the call comes to."""
    many(queue, 4)
    for verdict in (DELIVERED, Tried(Verdict.FAILED, 410)):
        held = [queue.leased(), queue.leased()]
        assert queue.lease() is None
        queue.redis.delete(f"{ROOT}:webhooks:wake")
        assert queue.calls.end(held[0], verdict)
        more = bool(queue.lane("eve", SILENT))
        assert queue.redis.exists(f"{ROOT}:webhooks:wake") == more
        assert queue.calls.end(held[1], verdict)
    assert not queue.left()


def test_calls_that_wait_for_their_turn_are_demand_for_a_worker(queue: Queue) -> None:
    """A pool at zero is woken when a receiver's time has come, and not before."""

    def maintenance() -> int:
        reply = queue.scripts.run("counts")
        return int(dict(zip(reply[::2], reply[1::2], strict=True))["maintenance"])

    many(queue, 3)
    assert queue.calls.end(queue.leased(), Tried(Verdict.RETRY, 503, delay_seconds=3_000, peace_seconds=60))
    assert queue.lease() is None
    assert maintenance() == 0
    queue.pass_time(61)
    assert maintenance() == 1


def test_what_a_release_before_put_aside_is_sent(queue: Queue) -> None:
    """Calls that a release without lanes had parked are taken over, of all users, by one process an hour."""
    users = ("eve", "a*[b] c:?", "ada")
    for number, user in enumerate(users):
        many(queue, 130 if number == 0 else 3, user=user, url=HEALTHY)
        assert park(queue, user)
    assert queue.lease() is None
    assert queue.calls.adopt() == 136
    assert not queue.redis.keys(f"{PARKED}*")
    sent = set()
    while (call := queue.lease()) is not None:
        sent.add(call.job_id)
        assert queue.calls.end(call, DELIVERED)
    assert len(sent) == 136
    assert not queue.left()
    many(queue, 1, user="late", url=HEALTHY)
    assert park(queue, "late") == 1
    assert queue.calls.adopt() == 0
    assert 0 < queue.redis.ttl(f"{ROOT}:webhooks:adopted") <= 3_600
    queue.redis.delete(f"{ROOT}:webhooks:adopted")
    assert queue.calls.adopt() == 1


@dataclass
class Model:
    """What must become of each call, beside a queue to which anything happens."""

    queue: Queue
    chance: random.Random
    now: float = 0.0
    """Seconds that a test let pass."""
    asked: dict[str, float] = field(default_factory=dict)
    """Jobs, by when they ended."""
    ended: dict[str, str] = field(default_factory=dict)
    """What became of their calls."""
    held: dict[str, tuple[Call, str, float]] = field(default_factory=dict)
    """Calls under way, by their job: with their user, and until when the lease lasts."""
    late: list[Call] = field(default_factory=list)
    """Calls whose lease has run out, while their courier was not killed but stopped."""
    peace: dict[tuple[str, str], float] = field(default_factory=dict)
    """Receivers of users that failed, by until when they are left alone."""
    LIMIT = 2
    LONGEST = 1_000.0
    SLACK = 5.0
    """Seconds that a run of a test may really take."""

    def ask(self) -> None:
        """A job ends."""
        job_id = f"job-{len(self.asked)}"
        user, host = self.chance.choice("aaabc"), self.chance.choice("xxy")
        self.queue.finish(job_id, user=user, url=f"https://{host}.example.com/")
        self.asked[job_id] = self.now

    def lease(self) -> None:
        """A courier asks."""
        call = self.queue.lease(lease_seconds=30, at_once_per_user=self.LIMIT, longest_seconds=self.LONGEST)
        if call is None:
            return
        user = self.queue.callback(call.job_id).user
        assert call.job_id in self.asked
        assert call.job_id not in self.ended
        assert call.job_id not in self.held, "sent by two at once"
        assert self.now - self.asked[call.job_id] <= self.LONGEST
        of_user = [one for one, who, _ in self.held.values() if who == user]
        assert len(of_user) < self.LIMIT
        peace = self.peace.get((user, call.origin))
        if peace is not None:
            assert peace <= self.now + self.SLACK, "not left in peace"
            self.peace[user, call.origin] = self.now + 30
        self.held[call.job_id] = (call, user, self.now + 30)

    def end(self) -> None:
        """A courier says what came of a try."""
        if not self.held:
            return
        job_id = self.chance.choice(sorted(self.held))
        call, user, _ = self.held.pop(job_id)
        tried = self.chance.choice(
            [
                DELIVERED,
                DELIVERED,
                Tried(Verdict.FAILED, 410),
                Tried(Verdict.RETRY, 400, delay_seconds=self.chance.uniform(1, 90)),
                Tried(Verdict.RETRY, 503, delay_seconds=5, peace_seconds=self.chance.choice((60, 300))),
                NO_ANSWER,
            ]
        )
        assert self.queue.calls.end(call, tried)
        assert not self.queue.calls.end(call, DELIVERED)
        if tried.peace_seconds:
            self.peace[user, call.origin] = self.now + tried.peace_seconds
        else:
            self.peace.pop((user, call.origin), None)
        if tried.verdict is not Verdict.RETRY:
            self.ended[job_id] = tried.verdict.value

    def end_late(self) -> None:
        """A courier that was stopped says it, which counts only if nobody has noticed."""
        if not self.late:
            return
        call = self.late.pop()
        if self.queue.calls.end(call, DELIVERED):
            assert call.job_id not in self.held
            assert call.job_id not in self.ended
            self.ended[call.job_id] = "delivered"
            self.peace.pop((self.queue.callback(call.job_id).user, call.origin), None)

    def wait(self) -> None:
        """Time passes."""
        seconds = self.chance.choice((1, 10, 31, 61, 130))
        self.queue.pass_time(seconds)
        self.now += seconds
        self.late += [call for call, _, until in self.held.values() if until <= self.now]
        self.held = {job: one for job, one in self.held.items() if one[2] > self.now}

    def old_release(self) -> None:
        """A worker of the release before puts calls aside, and later they are taken over."""
        if self.chance.random() < 0.5:
            park(self.queue, self.chance.choice("abcd"))
        else:
            self.queue.redis.delete(f"{ROOT}:webhooks:adopted")
            self.queue.calls.adopt()

    def finish(self) -> None:
        """Everything ends: nobody is stopped any more, and every receiver answers."""
        self.queue.redis.delete(f"{ROOT}:webhooks:adopted")
        self.queue.calls.adopt()
        for _ in range(1_000):
            call = self.queue.lease(at_once_per_user=self.LIMIT, longest_seconds=self.LONGEST)
            if call is not None:
                assert call.job_id not in self.ended
                assert self.queue.calls.end(call, DELIVERED)
                self.ended[call.job_id] = "delivered"
            elif self.queue.redis.keys(f"{ROOT}:webhook:*"):
                self.queue.pass_time(20)
            else:
                break
        for job_id in self.asked:
            state = self.queue.callback(job_id).callback_state
            assert state == self.ended.get(job_id, "failed"), job_id  # those that nobody ended were too old


@pytest.mark.parametrize("seed", range(8))
def test_no_call_is_lost_or_sent_by_two_at_once(queue: Queue, seed: int) -> None:
    """Whatever happens in whatever order, each call is in one place, held by one, and ends in the end."""
    model = Model(queue, random.Random(seed))
    steps = {
        model.ask: 9, model.lease: 9, model.end: 6, model.end_late: 1, model.wait: 2, model.old_release: 1,
    }  # fmt: skip
    for number in range(300):
        model.chance.choices(list(steps), list(steps.values()))[0]()
        if number % 5 == 0:
            queue.check()
    if seed % 2:
        queue.pass_time(model.LONGEST)  # all workers are away until it is too late
    model.finish()
    assert queue.left() <= {f"{ROOT}:webhooks:troubled"}
    assert queue.redis.hlen(f"{ROOT}:webhooks:sending_by_user") == 0
    assert all(queue.redis.exists(job_key(job_id)) for job_id in model.asked)
