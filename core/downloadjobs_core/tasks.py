"""The Huey tasks: a job to bundle, and the queue's own maintenance.

A task is bound here to a callable that the process gives at start, so its name
is the same for whoever submits and whoever runs it, and the API imports no
worker code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from huey.api import TaskWrapper

from downloadjobs_core.huey_queue import BUNDLE, MAINTAIN, LeasedHuey
from downloadjobs_core.job import Job


def bind_bundle(huey: LeasedHuey, run: Callable[[Job], object]) -> TaskWrapper:
    """Register the task that bundles one job's files.

    Args:
        huey: the process' Huey.
        run: called in a consumer's thread with the leased job; it ends the lease itself.
    """

    def bundle(**job: Any) -> None:  # noqa: ANN401 - the JSON of a job's hash
        run(Job.from_hash(job))

    return huey.task(name=BUNDLE)(bundle)


def bind_maintain(huey: LeasedHuey, run: Callable[[Job], None]) -> TaskWrapper:
    """Register the task that runs one of the queue's own tasks; `run` ends its lease itself."""

    def maintain(**job: Any) -> None:  # noqa: ANN401 - the JSON of a task's hash
        run(Job.from_hash(job))

    return huey.task(name=MAINTAIN)(maintain)
