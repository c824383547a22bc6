"""What every request passes before its responder: preflights, sign-in, the rate limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final

import falcon
import falcon.asgi

from downloadjobs_api.client_address import ClientAddresses
from downloadjobs_api.cors import PREFLIGHT
from downloadjobs_api.identity import Identity
from downloadjobs_api.problems import ProblemError
from downloadjobs_api.rate_limits import RateLimits
from downloadjobs_api.request_context import Request

Responder = Callable[..., Awaitable[None]]

UNLIMITED: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""What the platform asks, and must be answered."""


class Gate:
    """Falcon middleware; it stands behind `RequestContext` and before every other.

    The request is counted while its responder works, if that only reads Redis: its resource says so by
    `reads_only = True`. Otherwise the responder waits until it is known that the request is allowed.

    Args:
        identity: knows who asks.
        addresses: of those who are not signed in.
        limits: counts requests.
        files: paths of what pages consist of, some twenty a load. Like `UNLIMITED` they need no user, nor are
            they counted; what the page then asks for counts as everybody's.
    """

    def __init__(
        self,
        identity: Identity,
        addresses: ClientAddresses,
        limits: RateLimits,
        files: frozenset[str] = frozenset(),
    ) -> None:
        self._identity = identity
        self._free = UNLIMITED | files
        self._addresses = addresses
        self._heeds_proxies = addresses.heeds()
        self._take = limits.take
        self._judge = limits.judge

    async def process_request(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Find out who asks, count it, and answer preflights; but for what needs neither user nor limit."""
        if req.path in self._free:
            return
        if (signing_in := self._identity.sign_in(req)) is not None:
            await signing_in
        req.limited = True
        user = req.user
        req.ticket = self._take(f"user:{user}" if user is not None else self._address(req))
        if req.method == "OPTIONS" and req.get_header("access-control-request-method") is not None:
            resp.status = falcon.HTTP_204
            resp.set_headers(PREFLIGHT)
            resp.complete = True

    def _address(self, req: Request) -> str:
        client = req.scope.get("client")
        forwarded = req.get_header("x-forwarded-for") if self._heeds_proxies else None
        return f"address:{self._addresses.name(client[0] if client else '', forwarded)}"

    def guarded(self, responder: Responder, resource: object) -> Responder:
        """The same responder, that does nothing before it is known that its request is allowed.

        Raises, when it is called:
            ProblemError: 429.
        """
        if getattr(resource, "reads_only", False):
            return responder

        @wraps(responder)
        async def respond(req: Request, resp: falcon.asgi.Response, **params: str) -> None:
            await self.admit(req)
            await responder(req, resp, **params)

        return respond

    async def admit(self, req: Request) -> None:
        """Wait until it is known that a request is allowed; for those that are held for long.

        Raises:
            ProblemError: 429.
        """
        if req.limited and (refusal := await self._judged(req)) is not None:
            raise refusal

    async def process_response(
        self,
        req: Request,
        resp: falcon.asgi.Response,
        _resource: object,
        _req_succeeded: bool,  # noqa: FBT001 - Falcon's signature
    ) -> None:
        """Add the headers, and take back what was read for somebody who may not have it.

        Raises:
            ProblemError: 429.
        """
        if not req.limited:
            return
        ticket = req.ticket
        if ticket is not None and not ticket.round.ended:
            await ticket.round.wait()
        req.head_lines, refusal = self._judge(ticket)
        if refusal is not None:
            resp.delete_header("etag")
            raise refusal

    async def _judged(self, req: Request) -> ProblemError | None:
        ticket = req.ticket
        if ticket is not None:
            await ticket.round.wait()
        req.limited = False  # once
        req.head_lines, refusal = self._judge(ticket)
        return refusal
