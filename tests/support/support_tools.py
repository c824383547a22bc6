"""Programs from outside Python that some tests need.

On a developer's machine a test without its tool skips and names it. Where
DOWNLOADJOBS_REQUIRE_TOOLS is 1, as in `.ci/run`, it fails instead, so that
nothing is skipped unseen.
"""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest

VARIABLES: Final = {"minio": "MINIO_BINARY"}
"""Tools that may lie outside PATH: the variable with the program's path."""

SERVERS: Final = "/usr/sbin"
"""Where Debian puts servers; PATH has it for root only."""


def require_tool(*names: str) -> str:
    """The path of the first of these programs that is there; else the test skips (or fails).

    Args:
        names: the program's name, and other names it goes by (`7z`, `7zz`).
    """
    for name in names:
        program = os.environ.get(VARIABLES.get(name, "")) or name
        path = shutil.which(program) or shutil.which(program, path=SERVERS)
        if path is not None:
            return path
    wanted = " or ".join(names)
    if os.environ.get("DOWNLOADJOBS_REQUIRE_TOOLS") == "1":
        pytest.fail(f"needs {wanted}, and DOWNLOADJOBS_REQUIRE_TOOLS=1 allows no skip", pytrace=False)
    pytest.skip(f"needs {wanted}")
