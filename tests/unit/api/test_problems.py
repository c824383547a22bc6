"""What the errors of the domain are to clients."""

from __future__ import annotations

import pytest

from downloadjobs_api.problems import of_domain_error
from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ObjectStoreUnavailableError("nobody there"), "Try again soon"),
        (CredentialsRefusedError("expired"), "operator must correct"),
        (ObjectStoreDeniedError("denied"), "operator must correct"),
        (BucketNotFoundError("files"), "operator must correct"),
    ],
)
def test_a_storage_that_refuses_is_told_from_one_that_is_away(error: ObjectStoreError, words: str) -> None:
    """Both are 503; only of what its operator must correct does the answer say so."""
    problem = of_domain_error(error)
    assert problem.kind.status == 503
    assert words in problem.message
