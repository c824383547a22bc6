"""Follows event streams in tests, as `EventSource` in a browser reads them (WHATWG HTML, 9.2.6)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from support_worker import eventually


@dataclass
class Sent:
    """One event as it was received."""

    id: str = ""
    event: str = ""
    data: Any = None
    at: float = field(default=0.0, compare=False)
    """When it was received, by the monotonic clock."""

    @property
    def order(self) -> tuple[int, int]:
        """Its id, as it is ordered."""
        time_ms, _, number = self.id.partition("-")
        return int(time_ms), int(number)


@dataclass
class Parser:
    """Takes lines, gives events; keeps what else there was."""

    comments: int = 0
    retries: list[int] = field(default_factory=list)

    def read(self, lines: Iterable[str]) -> Iterator[Sent]:
        """The events in lines."""
        sent = Sent()
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "":
                if sent.data is not None:
                    sent.at = time.monotonic()
                    yield sent
                sent = Sent()
            elif name == "":
                self.comments += 1
            elif name == "retry":
                self.retries.append(int(value))
            elif name == "data":
                assert sent.data is None, "data is one line"
                sent.data = json.loads(value)
            elif name == "id":
                sent.id = value
            else:
                assert name == "event", line
                sent.event = value


class Stream:
    """An open stream, read in a thread. It must be opened with 200."""

    def __init__(self, base_url: str, path: str, user: str = "ada", last: str | None = None) -> None:
        self.events: list[Sent] = []
        self.parser = Parser()
        self.ended = threading.Event()
        self.fault: Exception | None = None
        headers = {"x-user-id": user, "accept": "text/event-stream"}
        if last is not None:
            headers["last-event-id"] = last
        self._client = httpx.Client(base_url=base_url, headers=headers, trust_env=False, timeout=60)
        self.response = self._client.send(self._client.build_request("GET", path), stream=True)
        if self.response.status_code != httpx.codes.OK:
            self.response.read()
            self._client.close()
            raise AssertionError(f"{self.response.status_code}: {self.response.text}")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for sent in self.parser.read(self.response.iter_lines()):
                self.events.append(sent)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.fault = error
        self.ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Go away, as a tab that is closed."""
        raw = self.response.extensions["network_stream"].get_extra_info("socket")
        if raw is not None and not self.ended.is_set():
            raw.shutdown(2)  # wakes the reader
        self._reader.join(10)
        self.response.close()
        self._client.close()

    def wait(self, condition: Callable[[list[Sent]], bool], what: str = "the event") -> list[Sent]:
        """Wait until what was received is enough."""
        eventually(lambda: condition(self.events), 20, f"{what}; there are {self.kinds}")
        return self.events

    def wait_for(self, kind: str, count: int = 1) -> Sent:
        """The `count`th event of a kind."""
        return [
            e
            for e in self.wait(lambda es: sum(e.event == kind for e in es) >= count, kind)
            if e.event == kind
        ][count - 1]

    def to_end(self) -> list[Sent]:
        """All events of a stream that ends by itself."""
        assert self.ended.wait(20), f"it goes on after {self.kinds}"
        assert self.fault is None, self.fault
        return self.events

    @property
    def kinds(self) -> list[str]:
        """The kinds of the events so far."""
        return [event.event for event in self.events]
