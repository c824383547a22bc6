"""What the operator's tests share: objects, a cluster in memory, arbitrary records, and the schema's word."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import yaml
from hypothesis import strategies as st

from downloadjobs_core.job import Job
from downloadjobs_core.states import FINISHED, JobState
from downloadjobs_operator.clocks import ServerClock
from downloadjobs_operator.downloadjob import API_VERSION, KIND, DownloadJob, moment_of
from downloadjobs_operator.kube_client import AlreadyExistsError, ConflictError, InvalidError, ObjectGoneError

CRD: Final = Path(__file__).parents[2] / "charts" / "downloadjobs" / "files" / "crd.yaml"

NOW: Final = 1_800_000_000.0
"""A moment in 2027: tests of pure functions have no other clock."""

SECOND: Final = 1_000_000

_PYTHON_TYPES: Final[Mapping[str, type]] = {"object": Mapping, "array": list, "string": str, "integer": int}


def body(
    name: str = "one",
    *,
    namespace: str = "team",
    uid: str = "",
    spec: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    status: Mapping[str, Any] | None = None,
    **metadata: object,
) -> dict[str, Any]:
    """A DownloadJob as the API server gives it."""
    found: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-of-{name}",
            "generation": 1,
            "resourceVersion": "1",
            "annotations": dict(annotations or {}),
            **metadata,
        },
        "spec": {"fileIds": [10_000, 10_001], **(spec or {})},
    }
    if status is not None:
        found["status"] = dict(status)
    return found


def dj(name: str = "one", **given: Any) -> DownloadJob:  # noqa: ANN401 - whatever `body` takes
    """A DownloadJob as the operator reads it."""
    return DownloadJob.from_body(body(name, **given))


class InMemoryDownloadJobs:
    """`DownloadJobs` without a cluster.

    Attributes:
        objects: by namespace and name, whole.
        events: the Events, by their names.
        patches: the objects' names and the statuses that were merged into them.
        faults: by method name, what it raises instead of doing its work.
        busy_seconds: how long each request takes.
    """

    def __init__(self, *objects: Mapping[str, Any]) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.events: dict[str, Mapping[str, Any]] = {}
        self.patches: list[tuple[str, Mapping[str, Any]]] = []
        self.deleted: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.busy_seconds = 0.0
        self.clock = ServerClock("kubernetes")
        self._version = 100
        for one in objects:
            self.put(one)

    def put(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Have an object, as somebody applied it."""
        metadata = given["metadata"]
        stored = self.objects[metadata["namespace"], metadata["name"]] = deepcopy(dict(given))
        return stored

    def status(self, name: str = "one", namespace: str = "team") -> dict[str, Any]:
        """An object's status, as everybody sees it."""
        return cast("dict[str, Any]", self.objects[namespace, name].get("status", {}))

    async def get(self, namespace: str, name: str) -> dict[str, Any]:
        await self._request("get")
        found = self.objects.get((namespace, name))
        if found is None:
            raise ObjectGoneError(name)
        return deepcopy(found)

    async def patch_status(self, dj: DownloadJob, status: Mapping[str, Any]) -> str:
        self.patches.append((dj.name, status))
        await self._request("patch_status")
        found = self._same(dj)
        found["status"] = deepcopy(dict(status))
        return self._changed(found)

    async def remove_annotation(self, dj: DownloadJob, name: str, value: str) -> None:
        await self._request("remove_annotation")
        found = self._same(dj)
        if found["metadata"]["annotations"].get(name) == value:
            del found["metadata"]["annotations"][name]
            self._changed(found)

    async def add_finalizer(self, dj: DownloadJob, name: str) -> dict[str, Any]:
        await self._request("add_finalizer")
        found = self._as_seen(dj)
        if found["metadata"].get("deletionTimestamp"):
            raise InvalidError("no new finalizers can be added if the object is being deleted")
        found["metadata"]["finalizers"] = [*dj.finalizers, name]
        self._changed(found)
        return deepcopy(found)

    async def remove_finalizer(self, dj: DownloadJob, name: str) -> None:
        await self._request("remove_finalizer")
        found = self._as_seen(dj)
        found["metadata"]["finalizers"].remove(name)
        self._changed(found)

    async def uids(self, namespace: str) -> set[str]:
        await self._request("uids")
        return {one["metadata"]["uid"] for (where, _), one in self.objects.items() if where == namespace}

    async def create(self, body: Mapping[str, Any]) -> str:
        await self._request("create")
        metadata = body["metadata"]
        if (metadata["namespace"], metadata["name"]) in self.objects:
            raise AlreadyExistsError(metadata["name"])
        stored = self.put(body)
        stored["metadata"] |= {"uid": f"uid-{self._version}", "generation": 1}
        self._changed(stored)
        return str(stored["metadata"]["uid"])

    async def delete(self, dj: DownloadJob) -> None:
        await self._request("delete")
        found = self._same(dj)
        if found["metadata"]["resourceVersion"] != dj.version:
            raise ConflictError(dj.name)
        self.deleted.append(dj.name)
        found["metadata"]["deletionTimestamp"] = moment_of(time.time())
        self._changed(found)

    async def announce(self, event: Mapping[str, Any]) -> None:
        await self._request("announce")
        self.events.setdefault(event["metadata"]["name"], event)

    def _same(self, dj: DownloadJob) -> dict[str, Any]:
        found = self.objects.get((dj.namespace, dj.name))
        if found is None or found["metadata"]["uid"] != dj.uid:
            raise ObjectGoneError(dj.name)
        return found

    def _as_seen(self, dj: DownloadJob) -> dict[str, Any]:
        found = self._same(dj)
        if tuple(found["metadata"].get("finalizers", ())) != dj.finalizers:
            raise InvalidError("testing value /metadata/finalizers failed")
        return found

    def _changed(self, stored: dict[str, Any]) -> str:
        self._version += 1
        stored["metadata"]["resourceVersion"] = str(self._version)
        return str(self._version)

    async def _request(self, method: str) -> None:
        await asyncio.sleep(self.busy_seconds)
        fault = self.faults.get(method)
        if fault is not None:
            raise fault


def at_work(
    *services: Callable[[], Awaitable[None]],
) -> AbstractAsyncContextManager[list[asyncio.Task[None]]]:
    """Services' `run`, each as a task, cancelled at the end."""

    @asynccontextmanager
    async def running() -> Any:  # noqa: ANN401 - an async iterator, as the decorator wants it
        tasks = [asyncio.ensure_future(run()) for run in services]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            # One whose cancellation was swallowed is cancelled again with the event loop.
            if tasks:
                await asyncio.wait(tasks, timeout=2)

    return running()


async def until(so: Callable[[], bool], *, seconds: float = 5.0) -> bool:
    """Whether something comes to be so in time, while the other tasks go on."""
    end = time.monotonic() + seconds
    while not so() and time.monotonic() < end:  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.01)
    return so()


@cache
def _schema_of_status() -> Mapping[str, Any]:
    (version,) = yaml.safe_load(CRD.read_text(encoding="utf-8"))["spec"]["versions"]
    return cast("Mapping[str, Any]", version["schema"]["openAPIV3Schema"]["properties"]["status"])


def faults_of(status: Mapping[str, Any]) -> list[str]:
    """What the CustomResourceDefinition has against a status; empty if the API server would take it."""
    faults = list(_faults(status, _schema_of_status(), "status"))
    types = [one["type"] for one in status.get("conditions", [])]
    if len(types) != len(set(types)):
        faults.append(f"status.conditions: a type stands twice in {types}")
    return faults


def _faults(value: object, schema: Mapping[str, Any], path: str) -> Iterable[str]:
    kind = schema["type"]
    if not isinstance(value, _PYTHON_TYPES[kind]) or isinstance(value, bool):
        yield f"{path}: {value!r} is not of type {kind}"
    elif isinstance(value, Mapping):
        yield from (f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, one in value.items():
            if name in schema["properties"]:
                yield from _faults(one, schema["properties"][name], f"{path}.{name}")
            else:
                yield f"{path}.{name} is unknown, and would be dropped"
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{path}: {len(value)} items"
        for number, one in enumerate(value):
            yield from _faults(one, schema["items"], f"{path}[{number}]")
    elif isinstance(value, str):
        yield from _faults_of_text(value, schema, path)
    elif isinstance(value, int) and not schema.get("minimum", -(2**63)) <= value < 2**63:
        yield f"{path}: {value} is out of its bounds"


def _faults_of_text(value: str, schema: Mapping[str, Any], path: str) -> Iterable[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"].removesuffix("$") + r"\Z", value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if schema.get("format") == "date-time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value):
        yield f"{path}: {value!r} is no RFC 3339 time"


ERROR_CODES: Final = (
    "",
    "deadline-exceeded",
    "no-file-found",
    "storage-unavailable",
    "cancelled",
    "dead-letter",
)

_TIMES = st.integers(int((NOW - 10_000) * SECOND), int(NOW * SECOND))


@st.composite
def jobs(draw: st.DrawFn, states: Iterable[JobState] = tuple(JobState)) -> Job:
    """Arbitrary records of jobs, as the queue's scripts may have written them."""
    total = draw(st.integers(1, 1_000))
    done = draw(st.integers(0, total))
    state = draw(st.sampled_from(sorted(states)))
    bytes_total = draw(st.integers(0, 10**9))
    return Job(
        job_id=draw(st.sampled_from(["uid-of-one", "another"])),
        user="k8s:team",
        state=state,
        suspended=draw(st.booleans()),
        total_file_ids=total,
        files_total=total,
        files_done=done,
        files_failed=draw(st.integers(0, done)),
        # Not so few that the guessed end is past the last year there is: that has a test of its own.
        bytes_done=draw(st.integers(bytes_total // 1_000, bytes_total)),
        bytes_total=bytes_total,
        attempt=draw(st.integers(0, 5)),
        max_attempts=draw(st.integers(1, 20)),
        worker=draw(st.sampled_from(["", "worker-7", "w" * 2_000])),
        created_us=draw(_TIMES),
        leased_us=draw(_TIMES | st.just(0)),
        updated_us=draw(_TIMES),
        finished_us=draw(_TIMES) if state in FINISHED else 0,
        due_us=draw(_TIMES | st.just(0)),
        expires_us=draw(_TIMES | st.just(0)),
        result_key=draw(st.sampled_from(["", "results/one/1.zip"])),
        result_bytes=draw(st.integers(0, 10**12)),
        error_code=draw(st.sampled_from(ERROR_CODES)),
        error_message=draw(st.text(max_size=40) | st.just("m" * 40_000)),
    )


JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
"""Whatever a JSON document may hold."""
