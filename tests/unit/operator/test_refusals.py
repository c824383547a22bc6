"""Which refusals are told."""

from __future__ import annotations

from downloadjobs_operator.kube_client import KubernetesError
from downloadjobs_operator.refusals import MOST_TOLD, Refusals
from support_operator import dj


def forbidden(name: str, verb: str = "patch") -> KubernetesError:
    """As the API server words it."""
    return KubernetesError(f'downloadjobs.downloadjobs.dev "{name}" is forbidden: you cannot {verb} it')


def test_a_reason_is_told_once_for_its_namespace() -> None:
    """Whichever object it is about; and again once something was done there."""
    refusals = Refusals()
    assert refusals.news(dj("a"), forbidden("a"))
    assert not refusals.news(dj("b"), forbidden("b"))
    assert refusals.news(dj("b"), forbidden("b", "update"))
    assert refusals.news(dj("a", namespace="other"), forbidden("a"))
    refusals.over("other")
    assert not refusals.news(dj("a"), forbidden("a"))
    refusals.over("team")
    assert refusals.news(dj("a"), forbidden("a"))


def test_reasons_do_not_pile_up() -> None:
    """Were each another, all are forgotten now and then."""
    refusals = Refusals()
    assert all(refusals.news(dj(), KubernetesError(str(number))) for number in range(MOST_TOLD))
    assert not refusals.news(dj(), KubernetesError("0"))
    assert refusals.news(dj(), KubernetesError("another"))
    assert refusals.news(dj(), KubernetesError("0"))
