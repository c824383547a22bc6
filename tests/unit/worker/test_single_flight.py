"""Which results are the same, what a shared one holds, and when one is taken, made or waited for."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.errors import ObjectStoreUnavailableError, QueueUnavailableError
from downloadjobs_core.file_faults import DENIED, NOT_FOUND
from downloadjobs_core.job import Job
from downloadjobs_core.leases import LeaseStore, Outcome
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_core.objectstore.protocol import ObjectReader, ObjectStat
from downloadjobs_core.sharing import Answer, Boarding, Shared, Sharing
from downloadjobs_core.states import JobState
from downloadjobs_worker import patience
from downloadjobs_worker.bundling import Bundler, BundlingLimits
from downloadjobs_worker.hold import Hold, Joined
from downloadjobs_worker.planning import PlannedFile, key_of
from downloadjobs_worker.single_flight import SingleFlight, digest_of
from downloadjobs_worker.stages import PLANNING
from support_worker import PREFIX, NoLedger, leased, members, put_files, read_object

SOURCE = ("files", PREFIX)


@dataclass
class Queue:
    """Answers an attempt's questions one by one, and remembers them."""

    answers: list[Boarding | Exception]
    asked: list[tuple[str, str]] = field(default_factory=list)
    told: str = ""
    """What the attempt told of itself last."""

    def board(self, job: Job, digest: str, *, gone: str = "", stages: str = "") -> Boarding:
        """The next answer."""
        assert job.job_id
        self.told = stages
        self.asked.append((digest, gone))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Storage(MemoryObjectStore):
    """A store whose files can change or vanish between the plan and the read, and that can refuse a look."""

    def __init__(self) -> None:
        super().__init__(min_part_bytes=1)
        self.before_open: dict[str, bytes | None] = {}
        self.stats = 0
        self.results_away = False

    def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
        """Read, after the change that was asked for."""
        if key in self.before_open:
            data = self.before_open.pop(key)
            if data is None:
                self.delete(key)
            else:
                self.put(key, data)
        return super().open(key, offset=offset, if_match=if_match)

    def stat(self, key: str) -> ObjectStat:
        """Look an object up."""
        self.stats += 1
        if self.results_away and key.startswith("results/"):
            raise ObjectStoreUnavailableError("away")
        return super().stat(key)


def flights(store: MemoryObjectStore, *answers: Boarding | Exception) -> tuple[SingleFlight, Queue]:
    """The single flight of a worker, over a queue with these answers."""
    queue = Queue(list(answers))
    return SingleFlight(cast("LeaseStore", queue), store, "results/", SOURCE), queue


def bundle(store: MemoryObjectStore, hold: Hold, *answers: Boarding | Exception) -> Outcome:
    """Bundle with these answers of the queue."""
    limits = BundlingLimits(
        64, upload_threads=2, upload_memory_bytes=5 * 64, read_ahead_files=3, read_ahead_bytes=1 << 20
    )
    bundler = Bundler(store, store, limits, PREFIX, "results/")
    return bundler.bundle(hold, lambda: None, NoLedger(), flights(store, *answers)[0])


MAKE = Boarding(Answer.MAKE)


def test_a_result_that_can_be_shared_tells_nothing_of_its_first_job() -> None:
    """Its key, its manifest and its members' times tell neither job, nor user, nor the time of asking."""
    store = Storage()
    put_files(store, {10: 500, 11: 3})
    hold = leased(10, 11, job_id="secret-job")
    outcome = bundle(store, hold, MAKE)
    archive = read_object(store, outcome.result_key)
    manifest = json.loads(members(archive)["manifest.json"])
    assert (manifest["jobId"], manifest["requestedAt"]) == (None, None)
    assert [file["fileId"] for file in manifest["files"]] == [10, 11]
    with zipfile.ZipFile(BytesIO(archive)) as opened:
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert b"secret-job" not in archive
    assert "secret-job" not in outcome.result_key
    assert outcome.result_key.startswith("results/shared/")
    assert outcome.result_key.endswith(f"/{hold.job.token}.zip")


def test_who_asks_for_the_same_would_make_the_same_bytes() -> None:
    """Two jobs of one digest make archives that are equal byte by byte: so either can have the other's."""
    store = Storage()
    put_files(store, {10: 500, 11: 3})
    first = leased(10, 11, 99, job_id="one")
    second = leased(10, 11, 99, job_id="two", token="1700000000000001")
    second.job = replace(second.job, created_us=second.job.created_us + 10**12, user="other")
    a, b = bundle(store, first, MAKE), bundle(store, second, MAKE)
    assert a.result_key != b.result_key
    assert a.shared == b.shared
    assert read_object(store, a.result_key) == read_object(store, b.result_key)


def test_a_result_is_offered_with_its_etag() -> None:
    """Whoever is given it later can tell whether the object is still the one that was made."""
    store = Storage()
    put_files(store, {10: 500})
    outcome = bundle(store, leased(10), MAKE)
    assert outcome.shared is not None
    assert outcome.shared.how is Sharing.OFFERED
    assert outcome.shared.etag == store.stat(outcome.result_key).etag


def test_a_result_with_missing_files_is_shared_too() -> None:
    """The digest says what is missing, so who asks for the same would miss the same."""
    store = Storage()
    put_files(store, {10: 500})
    outcome = bundle(store, leased(10, 99), MAKE)
    assert (outcome.state, outcome.files_failed) == (JobState.COMPLETED_WITH_ERRORS, 1)
    assert outcome.shared is not None
    assert outcome.shared.how is Sharing.OFFERED


@pytest.mark.parametrize("change", [b"other", None], ids=["changed", "vanished"])
def test_a_file_that_changes_after_the_plan_makes_a_result_of_one(change: bytes | None) -> None:
    """The job gets what was read, but the result is not what its digest promises, so nobody else does."""
    store = Storage()
    put_files(store, {10: 500, 11: 5})
    store.before_open[key_of(PREFIX, 10)] = change
    outcome = bundle(store, leased(10, 11), MAKE)
    assert outcome.shared is not None
    assert outcome.shared.how is Sharing.KEPT
    assert read_object(store, outcome.result_key)


def test_a_result_whose_etag_cannot_be_read_is_its_jobs_alone() -> None:
    """It is made and whole: a fault of the look at it fails no attempt."""
    store = Storage()
    put_files(store, {10: 500})
    store.results_away = True
    outcome = bundle(store, leased(10), MAKE)
    assert outcome.shared == Shared(Sharing.KEPT, outcome.result_key.split("/")[2])


def there(store: MemoryObjectStore) -> Boarding:
    """The answer that a result is there, which is."""
    key = "results/shared/d/1.zip"
    store.put(key, b"result")
    found = store.stat(key)
    return Boarding(Answer.THERE, key, found.size, found.etag)


def test_a_result_that_is_there_is_taken() -> None:
    """Nothing is read or written, and the job ends as if it had made the result itself."""
    store = Storage()
    put_files(store, {10: 500, 11: 5})
    hold = leased(10, 11, 99)
    outcome = bundle(store, hold, there(store))
    assert (outcome.state, outcome.result_key, outcome.result_bytes) == (
        JobState.COMPLETED_WITH_ERRORS, "results/shared/d/1.zip", 6,
    )  # fmt: skip
    assert (outcome.files_done, outcome.files_failed) == (3, 1)
    assert outcome.failed == [(99, "not-found")], "which its detail shows, and a retry asks for"
    assert (outcome.bytes_done, outcome.bytes_total) == (505, 505)
    assert outcome.deduplicated
    assert [found.key for found in store.list("results/")] == ["results/shared/d/1.zip"]
    assert hold.progress.bytes_done == 0, "nothing was bundled"


@pytest.mark.parametrize("by_hand", ["other!", "a longer one", None])
def test_a_result_that_is_gone_or_another_is_made_anew(by_hand: str | None) -> None:
    """An object that was removed or overwritten by hand is not given out: the queue is told of it."""
    store = Storage()
    put_files(store, {10: 500})
    found = there(store)
    store.delete(found.key)
    if by_hand:
        store.put(found.key, by_hand.encode())
    flight, queue = flights(store, found, MAKE)
    planned = [PlannedFile(10, key_of(PREFIX, 10), store.stat(key_of(PREFIX, 10)))]
    assert flight.board(leased(10), planned).found is None
    assert [gone for _, gone in queue.asked] == ["", found.key]


def test_an_attempt_waits_for_anothers_result() -> None:
    """It ends by itself, tells of its plan with that, and has made nothing."""
    store = Storage()
    put_files(store, {10: 500})
    with pytest.raises(Joined):
        bundle(store, leased(10), Boarding(Answer.WAIT))
    assert list(store.list("results/")) == []
    hold = leased(10)
    hold.stages.ended(PLANNING, 0, 1)
    flight, queue = flights(store, Boarding(Answer.WAIT))
    with pytest.raises(Joined):
        flight.board(hold, [PlannedFile(10, "key", NOT_FOUND)])
    assert queue.told.startswith("planning 0 ")


def test_a_job_without_any_file_looks_for_nothing() -> None:
    """It fails at once, as it does without sharing."""
    assert bundle(Storage(), leased(98, 99)).error_code == "no-file-found"


def test_redis_may_be_away_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question is asked again until it is answered."""
    monkeypatch.setattr(patience, "QUEUE_PAUSE_SECONDS", 0)
    store = Storage()
    put_files(store, {10: 500})
    assert bundle(store, leased(10), QueueUnavailableError("away"), MAKE).result_key


files = st.builds(
    PlannedFile,
    st.integers(10_000, 10_009),
    st.just("key"),
    st.one_of(
        st.sampled_from([NOT_FOUND, DENIED]),
        st.builds(ObjectStat, st.just("key"), st.integers(0, 3), st.sampled_from(["a", "b", "a-2"])),
    ),
)
asked = st.tuples(
    st.lists(files, min_size=1, max_size=4),
    st.integers(1, 3),
    st.tuples(st.sampled_from(["b", "c"]), st.sampled_from(["p/", "q/"])),
)


@given(asked, asked)
def test_a_digest_stands_for_one_content(
    one: tuple[Sequence[PlannedFile], int, tuple[str, str]],
    other: tuple[Sequence[PlannedFile], int, tuple[str, str]],
) -> None:
    """Two digests are equal if and only if files, order, sizes, ETags, faults, counts and source are."""
    assert (digest_of(*one) == digest_of(*other)) == (one == other)
