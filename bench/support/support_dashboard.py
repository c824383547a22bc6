"""A Grafana dashboard as a picture: each panel's queries, asked of a real Prometheus, as one SVG file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from support_prometheus import Prometheus

COLUMN: Final = 60
"""Pixels; Grafana's grid has 24 columns."""

LINE: Final = 30
MARGIN: Final = 4
HEAD: Final = 44
STEP_SECONDS: Final = 10
MOST_TICKS: Final = 7
"""Of the axis of time."""

RATE_INTERVAL: Final = "1m"
"""What Grafana takes for a scrape each 5 s is less; this gives calmer lines."""

PALETTE: Final = (
    "#56a64b", "#e0a00b", "#3274d9", "#e05d2b", "#8f3bb8",
    "#1f9c9c", "#c4162a", "#7a7a7a", "#a0522d", "#5f6fd0",
)  # fmt: skip
NAMED: Final = {
    "green": "#56a64b", "yellow": "#e0b400", "orange": "#ff780a", "red": "#e02f44", "blue": "#3274d9",
    "purple": "#8f3bb8", "text": "#666666",
}  # fmt: skip

NO_FRACTION: Final = 100
"""From which on a value is written as a whole number."""

SCALES: Final = {
    "s": ((86_400, " d"), (3_600, " h"), (60, " min"), (1, " s"), (0.001, " ms")),
    "bytes": ((1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B")),
    "Bps": ((1e9, " GB/s"), (1e6, " MB/s"), (1e3, " kB/s"), (1, " B/s")),
    "reqps": ((1, " req/s"),),
    "percentunit": ((0.01, " %"),),
    "none": ((1, ""),),
}
"""What a unit of Grafana is written as, the largest first."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of a panel; a gap is a value that is no number."""

    name: str
    points: Sequence[Point]


def draw(board: Mapping[str, Any], prometheus: Prometheus, begin: float, end: float, chosen: str) -> str:
    """The picture.

    Args:
        board: the dashboard.
        prometheus: what is asked.
        begin: the first moment, in seconds since 1970.
        end: the last one.
        chosen: what stands for the namespace and the release.
    """
    panels = board["panels"]
    width = 24 * COLUMN
    height = HEAD + max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * LINE
    about = f"Namespace: {chosen} · Release: {chosen} · {(end - begin) / 60:.0f} minutes"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11" role="img">',
        f"<title>{escape(board['title'])}</title>",
        f'<rect width="{width}" height="{height}" fill="#f4f5f5"/>',
        f'<text x="10" y="28" font-size="17" fill="#222">{escape(board["title"])}</text>',
        f'<text x="{width - 10}" y="28" text-anchor="end" fill="#555">{escape(about)}</text>',
    ]

    def asked(expression: str) -> str:
        for name, value in {"$namespace": chosen, "$job": chosen, "$__rate_interval": RATE_INTERVAL}.items():
            expression = expression.replace(name, value)
        return expression

    for panel in panels:
        box = _Box(panel)
        if panel["type"] == "row":
            title = escape(panel["title"])
            parts.append(f'<text x="10" y="{box.y + 21}" font-size="15" fill="#222">▾ {title}</text>')
            continue
        parts += box.frame(panel["title"])
        if panel["type"] == "stat":
            (target,) = panel["targets"]
            parts += _stat(panel, box, prometheus.at(asked(target["expr"]), end), target["legendFormat"])
            continue
        lines = [
            Line(_name(target["legendFormat"], series["metric"]), _points(series["values"], begin, end))
            for target in panel["targets"]
            for series in prometheus.over(asked(target["expr"]), begin, end, STEP_SECONDS)
        ]
        parts += _Graph(panel, box, begin, end).draw(lines)
    return "\n".join([*parts, "</svg>", ""])


class _Box:
    """A panel's place, in pixels."""

    def __init__(self, panel: Mapping[str, Any]) -> None:
        place = panel["gridPos"]
        self.x: float = place["x"] * COLUMN + MARGIN
        self.y: float = HEAD + place["y"] * LINE + MARGIN
        self.width: float = place["w"] * COLUMN - 2 * MARGIN
        self.height: float = place["h"] * LINE - 2 * MARGIN

    def frame(self, title: str) -> list[str]:
        """The background and the title."""
        place = f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"'
        return [
            f'<rect {place} rx="3" fill="#fff" stroke="#dcdcdc"/>',
            f'<text x="{self.x + 9}" y="{self.y + 18}" font-size="12" fill="#222">{escape(title)}</text>',
        ]


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


def _points(values: Sequence[tuple[float, str]], begin: float, end: float) -> list[Point]:
    known = {round((at - begin) / STEP_SECONDS): float(value) for at, value in values}
    count = int((end - begin) / STEP_SECONDS) + 1
    return [(begin + number * STEP_SECONDS, known.get(number, math.nan)) for number in range(count)]


def written(value: float, unit: str) -> str:
    """A value with its unit, as a reader wants it."""
    if not math.isfinite(value):
        return "–"
    scale = SCALES[unit]
    factor, sign = next(((factor, sign) for factor, sign in scale if abs(value) >= factor), scale[-1])
    if not value:
        factor, sign = next(((factor, sign) for factor, sign in scale if factor == 1), scale[-1])
    number = value / factor
    whole = number >= NO_FRACTION or number == round(number)
    return f"{number:,.0f}{sign}" if whole else f"{number:.3g}{sign}"


def _stat(panel: Mapping[str, Any], box: _Box, found: Sequence[Mapping[str, Any]], legend: str) -> list[str]:
    defaults = panel["fieldConfig"]["defaults"]
    value = float(found[0]["value"][1]) if found else math.nan
    colour = "text"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    text = written(value, defaults["unit"])
    if found and legend:
        text = f"{_name(legend, found[0]['metric'])}: {text}"
    place = f'x="{box.x}" y="{box.y + 26}" width="{box.width}" height="{box.height - 26}"'
    middle = f'x="{box.x + box.width / 2}" y="{box.y + box.height / 2 + 23}" text-anchor="middle"'
    return [
        f'<rect {place} rx="3" fill="{NAMED[colour]}"/>',
        f'<text {middle} font-size="26" fill="#fff">{escape(text)}</text>',
    ]


class _Graph:
    """Lines over time, with a grid and a legend."""

    def __init__(self, panel: Mapping[str, Any], box: _Box, begin: float, end: float) -> None:
        self._defaults = panel["fieldConfig"]["defaults"]
        self._overrides = {
            one["matcher"]["options"]: {item["id"]: item["value"] for item in one["properties"]}
            for one in panel["fieldConfig"]["overrides"]
        }
        self._box = box
        self._begin, self._end = begin, end
        self._left: float = box.x + 62
        self._right: float = box.x + box.width - 12
        self._top: float = box.y + 32
        self._bottom: float = box.y + box.height - 50

    def draw(self, lines: Sequence[Line]) -> list[str]:
        """Everything in the box."""
        custom = self._defaults["custom"]
        stacked = custom["stacking"]["mode"] == "normal"
        levels, below = list[Sequence[Point]](), dict[float, float]()
        for line in lines:
            shown = list(line.points)
            if stacked:
                shown = [(at, below.get(at, 0.0) + (0 if math.isnan(it) else it)) for at, it in line.points]
                below.update(shown)
            levels.append(shown)
        most = max((it for level in levels for _, it in level if math.isfinite(it)), default=0.0)
        step, top = _round_scale(max(most, self._defaults.get("max", 0.0)), self._defaults["unit"])
        parts = self._grid(step, top)
        if not any(math.isfinite(it) for line in lines for _, it in line.points):
            middle = (self._left + self._right) / 2
            parts.append(
                f'<text x="{middle}" y="{(self._top + self._bottom) / 2}" fill="#888" '
                'text-anchor="middle" font-size="14">No data</text>'
            )
        step_after = custom["lineInterpolation"] == "stepAfter"

        def y(value: float) -> float:
            return self._bottom - value / top * (self._bottom - self._top)

        for number in reversed(range(len(lines))):
            own = self._overrides.get(lines[number].name, {})
            floor = levels[number - 1] if stacked and number else None
            opacity = own.get("custom.fillOpacity", custom["fillOpacity"]) / 100
            dash = ' stroke-dasharray="6 4"' if "custom.lineStyle" in own else ""
            colour = self._colour(lines[number].name, number)
            for run in _runs(levels[number]):
                path = self._path(run, y, step_after=step_after)
                base = self._base(run, floor, y, step_after=step_after)
                if opacity:
                    parts.append(f'<path d="{path}{base}Z" fill="{colour}" fill-opacity="{opacity:g}"/>')
                parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.3"{dash}/>')
        return [*parts, *self._legend(lines)]

    def _colour(self, name: str, number: int) -> str:
        own = self._overrides.get(name, {}).get("color")
        return NAMED[own["fixedColor"]] if own else PALETTE[number % len(PALETTE)]

    def _x(self, at: float) -> float:
        return self._left + (at - self._begin) / (self._end - self._begin) * (self._right - self._left)

    def _path(self, run: Sequence[Point], y: Callable[[float], float], *, step_after: bool) -> str:
        parts, last = list[str](), math.nan
        for at, value in run:
            place = f"{self._x(at):.0f} {y(value):.1f}"
            if not parts:
                parts.append(f"M{place}")
            elif step_after:
                parts.append(f"H{self._x(at):.0f}" + (f"V{y(value):.1f}" if value != last else ""))
            else:
                parts.append(f"L{place}")
            last = value
        return "".join(parts)

    def _base(
        self,
        run: Sequence[Point],
        floor: Sequence[Point] | None,
        y: Callable[[float], float],
        *,
        step_after: bool,
    ) -> str:
        """From the end of a line back to its begin, below its area."""
        if floor is None:
            return f"V{self._bottom}H{self._x(run[0][0]):.0f}"
        wanted = {at for at, _ in run}
        under = [(at, value) for at, value in floor if at in wanted]
        parts, last = list[str](), math.nan
        for at, value in reversed(under):
            if step_after:  # mirrored: first down to what holds from here on, then back
                parts.append((f"V{y(value):.1f}" if value != last else "") + f"H{self._x(at):.0f}")
            else:
                parts.append(f"L{self._x(at):.0f} {y(value):.1f}")
            last = value
        return "".join(parts)

    def _grid(self, step: float, top: float) -> list[str]:
        parts = []
        for tick in range(round(top / step) + 1):
            at = self._bottom - tick * step / top * (self._bottom - self._top)
            parts.append(f'<path d="M{self._left} {at:.1f}H{self._right}" stroke="#ececec"/>')
            text = escape(written(tick * step, self._defaults["unit"]))
            parts.append(
                f'<text x="{self._left - 6}" y="{at + 4:.1f}" text-anchor="end" fill="#666">{text}</text>'
            )
        minutes = (self._end - self._begin) / 60
        every = next(number for number in (1, 2, 5, 10, 20, 60, 1_440) if minutes / number <= MOST_TICKS)
        for tick in range(int(minutes / every) + 1):
            at = self._x(self._begin + tick * every * 60)
            parts.append(
                f'<text x="{at:.0f}" y="{self._bottom + 15}" text-anchor="middle" fill="#666">'
                f"{tick * every} min</text>"
            )
        return parts

    def _legend(self, lines: Sequence[Line]) -> list[str]:
        parts, x, y = [], self._box.x + 10.0, self._bottom + 32
        for number, line in enumerate(lines):
            wide = 24 + 6.1 * len(line.name)
            if x + wide > self._box.x + self._box.width:
                x, y = self._box.x + 10.0, y + 14
            if y > self._box.y + self._box.height - 2:
                break  # Grafana would let its reader scroll
            colour = self._colour(line.name, number)
            parts.append(f'<path d="M{x:.0f} {y - 4}h12" stroke="{colour}" stroke-width="3"/>')
            parts.append(f'<text x="{x + 16:.0f}" y="{y}" fill="#333">{escape(line.name)}</text>')
            x += wide
        return parts


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """The parts of a line between its gaps."""
    found: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            found[-1].append(point)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def _round_scale(most: float, unit: str) -> tuple[float, float]:
    """A round step, and the end of an axis of at most about four of them."""
    base = next((factor for factor, _ in SCALES[unit] if most >= factor), 1) if unit == "s" else 1
    rough = max(most / base, 1e-9 if most else 1) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999) * base
    return step, max(1, math.ceil(most / step - 1e-9)) * step
