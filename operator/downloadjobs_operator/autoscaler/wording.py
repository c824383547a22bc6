"""A decision as a sentence for people: what an Event, the log and `explain` say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports this module
    from downloadjobs_operator.autoscaler.decision import Decision


def sentence(decision: Decision) -> str:
    """The numbers of a decision."""
    snapshot, limits = decision.snapshot, decision.limits
    if "StaleSignal" in decision.clamps:
        return (
            f"Holding {pods(decision.current)}: the queue was last seen"
            f" {seconds(snapshot.signal_age_seconds)} ago, and nothing older than"
            f" {seconds(limits.stale_seconds)} is acted on."
        )
    text = f"{_verdict(decision)}: {_demand(decision)}"
    if snapshot.parked:
        text += f"; {snapshot.parked:,} more wait until their users run fewer jobs (USER_MAX_RUNNING)"
    for clamp in decision.clamps:
        text += f"; {_clamp(decision, clamp)}"
    return text + "."


def pods(count: int) -> str:
    """`1 pod`, `5 pods`."""
    return f"{count:,} pod{'' if count == 1 else 's'}"


def seconds(value: float) -> str:
    """A time span with what digits it needs: `0.25 s`, `12.3 s`, `1,000 s`."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"  # noqa: PLR2004 - three digits are enough


def _verdict(decision: Decision) -> str:
    would = decision.limits.mode == "Recommend"
    if decision.direction == "none":
        return f"{'Would keep' if would else 'Keeping'} {pods(decision.current)}"
    return f"{'Would scale' if would else 'Scaling'} from {decision.current:,} to {pods(decision.desired)}"


def _demand(decision: Decision) -> str:
    snapshot, formula, limits = decision.snapshot, decision.formula, decision.limits
    if not formula.slots:
        return f"nothing {'can start' if snapshot.parked else 'waits'} and nothing runs"
    parts = {
        "queued": snapshot.queued,
        "due to be tried again": snapshot.due_retries,
        "soon due": formula.due_soon,
        "taken from lost workers": snapshot.expired_leases,
        "due maintenance": snapshot.due_maintenance,
    }
    of = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    waits = f"{formula.waiting:,} waiting"
    if formula.waiting:
        takes, target = seconds(snapshot.service_seconds), seconds(limits.target_wait_seconds)
        waits += f" ({of}; {takes} each, to be worked off in {target})"
    slot = "slot" if formula.slots == 1 else "slots"
    return (
        f"{snapshot.running:,} running and {waits} take {formula.slots:,} {slot},"
        f" {pods(decision.raw)} of {limits.concurrency:,}"
    )


def _clamp(decision: Decision, clamp: str) -> str:
    limits, formula = decision.limits, decision.formula
    left = (decision.cooldown_ends_at or decision.snapshot.now) - decision.snapshot.now
    return {
        "AtMaximum": f"the maximum is {limits.max:,}",
        "AtMinimum": f"the minimum is {limits.min:,}",
        "CooldownRunning": (
            f"{formula.highest:,} were needed within the cooldown of {seconds(limits.cooldown_seconds)},"
            f" for {seconds(left)} yet"
        ),
        "BusyPods": f"{formula.busy_pods:,} of {formula.busy_pods + formula.idle_pods:,} work",
        "BusyNotReady": "a pod that is not ready works, and would be the first to go",
        "RollingOut": "none goes while a rollout replaces them",
    }[clamp]
