"""`make chaos`: a whole run, its report, and a line of JSON. Exit 1 if anything is not as it must be.

make chaos ARGS="--seed 7 --jobs 500 --faults 50"
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from support_chaos import run_chaos
from support_chaos_plan import SHARING, draw_plan
from support_chaos_report import render


def say(text: str = "") -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="make chaos", description="Break everything, and account for every job."
    )
    parser.add_argument("--jobs", type=int, default=500, metavar="N", help="how many (default: 500)")
    parser.add_argument("--faults", type=int, default=50, metavar="N", help="how many (default: 50)")
    parser.add_argument("--workers", type=int, default=3, metavar="N", help="worker processes (default: 3)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the schedule; drawn and told if not given")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and data in this new folder")
    parser.add_argument(
        "--wishes",
        type=int,
        metavar="N",
        help="share results (DEDUPLICATE_RESULTS), of which only so many different ones are asked for",
    )
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    plan = draw_plan(
        seed, jobs=options.jobs, faults=options.faults, workers=options.workers, wishes=options.wishes
    )
    settings = {} if options.wishes is None else SHARING
    say(f"Seed {seed}, digest of the schedule {plan.digest}")
    report = run_chaos(plan, tell=say, keep=options.keep, settings=settings)
    say()
    for line in render(report):
        say(line)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
