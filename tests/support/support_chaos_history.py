"""What became of each job, by the stream of events and by looking at its record again and again."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from downloadjobs_core.job import job_key
from downloadjobs_core.leases import translated_errors
from downloadjobs_core.scripts import ROOT

if TYPE_CHECKING:
    from redis import Redis

ENDS: Final = frozenset({"finished", "cancelled", "dead"})
"""Kinds of events after which nothing more happens to a job here: no result expires in such a short time."""

READ_AT_ONCE: Final = 1_000


@dataclass(slots=True)
class Life:
    """One job as it was seen."""

    ended_as: list[str] = field(default_factory=list)
    after_the_end: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    """The different results its record pointed to since its end: one at most, and never another."""


@dataclass(slots=True)
class History:
    """Follows the events. Call `look` often; it raises `QueueUnavailableError` and then goes on later."""

    redis: Redis
    lives: dict[str, Life] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    """How many events of each kind there were."""
    changed_at: float = field(default_factory=time.monotonic)
    """When an event was seen last, by the monotonic clock."""
    _last: str = "0-0"

    def look(self) -> None:
        """Read what is new."""
        while events := self._read():
            self.changed_at = time.monotonic()
            for stamp, event in events:
                self._take(event["job"], event["kind"])
                self._last = stamp
        self._look_at_results()

    def ended(self) -> set[str]:
        """The jobs that ended."""
        return {job_id for job_id, life in self.lives.items() if life.ended_as}

    def published_twice(self) -> list[str]:
        """What was seen of a second publication, a sentence each."""
        found = []
        for job_id, life in self.lives.items():
            if life.ended_as.count("finished") > 1:
                found.append(f"{job_id} finished {life.ended_as.count('finished')} times.")
            if len(life.results) > 1:
                found.append(f"{job_id} pointed to {' and then '.join(life.results)}.")
        return found

    def contradictions(self) -> list[str]:
        """What happened to a job after its end, a sentence each."""
        return [
            f"{job_id} was {life.ended_as[0]}, and then {', '.join(life.after_the_end)}."
            for job_id, life in self.lives.items()
            if life.after_the_end
        ]

    def _read(self) -> list[tuple[str, dict[str, str]]]:
        with translated_errors():
            events = self.redis.xrange(f"{ROOT}:events", f"({self._last}", count=READ_AT_ONCE)
        return cast("list[tuple[str, dict[str, str]]]", events)

    def _take(self, job_id: str, kind: str) -> None:
        self.kinds[kind] += 1
        life = self.lives.setdefault(job_id, Life())
        if life.ended_as:
            life.after_the_end.append(kind)
        if kind in ENDS:
            life.ended_as.append(kind)

    def _look_at_results(self) -> None:
        ended = [job_id for job_id, life in self.lives.items() if life.ended_as]
        pipeline = self.redis.pipeline(transaction=False)
        for job_id in ended:
            pipeline.hget(job_key(job_id), "result_key")
        with translated_errors():
            keys = cast("list[str | None]", pipeline.execute())
        for job_id, key in zip(ended, keys, strict=True):
            results = self.lives[job_id].results
            if key and (not results or results[-1] != key):
                results.append(key)
