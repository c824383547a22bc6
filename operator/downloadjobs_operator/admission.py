"""What a DownloadJob may ask for, and the job it becomes. Pure: it knows the rules, no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from downloadjobs_core import trace_context
from downloadjobs_core.errors import CallbackRefusedError, PriorityTooHighError
from downloadjobs_core.job import NewJob, distinct
from downloadjobs_core.states import Priority, allowed_priority
from downloadjobs_core.users import OWNER_PREFIX, USER_ID, is_user_id
from downloadjobs_core.webhook_addresses import AddressRules, CallbackUrl, callback_of
from downloadjobs_operator.downloadjob import DownloadJob, RefusedError
from downloadjobs_operator.settings import EVERYWHERE

__all__ = [
    "LONGEST_EXPIRY",
    "MOST_ATTEMPTS",
    "OWNER_PREFIX",
    "SHORTEST_EXPIRY",
    "SOURCE",
    "USER_ID",
    "AdmissionRules",
    "admit",
    "owner_of",
]

SOURCE: Final = "kubernetes"

MOST_ATTEMPTS: Final = 20
"""As the schema has it: a backoffLimit of 19."""

SHORTEST_EXPIRY: Final = 60
LONGEST_EXPIRY: Final = 604_800
"""Seconds that a result may be kept, as the schema has them."""


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """What the installation allows.

    Attributes:
        user_id_namespaces: where a DownloadJob may name a user; `*` for all.
        priority_ceilings: the highest class by namespace; `*` for all others.
        mirrors_in: the namespace of mirrors, where nothing is ever submitted.
        webhooks: whether workers send webhooks.
        addresses: where they may go beside the world's public addresses.
    """

    user_id_namespaces: Sequence[str] = ()
    priority_ceilings: Mapping[str, Priority] = field(default_factory=dict)
    mirrors_in: str | None = None
    webhooks: bool = False
    addresses: AddressRules = field(default_factory=AddressRules)


def owner_of(namespace: str) -> str:
    """The user that a namespace's jobs are charged to."""
    return f"{OWNER_PREFIX}{namespace}"


def admit(dj: DownloadJob, file_ids: Sequence[int], rules: AdmissionRules) -> NewJob:
    """The job that a DownloadJob becomes; its id is the object's uid, so that submitting twice is one job.

    Raises:
        RefusedError: it may not be, as things are.
    """
    if dj.namespace == rules.mirrors_in or dj.mirror:
        raise RefusedError(
            "NotAMirror",
            "It stands among, or calls itself, one of those that show jobs which came by REST; only the"
            " operator creates these. Create another DownloadJob, in another namespace.",
        )
    allowed = rules.user_id_namespaces
    if dj.user_id and dj.namespace not in allowed and EVERYWHERE not in allowed:
        raise RefusedError(
            "UserIdNotAllowed",
            f"DownloadJobs in the namespace {dj.namespace} may not name a user. Leave spec.userId out, or"
            " have whoever runs downloadjobs add the namespace to operator.userIdNamespaces; then create it"
            " again.",
        )
    if dj.user_id and not is_user_id(dj.user_id):
        raise RefusedError(
            "InvalidUserId",
            f"spec.userId must be 1 to 128 visible ASCII characters without a comma, and not begin with"
            f" {OWNER_PREFIX}. Create another DownloadJob.",
        )
    if not 0 <= dj.backoff_limit < MOST_ATTEMPTS:
        raise RefusedError(
            "InvalidBackoffLimit",
            f"spec.backoffLimit must be from 0 to {MOST_ATTEMPTS - 1}. Create another DownloadJob.",
        )
    if dj.expiration_seconds and not SHORTEST_EXPIRY <= dj.expiration_seconds <= LONGEST_EXPIRY:
        raise RefusedError(
            "InvalidExpiration",
            f"spec.result.expirationSeconds must be from {SHORTEST_EXPIRY} to {LONGEST_EXPIRY}."
            " Create another DownloadJob.",
        )
    try:
        asked = Priority(dj.priority) if dj.priority else None
        priority = allowed_priority(dj.namespace, asked, rules.priority_ceilings)
    except PriorityTooHighError as error:
        raise RefusedError(
            "PriorityTooHigh",
            f"{error} Create another DownloadJob, or have whoever runs downloadjobs raise the ceiling of the"
            f" namespace {dj.namespace}.",
        ) from None
    except ValueError:
        raise RefusedError(
            "InvalidPriority", "spec.priority must be low, normal or high. Create another DownloadJob."
        ) from None
    return NewJob(
        job_id=dj.uid,
        user=owner_of(dj.namespace),
        reader=dj.user_id,
        file_ids=distinct(file_ids),
        total_file_ids=len(file_ids),
        max_attempts=dj.backoff_limit + 1,
        priority=priority,
        source=SOURCE,
        suspended=dj.suspend,
        traceparent=trace_context.accept(None),
        result_ttl_seconds=dj.expiration_seconds,
        callback=_callback(dj.callback_url, rules) if dj.callback_url else None,
    )


def _callback(url: str, rules: AdmissionRules) -> CallbackUrl:
    if not rules.webhooks:
        raise RefusedError(
            "WebhooksOff",
            "This installation sends no webhooks. Create another DownloadJob without spec.callbackUrl, or"
            " have whoever runs downloadjobs set webhooks.enabled and create it again.",
        )
    try:
        return callback_of(url, rules.addresses)
    except CallbackRefusedError as error:
        raise RefusedError(
            "InvalidCallbackUrl", f"spec.callbackUrl is refused: {error.why}. Create another DownloadJob."
        ) from None
