"""Metrics of several worker processes as one, by files in a folder that the master makes.

prometheus-client keeps each process' values in mapped files, named by its id; whoever is
asked adds all of them up. So one scrape, answered by any worker, tells of all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from prometheus_client import CollectorRegistry, values
from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from downloadjobs_core.metrics import new_registry

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client looks for the folder whenever a value is made."""

FOLDER_PREFIX: Final = "downloadjobs-metrics-"

GONE: Final = "gone"
"""Stands in the place of a process' id for all that have ended."""

TYPES: Final = ("counter", "histogram")
"""Those that the API has. A gauge of one process would go with it."""


class SharedMetrics(Collector):
    """The folder, and what all files in it say together.

    Make it in the master, before any metric and any fork.
    """

    def __init__(self) -> None:
        # In memory, where there is a file system for it: a disk that is slow must not hold requests up.
        place = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())  # noqa: S108 - as gunicorn
        _remove_leftovers(place)
        self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=place))
        self._in_use = _mark_in_use(self._folder)
        self._lock = self._folder / "lock"
        self._lock.touch()
        self.owner = os.getpid()
        """The process that made the folder, and removes it."""
        os.environ[FOLDER_VARIABLE] = str(self._folder)
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        self._collector = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]

    def registry(self, commit: str | None) -> CollectorRegistry:
        """What is served: the processes' values, and the build."""
        registry = new_registry(commit)
        registry.register(self)
        return registry

    def collect(self) -> Iterable[Metric]:
        """The sums."""
        with self._locked(fcntl.LOCK_SH):
            return list(self._collector.collect())  # type: ignore[no-untyped-call]

    def ended(self, pid: int) -> None:
        """Move a dead process' values to those of all that have ended, or files would pile up.

        What it held open ended with it, so its gauges go.
        """
        with self._locked(fcntl.LOCK_EX):
            for gauges in self._folder.glob(f"gauge_*_{pid}.db"):
                gauges.unlink()
            for kind in TYPES:
                left, gone = (self._folder / f"{kind}_{name}.db" for name in (pid, GONE))
                if left.exists():
                    _merge([left, gone] if gone.exists() else [left], gone)
                    left.unlink()

    def close(self) -> None:
        """Remove the folder."""
        os.environ.pop(FOLDER_VARIABLE, None)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._in_use.close()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with self._lock.open("rb") as lock:
            fcntl.flock(lock, how)
            yield


def _mark_in_use(folder: Path) -> BinaryIO:
    """A file that is locked as long as the master or a worker lives: they inherit it."""
    made = (folder / "in-use.new").open("wb")
    fcntl.flock(made, fcntl.LOCK_EX)
    (folder / "in-use.new").rename(folder / "in-use")
    return made


def _remove_leftovers(place: Path) -> None:
    """Remove the folders of masters that were killed, and could not do it themselves."""
    for marked in place.glob(f"{FOLDER_PREFIX}*/in-use"):
        with suppress(OSError), marked.open("rb") as file:  # another user's, or in use
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(marked.parent, ignore_errors=True)


def _merge(files: list[Path], into: Path) -> None:
    """Write the sum of files as one of their kind."""
    merged = into.with_suffix(".new")
    with suppress(FileNotFoundError):
        merged.unlink()
    written = MmapedDict(str(merged))  # type: ignore[no-untyped-call]
    # Not accumulated: in a file, each bucket of a histogram holds its own number.
    for metric in MultiProcessCollector.merge(map(str, files), accumulate=False):  # type: ignore[no-untyped-call]
        for sample in metric.samples:
            names, labels = list(sample.labels), list(sample.labels.values())
            key = mmap_key(metric.name, sample.name, names, labels, metric.documentation)
            written.write_value(key, sample.value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    merged.rename(into)
