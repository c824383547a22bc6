"""The ring of decisions, and the document that `GET /autoscaler` answers."""

from __future__ import annotations

import json
from dataclasses import replace

from downloadjobs_operator.autoscaler.decision import Decision, Limits, Memory, Mode, Pod, Snapshot, decide
from downloadjobs_operator.autoscaler.history import KEPT, History, Outcome, expected

NOW = 1_795_510_321.25


def decided(limits: Limits | None = None, **seen: object) -> Decision:
    """A decision on what was seen."""
    snapshot = replace(Snapshot(now=NOW), **seen)  # type: ignore[arg-type]
    return decide(snapshot, limits or Limits(), Memory(last=0))[0]


def test_it_keeps_the_last_hundred() -> None:
    """The newest is first, and the oldest goes."""
    history = History()
    for number in range(KEPT + 5):
        assert history.add(decided(queued=1, now=NOW + number))
    items = history.document()["items"]
    assert len(items) == KEPT
    assert (items[0]["at"], items[-1]["at"]) == ("2026-11-24T08:53:45.250Z", "2026-11-24T08:52:06.250Z")
    assert len(history.document(3)["items"]) == 3


def test_what_repeats_is_one() -> None:
    """A quiet night is one entry, which says how often and until when; any difference begins another."""
    history = History()
    for number in range(50):
        history.add(decided(now=NOW + number))
    assert not history.add(decided(now=NOW + 60))
    assert history.add(decided(limits=Limits(max=3), now=NOW + 61))
    assert history.add(decided(queued=3, now=NOW + 62), Outcome.FAILED, error="The API server is away.")
    assert not history.add(decided(queued=3, now=NOW + 63), Outcome.FAILED, error="The API server is away.")
    failed, other, quiet = history.document()["items"]
    assert (quiet["times"], quiet["at"], quiet["until"]) == (
        51, "2026-11-24T08:52:01.250Z", "2026-11-24T08:53:01.250Z",
    )  # fmt: skip
    assert (other["limits"]["max"], other["times"]) == (3, 1)
    assert (failed["outcome"], failed["error"], failed["times"]) == ("Failed", "The API server is away.", 2)


def test_what_repeats_has_the_newest_numbers() -> None:
    """Of a series, the begin is the first one's, and what was seen and said the last one's."""
    history = History()
    history.add(decided(queued=1, replicas=1))
    history.add(decided(queued=2, replicas=1, now=NOW + 9))
    (item,) = history.document()["items"]
    assert (item["at"], item["until"]) == ("2026-11-24T08:52:01.250Z", "2026-11-24T08:52:10.250Z")
    assert item["inputs"]["queued"] == 2
    assert "2 waiting" in item["message"]


def test_two_changes_are_two() -> None:
    """A change that is made twice was undone by somebody: both are told."""
    history = History()
    assert history.add(decided(queued=1))
    assert history.add(decided(queued=1, now=NOW + 5), latency_seconds=0.0421)
    assert [item["latencySeconds"] for item in history.document()["items"]] == [0.042, None]


def test_the_outcome_is_what_follows_by_default() -> None:
    """Nothing to change, scaled, or only recommended."""
    assert expected(decided()) is Outcome.UNCHANGED
    assert expected(decided(queued=1)) is Outcome.SCALED
    assert expected(decided(Limits(mode=Mode.RECOMMEND), queued=1)) is Outcome.RECOMMENDED


def test_the_document_has_inputs_formula_and_clamps() -> None:
    """Everything that led to the number is in it, under JSON's names; victims are told by their names."""
    history = History()
    pods = (
        Pod("u1", "worker-a", ready=True, terminating=False, leases=2, created_at=NOW - 50),
        Pod("u2", "worker-b", ready=False, terminating=False, leases=0, created_at=NOW - 50),
        Pod("u3", "worker-c", ready=True, terminating=True, leases=1, created_at=NOW - 50),
    )
    history.add(decided(running=2, pods=pods, replicas=2, next_due_at=NOW + 60))
    document = json.loads(json.dumps(history.document()))
    assert document["nextCursor"] is None
    (item,) = document["items"]
    assert item["victims"] == ["worker-b"]
    assert item["inputs"]["pods"] == {"ready": 1, "notReady": 1, "terminating": 1, "busy": 1}
    assert (item["inputs"]["nextDueAt"], item["wakeAt"]) == (
        "2026-11-24T08:53:01.250Z",
        "2026-11-24T08:52:56.250Z",
    )
    assert item["formula"] == {
        "dueSoon": 0, "waiting": 0, "backlogSeconds": 0.0, "neededSlots": 0, "slots": 2, "highest": 1,
        "busyPods": 1, "idlePods": 1,
    }  # fmt: skip
    assert item["limits"]["targetWaitSeconds"] == 60
