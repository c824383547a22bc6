"""The DownloadJob that shows a job."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.job import Job
from downloadjobs_core.states import JobState, Priority
from downloadjobs_operator.downloadjob import MIRROR, DownloadJob, file_ids_of
from downloadjobs_operator.mirrors import hashed, mirror_body


def shown(**given_fields: Any) -> dict[str, Any]:  # noqa: ANN401 - a record's fields
    """The mirror of a job."""
    fields: dict[str, Any] = {
        "job_id": "6f9c", "user": "ada", "state": JobState.QUEUED,
        "file_ids": (10_000, 10_001), "max_attempts": 3,
    }  # fmt: skip
    return mirror_body(Job(**(fields | given_fields)), "shown", annotation="a" * 64, linger_seconds=60)


def test_a_mirror_is_named_for_its_job() -> None:
    """Its name is the job's id, its namespace that of mirrors, and it says who made it."""
    metadata = shown()["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("6f9c", "shown")
    assert metadata["annotations"] == {MIRROR: "a" * 64}
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "downloadjobs-operator"


def test_a_mirror_asks_for_what_the_job_does() -> None:
    """Ids, class, attempts and user are the job's; its result outlives the mirror."""
    spec = shown(priority=Priority.LOW)["spec"]
    assert (spec["fileIds"], spec["priority"], spec["userId"]) == ([10_000, 10_001], "low", "ada")
    assert spec["backoffLimit"] == 2
    assert spec["result"] == {"deletionPolicy": "Retain"}
    assert spec["ttlSecondsAfterFinished"] == 60


@pytest.mark.parametrize("suspended", [False, True])
def test_a_mirror_does_not_change_its_job(*, suspended: bool) -> None:
    """A mirror asks to hold a job that is held, and no other: it is shown, not changed."""
    assert shown(suspended=suspended)["spec"]["suspend"] is suspended


@pytest.mark.parametrize("user", ["", "ä", "a b", "a,b", "x" * 129])
def test_a_user_that_the_schema_refuses_is_left_out(user: str) -> None:
    """A user id that no DownloadJob can hold does not keep the job from being shown."""
    assert "userId" not in shown(user=user)["spec"]


@given(st.lists(st.integers(10_000, 100_000_000), min_size=1, max_size=20, unique=True))
def test_a_mirror_can_be_read(ids: list[int]) -> None:
    """What is written is what is read again."""
    body = shown(file_ids=tuple(ids))
    assert file_ids_of(body) == tuple(ids)
    found = DownloadJob.from_body({**body, "metadata": body["metadata"] | {"uid": "u"}})
    assert (found.mirror, found.retain, found.backoff_limit, found.user_id) == ("a" * 64, True, 2, "ada")


def test_the_nonce_is_not_shown() -> None:
    """The object has a hash of the nonce: whoever reads it cannot make what stands in the record."""
    assert hashed("pending:x") != hashed("pending:y")
    assert len(hashed("pending:x")) == 64
