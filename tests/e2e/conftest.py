"""The session's cluster with nodes, and the installation that tests share: see `support_e2e`."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from support_cluster import ClusterError, NoClusterError
from support_e2e import Installation, Installer, InstallError, installer_in

TEST_SECONDS = 600
"""A test's time by default: the first one waits for the installation, too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder, and give them time."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Tell of a failed test's installations what was to be seen then."""
    report = yield
    if report.failed and report.when == "call":
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Installation):
                report.sections.append((f"installation {value.namespace}", value.report()))
    return report


def _absent(error: Exception) -> None:
    if os.environ.get("DOWNLOADJOBS_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{error} (DOWNLOADJOBS_REQUIRE_TOOLS=1 allows no skip)", pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installer]:
    """A cluster that has nodes and the images; without one the tests skip."""
    try:
        with installer_in(tmp_path_factory.mktemp("e2e")) as found:
            yield found
    except NoClusterError as error:
        _absent(error)
    except (ClusterError, InstallError) as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def installation(installer: Installer) -> Iterator[Installation]:
    """One installation that tests share: who breaks it mends it, or takes one from `installer`."""
    # Some look into a worker's pod, and while nothing is to do there might be none.
    with installer.installed({"worker": {"autoscaling": {"min": 1}}}) as found:
        yield found
