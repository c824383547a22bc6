"""`POST /v1/jobs/{id}/retry`: a new job with the files of another that are not in its result."""

from __future__ import annotations

import falcon.asgi

from downloadjobs_api.bodies import whole_body
from downloadjobs_api.callbacks import Callbacks
from downloadjobs_api.downloads import Downloads, Origin
from downloadjobs_api.idempotency import key_in
from downloadjobs_api.identity import Identity
from downloadjobs_api.problems import BAD_REQUEST, ProblemError
from downloadjobs_api.request_context import Request
from downloadjobs_api.resources import send_accepted


class JobRetry:
    """`POST /v1/jobs/{id}/retry`."""

    def __init__(self, downloads: Downloads, callbacks: Callbacks, identity: Identity) -> None:
        self._downloads = downloads
        self._callbacks = callbacks
        self._identity = identity

    async def on_post(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Accept a job that tries them again."""
        user = self._identity.user(req)
        key = key_in(req)
        if (await whole_body(req)).strip() not in (b"", b"{}"):
            raise ProblemError(
                BAD_REQUEST, "A retry takes no body: it asks for the files of the job, as the job did."
            )
        origin = Origin(req.request_id, req.traceparent)
        submitted = await self._downloads.retry(
            user, job_id, origin, key, still_good=self._callbacks.still_good
        )
        send_accepted(resp, submitted, retry_of=job_id)
