"""Callback URLs as they are asked for, how their calls stand, and `GET /v1/webhooks/key`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import falcon.asgi

from downloadjobs_api.problems import NOT_FOUND, ProblemError
from downloadjobs_core.errors import CallbackRefusedError, WebhooksOffError
from downloadjobs_core.job import Job, rfc3339
from downloadjobs_core.webhook_addresses import AddressRules, CallbackUrl, callback_of
from downloadjobs_core.webhook_keys import PublicKey, read_public_keys

KEY_SECONDS: Final = 300
"""How long a receiver may keep the keys: shorter than a rotation waits between its steps."""


class Callbacks:
    """What the installation takes callback URLs for.

    Args:
        keys: the file of public keys; None if no webhooks are sent. Raises `WebhookKeyError` if it has none.
        rules: which addresses are open beside the world's.
    """

    def __init__(self, keys: Path | None, rules: AddressRules) -> None:
        self.keys: tuple[PublicKey, ...] = () if keys is None else read_public_keys(keys)
        self._rules = rules

    def judge(self, url: str) -> CallbackUrl:
        """A callback URL that breaks no rule. Raises `WebhooksOffError` and `CallbackRefusedError`."""
        if not self.keys:
            raise WebhooksOffError
        return callback_of(url, self._rules)

    def still_good(self, url: str) -> CallbackUrl | None:
        """That of a job of before; None if by now it would be refused."""
        try:
            return self.judge(url)
        except (WebhooksOffError, CallbackRefusedError):
            return None


def callback_document(job: Job) -> dict[str, Any] | None:
    """How the newest call to a job's callback URL stands; None without one."""
    if not job.callback_origin:
        return None
    return {
        "state": job.callback_state,
        "origin": job.callback_origin,
        "event": f"job.{job.callback_event}" if job.callback_event else None,
        "attempts": job.callback_attempts,
        "lastStatus": job.callback_status or None,
        "lastError": job.callback_error or None,
        "nextAttemptAt": rfc3339(job.callback_due_us) if job.callback_due_us else None,
    }


class WebhookKey:
    """`GET /v1/webhooks/key`: by which keys receivers verify. It needs no user: the keys are public."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._keys = [{"publicKey": key.standard, "pem": key.pem, "jwk": key.jwk} for key in callbacks.keys]

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """The current key first; more than one while keys are exchanged."""
        if not self._keys:
            raise ProblemError(NOT_FOUND, "This installation sends no webhooks, so there is no key.")
        resp.cache_control = ("public", f"max-age={KEY_SECONDS}")
        resp.media = {"keys": self._keys}
