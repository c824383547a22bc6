"""Who asks: the user of a request."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from downloadjobs_api.problems import (
    RESERVED_USER,
    RETRY_SECONDS,
    SIGN_IN_UNAVAILABLE,
    UNAUTHENTICATED,
    ProblemError,
)
from downloadjobs_api.request_context import Request
from downloadjobs_api.settings import AuthMode
from downloadjobs_core.users import OWNER_PREFIX, is_reserved, is_user_id

if TYPE_CHECKING:  # it takes 12 MB, which only the mode `jwt` needs
    from downloadjobs_api.tokens import Tokens

USER_HEADER: Final = "x-user-id"

BEARER: Final = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
"""RFC 6750, 2.1; as with the user's header, no comma, so not two of them."""

ANONYMOUS: Final = "anonymous"


class TokenError(Exception):
    """The token is not good; its text tells why, without the token."""


class KeysUnavailableError(Exception):
    """Tokens cannot be checked: there is no key set yet, and none can be had now."""


class Identity:
    """Finds out who a request comes from, in the way `AUTH_MODE` says.

    `sign_in` is called once for each request, before its responder, and keeps what it found in the request.

    Args:
        mode: the setting.
        tokens: what verifies tokens, in the mode `jwt`.
    """

    def __init__(self, mode: AuthMode, tokens: Tokens | None = None) -> None:
        self._mode = mode
        self._tokens = tokens

    def sign_in(self, req: Request) -> Awaitable[None] | None:
        """Find the request's user; where there is none, `user` tells why. Await what is returned."""
        if self._mode is AuthMode.HEADER:
            user = req.get_header(USER_HEADER)
            if user is not None and is_user_id(user):
                req.user = user
        elif self._tokens is not None:
            return self._by_token(req, self._tokens)
        return None

    async def _by_token(self, req: Request, tokens: Tokens) -> None:
        header = req.get_header("authorization")
        token = BEARER.fullmatch(header.strip()) if header is not None else None
        if token is None:
            malformed = header is not None and header.lower().startswith("bearer")
            req.refusal = _no_token() if not malformed else _bad_token("It is not one token.")
            return
        try:
            user, until = await tokens.verified(token.group(1))
        except TokenError as error:
            req.refusal = _bad_token(str(error))
        except KeysUnavailableError:
            req.refusal = ProblemError(
                SIGN_IN_UNAVAILABLE,
                "The issuer of tokens cannot be asked for its keys now. Try again soon.",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        else:
            if is_user_id(user):
                req.user, req.until = user, until
            elif is_reserved(user):
                req.refusal = _reserved()
            else:
                req.refusal = _bad_token("Its user is not 1 to 128 visible ASCII characters without a comma.")

    def user(self, req: Request) -> str:
        """The request's user.

        Raises:
            ProblemError: 401 without one, 403 for a reserved id, 503 where nobody can tell.
        """
        if req.user is not None:
            return req.user
        if self._mode is AuthMode.ANONYMOUS:
            return ANONYMOUS
        if self._mode is AuthMode.JWT:
            raise req.refusal or _no_token()
        user = req.get_header(USER_HEADER)
        if user is not None and is_reserved(user):
            raise _reserved()
        raise ProblemError(
            UNAUTHENTICATED,
            f"Send {USER_HEADER} once, with 1 to 128 visible ASCII characters and no comma."
            if user
            else f"Send the user in the {USER_HEADER} header.",
            headers={"WWW-Authenticate": USER_HEADER},
        )

    def admit(self, req: Request) -> None:
        """Ask for a user where one is asked of everybody, as in the mode `jwt`.

        Raises:
            ProblemError: as `user`.
        """
        if self._mode is AuthMode.JWT:
            _ = self.user(req)


def _reserved() -> ProblemError:
    return ProblemError(RESERVED_USER, f"User ids that begin with {OWNER_PREFIX} are reserved.")


def _no_token() -> ProblemError:
    return ProblemError(
        UNAUTHENTICATED,
        "Send a token in the Authorization header: Bearer, and the token.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _bad_token(why: str) -> ProblemError:
    # RFC 6750, 3.1. The texts are ours, without quotes, and have nothing of the token.
    return ProblemError(
        UNAUTHENTICATED,
        f"The token is not good. {why}",
        headers={"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{why}"'},
    )
