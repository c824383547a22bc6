"""Every fault of an S3 server or of the way to it, as an error of the domain.

Messages say which setting to look at. They hold no header, no query and no answer's
body: those can carry secrets.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeAlias
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import check_object_name
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.exceptions import SSLError as PoolSSLError

from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    UploadNotFoundError,
)

BROKEN_CONNECTION: Final = (HTTPError, http.client.HTTPException, OSError)
"""What urllib3, or the standard library below it, raises when a connection cannot be had or breaks."""

_NO_S3_ANSWER: Final = (ParseError, ValueError)
"""What minio-py raises over an answer that is not the XML of S3 (a UnicodeError is a ValueError)."""

_UPLOAD_GONE: Final = {
    "NoSuchUpload": "it was completed or aborted before",
    "InvalidPart": "a part is not there, or is not the one that was uploaded last",
    "InvalidPartOrder": "its parts are out of order",
}
_UNKNOWN_ISSUER: Final = frozenset({18, 19, 20, 21})
"""OpenSSL's X509_V_ERR codes for a self-signed certificate or an authority that is not trusted."""

_BUSY: Final = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"}
)
_BUSY_STATUS: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_REGION: Final = frozenset(
    {"AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect", "Redirect", "TemporaryRedirect"}
)
_REFUSED: Final = {
    "InvalidAccessKeyId": "does not know the access key: correct S3_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": (
        "refused the signature: correct S3_SECRET_ACCESS_KEY (or a proxy on the way changes the Host header)"
    ),
    "RequestTimeTooSkewed": "finds this machine's clock more than 15 minutes off: set it right",
    "ExpiredToken": "says that the credentials have expired: renew them",
    "InvalidToken": "refused the session token: renew the credentials",
}
"""Codes that concern the credentials, whatever object was asked for."""

_DENIED: Final = (
    "denied access: the credentials (S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY) are wrong or lack a permission"
)
_NO_REASON: Final = "400 BadRequest Bad request"
"""What minio-py makes of a 400 without a body, in answer to HEAD. AWS gives it where a session token has
expired, and for an object that is encrypted with its customer's own key."""

_Reasons: TypeAlias = tuple[tuple[tuple[type[BaseException], ...], str], ...]
_REASONS: Final[_Reasons] = (
    ((NameResolutionError,), "cannot be found: its host name does not resolve"),
    ((ReadTimeoutError, TimeoutError), "did not answer in time"),
)
_VAGUE_REASONS: Final[_Reasons] = (
    ((ConnectTimeoutError,), "did not accept a connection in time"),
    ((ProtocolError, http.client.HTTPException), "broke the connection off"),
)
"""For errors that hold no OSError; urllib3's "connection refused" is a ConnectTimeoutError that does."""


@dataclass(frozen=True, slots=True)
class FaultTranslator:
    """Turns what minio-py and urllib3 raise into the domain's errors.

    Attributes:
        endpoint: the server's URL, scheme and host, for the messages.
        bucket: the bucket that was asked for.
    """

    endpoint: str
    bucket: str

    @contextmanager
    def translating(self, key: str = "") -> Iterator[None]:
        """Raise the domain's error instead of what the block raises; `key` is the object it is about.

        Raises:
            ValueError: the key is none that S3 clients can name: it has a segment `.` or `..`.
        """
        if key:
            check_object_name(key)
        try:
            yield
        except (MinioException, *BROKEN_CONNECTION, *_NO_S3_ANSWER) as error:
            raise self.translate(error, key) from error

    def translate(self, error: Exception, key: str = "") -> ObjectStoreError:
        """The domain's error for one of minio-py, urllib3 or the standard library."""
        match error:
            case S3Error():
                return self._refused(error.response.status, error.code or "", error.message or "", key)
            case ServerError():
                return self._refused(error.status_code, "", "", key)
            case InvalidResponseError():
                return self._no_s3(int(error._code))
            case MinioException() | ParseError() | ValueError():
                return self._no_s3(200)
            case _:
                return ObjectStoreUnavailableError(
                    f"The object store at {self.endpoint} {reason_of(error)}. {_what_to_do(error)}"
                )

    def _refused(self, status: int, code: str, message: str, key: str) -> ObjectStoreError:
        absent = self._not_there(status, code, key)
        if absent is not None:
            return absent
        where = f"The object store at {self.endpoint}"
        what = " ".join(filter(None, (str(status), code, message)))
        if code in _REGION or "use region" in message:
            return ObjectStoreError(
                f"{where} has bucket {self.bucket} in another region: set S3_REGION ({what})."
            )
        if code in _REFUSED:
            return CredentialsRefusedError(f"{where} {_REFUSED[code]}.")
        if what == _NO_REASON or status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return ObjectStoreDeniedError(f"{where} {_DENIED}.")
        if code in _BUSY or status in _BUSY_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ObjectStoreUnavailableError(f"{where} cannot work now ({what}).")
        return ObjectStoreError(f"{where} refused a request ({what}).")

    def _not_there(self, status: int, code: str, key: str) -> ObjectStoreError | None:
        """The error for what was asked for and is not there, or not as it was."""
        if code == "NoSuchKey":
            return ObjectNotFoundError(key)
        if code == "NoSuchBucket":
            return BucketNotFoundError(self.bucket)
        if status == HTTPStatus.PRECONDITION_FAILED:
            return ObjectChangedError(key)
        if code in _UPLOAD_GONE:
            return UploadNotFoundError(f"The upload of {key} cannot go on: {_UPLOAD_GONE[code]}.")
        return None

    def _no_s3(self, status: int) -> ObjectStoreError:
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ObjectStoreUnavailableError(
                f"The object store at {self.endpoint} cannot work now (HTTP {status})."
            )
        return ObjectStoreUnavailableError(
            f"What answers at {self.endpoint} is not an S3 server (HTTP {status}):"
            f" correct S3_ENDPOINT, with its scheme and port."
        )


def reason_of(error: BaseException) -> str:
    """Why a connection could not be had or broke, without the URL that urllib3's own texts hold."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        return reason_of(error.reason)
    if _certificate_fault(error) is not None:
        return "shows a certificate that is not trusted"
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    for inner in (error.__cause__, *error.args):
        if isinstance(inner, OSError):
            return reason_of(inner)
    text = error.strerror if isinstance(error, OSError) else None
    vague = next((reason for kinds, reason in _VAGUE_REASONS if isinstance(error, kinds)), None)
    return vague or f"cannot be reached ({text or type(error).__name__})"


def _what_to_do(error: BaseException) -> str:
    fault = _certificate_fault(error)
    if fault is not None and fault.verify_code in _UNKNOWN_ISSUER:
        return f"Set S3_CA_FILE to the certificate of its authority ({fault.verify_message})."
    if fault is not None:
        return f"Correct the certificate, or the host in S3_ENDPOINT ({fault.verify_message})."
    if isinstance(error, MaxRetryError) and isinstance(error.reason, PoolSSLError):
        return "It may not speak TLS at all: check the scheme and port of S3_ENDPOINT."
    return "Check S3_ENDPOINT and the network."


def _certificate_fault(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """What was found wrong with the server's certificate, anywhere in a chain of errors."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error
    inner = error.reason if isinstance(error, MaxRetryError) else next(iter(error.args), None)
    return _certificate_fault(inner) if isinstance(inner, BaseException) else None
