"""The objects that the operator knows, by uid and by the job they show."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from downloadjobs_operator.downloadjob import MIRROR
from downloadjobs_operator.status import Verdict
from downloadjobs_operator.tracking import OWN_PATCH_SECONDS, Tracked, Tracking
from support_operator import body

OLD, OWN, THEIRS = {"phase": "Queued"}, {"phase": "Processing"}, {"phase": "Completed"}


def tracked_patch(tracking: Tracking) -> Tracked:
    """An object whose status was just patched: the watch has yet to show version 5."""
    return patch_with(tracking)


def patch_with(tracking: Tracking, *meanwhile: tuple[str, dict[str, Any]]) -> Tracked:
    """The same, while the watch shows these versions and statuses before the patch is answered."""
    tracked = tracking.see(body(status=OLD))
    with tracked.noting_versions() as noted:
        for version, status in meanwhile:
            shown(tracking, version, status)
    tracked.wrote(OWN, "5", noted)
    return tracked


def shown(tracking: Tracking, version: str, status: dict[str, Any]) -> Tracked:
    """What the watch shows of the object."""
    return tracking.see(body(status=status, resourceVersion=version))


def test_an_object_shows_its_own_job() -> None:
    """An object stands for the job of its uid from the first look on."""
    tracking = Tracking(None)
    tracked = tracking.see(body(status=OLD))
    assert tracking.get("uid-of-one") is tracking.showing("uid-of-one") is tracked
    assert (tracked.job_id, tracked.status, len(tracking)) == ("uid-of-one", OLD, 1)


def test_an_object_is_tracked_once() -> None:
    """However often it is shown, an object is the same one, as it was shown last."""
    tracking = Tracking(None)
    first = tracking.see(body())
    assert tracking.see(body(spec={"suspend": True}, status=OWN)) is first
    assert (first.dj.suspend, first.status, list(tracking)) == (True, OWN, [first])


def test_a_status_of_somebody_else_is_noticed() -> None:
    """And neither one's own, whatever the API server made of it, nor an older one before it."""
    tracking = Tracking(None)
    tracked = tracked_patch(tracking)
    assert not shown(tracking, "4", OLD).overwritten
    assert not shown(tracking, "5", {}).overwritten
    assert not shown(tracking, "6", {}).overwritten  # something else of it was changed
    assert shown(tracking, "7", {"phase": "Completed"}).overwritten
    assert tracked.status == {"phase": "Completed"}
    assert not shown(tracking, "8", {"phase": "Completed"}).overwritten


def test_what_is_gone_is_forgotten() -> None:
    """Of an object that is gone nothing stays; forgetting it again is no fault."""
    tracking = Tracking(None)
    tracking.see(body())
    for _ in range(2):
        tracking.forget("uid-of-one")
    assert (len(tracking), tracking.get("uid-of-one"), tracking.showing("uid-of-one")) == (0, None, None)


def test_objects_may_go_while_all_are_looked_at() -> None:
    """A walk over all objects survives that some go meanwhile."""
    tracking = Tracking(None)
    for number in range(3):
        tracking.see(body(f"n{number}"))
    for tracked in tracking:
        tracking.forget(tracked.dj.uid)
    assert len(tracking) == 0


def test_an_object_of_the_same_name_is_another() -> None:
    """One that is created anew has another uid, and the old one's going does not take it away."""
    tracking = Tracking(None)
    old, new = tracking.see(body(uid="u1")), tracking.see(body(uid="u2"))
    assert old is not new
    tracking.forget("u1")
    assert tracking.get("u2") is new


def test_what_the_watch_shows_before_our_patch_is_older() -> None:
    """Until the watch shows our patch, its status is older, and ours stands; the spec is taken at once."""
    tracking = Tracking(None)
    tracked = tracked_patch(tracking)
    tracking.see(body(status=OLD, resourceVersion="4", spec={"cancel": True}))
    assert tracked.status == OWN
    assert tracked.dj.cancel


def test_from_our_patch_on_the_watch_counts() -> None:
    """Once our patch has come by, the status is what the watch shows."""
    tracking = Tracking(None)
    tracked = tracked_patch(tracking)
    shown(tracking, "5", OWN)
    shown(tracking, "6", OLD)
    assert tracked.status == OLD


def test_a_patch_that_never_comes_by_is_not_waited_for() -> None:
    """After ten seconds the watch counts again: it may have passed over our patch."""
    tracking = Tracking(None)
    tracked = tracked_patch(tracking)
    tracked.patched_at -= OWN_PATCH_SECONDS + 1
    shown(tracking, "9", OLD)
    assert (tracked.status, tracked.expected_version) == (OLD, "")


def test_a_patch_that_came_by_before_its_answer_is_not_waited_for() -> None:
    """What the watch shows after it counts, be that before the answer or after it."""
    tracking = Tracking(None)
    tracked = patch_with(tracking, ("5", OWN))
    assert (tracked.status, tracked.expected_version) == (OWN, "")
    assert shown(tracking, "6", OLD).overwritten
    tracked = patch_with(Tracking(None), ("5", OWN), ("6", THEIRS))
    assert (tracked.status, tracked.overwritten) == (THEIRS, True)


def test_a_patch_that_changes_nothing_is_not_waited_for() -> None:
    """The API server answers with the version that was there before, and the watch shows none."""
    tracking = Tracking(None)
    tracked = shown(tracking, "5", OWN)
    with tracked.noting_versions() as noted:
        pass
    tracked.wrote(OWN, "5", noted)
    assert not tracked.expected_version


@pytest.mark.parametrize("answered", [True, False])
def test_what_was_shown_instead_of_our_patch_counts_in_the_end(*, answered: bool) -> None:
    """The watch may pass over our patch: what it showed since that was sent is believed once ours is late."""
    tracking = Tracking(None)
    if answered:
        tracked = patch_with(tracking)
        shown(tracking, "6", THEIRS)
    else:
        tracked = patch_with(tracking, ("6", THEIRS))
    assert tracked.status == OWN
    assert not tracked.look_back("4")
    assert tracked.look_back("5")
    assert tracked.status == THEIRS
    assert not tracked.look_back("5")


def test_what_was_shown_before_our_patch_is_not_looked_back_at() -> None:
    """It is older: an object of which nothing was shown since has our status."""
    tracking = Tracking(None)
    tracked = tracked_patch(tracking)
    shown(tracking, "4", OLD)
    with tracked.noting_versions() as noted:
        pass
    tracked.wrote(THEIRS, "7", noted)
    assert not tracked.look_back("7")
    assert tracked.status == THEIRS


def test_of_a_patch_that_failed_no_versions_are_noted() -> None:
    """They would be more with each change of the object."""
    tracking = Tracking(None)
    tracked = tracking.see(body(status=OLD))
    with suppress(ValueError), tracked.noting_versions():
        raise ValueError
    assert tracked.noted_versions is None


def test_a_status_is_a_copy() -> None:
    """What kopf does to its body later does not change what was seen."""
    tracking = Tracking(None)
    given = body(status=OLD)
    tracked = tracking.see(given)
    given["status"]["phase"] = "Failed"
    assert tracked.status == OLD


def test_a_status_that_is_none_is_empty() -> None:
    """A status of another type counts as absent."""
    assert Tracking(None).see({**body(), "status": ["x"]}).status == {}


def test_an_object_among_mirrors_shows_nothing_yet() -> None:
    """In the namespace of mirrors an object stands for no job by its own word, until it is adopted."""
    tracking = Tracking("shown")
    tracked = tracking.see(body("job-1", namespace="shown", annotations={MIRROR: "a" * 64}))
    assert (tracked.job_id, tracked.is_mirror) == ("", False)
    assert tracking.showing("job-1") is None
    assert tracking.showing("uid-of-job-1") is None


def test_an_adopted_mirror_shows_its_job() -> None:
    """An adopted one stands for its job, and what was held against it before is void."""
    tracking = Tracking("shown")
    tracked = tracking.see(body("job-1", namespace="shown"))
    tracked.verdict = Verdict(final=True, reason="NotAMirror", message="")
    tracking.adopt(tracked, "job-1")
    assert tracking.showing("job-1") is tracked
    assert tracked.is_mirror
    assert str(tracked.verdict) == "None"
    tracking.forget(tracked.dj.uid)
    assert tracking.showing("job-1") is None


def test_a_mirror_that_is_gone_does_not_take_its_successor_along() -> None:
    """An old object's going leaves the job to the one that shows it now."""
    tracking = Tracking("shown")
    old = tracking.see(body("job-1", namespace="shown", uid="u1"))
    new = tracking.see(body("job-1", namespace="shown", uid="u2"))
    tracking.adopt(old, "job-1")
    tracking.adopt(new, "job-1")
    tracking.forget("u1")
    assert tracking.showing("job-1") is new
