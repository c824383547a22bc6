"""Credentials for an S3 server: static keys, or those that the platform gives a process."""

from __future__ import annotations

import threading
from typing import Final

from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from downloadjobs_core.errors import CredentialsRefusedError, ObjectStoreError, ObjectStoreUnavailableError

METADATA_CONNECT_SECONDS: Final = 2.0
"""For the cloud's metadata address, which outside of a cloud just swallows packets."""

METADATA_READ_SECONDS: Final = 10.0

_MISSING: Final = (
    "No S3 credentials: set S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, or give this process a workload"
    " identity (web identity token, or a role by the metadata service)."
)


def credentials(access_key: str | None, secret_key: str | None, region: str) -> Provider:
    """Static keys if both are given. Without both, the platform's, looked for at the first request.

    The platform's are, in this order: `AWS_ACCESS_KEY_ID` and its fellows, a web identity
    token (`AWS_WEB_IDENTITY_TOKEN_FILE`), the container's or the instance's metadata.

    Raises:
        ObjectStoreError: only one of the keys is given.
    """
    if access_key and secret_key:
        return StaticProvider(access_key, secret_key)
    if access_key or secret_key:
        raise ObjectStoreError("Set both S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, or neither.")
    http = PoolManager(
        timeout=Timeout(connect=METADATA_CONNECT_SECONDS, read=METADATA_READ_SECONDS),
        retries=Retry(total=1, redirect=0),
    )
    iam = IamAwsProvider(region=region, http_client=http)
    return _TranslatedProvider(ChainedProvider([EnvAWSProvider(), iam]))


class _TranslatedProvider(Provider):
    """Asks minio-py's chain, one thread at a time.

    Its errors hold URLs with the identity token in them, so nothing of them is passed on,
    not even as the cause.
    """

    def __init__(self, inner: Provider) -> None:
        self._inner = inner
        self._lock = threading.Lock()

    def retrieve(self) -> Credentials:
        """The credentials, kept until shortly before they expire.

        Raises:
            CredentialsRefusedError: there are none, or they were refused.
            ObjectStoreUnavailableError: who gives them did not answer.
        """
        failure: ObjectStoreError
        with self._lock:
            try:
                return self._inner.retrieve()
            except (HTTPError, OSError):
                failure = ObjectStoreUnavailableError(_MISSING)
            except (ValueError, KeyError):
                failure = CredentialsRefusedError(_MISSING)
        raise failure
