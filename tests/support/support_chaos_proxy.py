"""A TCP proxy on loopback that can be told to break what passes through it."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Final, Self

from downloadjobs_cli.embedded import LOOPBACK

CHUNK_BYTES: Final = 64 * 1024
SOME_BYTES: Final = 4 * 1024 * 1024
"""A connection is reset after up to so many bytes: within a header, within a part, or after some requests."""

START_SECONDS: Final = 10.0

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""`SO_LINGER` with no time: closing sends RST, not FIN (POSIX, setsockopt)."""


class Mode(Enum):
    """What the proxy does."""

    OPEN = auto()
    CUT = auto()
    """Every connection is reset at once, old and new."""

    RESET = auto()
    """Every connection is reset after some bytes, in whatever is under way then."""

    DEAF = auto()
    """Requests pass, and in place of each second answer a reset comes: what was asked for is done, unseen."""


class Proxy:
    """Listens on a free port and passes connections on. A context manager; its loop has a thread of its own.

    Args:
        target_port: on loopback.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._mode = Mode.OPEN
        self._open: set[_Link] = set()
        self._source = random.Random()
        self._ended: asyncio.Event | None = None
        self.port = 0
        self.resets = 0
        """Connections that were broken on purpose."""

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(START_SECONDS)

    def set_mode(self, mode: Mode) -> None:
        """Change what it does from now on, to connections that are open as well."""
        self._loop.call_soon_threadsafe(self._change, mode)

    def lead_to(self, target_port: int) -> None:
        """Pass new connections on to another port; open ones stay, as behind a Kubernetes Service."""
        self._target_port = target_port

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._ended.wait()
        server.close()
        for link in list(self._open):
            link.reset()
        await asyncio.sleep(0.1)  # so that transports which were aborted are closed before the loop is

    def _change(self, mode: Mode) -> None:
        self._mode = mode
        for link in list(self._open):
            self._arm(link)

    def _arm(self, link: _Link) -> None:
        link.bytes_left = self._source.randrange(SOME_BYTES) if self._mode is Mode.RESET else None
        link.deaf = self._mode is Mode.DEAF
        if self._mode is Mode.CUT:
            self._break(link)

    def _break(self, link: _Link) -> None:
        self.resets += 1
        link.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._open.add(link)
        try:
            self._arm(link)
            if link.broken:
                return
            server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self._target_port)
            # It may have been broken meanwhile: then the first write or read says so.
            link.server = server_writer
            await asyncio.gather(
                self._pump(link, reader, server_writer, answers=False),
                self._pump(link, server_reader, writer, answers=True),
            )
        except OSError:
            link.reset()  # the server does not run
        finally:
            link.close()
            self._open.discard(link)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if answers and link.asked and link.deaf and self._source.random() < 1 / 2:
                    self._break(link)
                    return
                link.asked = not answers
                if link.bytes_left is not None:
                    link.bytes_left -= len(data)
                    if link.bytes_left < 0:
                        self._break(link)
                        return
                writer.write(data)
                await writer.drain()
            if not link.broken:
                writer.write_eof()
        except OSError:
            link.reset()  # one side went away: so does the other


class _Link:
    """One connection through the proxy: the client's side, and the server's once it is there."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.broken = False
        self.bytes_left: int | None = None
        self.deaf = False
        self.asked = False
        """The last bytes were the client's: the next ones begin an answer."""

    def close(self) -> None:
        """Close what was not broken: whatever passed is on its way."""
        if not self.broken:
            for writer in filter(None, (self.client, self.server)):
                writer.close()

    def reset(self) -> None:
        """Break both sides with RST."""
        self.broken = True
        for writer in (self.client, self.server):
            if writer is None:
                continue
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
