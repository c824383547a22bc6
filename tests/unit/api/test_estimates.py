"""The estimate that `initiate` answers with."""

from downloadjobs_api.downloads import estimated_time
from downloadjobs_core.jobstore import Accepted


def test_an_idle_system_promises_one_service_time() -> None:
    """With nothing ahead, the job takes what jobs take."""
    assert estimated_time(Accepted(created=True, service_seconds=10)) == "10-30 seconds"


def test_jobs_ahead_are_shared_among_the_slots_at_work() -> None:
    """Eight jobs before it and four slots: two rounds before its own."""
    assert estimated_time(Accepted(created=True, ahead=8, slots=4, service_seconds=5)) == "15-45 seconds"


def test_quick_jobs_are_not_promised_at_once() -> None:
    """An estimate is at least a second."""
    assert estimated_time(Accepted(created=True, service_seconds=0.02)) == "1-3 seconds"
