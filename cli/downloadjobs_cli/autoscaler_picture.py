"""A simulation as a picture: pods, queue and waits over time, as an SVG file without fonts or scripts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from downloadjobs_operator.autoscaler.simulation import Run, percentile

WIDTH: Final = 960
PANEL: Final = 150
LEFT: Final = 64
RIGHT: Final = 16
TOP: Final = 54
GAP: Final = 38
BUCKETS: Final = 440
"""Points of a line: about one for each two pixels."""

COLOURS: Final = ("#0b62b8", "#d1495b", "#8a8a8a", "#2e8b57", "#8f5fbf", "#b8860b")
"""For at most six policies; more begin anew."""

HOUR: Final = 3_600
LONG_SECONDS: Final = 2 * HOUR
"""Longer traces have hours below them, shorter ones minutes."""

Line = Sequence[tuple[float, float]]


def draw(name: str, runs: Sequence[Run]) -> str:
    """The picture.

    Args:
        name: of the trace.
        runs: the policies' runs; the first is drawn last, above the others.
    """
    seconds = max(run.seconds for run in runs) or 1.0
    panels = (
        ("pods", [_steps(run.replicas, seconds) for run in runs]),
        ("jobs in the queue", [_steps(run.queue, seconds) for run in runs]),
        ("wait, p95 in s", [_waits(run.waits, seconds) for run in runs]),
    )
    height = TOP + len(panels) * (PANEL + GAP)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(f'Simulation of {name}')}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="15" fill="#222">{escape(name)}</text>',
        *_legend([run.report.policy for run in runs]),
    ]
    for number, (title, lines) in enumerate(panels):
        parts += _panel(title, lines, seconds, TOP + number * (PANEL + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], LEFT
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{x}" y="31" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="38" fill="#222">{escape(name)}</text>')
        x += 44 + 7 * len(name)
    return parts


def _panel(title: str, lines: Sequence[Line], seconds: float, top: int) -> list[str]:
    """One diagram, with its grid."""
    bottom = top + PANEL
    step, most = _scale(max((value for line in lines for _, value in line), default=0))

    def x(at: float) -> float:
        return LEFT + at / seconds * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return bottom - value / most * (PANEL - 18)

    parts = [f'<text x="{LEFT}" y="{top + 8}" fill="#555">{escape(title)}</text>']
    for tick in range(round(most / step) + 1):
        at = y(tick * step)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#555">{tick * step:,g}</text>'
        )
    unit, word = (HOUR, "h") if seconds > LONG_SECONDS else (60, "min")
    every, _ = _scale(seconds / unit, parts=12, whole=True)
    below = f'y="{bottom + 16}" text-anchor="middle" fill="#555"'
    parts += [
        f'<text x="{x(tick * every * unit):.1f}" {below}>{tick * every:g} {word}</text>'
        for tick in range(int(seconds / unit / every) + 1)
    ]
    # The first is what this is about: it lies on top.
    for number in reversed(range(len(lines))):
        parts.append(_path(lines[number], COLOURS[number % len(COLOURS)], x, y))
    return parts


def _path(line: Line, colour: str, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    points, last = [], None
    for at, value in line:
        if last is None:
            points.append(f"M{x(at):.1f} {y(value):.1f}")
        else:
            points.append(f"H{x(at):.1f}" + (f"V{y(value):.1f}" if value != last else ""))
        last = value
    return f'<path d="{"".join(points)}" fill="none" stroke="{colour}" stroke-width="1.4"/>'


def _scale(most: float, *, parts: int = 4, whole: bool = False) -> tuple[float, float]:
    """A round step, and the end of an axis of at most about so many steps."""
    rough = max(most / parts, 0.25 if not whole else 1e-9)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1, step)
    return step, max(1, math.ceil(most / step - 1e-9)) * step


def _buckets(seconds: float) -> list[float]:
    return [number * seconds / BUCKETS for number in range(BUCKETS + 1)]


def _steps(changes: Sequence[tuple[float, int]], seconds: float) -> Line:
    """The largest value in each bucket of time: a short peak must not vanish."""
    line: list[tuple[float, float]] = []
    following, value = 0, 0
    width = seconds / BUCKETS
    for begin in _buckets(seconds):
        largest = value
        while following < len(changes) and changes[following][0] < begin + width:
            value = changes[following][1]
            largest = max(largest, value)
            following += 1
        line.append((begin, largest))
    return line


def _waits(waits: Sequence[tuple[float, float]], seconds: float) -> Line:
    """The 95th percentile of the waits of the jobs that began in each bucket; 0 where none did."""
    line: list[tuple[float, float]] = []
    following = 0
    width = seconds / BUCKETS
    for begin in _buckets(seconds):
        found: list[float] = []
        while following < len(waits) and waits[following][0] < begin + width:
            found.append(waits[following][1])
            following += 1
        line.append((begin, percentile(sorted(found), 0.95)))
    return line
