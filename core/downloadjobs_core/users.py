"""Who a job can belong to: the ids of users, and of namespaces, which no client may take.

The API and the operator keep users apart by these rules, each where ids come in.
"""

from __future__ import annotations

import re
from typing import Final

USER_ID: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,128}")
"""Visible ASCII: a user's id becomes part of keys and log lines. Without the comma, by which two headers of
one name are joined (RFC 9110, 5.2): a client could add its own user to that of the ingress."""

OWNER_PREFIX: Final = "k8s:"
"""Jobs of DownloadJobs belong to their namespace, as this and its name. Only the operator submits them."""


def is_user_id(text: str) -> bool:
    """Whether a client, or a DownloadJob, may name this user."""
    return USER_ID.fullmatch(text) is not None and not text.startswith(OWNER_PREFIX)


def is_reserved(text: str) -> bool:
    """Whether it is an id that is refused for its prefix alone."""
    return USER_ID.fullmatch(text) is not None and text.startswith(OWNER_PREFIX)
