"""What the API server holds of one kind, kept up to date: a list, then a watch from where it ended.

As client-go's Reflector does it (k8s.io/client-go/tools/cache): a watch that ends in order is
begun again where it stood, after any fault everything is listed anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from downloadjobs_core import logs
from downloadjobs_operator.kube_client import KubernetesClient, KubernetesError

FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 15.0

log = logs.logger(__name__)


class Reflector:
    """The objects of one path.

    Args:
        client: asks the API server.
        path: of the resource in its namespace, such as `/api/v1/namespaces/default/pods`.
        field_selector: takes some of them, such as `metadata.name=one`.
        label_selector: the same by labels.
        changed: called after each change.

    Attributes:
        objects: as they were seen last, by uid.
        synced: whether they were listed at least once.
    """

    def __init__(
        self,
        client: KubernetesClient,
        path: str,
        *,
        field_selector: str = "",
        label_selector: str = "",
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._path = path
        self._fields = field_selector
        self._labels = label_selector
        self._changed = changed
        self._broken_since: float | None = time.monotonic()
        self.objects: dict[str, Mapping[str, Any]] = {}
        self.synced = False

    @property
    def blind_seconds(self) -> float:
        """For how long nothing can have been seen; 0 while a watch is open."""
        return 0.0 if self._broken_since is None else time.monotonic() - self._broken_since

    async def run(self) -> None:
        """Follow, until cancelled. The API server may come and go meanwhile."""
        delay = FIRST_DELAY_SECONDS
        version = ""
        told = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    delay, told = FIRST_DELAY_SECONDS, ""
                version = await self._watch(version)
            except KubernetesError as error:
                if str(error) != told:
                    log.warning("cannot be watched", path=self._path, error=str(error))
                told = str(error)
                version = ""
                if self._broken_since is None:
                    self._broken_since = time.monotonic()
                await asyncio.sleep(delay)
                delay = min(LONGEST_DELAY_SECONDS, delay * 2)

    async def _list(self) -> str:
        found = await self._client.list_objects(
            self._path, field_selector=self._fields, label_selector=self._labels
        )
        self.objects = {item["metadata"]["uid"]: item for item in found["items"]}
        self.synced = True
        self._broken_since = None
        self._changed()
        return str(found["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        """Follow from a version until the API server ends it in order; the version to go on from."""
        events = self._client.watch(
            self._path, version=version, field_selector=self._fields, label_selector=self._labels
        )
        async for event in events:
            found = event["object"]
            metadata = found["metadata"]
            version = str(metadata["resourceVersion"])
            if event["type"] == "BOOKMARK":
                continue
            if event["type"] == "DELETED":
                self.objects.pop(metadata["uid"], None)
            else:
                self.objects[metadata["uid"]] = found
            self._changed()
        return version
