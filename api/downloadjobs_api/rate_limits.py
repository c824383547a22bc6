"""Rate limits as clients see them: headers of every answer, and 429.

The three `RateLimit-*` headers are those of the draft's first versions, which most clients read;
`RateLimit` and `RateLimit-Policy` are structured fields of the current one:
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/.
"""

from __future__ import annotations

import math
from typing import Final

from downloadjobs_api.metrics import ApiMetrics
from downloadjobs_api.problems import RATE_LIMITED, ProblemError
from downloadjobs_core.rate_counts import RateCounts, Ticket

POLICY: Final = "default"
"""The policy's name in the structured fields."""


class RateLimits:
    """How many requests a client may make in a window.

    Args:
        counts: the counts of all processes.
        window_ms: the window.
        most: requests in it.
        metrics: told of what is refused, and of what could not be counted.
    """

    def __init__(self, counts: RateCounts, *, window_ms: int, most: int, metrics: ApiMetrics) -> None:
        self._counts = counts
        self._most = most
        self._seconds = math.ceil(window_ms / 1000)
        self._metrics = metrics
        policy = f'ratelimit-limit: {most}\r\nratelimit-policy: "{POLICY}";q={most};w={self._seconds}\r\n'
        self._uncounted = policy.encode()
        self._head = (
            self._uncounted + b'ratelimit-remaining: %d\r\nratelimit-reset: %d\r\nratelimit: "'
            + POLICY.encode() + b'";r=%d;t=%d\r\n'
        )  # fmt: skip

    def take(self, name: str) -> Ticket | None:
        """Count a request under its client's name."""
        return self._counts.take(name)

    def judge(self, ticket: Ticket | None) -> tuple[bytes, ProblemError | None]:
        """What a counted request is answered with: lines of the head, and perhaps a refusal."""
        uses = ticket.round.uses if ticket is not None else None
        if ticket is None or uses is None:
            self._metrics.rate_unchecked()
            return self._uncounted, None
        used, resets_ms = uses[ticket.name]
        seconds = -(-resets_ms // 1000)
        left = self._most - used + ticket.round.numbers[ticket.name] - ticket.place
        if left >= 0:
            return self._head % (left, seconds, left, seconds), None
        self._metrics.rate_limited()
        wait = max(1, seconds)
        return self._head % (0, seconds, 0, seconds), ProblemError(
            RATE_LIMITED,
            f"You may make {self._most} requests in {self._seconds} seconds. Go on in {wait} seconds.",
            headers={"Retry-After": str(wait)},
        )
