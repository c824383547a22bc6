"""Calls to the callback URLs of jobs: what they tell, and their place in the queue.

A call comes into being in the very script that ends its job (`prelude.lua`, `call_back`), and is leased like
a job, but from a set of its own and by threads of their own: a receiver that does not answer takes no slot
that a job could have. It is sent at least once, under one id. docs/webhooks.md is for those who receive it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from downloadjobs_core.job import rfc3339
from downloadjobs_core.leases import SECOND_US, translated_errors
from downloadjobs_core.scripts import ROOT, Scripts

if TYPE_CHECKING:
    from redis import Redis

PARKED: Final = f"{ROOT}:webhooks:parked:"
"""Before a user: where a release that knew no lanes put calls aside."""

ADOPT_SECONDS: Final = 3_600
"""Between two searches for those, which read the names of all keys. Workers of that release may still run."""

ASK_AGAIN: Final = 1
"""What `lease_webhook.lua` says when it moved as many calls as one run may, and more are due."""


class Verdict(StrEnum):
    """What a try came to."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"
    """The call is given up."""


@dataclass(frozen=True, slots=True)
class Tried:
    """How a try ended."""

    verdict: Verdict
    status: int | None = None
    """What the receiver answered."""
    error: str = ""
    """Why there was no answer, as one word."""
    delay_seconds: float = 0
    """Until the next try."""
    peace_seconds: float = 0
    """For how long the receiver's origin is left alone by its user's calls; 0 if it works."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as a try leased it."""

    call_id: str
    """The header `webhook-id`, the same on every try."""
    job_id: str
    url: str = field(repr=False)
    """May hold a secret in path or query: never logged."""
    origin: str
    attempt: int
    """Which try this is, from 1; with the lease it is what proves that it is still the current one."""
    at_us: int
    """When the change of state happened that it tells of."""
    body: bytes
    """The same on every try."""

    @classmethod
    def from_hash(cls, values: Mapping[str, str]) -> Call:
        """Read a hash `webhook:<call>`."""
        return cls(
            values["id"],
            values["job"],
            values["callback_url"],
            values["callback_origin"],
            int(values["attempts"]),
            int(values["at_us"]),
            msgspec.json.encode(payload(values)),
        )


def payload(values: Mapping[str, str]) -> dict[str, Any]:
    """What a call tells, given its hash; whole examples are in docs/webhooks.md. No URL is ever in it."""

    def moment(name: str) -> str | None:
        time_us = int(values.get(name) or 0)
        return rfc3339(time_us) if time_us else None

    code = values.get("error_code")
    trace = values.get("traceparent", "").split("-")
    return {
        "type": f"job.{values['state']}",
        "timestamp": moment("at_us"),
        "data": {
            "jobId": values["job"],
            "state": values["state"],
            "createdAt": moment("created_us"),
            "finishedAt": moment("finished_us"),
            "expiresAt": moment("expires_us"),
            "totalFileIds": int(values.get("total_file_ids") or 0),
            "files": int(values.get("files_total") or 0),
            "failedFiles": int(values.get("files_failed") or 0),
            "resultBytes": int(values.get("result_bytes") or 0) or None,
            "error": {"code": code, "message": values.get("error_message", "")} if code else None,
            "traceId": trace[1] if len(trace) == 4 else None,  # noqa: PLR2004 - version, trace, parent, flags
        },
    }


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How calls are leased. Times are in seconds."""

    lease_seconds: float
    """Longer than a try can take."""
    at_once_per_user: int
    longest_seconds: float
    """After which a call is given up, whatever kept it."""
    overdue_seconds: float = 0
    """Only calls that should have been sent so long ago."""


@dataclass(slots=True)
class WebhookStore:
    """The calls in Redis. Raises `QueueUnavailableError` when it cannot be asked."""

    redis: Redis
    _scripts: Scripts = field(init=False)

    def __post_init__(self) -> None:
        self._scripts = Scripts(self.redis)

    def lease(self, terms: LeaseTerms, *, holder: str) -> Call | None:
        """Lease the call that is due first, or None. A process that is fenced gets none."""
        with translated_errors():
            reply: Any = ASK_AGAIN
            while reply == ASK_AGAIN:
                reply = self._scripts.run(
                    "lease_webhook",
                    int(terms.lease_seconds * SECOND_US),
                    terms.at_once_per_user,
                    int(terms.longest_seconds * SECOND_US),
                    int(terms.overdue_seconds * SECOND_US),
                    holder,
                )
        return None if reply is None else Call.from_hash(dict(zip(reply[::2], reply[1::2], strict=True)))

    def adopt(self, batch: int = 100) -> int:
        """Take over what a release without lanes put aside, if nobody did so within the hour; how much."""
        with translated_errors():
            if not self.redis.set(f"{ROOT}:webhooks:adopted", "1", nx=True, ex=ADOPT_SECONDS):
                return 0
            adopted = 0
            for key in self.redis.scan_iter(f"{PARKED}*", count=1_000):
                left = self.redis.zcard(key)
                adopted += left
                while left:
                    left = self._scripts.run("unpark_webhooks", key.removeprefix(PARKED), batch)
        return adopted

    def wait(self, timeout_seconds: float) -> None:
        """Return when a call may have become due by a job's end, or after the time-out."""
        with translated_errors():
            self.redis.blpop([f"{ROOT}:webhooks:wake"], timeout=timeout_seconds)

    def end(self, call: Call, tried: Tried) -> bool:
        """End a try of a leased call; False if its lease had run out, and then nothing was changed."""
        with translated_errors():
            return bool(
                self._scripts.run(
                    "end_webhook",
                    call.call_id,
                    call.attempt,
                    tried.verdict.value,
                    int(tried.delay_seconds * SECOND_US),
                    "" if tried.status is None else tried.status,
                    tried.error,
                    int(tried.peace_seconds * SECOND_US),
                )
            )
