"""Traces: when jobs come, and what each takes; recorded in a CSV file, or made up."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from downloadjobs_core.counts import FIRST_SERVICE_SECONDS
from downloadjobs_core.errors import DownloadJobsError

HOUR: Final = 3_600.0
DAY: Final = 24 * HOUR

MOST_JOBS: Final = 2_000_000
"""More would take minutes, and gigabytes."""

LONGEST_SECONDS: Final = 366 * DAY

BYTES_PER_SECOND: Final = 50_000_000.0
"""How fast a job is taken to be bundled where only its size is known. Measure your own."""

LONGEST_JOB_SECONDS: Final = 1_800.0
"""Of made-up jobs; the tail of what their sizes are drawn from has no end."""


class TraceError(DownloadJobsError):
    """A trace cannot be read."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job: when it comes, in seconds from the trace's begin, and how long one slot works on it."""

    at: float
    service_seconds: float


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in the order in which they come.

    Attributes:
        seconds: how long the trace is; after that nothing comes, and what is left is worked off.
    """

    name: str
    arrivals: tuple[Arrival, ...]
    seconds: float


def read(
    lines: Iterable[str],
    name: str,
    *,
    service_seconds: float = FIRST_SERVICE_SECONDS,
    bytes_per_second: float = BYTES_PER_SECOND,
) -> Trace:
    """A recorded trace.

    Args:
        lines: CSV with a head. `seconds` since the begin is in every row; `count` says how many jobs came
            then (1 without); `service_seconds` what each takes, or `size` its bytes.
        name: of the file, for people.
        service_seconds: what a job takes where the file does not say.
        bytes_per_second: makes seconds of a size.

    Raises:
        TraceError: it is no such file, with the line.
    """
    try:
        rows = csv.DictReader(lines)
        head = [str(column).strip() for column in rows.fieldnames or ()]
        rows.fieldnames = head
        known = {"seconds", "count", "service_seconds", "size"}
        if "seconds" not in head or not set(head) <= known or len(set(head)) < len(head):
            raise TraceError(
                f"{name}: the first line must name columns: seconds, and what there is of count,"
                f" service_seconds or size. It is: {','.join(head) or 'empty'}"
            )
        arrivals: list[Arrival] = []
        for row in rows:
            where = f"{name}, line {rows.line_num}"
            if None in row or None in row.values():
                raise TraceError(f"{where}: it must have {len(head)} fields, as the first line says.")
            at = _number(row, "seconds", where, LONGEST_SECONDS)
            count = int(_number(row, "count", where, MOST_JOBS)) if row.get("count") else 1
            if row.get("service_seconds"):
                each = _number(row, "service_seconds", where, DAY)
            elif row.get("size"):
                each = _number(row, "size", where, 1e15) / bytes_per_second
            else:
                each = service_seconds
            if len(arrivals) + count > MOST_JOBS:
                raise TraceError(f"{where}: more than {MOST_JOBS:,} jobs.")
            arrivals += [Arrival(at, each)] * count
    except csv.Error as error:
        raise TraceError(f"{name} is no CSV: {error}") from None
    if not arrivals:
        raise TraceError(f"{name} has no jobs.")
    arrivals.sort(key=lambda arrival: arrival.at)
    return Trace(name, tuple(arrivals), arrivals[-1].at)


def _number(row: Mapping[str, str], name: str, where: str, most: float) -> float:
    text = row[name]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise TraceError(f"{where}: {name} must be a number from 0 to {most:,.0f}; it is {text!r}.")
    return number


def write(trace: Trace) -> Iterator[str]:
    """The lines of a CSV file that `read` takes."""
    yield "seconds,service_seconds\n"
    for arrival in trace.arrivals:
        yield f"{arrival.at:.3f},{arrival.service_seconds:.3f}\n"


def _poisson(
    chance: random.Random, rate: Callable[[float], float], peak: float, seconds: float
) -> Iterator[float]:
    """Times of independent arrivals at a rate that changes: by thinning (Lewis and Shedler, 1979)."""
    at = 0.0
    while (at := at + chance.expovariate(peak)) < seconds:
        if chance.random() * peak < rate(at):
            yield at


def _service(chance: random.Random, median: float, sigma: float) -> float:
    """Sizes of downloads are close to log-normal: most are small, and few take most of the time."""
    return min(LONGEST_JOB_SECONDS, chance.lognormvariate(math.log(median), sigma))


def _bell(at: float, middle: float, width: float) -> float:
    return math.exp(-(((at - middle) / width) ** 2) / 2)


def day(seed: int) -> Trace:
    """24 hours from midnight: an idle night, a peak before and after noon, six bursts; some 20,000 jobs."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret

    def rate(at: float) -> float:
        hour = at / HOUR
        return 0.003 + 0.6 * _bell(hour, 10.5, 1.6) + 0.5 * _bell(hour, 15.5, 1.8)

    times = list(_poisson(chance, rate, 0.7, DAY))
    for hour in (3.2, 8.5, 11.1, 14.0, 17.6, 21.3):
        begin = hour * HOUR
        times += [begin + chance.random() * 20 for _ in range(chance.randint(250, 600))]
    return _made("day", times, DAY, lambda: _service(chance, 6, 1.2))


def burst(seed: int) -> Trace:
    """An hour with next to nothing, but three bursts of 600 jobs."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    times = list(_poisson(chance, lambda _: 0.02, 0.02, HOUR))
    for minute in (5, 22, 40):
        times += [minute * 60 + chance.random() * 5 for _ in range(600)]
    return _made("burst", times, HOUR, lambda: _service(chance, 4, 1.0))


def night(seed: int) -> Trace:
    """12 hours of a night: now and then a few large jobs, of minutes each."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    times: list[float] = []
    for begin in _poisson(chance, lambda _: 1 / 1_800, 1 / 1_800, 12 * HOUR):
        times += [begin + chance.random() * 60 for _ in range(chance.randint(1, 12))]
    return _made("night", times, 12 * HOUR, lambda: _service(chance, 240, 0.8))


def _made(name: str, times: list[float], seconds: float, service: Callable[[], float]) -> Trace:
    arrivals = tuple(Arrival(at, service()) for at in sorted(times) if at < seconds)
    return Trace(name, arrivals, seconds)


GENERATED: Final[Mapping[str, Callable[[int], Trace]]] = {"day": day, "burst": burst, "night": night}
"""Traces that are made up, by their names; each takes a seed, and gives the same for the same."""
