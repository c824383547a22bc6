"""Claims: who may patch a DownloadJob may fetch its result, without being a user of the REST API.

The command line makes a random nonce and writes its SHA-256 into the object's annotation. The Kubernetes
API server lets it, or not: that is the whole proof of a right. The operator keeps the digest here with the
job's id, for some minutes, and the API answers whoever knows the nonce. Whoever can only read the object,
or Redis, sees digests, from which no nonce can be made.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from downloadjobs_core.leases import translated_errors
from downloadjobs_core.scripts import ROOT

if TYPE_CHECKING:
    from redis.asyncio import Redis

CLAIM_ANNOTATION: Final = "downloadjobs.dev/claim-sha256"
"""Where the digest stands in a DownloadJob, until the operator has taken it in."""

CLAIM_SECONDS: Final = 300
"""How long a claim holds: for an operator that is slow, and for a download that must ask for fresh URLs. A
longer download claims again."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def digest_of(nonce: str) -> str:
    """The SHA-256 of a nonce, as 64 lower-case hexadecimal digits.

    A plain hash is enough: a nonce has 256 random bits, so there is nothing to guess.
    """
    return hashlib.sha256(nonce.encode()).hexdigest()


def valid_digest(text: str) -> bool:
    """Whether a text is a digest: anybody who may patch the object can write anything there."""
    return _DIGEST.fullmatch(text) is not None


def _key(job_id: str, digest: str) -> str:
    # By both: several people may claim one job at the same time, and who copies a digest that they can read
    # to an object of their own must not take the claim from whoever made it.
    return f"{ROOT}:claim:{digest}:{job_id}"


class ClaimStore:
    """Claims in Redis. Every method raises `QueueUnavailableError` when Redis cannot be asked."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def keep(self, job_id: str, nonce_sha256: str) -> None:
        """Let who knows the nonce have the job's result, for `CLAIM_SECONDS` from now.

        Args:
            job_id: the job whose DownloadJob carried the digest.
            nonce_sha256: a `valid_digest`.
        """
        with translated_errors():
            await self._redis.set(_key(job_id, nonce_sha256), "1", ex=CLAIM_SECONDS)

    async def holds(self, job_id: str, nonce: str) -> bool:
        """Whether a claim on the job by this nonce was taken in, and its time is not over."""
        with translated_errors():
            return bool(await self._redis.exists(_key(job_id, digest_of(nonce))))
