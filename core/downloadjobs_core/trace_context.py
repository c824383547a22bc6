"""W3C Trace Context: read a `traceparent`, or begin one.

https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
import secrets
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16


def accept(header: str | None) -> str:
    """The client's trace context if it is a valid one (3.2.2), else a new one, unsampled."""
    if header is not None:
        match = _TRACEPARENT.fullmatch(header)
        if match is not None:
            version, trace, parent, flags, rest = match.groups()
            known = (version == "00" and rest is None) or version not in {"00", "ff"}
            if known and trace != _NO_TRACE and parent != _NO_SPAN:
                return f"00-{trace}-{parent}-{flags}"
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def trace_id(traceparent: str) -> str:
    """The 32 hex digits of a trace context that `accept` returned."""
    return traceparent[3:35]
