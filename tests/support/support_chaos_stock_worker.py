"""The worker process of `support_chaos_stock.StockHuey`: a stock consumer with threads, until a signal.

A module of its own, because Huey names a task after its module, and this one is `__main__`.
"""

from __future__ import annotations

from downloadjobs_core import logs
from downloadjobs_core.settings import load
from downloadjobs_worker.settings import WorkerSettings
from support_chaos_stock import tasks_of


def main() -> None:
    """Run it."""
    settings = load(WorkerSettings, "stock worker")
    logs.configure(level="info", log_format="json")
    tasks = tasks_of(settings.redis.url, settings)
    tasks.huey.create_consumer(workers=settings.worker_concurrency, periodic=False).run()


if __name__ == "__main__":
    main()
