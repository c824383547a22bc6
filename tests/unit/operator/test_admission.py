"""What a DownloadJob may ask for, and the job it becomes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.job import NewJob
from downloadjobs_core.states import Priority
from downloadjobs_core.webhook_addresses import AddressRules
from downloadjobs_operator.admission import AdmissionRules, admit, owner_of
from downloadjobs_operator.downloadjob import MIRROR, RefusedError
from support_operator import JSON, dj

ANYWHERE = AdmissionRules(user_id_namespaces=("*",), priority_ceilings={"*": Priority.HIGH})
HERE = AdmissionRules(user_id_namespaces=("team",))
REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


def refusal(rules: AdmissionRules = ANYWHERE, *, namespace: str = "team", **given: Any) -> RefusedError:  # noqa: ANN401
    """Why an object is refused."""
    with pytest.raises(RefusedError) as caught:
        admit(dj(namespace=namespace, **given), (10_000,), rules)
    return caught.value


def admitted(rules: AdmissionRules = ANYWHERE, **spec: object) -> NewJob:
    """The job that an object becomes."""
    return admit(dj(spec=spec), (10_001, 10_000, 10_001), rules)


def test_the_job_is_the_object() -> None:
    """A job's id is the object's uid, so that submitting twice is one job."""
    assert admit(dj(uid="6f9c"), (10_000,), HERE).job_id == "6f9c"


def test_duplicate_ids_are_one_file_but_are_counted() -> None:
    """An id that stands twice is bundled once, where it first stood; both were asked for."""
    job = admitted()
    assert (job.file_ids, job.total_file_ids) == ((10_001, 10_000), 3)


def test_a_namespace_is_charged_whoever_reads() -> None:
    """The job belongs to its namespace also where a user is named, who may only fetch the result."""
    job = admitted(userId="ada")
    assert (job.user, job.reader) == ("k8s:team", "ada")
    assert owner_of("team") == "k8s:team"


def test_nobody_reads_where_nobody_is_named() -> None:
    """Without a user nobody but the namespace has the result."""
    assert admitted(HERE).reader == ""


def test_a_user_is_refused_where_none_may_be_named() -> None:
    """A namespace that is not allowed to cannot give results to a user, and it is told who could allow it."""
    error = refusal(AdmissionRules(user_id_namespaces=("other",)), spec={"userId": "ada"})
    assert error.reason == "UserIdNotAllowed"
    assert "userIdNamespaces" in str(error)


def test_no_namespace_may_name_a_user_by_default() -> None:
    """Where nothing is set, no user may be named."""
    assert refusal(AdmissionRules(), spec={"userId": "ada"}).reason == "UserIdNotAllowed"


@pytest.mark.parametrize(
    "user", ["k8s:other", "k8s:", "k8s:team", "a,b", "a b", "ä", "a\n", "\n", "x" * 129, "a\x7f", "a\0b"]
)
def test_hostile_users_are_refused(user: str) -> None:
    """No user is a namespace, or could be two, or break a header or a log line, where users may be named."""
    assert refusal(HERE, spec={"userId": user}).reason == "InvalidUserId"


@given(st.text(min_size=1, max_size=140))
def test_users_that_come_through_are_visible_ascii(user: str) -> None:
    """Whoever is admitted has 1 to 128 visible ASCII characters without a comma, and is no namespace."""
    try:
        reader = admitted(HERE, userId=user).reader
    except RefusedError:
        return
    assert reader == user
    assert 1 <= len(user) <= 128
    assert all("!" <= one <= "~" and one != "," for one in user)
    assert not user.startswith("k8s:")


@pytest.mark.parametrize(("limit", "attempts"), [(0, 1), (2, 3), (19, 20)])
def test_a_limit_is_of_retries(limit: int, attempts: int) -> None:
    """A backoffLimit of two makes three attempts."""
    assert admitted(backoffLimit=limit).max_attempts == attempts


@pytest.mark.parametrize("limit", [-1, 20, 2**31])
def test_limits_that_the_schema_does_not_know_are_refused(limit: int) -> None:
    """Attempts without an end, or none at all, are refused though an older schema let them in."""
    assert refusal(spec={"backoffLimit": limit}).reason == "InvalidBackoffLimit"


@pytest.mark.parametrize("seconds", [-1, 1, 59, 604_801, 2**31])
def test_expiry_times_that_the_schema_does_not_know_are_refused(seconds: int) -> None:
    """A result that would go at once, or stay for ever, is refused though an older schema let it in."""
    with pytest.raises(RefusedError):
        admitted(result={"expirationSeconds": seconds})


def test_the_results_time_is_passed_on() -> None:
    """The time of the result is the spec's; without one it is 0, which means the installation's."""
    assert admitted(result={"expirationSeconds": 60}).result_ttl_seconds == 60
    assert admitted().result_ttl_seconds == 0


def test_held_from_the_start() -> None:
    """An object that is created suspended becomes a job that is."""
    assert admitted(suspend=True).suspended
    assert not admitted().suspended


def test_priority_is_the_one_asked_for() -> None:
    """A class below the ceiling is given as it is asked for, and normal without a wish."""
    assert admitted(priority="low").priority is Priority.LOW
    assert admitted(priority="high").priority is Priority.HIGH
    assert admitted().priority is Priority.NORMAL


def test_a_namespace_has_its_own_ceiling() -> None:
    """A ceiling of the namespace's own counts, not that of all others; without a wish it lowers the class."""
    rules = AdmissionRules(priority_ceilings={"*": Priority.HIGH, "team": Priority.LOW})
    assert admitted(rules).priority is Priority.LOW
    assert refusal(rules, spec={"priority": "normal"}).reason == "PriorityTooHigh"
    assert admit(dj(namespace="x", spec={"priority": "high"}), (10_000,), rules).priority is Priority.HIGH


def test_a_ceiling_is_told() -> None:
    """The refusal says what the namespace may have, and who could change it."""
    error = refusal(AdmissionRules(priority_ceilings={"*": Priority.NORMAL}), spec={"priority": "high"})
    assert error.reason == "PriorityTooHigh"
    assert "normal" in str(error)


def test_a_class_that_is_none_is_refused() -> None:
    """Only low, normal and high are classes, in small letters."""
    for priority in ("urgent", "HIGH", " low"):
        assert refusal(spec={"priority": priority}).reason == "InvalidPriority"


def test_nothing_is_submitted_among_mirrors() -> None:
    """In the namespace that shows REST jobs, an object that somebody created becomes no job."""
    rules = AdmissionRules(user_id_namespaces=("*",), mirrors_in="shown")
    assert refusal(rules, namespace="shown").reason == "NotAMirror"


@pytest.mark.parametrize("rules", [ANYWHERE, AdmissionRules(mirrors_in="elsewhere")], ids=["off", "moved"])
def test_a_mirror_is_never_submitted(rules: AdmissionRules) -> None:
    """A mirror that is left when mirroring is turned off, or moved, becomes no second job."""
    assert refusal(rules, namespace="shown", annotations={MIRROR: "a" * 64}).reason == "NotAMirror"


@given(
    st.dictionaries(
        st.sampled_from(["userId", "priority", "backoffLimit", "suspend", "cancel", "result"]),
        JSON | st.integers(0, 30),
    )
)
def test_any_spec_becomes_a_job_or_a_reason(spec: dict[str, Any]) -> None:
    """Whatever stands in a spec, it is admitted, or refused with a reason that a condition can hold."""
    refused = ""
    try:
        assert 1 <= admitted(**spec).max_attempts <= 20
    except RefusedError as error:
        refused = error.reason
    assert not refused or REASON.fullmatch(refused)


URL = "https://hooks.example.com/downloads?key=7f3a"


def test_a_webhook_is_asked_for() -> None:
    """Where webhooks are switched on, a callback URL becomes the job's, and only its origin is shown."""
    job = admitted(AdmissionRules(webhooks=True), callbackUrl=URL)
    assert job.callback is not None
    assert (job.callback.url, job.callback.origin) == (URL, "https://hooks.example.com")
    assert admitted().callback is None


def test_a_webhook_is_refused_where_none_is_sent() -> None:
    """Otherwise the object is refused: a job that nobody is told of would not be what was asked for."""
    error = refusal(spec={"callbackUrl": URL})
    assert error.reason == "WebhooksOff"
    assert "webhooks.enabled" in str(error)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "http://hooks.example.com/", "https://redis/", "x"])
def test_a_webhook_may_not_go_anywhere(url: str) -> None:
    """The rules are the API's; the message does not quote the URL, which may hold a secret."""
    error = refusal(AdmissionRules(webhooks=True), spec={"callbackUrl": f"{url}?key=7f3a"})
    assert error.reason == "InvalidCallbackUrl"
    assert "7f3a" not in str(error)
    allowed = AdmissionRules(webhooks=True, addresses=AddressRules(("redis",)))
    assert admitted(allowed, callbackUrl="https://redis/").callback is not None


def test_a_callback_url_is_in_no_repr() -> None:
    """What is logged of an object does not show it."""
    assert "7f3a" not in repr(dj(spec={"callbackUrl": URL}))
