"""A chaos run's report, for people; its last line is for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from downloadjobs_cli.output import aligned
from support_chaos import Report
from support_chaos_plan import Fault

SHOWN: Final = 20
"""Sentences of each kind; a run that went wrong can have hundreds."""

LOG_EVENTS: Final = {
    "attempt started": "attempts started",
    "attempt stopped": "attempts stopped, their lease being lost",
    "attempt failed": "attempts failed, and retried",
    "job handed back": "jobs handed back by a drain",
    "job handed back for a stuck attempt": "jobs handed back in a stuck attempt's stead",
    "the attempt's end could not be written": "ends of late attempts refused",
    "the attempt's outcome could not be written": "outcomes left to the next delivery, for want of Valkey",
    "leases cannot be renewed": "times that Valkey was missed by a keeper",
    "storage failed, trying again": "calls to storage tried again",
    "reading a file broke, going on from there": "reads resumed",
    "an unfinished upload is left to the orphan sweep": "uploads left to the sweep",
    "a refused result is left to the orphan sweep": "refused results left to the sweep",
    "an unpublished result is left to the orphan sweep": "results of failed attempts left to the sweep",
    "orphans swept": "orphan sweeps",
}
"""What workers say in their logs, and what it means."""


def render(report: Report) -> Iterator[str]:
    """The report, line by line."""
    plan, told, found = report.plan, report.told, report.findings
    yield f"Chaos, seed {plan.seed}: {len(plan.jobs)} jobs on {len(plan.workers)} workers,"
    yield f"{told.faults.total()} faults in {told.chaos_seconds:.0f} s; digest of the schedule {plan.digest}"
    yield ""
    yield from aligned(
        [["fault", "times"], *([kind.value, str(told.faults[kind])] for kind in Fault if told.faults[kind])],
        right=(1,),
    )
    yield ""
    states = [[f"jobs {state}", str(count)] for state, count in sorted(found.states.items())]
    events = [[f"events: {kind}", str(count)] for kind, count in sorted(found.events.items())]
    facts = [[name, fact] for name, fact in found.facts.items()]
    said = [
        [text, str(told.log_events[event])] for event, text in LOG_EVENTS.items() if told.log_events[event]
    ]
    yield from aligned(
        [
            ["what happened", ""],
            *states,
            *events,
            *said,
            ["calls of the submitter", str(told.submissions)],
            ["calls made again for want of an answer", str(told.unanswered)],
            ["connections to S3 broken by the proxy", str(told.resets)],
            *facts,
            ["from the last fault to the last job's end", f"{told.ending_seconds:.1f} s"],
        ],
        right=(1,),
    )
    yield ""
    yield from aligned(
        [
            ["what must be 0", ""],
            ["lost", str(len(found.lost))],
            ["published twice", str(len(found.published_twice))],
            ["orphaned objects and uploads", str(len(found.orphans))],
            ["other problems", str(len(found.problems))],
        ],
        right=(1,),
    )
    for title, sentences in (
        ("Lost", found.lost),
        ("Published twice", found.published_twice),
        ("Orphans", found.orphans),
        ("Other problems", found.problems),
    ):
        if sentences:
            yield ""
            yield f"{title}:"
            yield from (f"  {sentence}" for sentence in sentences[:SHOWN])
        if len(sentences) > SHOWN:
            yield f"  … and {len(sentences) - SHOWN} more"
    yield ""
    yield report.line
