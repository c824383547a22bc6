"""The one Huey task, and the Huey it belongs to.

The task is bound here to a callable that the process gives at start, so its
name is the same for whoever submits and whoever runs it, and the API imports
no worker code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from huey.api import TaskWrapper

from downloadjobs_core.huey_queue import LeasedHuey
from downloadjobs_core.job import Job

BUNDLE: Final = "bundle"
"""The task's name. With this module's it is what a message in the queue names."""


def bind_bundle(huey: LeasedHuey, run: Callable[[Job], None]) -> TaskWrapper:
    """Register the task that bundles one job's files.

    Args:
        huey: the process' Huey.
        run: called in a consumer's thread with the leased job; it ends the lease itself.
    """

    def bundle(**job: Any) -> None:  # noqa: ANN401 - the JSON of a job's hash
        run(Job.from_hash(job))

    return huey.task(name=BUNDLE)(bundle)
