"""Loads the Lua scripts, and runs them by their digest.

Every change to more than one key is one script, so it happens whole or not at
all. `lua/lib/prelude.lua` stands before each; the table of transitions in it
comes from `states.py`, so that Python and Lua cannot disagree.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from downloadjobs_core.states import TRANSITIONS

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from redis.commands.core import AsyncScript, Script

ROOT: Final = "{downloadjobs}"
"""The root of all keys. The braces are a hash tag: one slot of Redis Cluster holds them all."""

_FLAGS: Final = {
    "counts": "no-writes",
    "holders": "no-writes",
    "place": "no-writes",
    "shared_said": "no-writes",
    "submit": "",
    "pop": "",
    "suspend": "",
}
"""How a script is declared to Redis (7 or newer). In a Redis that is full, those without a flag are refused
before they begin: no job is accepted or started. All others are allowed: they end work, which frees memory,
or count requests, in keys that are small and soon gone."""

_TRANSITIONS_MARK: Final = "--@transitions@--"


def _transitions_as_lua() -> str:
    rows = (
        f"{state} = {{{', '.join(f'{to} = true' for to in sorted(targets))}}}"
        for state, targets in TRANSITIONS.items()
    )
    return ", ".join(rows)


@cache
def source(name: str) -> str:
    """The whole text of a script, with the prelude before it.

    Args:
        name: its file's name without `.lua`.
    """
    folder = resources.files("downloadjobs_core") / "lua"
    prelude = (folder / "lib" / "prelude.lua").read_text(encoding="utf-8")
    body = (folder / f"{name}.lua").read_text(encoding="utf-8")
    flags = _FLAGS.get(name, "allow-oom")
    return f"#!lua flags={flags}\n" + prelude.replace(_TRANSITIONS_MARK, _transitions_as_lua()) + body


class Scripts:
    """The scripts of one blocking client."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._registered: dict[str, Script] = {}

    def run(self, name: str, *args: str | float) -> Any:  # noqa: ANN401 - replies differ by script
        """Run a script with `ROOT` as its one key; its header says what it replies."""
        script = self._registered.get(name)
        if script is None:
            script = self._registered[name] = self._redis.register_script(source(name))
        return script(keys=[ROOT], args=args)


class AsyncScripts:
    """The scripts of one client on an event loop."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._registered: dict[str, AsyncScript] = {}

    def digest(self, name: str) -> str:
        """What a pipeline runs a script by; Redis may not know it yet (NOSCRIPT), until `run` was called."""
        return self._script(name).sha

    def _script(self, name: str) -> AsyncScript:
        script = self._registered.get(name)
        if script is None:
            script = self._registered[name] = self._redis.register_script(source(name))
        return script

    async def run(self, name: str, *args: str | float) -> Any:  # noqa: ANN401 - replies differ by script
        """Run a script with `ROOT` as its one key; its header says what it replies."""
        return await self._script(name)(keys=[ROOT], args=args)
