"""`POST /v1/claims`: a result for who may patch its DownloadJob. `docs/claims.md` tells the whole way."""

from __future__ import annotations

import falcon.asgi

from downloadjobs_api.bodies import ClaimBody, read_body
from downloadjobs_api.downloads import Downloads
from downloadjobs_api.resources import send_download


class Claims:
    """Answers a claim as `result` would answer the job's owner.

    No user is asked for, whatever `AUTH_MODE` says: the nonce is the proof.
    """

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Where the result can be fetched."""
        resp.cache_control = ("no-store",)
        body = await read_body(req, ClaimBody)
        await send_download(resp, body.job_id, self._downloads.claim(body.job_id, body.nonce))
