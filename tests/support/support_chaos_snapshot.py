"""Whether the sets of the queue and the records of its jobs agree, all read at one moment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from downloadjobs_core.job import job_key
from downloadjobs_core.leases import translated_errors
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.sharing import FOLDER
from downloadjobs_core.states import FINISHED, JobState, Priority

if TYPE_CHECKING:
    from redis import Redis

STAMP: Final = 17
"""Characters before the id in an entry of a ready or parked set: the time of submission, and a colon."""

Record = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The queue at one moment.

    Attributes:
        records: the hash of each job that there is.
        places: the ids in each set, under the name that the field `place` has for it.
        waiting: the ids in `waiting`.
        waiting_by_user: as counted in Redis; the same for `running_by_user`.
    """

    records: Mapping[str, Record]
    places: Mapping[str, Sequence[str]]
    waiting: Sequence[str]
    waiting_by_user: Mapping[str, int]
    running_by_user: Mapping[str, int]
    dead: Sequence[str] = ()
    parked_by_time: Sequence[str] = ()
    """The ids in `parked`, beside those in the sets of the users."""
    sharers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The jobs that are known to point to a shared result, by its key."""
    shared: Sequence[str] = ()
    """The keys of shared results that are kept."""


def take_snapshot(redis: Redis, job_ids: Iterable[str], users: Iterable[str]) -> Snapshot:
    """Read everything in one transaction, so that no change is seen by halves."""
    ids = list(job_ids)
    people = list(users)
    parked = [f"parked:{priority}:{user}" for priority in Priority for user in people]
    sets = [*(f"ready:{priority}" for priority in Priority), *parked]
    sets += ["parked", "delayed", "joined", "suspended", "leased", "dead", "waiting", "shared"]
    with translated_errors():
        keys = cast("list[str]", redis.keys(f"{ROOT}:sharers:*"))
    sets += [key.removeprefix(f"{ROOT}:") for key in keys]
    pipeline = redis.pipeline(transaction=True)
    for name in sets:
        pipeline.zrange(f"{ROOT}:{name}", 0, -1)
    for name in ("waiting_by_user", "running_by_user"):
        pipeline.hgetall(f"{ROOT}:{name}")
    for job_id in ids:
        pipeline.hgetall(job_key(job_id))
    with translated_errors():
        answers = pipeline.execute()
    found = cast("dict[str, list[str]]", dict(zip(sets, answers, strict=False)))
    counts = cast("list[dict[str, str]]", answers[len(sets) : len(sets) + 2])
    records = cast("list[dict[str, str]]", answers[len(sets) + 2 :])
    places = {name: found[name] for name in ("joined", "suspended", "leased")}
    # Who waits for another's result stands among the delayed, too, as a net.
    places["delayed"] = [job_id for job_id in found["delayed"] if job_id not in found["joined"]]
    places["ready"] = [entry[STAMP:] for priority in Priority for entry in found[f"ready:{priority}"]]
    places["parked"] = [entry[STAMP:] for name in parked for entry in found[name]]
    waiting_by_user, running_by_user = (
        {user: int(number) for user, number in count.items()} for count in counts
    )
    return Snapshot(
        records={job_id: record for job_id, record in zip(ids, records, strict=True) if record},
        places=places,
        waiting=found["waiting"],
        waiting_by_user=waiting_by_user,
        running_by_user=running_by_user,
        dead=found["dead"],
        parked_by_time=found["parked"],
        sharers={
            name.removeprefix("sharers:"): ids for name, ids in found.items() if name.startswith("sharers:")
        },
        shared=found["shared"],
    )


def contradictions(snapshot: Snapshot) -> list[str]:
    """What in a snapshot breaks the queue's invariants, a sentence each."""
    return [
        *_of_places(snapshot),
        *_of_holders(snapshot),
        *_of_counts(snapshot),
        *_of_sharers(snapshot),
    ]


def _of_places(snapshot: Snapshot) -> list[str]:
    """Each unfinished job is in exactly one set, the one its record names; a finished one in none."""
    found = []
    where: dict[str, list[str]] = defaultdict(list)
    for place, ids in snapshot.places.items():
        for job_id in ids:
            where[job_id].append(place)
    for job_id, record in snapshot.records.items():
        state, place = JobState(record["state"]), record.get("place", "")
        expected = [] if state in FINISHED else [place]
        if where[job_id] != expected:
            found.append(f"{job_id} is {state} at {place or 'no place'}, but in the sets {where[job_id]}.")
        if (place == "leased") != (state is JobState.PROCESSING):
            found.append(f"{job_id} is {state}, and its place is {place or 'none'}.")
        if (job_id in snapshot.dead) != (record.get("error_code") == "dead-letter"):
            found.append(
                f"{job_id} is {state} ({record.get('error_code')}), against the set of dead letters."
            )
    if sorted(snapshot.parked_by_time) != sorted(snapshot.places["parked"]):
        found.append("The set of parked jobs is not those parked by user.")
    return found


def _of_holders(snapshot: Snapshot) -> list[str]:
    """A job has a token while it is processed and else none; no token is given twice."""
    found = [
        f"{job_id} is {record['state']} with the token {record.get('token') or 'none'}."
        for job_id, record in snapshot.records.items()
        if bool(record.get("token")) != (record["state"] == JobState.PROCESSING)
    ]
    tokens = Counter(record["token"] for record in snapshot.records.values() if record.get("token"))
    return found + [
        f"The token {token} is held {count} times." for token, count in tokens.items() if count > 1
    ]


def _of_counts(snapshot: Snapshot) -> list[str]:
    """The counts by user, and the set of those who wait, are what the records say."""
    records = snapshot.records.items()
    waiting = {i: r["user"] for i, r in records if r["state"] in {JobState.QUEUED, JobState.RETRYING}}
    running = Counter(r["user"] for _, r in records if r["state"] == JobState.PROCESSING)
    found = []
    if set(snapshot.waiting) != set(waiting):
        found.append(f"The set of waiting jobs differs by {set(snapshot.waiting) ^ set(waiting)}.")
    if snapshot.waiting_by_user != Counter(waiting.values()):
        found.append(f"Counted as waiting: {snapshot.waiting_by_user}; are: {Counter(waiting.values())}.")
    if snapshot.running_by_user != running:
        found.append(f"Counted as running: {snapshot.running_by_user}; are: {running}.")
    return found


def _of_sharers(snapshot: Snapshot) -> list[str]:
    """A shared result is kept for exactly those jobs that point to it."""
    pointing: dict[str, list[str]] = defaultdict(list)
    for job_id, record in snapshot.records.items():
        key = record.get("result_key", "")
        if f"/{FOLDER}" in key:
            pointing[key].append(job_id)
    keys = sorted({*pointing, *snapshot.sharers})
    found = [
        f"To {key} point {sorted(pointing[key])}, and known are {sorted(snapshot.sharers.get(key, ()))}."
        for key in keys
        if sorted(pointing[key]) != sorted(snapshot.sharers.get(key, ()))
    ]
    if set(snapshot.shared) != set(snapshot.sharers):
        found.append(f"Kept as shared, or shared: {set(snapshot.shared) ^ set(snapshot.sharers)}.")
    return found
