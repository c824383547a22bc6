"""docs/timeline.md says what the API answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from downloadjobs_api.timelines import timeline_document
from downloadjobs_core.job import Job
from downloadjobs_core.timeline import MOST_ITEMS, timeline

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "timeline.md").read_text(encoding="utf-8")


def examples(text: str) -> list[Any]:
    """The JSON examples of a page."""
    return [
        json.loads(found) for found in re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def test_the_example_is_what_is_answered() -> None:
    """The page's notes, with the record of job-record.md, give the page's answer."""
    answer, notes = examples(PAGE)
    job = Job.from_hash(examples((DOCS / "job-record.md").read_text(encoding="utf-8"))[0])
    items, omitted = timeline(job, notes)
    assert timeline_document(job, answer["traceUrl"], items, omitted) == answer


def test_every_name_and_attribute_is_told() -> None:
    """The table of names has each item of the example, with its attributes."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|([^|]*)\|$", PAGE, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", attributes)) for name, attributes in rows}
    for item in examples(PAGE)[0]["items"]:
        assert set(item["attributes"]) == told[item["name"]]


def test_limits_are_told() -> None:
    """The page has the limits that the code has."""
    prelude = (DOCS.parent / "core/downloadjobs_core/lua/lib/prelude.lua").read_text(encoding="utf-8")
    found = re.search(r"TIMELINE_LIMIT = (\d+)", prelude)
    assert found
    text = " ".join(PAGE.split())
    assert f"has {int(found[1]):,} entries at most" in text
    assert f"has {MOST_ITEMS:,} items at most" in text
