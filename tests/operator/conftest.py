"""The session's Kubernetes cluster; `support_cluster` says where it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import support_controlplane as controlplane
from support_cluster import Cluster, ClusterError, NoClusterError, Source, find_source
from support_operator_process import _waiting, _working, kube, site, waiting, working
from support_servers import seaweedfs

__all__ = ["_waiting", "_working", "kube", "seaweedfs", "site", "waiting", "working"]

SOURCE = pytest.StashKey[Source]()
FAILURE = pytest.StashKey[Exception]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare the cluster before the first test: a test's timeout would end what takes minutes."""
    config = session.config
    wanted = any("cluster" in getattr(item, "fixturenames", ()) for item in session.items)
    if not wanted or config.option.collectonly:
        return
    try:
        config.stash[SOURCE] = source = find_source()
        source.prepare(lambda text: _tell(config, text))
    except (NoClusterError, ClusterError) as error:
        config.stash[FAILURE] = error


def _tell(config: pytest.Config, text: str) -> None:
    """Print a line now, though pytest captures what is printed."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(text)


@contextmanager
def _or_skip() -> Iterator[None]:
    """What is not there skips, as `require_tool` does it; what does not work fails."""
    try:
        yield
    except NoClusterError as error:
        if os.environ.get("DOWNLOADJOBS_REQUIRE_TOOLS") == "1":
            pytest.fail(f"{error} (DOWNLOADJOBS_REQUIRE_TOOLS=1 allows no skip)", pytrace=False)
        pytest.skip(str(error))
    except (ClusterError, controlplane.ControlPlaneError) as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The session's cluster, with its administrator's rights. Each test takes namespaces of its own."""
    with ExitStack() as stack:
        with _or_skip():
            if (failure := pytestconfig.stash.get(FAILURE, None)) is not None:
                raise failure
            running = pytestconfig.stash[SOURCE].running(tmp_path_factory.mktemp("cluster"))
            found = stack.enter_context(running)
        yield found


@pytest.fixture(scope="session")
def control_plane_programs() -> Path:
    """The control plane's programs, for the tests of the control plane itself.

    They are built only if the session's cluster comes from them: whoever has another one need not wait.
    """
    with _or_skip():
        programs = controlplane.built()
        if programs is None:
            raise NoClusterError(
                "needs the control plane: python3 tests/support/support_controlplane.py builds it"
            )
    return programs
