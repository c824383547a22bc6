"""Who asks: the user of a request."""

from __future__ import annotations

import re
from typing import Final

import falcon.asgi

from downloadjobs_api.problems import RESERVED_USER, UNAUTHENTICATED, ProblemError
from downloadjobs_api.settings import AuthMode

USER_HEADER: Final = "x-user-id"
USER_ID: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,128}")
"""Visible ASCII: a user's id becomes part of keys and log lines. Without the comma, by which two such headers
are joined (RFC 9110, 5.2): a client could add its own to the ingress' one."""

RESERVED_PREFIX: Final = "k8s:"
"""Users of this kind are namespaces; only the operator submits for them."""

ANONYMOUS: Final = "anonymous"


class Identity:
    """Finds out who a request comes from, in the way `AUTH_MODE` says."""

    def __init__(self, mode: AuthMode) -> None:
        self._mode = mode

    def user(self, req: falcon.asgi.Request) -> str:
        """The request's user.

        Raises:
            ProblemError: 401 without one, 403 for a reserved id.
        """
        if self._mode is AuthMode.ANONYMOUS:
            return ANONYMOUS
        user = req.get_header(USER_HEADER)
        if user is None or not USER_ID.fullmatch(user):
            raise ProblemError(
                UNAUTHENTICATED,
                f"Send {USER_HEADER} once, with 1 to 128 visible ASCII characters and no comma."
                if user
                else f"Send the user in the {USER_HEADER} header.",
                headers={"WWW-Authenticate": USER_HEADER},
            )
        if user.startswith(RESERVED_PREFIX):
            raise ProblemError(RESERVED_USER, f"User ids that begin with {RESERVED_PREFIX} are reserved.")
        return user
