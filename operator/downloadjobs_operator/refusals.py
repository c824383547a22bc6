"""What the API server refuses in many objects of a namespace for one reason is told once.

Rights are given and taken a namespace at a time: a hundred lines would say no more than the first.
"""

from __future__ import annotations

from typing import Final

from downloadjobs_operator.downloadjob import DownloadJob
from downloadjobs_operator.kube_client import KubernetesError

MOST_TOLD: Final = 1_000
"""Reasons kept; then all are forgotten, and may be told again."""


def is_refusal(error: Exception) -> bool:
    """Whether the API server refuses what is asked for whatever the object is like: for want of rights."""
    return type(error) is KubernetesError


class Refusals:
    """The reasons that were told, by namespace."""

    def __init__(self) -> None:
        self._told: dict[str, set[str]] = {}
        self._count = 0

    def news(self, dj: DownloadJob, error: Exception) -> bool:
        """Whether a refusal is to be told: no other object of the namespace was refused for its reason."""
        reason = str(error).replace(f'"{dj.name}"', "").replace(f"/{dj.name}", "")
        told = self._told.setdefault(dj.namespace, set())
        if reason in told:
            return False
        if self._count >= MOST_TOLD:
            self._told.clear()
            self._count = 0
            told = self._told.setdefault(dj.namespace, set())
        told.add(reason)
        self._count += 1
        return True

    def over(self, namespace: str) -> None:
        """Something was done in a namespace, so what is refused from now on is news."""
        if self._told:
            self._count -= len(self._told.pop(namespace, ()))
