"""Threads that send webhooks, beside the slots that bundle: a slow receiver costs no job its slot.

They lease calls from the same queue as jobs come from, so that a call whose process was killed is sent by
another. A try is short and has an end, so its lease is not renewed.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_core.webhook_keys import Signer
from downloadjobs_core.webhooks import Call, LeaseTerms, Tried, Verdict, WebhookStore
from downloadjobs_worker.webhook_sending import Answer, SendError, WebhookSender

POLL_SECONDS: Final = 1.0
"""Between two looks for retries that came due; a job's end wakes a courier at once."""

LEASE_MARGIN_SECONDS: Final = 20.0
"""By which a lease outlives a try: for Redis to come back, and to be told."""

TELL_SECONDS: Final = 15.0
"""For how long Redis is told of a try's end; then the call is sent again, under the same id."""

PEACE_SECONDS: Final = 60.0
"""For how long a receiver that does not work is left alone; then one call tries it."""

LONGEST_RETRY_AFTER: Final = 6 * 3_600.0
"""The most that a receiver may ask for."""

JITTER: Final = 0.1

OVERDUE_SECONDS: Final = 3_600.0
"""After which a worker without a key gives a call up: webhooks were switched off. Not before, since they may
just be being switched on, and another worker of the rollout have the key."""

LONGEST_MARGIN_SECONDS: Final = 86_400.0
"""How long a call may be kept by other things than its own retries: a pool at zero, a receiver left alone."""

ADOPT_POLL_SECONDS: Final = 60.0
"""Between two looks whether it is time to search for calls that a release before had put aside."""

OFF: Final = "webhooks-off"
FAULT: Final = "fault"

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What follows a try."""

    delays_seconds: tuple[float, ...]

    @property
    def longest_seconds(self) -> float:
        """After which a call is given up, whatever kept it."""
        return sum(self.delays_seconds) * (1 + JITTER) + LONGEST_MARGIN_SECONDS

    def after(self, attempt: int, answer: Answer | None) -> tuple[Verdict, float]:
        """The verdict, and how long until the next try.

        Args:
            attempt: which try it was, from 1.
            answer: None if there was none.
        """
        if answer is not None and HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return Verdict.DELIVERED, 0
        gone = answer is not None and answer.status == HTTPStatus.GONE
        if gone or attempt > len(self.delays_seconds):
            return Verdict.FAILED, 0
        delay = self.delays_seconds[attempt - 1] * (1 + JITTER * random.random())  # noqa: S311 - jitter
        if answer is not None and answer.status in {
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        }:
            delay = max(delay, min(answer.retry_after_seconds or 0, LONGEST_RETRY_AFTER))
        return Verdict.RETRY, delay


def peace_after(answer: Answer) -> float:
    """For how long a receiver is left alone that answered: only if it says that it cannot work."""
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return min(max(answer.retry_after_seconds or 0, PEACE_SECONDS), LONGEST_RETRY_AFTER)
    return 0


class Couriers:
    """Sends what is due until it is closed.

    Args:
        store: the calls.
        sender: sends one.
        signer: None if this process has no key; then it only gives up what nobody sends.
        plan: when to try again.
        holder: which process this is; a fenced one gets nothing.
        threads: calls sent at once.
        told: called with the verdict on each try.
    """

    def __init__(
        self,
        store: WebhookStore,
        sender: WebhookSender,
        signer: Signer | None,
        plan: RetryPlan,
        *,
        holder: str,
        threads: int,
        told: Callable[[Verdict, float], None] = lambda _verdict, _seconds: None,
    ) -> None:
        self._store = store
        self._sender = sender
        self._signer = signer
        self._plan = plan
        self._holder = holder
        self._told = told
        self._terms = LeaseTerms(
            lease_seconds=sender.timeout_seconds + LEASE_MARGIN_SECONDS,
            at_once_per_user=max(1, threads // 2),
            longest_seconds=plan.longest_seconds,
            overdue_seconds=0 if signer else OVERDUE_SECONDS,
        )
        self._adopt_at = time.monotonic()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"courier-{number}", daemon=True)
            for number in range(threads if signer else 1)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End after the tries that are under way, and one more of each thread."""
        self._closing.set()
        until = time.monotonic() + self._terms.lease_seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        reachable = True
        while not self._closing.is_set():
            try:
                self._adopt()
                if not self.send_one():
                    self._wait()
                reachable = True
            except QueueUnavailableError as error:
                if reachable:
                    log.warning("webhooks cannot be read from the queue", error=str(error))
                reachable = False
                self._closing.wait(POLL_SECONDS)
            except Exception:
                log.exception("a courier met a fault and goes on")
                self._closing.wait(POLL_SECONDS)
        if reachable:
            self._look_once_more()

    def _look_once_more(self) -> None:
        """The process' last job may have ended since the last look, and there may be no other worker."""
        try:
            self.send_one()
        except QueueUnavailableError as error:
            log.warning("webhooks cannot be read from the queue", error=str(error))
        except Exception:
            log.exception("a courier met a fault and ends")

    def _adopt(self) -> None:
        if time.monotonic() < self._adopt_at:
            return
        self._adopt_at = time.monotonic() + ADOPT_POLL_SECONDS
        if adopted := self._store.adopt():
            log.info("webhooks of a release before are taken over", webhooks=adopted)

    def _wait(self) -> None:
        if self._signer is None:
            self._closing.wait(60 * POLL_SECONDS)
        else:
            self._store.wait(POLL_SECONDS)

    def send_one(self) -> bool:
        """Send what is due first; False if nothing is. Raises `QueueUnavailableError`."""
        call = self._store.lease(self._terms, holder=self._holder)
        if call is None:
            return False
        with logs.context(job_id=call.job_id):
            self._try(call)
        return True

    def _try(self, call: Call) -> None:
        started = time.monotonic()
        tried = self._tried(call, self._signer) if self._signer else Tried(Verdict.FAILED, error=OFF)
        seconds = time.monotonic() - started
        self._end(call, tried)
        self._told(tried.verdict, seconds)
        if tried.verdict is Verdict.FAILED:
            log.warning("webhook given up", webhook_id=call.call_id, origin=call.origin, attempt=call.attempt)
        log.info(
            "webhook tried",
            webhook_id=call.call_id,
            verdict=tried.verdict.value,
            origin=call.origin,
            attempt=call.attempt,
            status=tried.status,
            code=tried.error or None,
            delay_seconds=round(tried.delay_seconds, 1),
            seconds=round(seconds, 3),
        )

    def _tried(self, call: Call, signer: Signer) -> Tried:
        try:
            headers = signer.headers(call.call_id, int(time.time()), call.body)
            answer = self._sender.send(call.url, headers, call.body)
        except SendError as error:
            log.info("a webhook was not answered", origin=call.origin, code=error.code, error=str(error))
            verdict, delay = self._plan.after(call.attempt, None)
            return Tried(verdict, None, error.code, delay, PEACE_SECONDS if error.peace else 0)
        except Exception:
            # It counts: what one call meets each time must not keep a turn of its user for ever.
            log.exception("a try to send a webhook met a fault", origin=call.origin)
            verdict, delay = self._plan.after(call.attempt, None)
            return Tried(verdict, None, FAULT, delay)
        verdict, delay = self._plan.after(call.attempt, answer)
        return Tried(verdict, answer.status, "", delay, peace_after(answer))

    def _end(self, call: Call, tried: Tried) -> None:
        """Tell Redis, for `TELL_SECONDS`; then the lease runs out. Raises `QueueUnavailableError`."""
        until = time.monotonic() + TELL_SECONDS
        while True:
            try:
                self._store.end(call, tried)
            except QueueUnavailableError:
                if time.monotonic() >= until:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return
