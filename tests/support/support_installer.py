"""The `installer` of tests that install the chart apart from `tests/e2e`, only where they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support_cluster import ClusterError, NoClusterError
from support_e2e import Installer, InstallError, require_nodes, source_with_nodes
from support_tools import require_tool


@contextmanager
def installer_in(folder: Path) -> Iterator[Installer]:
    """A cluster that has nodes and the images; without one the test fails, since it was asked for."""
    helm = require_tool(os.environ.get("HELM") or "helm")
    tag = os.environ.get("E2E_TAG") or "dev"
    try:
        source = source_with_nodes()
        source.prepare(lambda _text: None)
        with source.running(folder) as cluster:
            require_nodes(cluster, tag)
            found = Installer(cluster, helm, tag, folder)
            found.prepare()
            yield found
    except (NoClusterError, ClusterError, InstallError) as error:
        pytest.fail(str(error), pytrace=False)
