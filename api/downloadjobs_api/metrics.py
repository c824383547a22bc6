"""The API's metrics. `docs/metrics.md` says what each means."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPMethod
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from downloadjobs_core.errors import (
    KeyReusedError,
    PriorityTooHighError,
    QueueUnavailableError,
    TooManyQueuedError,
)
from downloadjobs_core.metrics import PREFIX, REQUEST_BUCKETS

REST: Final = "rest"
"""The source of jobs that come by this API; those of DownloadJobs are the operator's to count."""

NO_ROUTE: Final = "none"
"""The route of a request whose path is none of ours."""

OTHER_METHOD: Final = "other"
"""A method that HTTP does not know; clients may send any."""

_METHODS: Final = frozenset(HTTPMethod)


class Follower(StrEnum):
    """How somebody follows jobs."""

    JOB_STREAM = "job_stream"
    USER_STREAM = "user_stream"
    WAIT = "wait"


ACCEPTED: Final = "accepted"
FAULT: Final = "error"

_REFUSED: Final[Mapping[type[Exception], str]] = {
    TooManyQueuedError: "too_many_queued",
    PriorityTooHighError: "priority_too_high",
    QueueUnavailableError: "queue_unavailable",
    KeyReusedError: "key_reused",
}

REPEATED: Final = "repeated"

SUBMISSIONS: Final = (ACCEPTED, REPEATED, *_REFUSED.values(), FAULT)

PRESIGNED: Final = "ok"


class _Times:
    """How long requests of one kind took, since the histogram was last told."""

    __slots__ = ("buckets", "seconds")

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * buckets
        self.seconds = 0.0


class ApiMetrics:
    """What one worker process of the API counts.

    Requests are counted in plain lists, and `flush` adds them to the histogram, whose values lie in a
    file that all worker processes share: writing there at each request costs some 3 µs, a list 0.5.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = _Bulk(
            f"{PREFIX}http_request_duration_seconds",
            "What a request took from its head to the answer's, in seconds.",
            ("method", "route", "status_class"),
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._submitted = Counter(
            f"{PREFIX}jobs_submitted_total",
            "Jobs that were asked for, by where and what became of that.",
            ("source", "result"),
            registry=registry,
        )
        self._presigned = Counter(
            f"{PREFIX}presigned_urls_total",
            "Presigned URLs of results and files that were made, or could not be.",
            ("result",),
            registry=registry,
        )
        self._followers = Gauge(
            f"{PREFIX}live_requests",
            "Requests that are held open now: streams of one job or of a user, and long polls.",
            ("kind",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._caught_up = Counter(
            f"{PREFIX}live_falls_behind_total",
            "Times that a stream or long poll missed events, and read the record instead.",
            ("kind",),
            registry=registry,
        )
        for kind in Follower:
            self._followers.labels(kind).set(0)
            self._caught_up.labels(kind)
        self._limited = Counter(
            f"{PREFIX}rate_limited_requests_total",
            "Requests that were refused because their client made too many.",
            registry=registry,
        )
        self._unchecked = Counter(
            f"{PREFIX}rate_unchecked_requests_total",
            "Requests that were let through uncounted, because Redis could not count them.",
            registry=registry,
        )
        for result in SUBMISSIONS:
            self._submitted.labels(REST, result)
        self._made = self._presigned.labels(PRESIGNED)
        self._not_made = self._presigned.labels(FAULT)
        self._repeated = self._submitted.labels(REST, REPEATED)
        self._accepted = self._submitted.labels(REST, ACCEPTED)
        self._times: dict[tuple[str, str | None, int], _Times] = {}

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            method: as the client sent it.
            route: the template of its path, or None where there is none.
            status: of the answer.
            seconds: how long it took.
        """
        times = self._times.get((method, route, status // 100))
        if times is None:
            times = self._new_times(method, route, status // 100)
        times.buckets[bisect_left(REQUEST_BUCKETS, seconds)] += 1
        times.seconds += seconds

    def _new_times(self, method: str, route: str | None, status_class: int) -> _Times:
        key = (method if method in _METHODS else OTHER_METHOD, route, status_class)
        return self._times.setdefault(key, _Times(len(REQUEST_BUCKETS) + 1))

    def flush(self) -> None:
        """Let others see what was counted. Called by the one thread that counts, about every second."""
        waiting, self._times = self._times, {}
        for (method, route, status_class), times in waiting.items():
            self._requests.labels(method, route or NO_ROUTE, f"{status_class}xx").add(times)

    def repeated(self) -> None:
        """A request came again, by its Idempotency-Key, and made no further job."""
        self._repeated.inc()

    def following(self, kind: Follower, count: int) -> None:
        """So many requests of a kind are held open now."""
        self._followers.labels(kind).set(count)

    def fell_behind(self, kind: Follower) -> None:
        """One of them missed events."""
        self._caught_up.labels(kind).inc()

    def submitted(self, error: Exception | None = None) -> None:
        """A job was accepted, or refused for this."""
        if error is None:
            self._accepted.inc()
            return
        result = next((name for kind, name in _REFUSED.items() if isinstance(error, kind)), FAULT)
        self._submitted.labels(REST, result).inc()

    def rate_limited(self) -> None:
        """A request was one too many of its client."""
        self._limited.inc()

    def rate_unchecked(self) -> None:
        """A request could not be counted, and was let through."""
        self._unchecked.inc()

    def presigned(self, *, made: bool) -> None:
        """A URL was made, or could not be."""
        (self._made if made else self._not_made).inc()


class _Bulk(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, times: _Times) -> None:
        """Add what was counted since the last time."""
        self._sum.inc(times.seconds)
        for bucket, count in zip(self._buckets, times.buckets, strict=True):
            if count:
                bucket.inc(count)
