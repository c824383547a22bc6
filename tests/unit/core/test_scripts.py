"""The text of the Lua scripts."""

import re
from importlib import resources

import pytest

from downloadjobs_core import scripts
from downloadjobs_core.counts import FIRST_SERVICE_SECONDS
from downloadjobs_core.leases import SECOND_US
from downloadjobs_core.states import TRANSITIONS
from downloadjobs_core.upkeep import EVERY_SECONDS

NAMES = sorted(
    entry.name.removesuffix(".lua")
    for entry in (resources.files("downloadjobs_core") / "lua").iterdir()
    if entry.name.endswith(".lua")
)


@pytest.mark.parametrize("name", NAMES)
def test_every_script_carries_the_whole_table(name: str) -> None:
    """A script knows each allowed transition of `states.py`, and no other."""
    text = scripts.source(name)
    assert scripts._TRANSITIONS_MARK not in text
    for state, targets in TRANSITIONS.items():
        row = ", ".join(f"{to} = true" for to in sorted(targets))
        assert f"{state} = {{{row}}}" in text


@pytest.mark.parametrize("name", NAMES)
def test_scripts_ask_no_clock_but_redis(name: str) -> None:
    """No time is passed in: the only clock is TIME, so that a client's clock cannot shorten a lease."""
    header = [line for line in scripts.source(name).splitlines() if line.startswith("-- ARGV")]
    assert not [line for line in header if "now" in line.lower()]


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        pytest.param("FIRST_SERVICE_US", FIRST_SERVICE_SECONDS, id="what a first job is taken to last"),
        pytest.param("BATCH_US", EVERY_SECONDS, id="between two runs of a batched task"),
    ],
)
def test_scripts_and_python_agree_on_times(name: str, seconds: float) -> None:
    """What stands in the scripts and in Python is the same."""
    found = re.search(rf"^local {name} = (\d+)", scripts.source("counts"), re.MULTILINE)
    assert found is not None
    assert int(found[1]) == seconds * SECOND_US


def test_all_keys_lie_in_one_slot() -> None:
    """The root is one hash tag, so Redis Cluster accepts scripts that use several keys."""
    assert scripts.ROOT.startswith("{")
    assert scripts.ROOT.endswith("}")
