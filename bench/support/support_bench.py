"""What the benchmarks share: a table for people, and one line of JSON at the end."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns under a title."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    print(f"\n{title}")
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells))


def median(values: Sequence[float]) -> float:
    """The middle value: one slow run on a shared machine does not move it."""
    return statistics.median(values)


def result(**figures: object) -> None:
    """Print the last line: the figures as JSON."""
    print()
    print(json.dumps(figures))
