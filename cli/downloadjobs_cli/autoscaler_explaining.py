"""What `autoscaler explain` prints: the operator's last decisions."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx
import msgspec

from downloadjobs_cli.client import TIMEOUT, USER_AGENT, why_silent
from downloadjobs_cli.errors import CliError, RefusedError, TransientError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.http_clients import http_client
from downloadjobs_cli.options import Options
from downloadjobs_cli.output import aligned


class Decided(msgspec.Struct, rename="camel"):
    """Of a decision, what people read."""

    at: str
    until: str
    times: int
    message: str
    reason: str
    current: int
    desired: int
    outcome: str
    error: str | None = None


class Decisions(msgspec.Struct):
    """The answer of `GET /autoscaler`."""

    items: list[Decided]


def explain_decisions(options: Options, operator: str, limit: int) -> ExitCode:
    """Print the last decisions of the operator at a URL.

    Raises:
        TransientError: nobody answers there.
        RefusedError: it has no autoscaler.
        CliError: what answers is no operator.
    """
    document, decisions = fetch(options, operator)
    if options.as_json:
        items = document["items"][:limit]
        options.output.document({**document, "items": items})
        return ExitCode.DONE
    if not decisions.items:
        options.output.say("Nothing has been decided yet.")
    for line in told(decisions.items[:limit]):
        options.output.say(line)
    return ExitCode.DONE


def fetch(options: Options, operator: str) -> tuple[dict[str, Any], Decisions]:
    """The operator's answer as it came, and as it is read."""
    url = f"{operator}/autoscaler"
    try:
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        with http_client(url, transport=options.transport, timeout=TIMEOUT, headers=headers) as client:
            answer = client.get(url)
    except httpx.RequestError as error:
        raise TransientError(
            f"The operator at {operator} does not answer{why_silent(error)}. Forward its port with `kubectl"
            " port-forward deploy/downloadjobs-operator 8080`, or say with --operator where it is."
        ) from None
    if answer.status_code == HTTPStatus.NOT_FOUND:
        raise RefusedError(f"What answers at {operator} has no autoscaler.", status=answer.status_code)
    if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        raise TransientError(f"The operator at {operator} decides nothing now: another leads, or it starts.")
    if answer.status_code != HTTPStatus.OK:
        raise CliError(f"The operator at {operator} answered {answer.status_code}.")
    try:
        return answer.json(), msgspec.json.decode(answer.content, type=Decisions)
    except ValueError:  # msgspec's is one as well
        raise CliError(f"What answers at {operator} is no operator of downloadjobs.") from None


def _when(found: Decided) -> str:
    """The second, or from the first to the last of a series."""
    begin, end = ((at.partition(".")[0].replace("T", " ") + "Z") for at in (found.at, found.until))
    if begin == end:
        return begin
    day, _, time = end.partition(" ")
    return f"{begin} - {time if begin.startswith(day) else end}"


def told(decisions: list[Decided]) -> list[str]:
    """Each decision on two lines: when, what and why in columns, and the sentence below."""
    rows = [
        [
            _when(found),
            f"{found.current} -> {found.desired}" if found.current != found.desired else str(found.current),
            found.reason,
            found.outcome,
            f"{found.times} times" if found.times > 1 else "",
        ]
        for found in decisions
    ]
    lines: list[str] = []
    for line, found in zip(aligned(rows), decisions, strict=True):
        lines += [line, f"    {found.message}"]
        if found.error:
            lines.append(f"    {found.error}")
    return lines
