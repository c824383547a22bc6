"""What a courier does with a call: every try ends, is counted, and says what came of it."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from downloadjobs_core.webhook_keys import Signer, read_signer
from downloadjobs_core.webhooks import Call, LeaseTerms, Tried, Verdict, WebhookStore
from downloadjobs_worker.couriers import FAULT, Couriers, RetryPlan, peace_after
from downloadjobs_worker.webhook_sending import Answer, SendError, WebhookSender
from support_webhooks import make_key
from support_worker import eventually


def call(attempt: int = 1) -> Call:
    """A call, as a try leased it."""
    return Call(
        "msg_1", "job", "https://h.example.com/?key=secret", "https://h.example.com", attempt, 1, b"{}"
    )


class Store:
    """A queue that has these calls."""

    def __init__(self, *calls: Call) -> None:
        self.calls = list(calls)
        self.ended: list[Tried] = []

    def lease(self, _terms: LeaseTerms, *, holder: str) -> Call | None:
        """The next call."""
        assert holder
        return self.calls.pop(0) if self.calls else None

    def end(self, _call: Call, tried: Tried) -> bool:
        """Note how a try ended."""
        self.ended.append(tried)
        return True


class Sender:
    """Answers, or fails, as it is told."""

    timeout_seconds = 1.0

    def __init__(self, outcome: Answer | Exception) -> None:
        self.outcome = outcome

    def send(self, *_: object) -> Answer:
        """Do so."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """An installation's key."""
    return read_signer(make_key(tmp_path_factory.mktemp("key"))[1])


def tried(signer: Signer, outcome: Answer | Exception, *attempts: int) -> tuple[list[Tried], list[Verdict]]:
    """Let a courier send calls; how their tries ended, and what it was told of them."""
    store = Store(*(call(attempt) for attempt in attempts or (1,)))
    told: list[Verdict] = []
    couriers = Couriers(
        cast("WebhookStore", store),
        cast("WebhookSender", Sender(outcome)),
        signer,
        RetryPlan((5, 60)),
        holder="pod",
        threads=1,
        told=lambda verdict, _: told.append(verdict),
    )
    while couriers.send_one():
        pass
    return store.ended, told


@pytest.mark.parametrize(
    "fault", [OverflowError("date value out of range"), ValueError(), KeyError("x"), RecursionError()]
)
def test_a_fault_is_a_try_that_counts(signer: Signer, fault: Exception) -> None:
    """Whatever a try raises, it ends and is counted; after the last the call is given up: no fault loops."""
    ended, told = tried(signer, fault, 1, 2, 3)
    assert [one.verdict for one in ended] == [Verdict.RETRY, Verdict.RETRY, Verdict.FAILED] == told
    assert {(one.error, one.status, one.peace_seconds) for one in ended} == {(FAULT, None, 0)}
    assert 5 <= ended[0].delay_seconds <= 5.5


def test_what_was_not_answered_is_tried_again_by_the_plan(signer: Signer) -> None:
    """With the reason; and the receiver is left alone, unless it was not even reached."""
    ((one,), _) = tried(signer, SendError("timeout", "it is silent"))
    assert (one.verdict, one.error, one.peace_seconds) == (Verdict.RETRY, "timeout", 60)
    ((one,), _) = tried(signer, SendError("refused", "it is private", peace=False))
    assert (one.verdict, one.error, one.peace_seconds) == (Verdict.RETRY, "refused", 0)


@pytest.mark.parametrize(
    ("answer", "peace"),
    [
        (Answer(200, 9), 0),
        (Answer(404, 9), 0),
        (Answer(429, 9), 60),
        (Answer(503, 99), 99),
        (Answer(500, 1e12), 21_600),
    ],
)
def test_a_receiver_is_left_alone_as_it_asks(answer: Answer, peace: float) -> None:
    """For a minute at least and six hours at most, after 429 and 5xx alone."""
    assert peace_after(answer) == peace


def test_the_last_jobs_call_goes_out(signer: Signer) -> None:
    """A call that comes while a courier waits, and its process ends before it looks again, is sent still."""
    waiting, woken = threading.Event(), threading.Event()

    class Waiting(Store):
        def adopt(self) -> int:
            return 0

        def wait(self, _timeout_seconds: float) -> None:
            waiting.set()
            assert woken.wait(10)

    store = Waiting()
    couriers = Couriers(
        cast("WebhookStore", store),
        cast("WebhookSender", Sender(Answer(200))),
        signer,
        RetryPlan((5,)),
        holder="pod",
        threads=1,
    )
    couriers.start()
    assert waiting.wait(10)
    store.calls.append(call())
    closing = threading.Thread(target=couriers.close)
    closing.start()
    eventually(couriers._closing.is_set, 10, "the close")
    woken.set()
    closing.join(10)
    assert [one.verdict for one in store.ended] == [Verdict.DELIVERED]


def test_without_a_key_calls_are_given_up() -> None:
    """A courier that has none says why."""
    store = Store(call())
    couriers = Couriers(
        cast("WebhookStore", store),
        cast("WebhookSender", Sender(Answer(200))),
        None,
        RetryPlan((5,)),
        holder="pod",
        threads=4,
    )
    assert couriers.send_one()
    assert [(one.verdict, one.error) for one in store.ended] == [(Verdict.FAILED, "webhooks-off")]
