"""The operator's settings from the environment."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from downloadjobs_core.settings import faults
from downloadjobs_core.states import Priority
from downloadjobs_operator.settings import MirrorMode, OperatorSettings


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the environment that the tests run in."""
    with monkeypatch.context() as context:
        for name in OperatorSettings.model_fields:
            context.delenv(name.upper(), raising=False)
        yield


def read(monkeypatch: pytest.MonkeyPatch, **values: str) -> OperatorSettings:
    """Settings from an environment with these variables."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return OperatorSettings()


def refusals(monkeypatch: pytest.MonkeyPatch, **values: str) -> list[str]:
    """Why these variables are refused."""
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, **values)
    return faults(caught.value)


def test_defaults_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is set: its own namespace, no users, normal priority at most, no mirrors, a Lease."""
    settings = read(monkeypatch, OPERATOR_NAMESPACE="own")
    assert settings.served == ("own",)
    assert settings.user_id_namespaces == ()
    assert settings.priority_ceilings == {"*": Priority.NORMAL}
    assert settings.mirrors_in is None
    assert settings.leader_election


def test_outside_a_pod_the_namespace_is_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is in no pod, and was told nothing, serves `default`."""
    assert read(monkeypatch).own_namespace == "default"


def test_namespaces_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names stand with commas between, blanks around and doubles do not count."""
    settings = read(monkeypatch, WATCH_NAMESPACES=" a, b ,a,,", USER_ID_NAMESPACES="a")
    assert settings.served == ("a", "b")
    assert settings.user_id_namespaces == ("a",)


def test_a_star_is_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`*` serves all namespaces, which kopf takes as none."""
    assert read(monkeypatch, WATCH_NAMESPACES="*").served == ()


@pytest.mark.parametrize("name", ["WATCH_NAMESPACES", "USER_ID_NAMESPACES"])
@pytest.mark.parametrize("value", ["*,a", "A", "a b", "-a", "a-", "a.b", "a" * 64, "a,*"])
def test_what_is_no_namespace_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A name that no namespace has is refused by the setting's name, and `*` beside others."""
    (fault,) = refusals(monkeypatch, **{name: value})
    assert fault.startswith(f"{name}:")


def test_mirrors_need_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirroring without a namespace of its own is refused, and says which is missing."""
    (fault,) = refusals(monkeypatch, MIRROR_API_JOBS="all")
    assert fault.startswith("MIRROR_NAMESPACE:")


def test_the_namespace_of_mirrors_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrors' namespace is watched beside the others, once."""
    values = {"WATCH_NAMESPACES": "a", "MIRROR_API_JOBS": "active", "MIRROR_NAMESPACE": "shown"}
    settings = read(monkeypatch, **values)
    assert settings.mirror_api_jobs is MirrorMode.ACTIVE
    assert (settings.mirrors_in, settings.served) == ("shown", ("a", "shown"))
    assert read(monkeypatch, **(values | {"WATCH_NAMESPACES": "*"})).served == ()


def test_the_namespace_of_mirrors_is_for_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is named to be served as well is refused, unless nothing is mirrored there."""
    values = {"WATCH_NAMESPACES": "a,shown", "MIRROR_NAMESPACE": "shown"}
    (fault,) = refusals(monkeypatch, MIRROR_API_JOBS="active", **values)
    assert fault.startswith("MIRROR_NAMESPACE:")
    assert "'shown' is in WATCH_NAMESPACES as well" in fault
    assert read(monkeypatch, MIRROR_API_JOBS="none", **values).served == ("a", "shown")


def test_two_operators_of_one_host_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has an identity of its own, which stays; but a pod's name is what it is called."""
    one, another = read(monkeypatch), read(monkeypatch)
    assert one.identity == one.identity
    assert one.identity != another.identity
    assert one.identity.startswith(f"{socket.gethostname()}_")
    assert read(monkeypatch, POD_NAME="operator-0").identity == "operator-0"


def test_a_place_alone_makes_no_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace without the mode is no namespace of mirrors."""
    assert read(monkeypatch, MIRROR_NAMESPACE="shown").mirrors_in is None


@pytest.mark.parametrize(
    ("value", "ceilings"),
    [
        ("high", {"*": Priority.HIGH}),
        ('{"*": "low", "team": "high"}', {"*": Priority.LOW, "team": Priority.HIGH}),
    ],
)
def test_ceilings(monkeypatch: pytest.MonkeyPatch, value: str, ceilings: dict[str, Priority]) -> None:
    """One class for all, or one by namespace."""
    assert read(monkeypatch, PRIORITY_CEILINGS=value).priority_ceilings == ceilings


def test_the_results_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket of results is told where there is one of its own, else that of files, else none."""
    assert read(monkeypatch).results_bucket is None
    assert read(monkeypatch, S3_BUCKET_NAME="files").results_bucket == "files"
    assert read(monkeypatch, S3_RESULTS_BUCKET="results").results_bucket == "results"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STATUS_PATCHES_PER_SECOND", "0"), ("RESYNC_SECONDS", "0"), ("LEADER_LEASE_SECONDS", "1"),
        ("FINALIZER_GIVE_UP_SECONDS", "0"), ("PEERING_PRIORITY", "-1"), ("PORT", "70000"),
        ("MIRROR_API_JOBS", "some"),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that would stop the operator, or let it spin, is refused by the setting's name."""
    assert [fault.split(":")[0] for fault in refusals(monkeypatch, **{name: value})] == [name]


def test_every_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wrong settings are two lines."""
    assert len(refusals(monkeypatch, PORT="x", RESYNC_SECONDS="x")) == 2
