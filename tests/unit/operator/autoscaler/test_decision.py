"""How many pods there should be: the formula by examples, and what holds for every snapshot."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_operator.autoscaler.decision import (
    Decision,
    Direction,
    Limits,
    Memory,
    Mode,
    Pod,
    Reason,
    Snapshot,
    decide,
    least_in_rollout,
)

START = 1_000_000.0
SEEN = Memory(last=0)
"""Of an autoscaler that knows that nothing was needed."""


def pod(
    uid: str,
    leases: int = 0,
    *,
    ready: bool = True,
    terminating: bool = False,
    age: float = 600,
    template: str = "",
) -> Pod:
    """A pod that is ready and idle, if nothing else is said."""
    return Pod(uid, f"worker-{uid}", ready, terminating, leases, START - age, template)


def pods(*leases: int) -> tuple[Pod, ...]:
    """Ready pods with so many leases each; the later ones are younger."""
    return tuple(pod(f"p{number}", count, age=600 - number) for number, count in enumerate(leases))


def seen(*leases: int, **others: object) -> Snapshot:
    """A snapshot with these pods, whose leases run."""
    found = Snapshot(now=START, running=sum(leases), pods=pods(*leases), replicas=len(leases))
    return replace(found, **others)  # type: ignore[arg-type]


def decided(snapshot: Snapshot, limits: Limits | None = None, memory: Memory = SEEN) -> Decision:
    """The decision alone."""
    return decide(snapshot, limits or Limits(), memory)[0]


def test_a_thousand_short_jobs_take_five_pods() -> None:
    """1,000 jobs of 1 s, 60 s target, 4 slots a pod: 17 slots, 5 pods, at once and from none."""
    found = decided(Snapshot(now=START, queued=1_000, service_seconds=1))
    assert (found.desired, found.current, found.direction) == (5, 0, Direction.UP)
    assert (found.reason, found.clamps) == (Reason.DEMAND, ())
    assert (found.formula.slots, found.formula.backlog_seconds) == (17, 1_000)
    assert found.message == (
        "Scaling from 0 to 5 pods: 0 running and 1,000 waiting"
        " (1,000 queued; 1 s each, to be worked off in 60 s) take 17 slots, 5 pods of 4."
    )


@pytest.mark.parametrize(("running", "demand"), [(10, "0 waiting take 10 slots"), (0, "nothing can start")])
def test_parked_jobs_are_told(running: int, demand: str) -> None:
    """Jobs that their users' limit holds up are told with their number, and bring no pod."""
    found = decided(Snapshot(now=START, running=running, parked=1_200))
    assert found.raw == -(-running // Limits().concurrency)
    assert demand in found.message
    assert "; 1,200 more wait until their users run fewer jobs (USER_MAX_RUNNING)." in found.message


UP, DOWN, NONE = Direction.UP, Direction.DOWN, Direction.NONE


@pytest.mark.parametrize(
    ("snapshot", "limits", "desired", "direction", "reason"),
    [
        pytest.param(seen(), Limits(), 0, NONE, Reason.IDLE, id="nothing at all"),
        pytest.param(
            seen(queued=1, service_seconds=0.001), Limits(), 1, UP, Reason.DEMAND, id="one job wakes"
        ),
        pytest.param(seen(due_retries=2), Limits(), 1, UP, Reason.DUE_RETRIES, id="due retries wake"),
        pytest.param(seen(due_maintenance=1), Limits(), 1, UP, Reason.DEMAND, id="due maintenance wakes"),
        pytest.param(seen(expired_leases=1), Limits(), 1, UP, Reason.DEMAND, id="a lost lease wakes"),
        pytest.param(seen(next_due_at=START + 5), Limits(), 1, UP, Reason.DUE_RETRIES, id="a retry in time"),
        pytest.param(seen(next_due_at=START + 6), Limits(), 0, NONE, Reason.IDLE, id="a retry not yet"),
        pytest.param(
            seen(queued=9_999, service_seconds=60), Limits(max=7), 7, UP, Reason.AT_MAXIMUM, id="the maximum"
        ),
        pytest.param(seen(), Limits(min=2), 2, UP, Reason.AT_MINIMUM, id="the minimum"),
        pytest.param(seen(0, 0), Limits(min=2), 2, NONE, Reason.AT_MINIMUM, id="stays at the minimum"),
        pytest.param(seen(4, 4), Limits(), 2, NONE, Reason.STEADY, id="as many as work"),
        pytest.param(seen(0, 0, 0), Limits(), 0, DOWN, Reason.IDLE, id="to none"),
        pytest.param(seen(4, 0, 0), Limits(), 1, DOWN, Reason.LESS_DEMAND, id="fewer are enough"),
        pytest.param(seen(1, 1, 1), Limits(), 3, NONE, Reason.BUSY_PODS, id="busy pods stay"),
        pytest.param(seen(1, 1, 0), Limits(), 2, DOWN, Reason.BUSY_PODS, id="as far as idle pods go"),
        pytest.param(seen(4, 4, 4), Limits(max=2), 3, NONE, Reason.BUSY_PODS, id="busy above the maximum"),
        pytest.param(
            seen(0, 0, 0, queued=99), Limits(max=2), 2, DOWN, Reason.AT_MAXIMUM, id="a lower maximum"
        ),
        pytest.param(
            seen(0, 0, rolling_out=True), Limits(), 2, NONE, Reason.ROLLING_OUT, id="not in a rollout"
        ),
        pytest.param(
            seen(4, queued=100, rolling_out=True), Limits(), 6, UP, Reason.DEMAND, id="up in a rollout"
        ),
        pytest.param(
            seen(0, 0, signal_age_seconds=16), Limits(), 2, NONE, Reason.STALE_SIGNAL, id="blind: not down"
        ),
        pytest.param(
            seen(queued=9, signal_age_seconds=16), Limits(min=1), 0, NONE, Reason.STALE_SIGNAL, id="not up"
        ),
    ],
)
def test_examples(
    snapshot: Snapshot, limits: Limits, desired: int, direction: Direction, reason: Reason
) -> None:
    """The number, the direction and the reason, without any memory of more."""
    found = decided(snapshot, limits)
    assert (found.desired, found.direction, found.reason) == (desired, direction, reason)


def test_leases_of_terminating_pods_are_neither_floor_nor_demand() -> None:
    """Pods that go are not kept for their leases, and ask for no others."""
    going = tuple(pod(f"g{number}", 4, terminating=True) for number in range(3))
    found = decided(Snapshot(now=START, pods=(*going, *pods(0, 0)), replicas=2))
    assert (found.desired, found.formula.busy_pods) == (0, 0)
    assert set(found.victims) == {"p0", "p1"}


def test_leases_of_unknown_workers_are_demand() -> None:
    """A lease of a worker that is no known pod keeps a slot, but no particular pod."""
    found = decided(Snapshot(now=START, running=5, pods=pods(0, 0, 0), replicas=3))
    assert (found.desired, found.formula.busy_pods) == (2, 0)


def test_victims_are_those_that_are_not_ready_and_then_the_youngest() -> None:
    """Idle pods go in the order in which Kubernetes would take them."""
    found = decided(
        Snapshot(
            now=START,
            running=1,
            replicas=5,
            pods=(
                pod("old", age=900),
                pod("busy", 1, age=10),
                pod("young", age=20),
                pod("starting", ready=False, age=800),
                pod("middle", age=100),
            ),
        ),
    )
    assert (found.desired, found.victims) == (1, ("starting", "young", "middle", "old"))


def test_a_busy_pod_that_is_not_ready_stops_scale_in() -> None:
    """Kubernetes removes pods that are not ready before it looks at any cost: so none goes meanwhile."""
    found = decided(Snapshot(now=START, running=1, replicas=2, pods=(pod("a", 1, ready=False), pod("b"))))
    assert (found.desired, found.reason, found.victims) == (2, Reason.BUSY_NOT_READY, ())


def test_pods_of_a_rollout_are_no_reason_for_more() -> None:
    """While a rollout has one pod more than replicas, all of them busy, the number stays."""
    found = decided(replace(seen(1, 1, 1), replicas=2, rolling_out=True))
    assert found.desired == 2


def stalled(old: tuple[int, ...], new: tuple[int, ...] = (), without_room: int = 1) -> Snapshot:
    """A rollout that gets no further: pods of two templates with so many leases, and some without room."""
    found = [pod(f"old{number}", count, template="t1") for number, count in enumerate(old)]
    found += [pod(f"new{number}", count, template="t2") for number, count in enumerate(new)]
    found += [pod(f"left{number}", ready=False, template="t2") for number in range(without_room)]
    return Snapshot(
        now=START,
        running=sum(old + new),
        pods=tuple(found),
        replicas=len(old) + len(new),
        rolling_out=True,
        stalled=True,
    )


@pytest.mark.parametrize(
    ("snapshot", "desired", "reason"),
    [
        pytest.param(stalled((0, 0, 0)), 0, Reason.IDLE, id="all idle"),
        pytest.param(stalled((4, 0, 0, 0)), 2, Reason.BUSY_PODS, id="as many as the old ones have idle"),
        pytest.param(stalled((0, 0, 0, 0), (4,)), 5, Reason.ROLLING_OUT, id="a new one works"),
        pytest.param(stalled((0, 0, 0, 0), (4,), 3), 5, Reason.ROLLING_OUT, id="it, beside three others"),
        pytest.param(stalled((0, 0), (4, 0, 0, 0)), 3, Reason.BUSY_PODS, id="as many as the new ones have"),
        pytest.param(stalled((1, 1)), 2, Reason.BUSY_PODS, id="all work"),
        pytest.param(replace(stalled((0, 0)), queued=999), 10, Reason.AT_MAXIMUM, id="more are needed"),
    ],
)
def test_a_rollout_without_room_lets_idle_pods_go(snapshot: Snapshot, desired: int, reason: Reason) -> None:
    """When its new pods find no room idle ones go, as many as cannot hit a busy one, however it chooses."""
    found = decided(snapshot)
    assert (found.desired, found.reason) == (desired, reason)
    idle = {one.uid for one in snapshot.pods if not one.leases}
    assert set(found.victims) == (idle if found.direction is Direction.DOWN else set())


def test_a_rollout_without_room_waits_for_the_cooldown() -> None:
    """What was needed a moment ago stays, as ever."""
    found = decided(stalled((0, 0, 0)), memory=Memory(last=3))
    assert (found.desired, found.reason) == (3, Reason.COOLDOWN_RUNNING)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12),
    st.data(),
)
def test_no_split_of_a_removal_hits_a_pod_that_must_stay(
    found: list[tuple[str, bool]], data: st.DataObject
) -> None:
    """However a Deployment splits what it removes among its templates, each has enough removable pods."""
    alive = [pod(str(number), template=template) for number, (template, _) in enumerate(found)]
    removable = {str(number) for number, (_, may_go) in enumerate(found) if may_go}
    least = least_in_rollout(alive, removable)
    assert len(alive) - len(removable) <= least <= len(alive)
    taken = data.draw(st.permutations(alive))[: len(alive) - least]
    for template in "abc":
        count = sum(one.template == template for one in taken)
        first = sorted(
            (one for one in alive if one.template == template), key=lambda o: o.uid not in removable
        )
        assert all(one.uid in removable for one in first[:count])


def test_scale_in_waits_for_the_cooldown() -> None:
    """The need of some time ago keeps its pods for the cooldown, and not a moment longer."""
    limits = Limits(cooldown_seconds=120)
    first, memory = decide(seen(queued=1_000, service_seconds=1), limits, SEEN)
    assert first.desired == 5
    idle = seen(0, 0, 0, 0, 0)
    held, memory = decide(replace(idle, now=START + 30), limits, memory)
    assert (held.desired, held.reason) == (5, Reason.COOLDOWN_RUNNING)
    assert held.wake_at == held.cooldown_ends_at == START + 150
    assert "5 were needed within the cooldown of 120 s, for 120 s yet" in held.message
    held, memory = decide(replace(idle, now=START + 149.9), limits, memory)
    assert held.desired == 5
    gone, memory = decide(replace(idle, now=START + 150), limits, memory)
    assert (gone.desired, len(gone.victims), gone.wake_at) == (0, 5, None)


def test_scale_in_goes_by_the_largest_need_within_the_cooldown() -> None:
    """After a need of five and then of two, two stay until their time is over as well."""
    limits, memory = Limits(cooldown_seconds=100, concurrency=1, target_wait_seconds=1), SEEN
    outcome = {}
    for second in range(0, 301, 10):
        need = 5 if second <= 20 else 2 if second <= 70 else 0
        idle = tuple(pod(f"p{number}") for number in range(5))
        seen_then = Snapshot(now=START + second, running=need, pods=idle, replicas=5)
        found, memory = decide(seen_then, limits, memory)
        outcome[second] = found.desired
    assert [outcome[second] for second in (0, 120, 130, 170, 180)] == [5, 5, 2, 2, 0]


def test_a_cooldown_never_delays_scale_up() -> None:
    """A burst while pods are kept is answered at once."""
    limits = Limits()
    _, memory = decide(seen(queued=1_000, service_seconds=1), limits, SEEN)
    _, memory = decide(replace(seen(0, 0, 0, 0, 0), now=START + 10), limits, memory)
    found, _ = decide(
        replace(seen(0, 0, 0, 0, 0), queued=2_000, service_seconds=1, now=START + 11), limits, memory
    )
    assert (found.desired, found.direction) == (9, Direction.UP)


def test_who_begins_takes_what_there_is_as_needed() -> None:
    """An operator that was just started removes nothing before a cooldown is over."""
    found, memory = decide(seen(0, 0, 0), Limits(), Memory())
    assert (found.desired, found.reason) == (3, Reason.COOLDOWN_RUNNING)
    later, _ = decide(replace(seen(0, 0, 0), now=START + 120), Limits(), memory)
    assert later.desired == 0


def test_the_cooldown_begins_anew_after_blindness() -> None:
    """What was needed while the queue could not be seen is not known: the pods stay for a cooldown."""
    _, memory = decide(seen(0, 0, 0, signal_age_seconds=60), Limits(), SEEN)
    found, memory = decide(replace(seen(0, 0, 0), now=START + 500), Limits(), memory)
    assert found.desired == 3
    found, _ = decide(replace(seen(0, 0, 0), now=START + 620), Limits(), memory)
    assert found.desired == 0


def test_a_retry_wakes_it_before_it_is_due() -> None:
    """It is to look again a pod's start before the next retry, and when that is past, at its time."""
    limits = Limits(pod_start_seconds=5)
    assert decided(seen(next_due_at=START + 60), limits).wake_at == START + 55
    assert decided(seen(next_due_at=START + 3), limits).wake_at == START + 3
    assert decided(seen(next_due_at=START - 3), limits).wake_at == START
    assert decided(seen(), limits).wake_at is None


def test_a_recommendation_says_would() -> None:
    """With `mode: Recommend` the same is decided, and told as what would be."""
    scaled = decided(seen(queued=9))
    told = decided(seen(queued=9), Limits(mode=Mode.RECOMMEND))
    assert (told.desired, told.reason) == (scaled.desired, scaled.reason)
    assert told.message.startswith("Would scale from 0 to 1 pod: ")
    assert decided(seen(4), Limits(mode=Mode.RECOMMEND)).message.startswith("Would keep 1 pod: ")


COUNTS = st.integers(0, 2_000)
PODS = st.lists(
    st.builds(
        Pod,
        uid=st.uuids().map(str),
        name=st.just("worker"),
        ready=st.booleans(),
        terminating=st.booleans(),
        leases=st.integers(0, 5),
        created_at=st.floats(START - 1e5, START),
        template=st.sampled_from(["t1", "t2"]),
    ),
    max_size=12,
    unique_by=lambda found: found.uid,
).map(tuple)


@st.composite
def limits_(draw: st.DrawFn) -> Limits:
    """Any limits that the file may hold."""
    least = draw(st.integers(0, 10))
    return Limits(
        min=least,
        max=draw(st.integers(max(1, least), 30)),
        concurrency=draw(st.integers(1, 16)),
        target_wait_seconds=draw(st.floats(0.1, 3_600)),
        cooldown_seconds=draw(st.floats(0, 600)),
        stale_seconds=draw(st.floats(0.1, 60)),
        pod_start_seconds=draw(st.floats(0, 60)),
        mode=draw(st.sampled_from(Mode)),
    )


@st.composite
def snapshots(draw: st.DrawFn, *, fresh: bool = False) -> Snapshot:
    """Anything that might be seen; replicas need not be the number of pods."""
    found: tuple[Pod, ...] = draw(PODS)
    held = sum(one.leases for one in found if not one.terminating)
    return Snapshot(
        now=START,
        queued=draw(COUNTS),
        due_retries=draw(COUNTS),
        expired_leases=draw(st.integers(0, 20)),
        due_maintenance=draw(st.integers(0, 2)),
        running=held + draw(st.integers(0, 5)),
        service_seconds=draw(st.floats(0, 600)),
        pods=found,
        replicas=draw(st.integers(0, 30)),
        signal_age_seconds=0 if fresh else draw(st.floats(0, 120)),
        rolling_out=(rolling_out := draw(st.booleans())),
        stalled=rolling_out and draw(st.booleans()),
        next_due_at=draw(st.none() | st.floats(START - 100, START + 1_000)),
    )


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    """What decisions may have left behind: needs that fall, each ended later than the one before."""
    ended = sorted(draw(st.lists(st.floats(START - 700, START), max_size=5)))
    needs = sorted(draw(st.sets(st.integers(1, 40), min_size=len(ended) + 1, max_size=len(ended) + 1)))
    needs.reverse()
    return draw(st.sampled_from([Memory(), Memory(needs[-1], tuple(zip(ended, needs[:-1], strict=True)))]))


def busy_of(snapshot: Snapshot) -> int:
    """Pods that must stay."""
    return sum(one.busy for one in snapshot.pods)


@given(snapshots(), limits_(), memories())
def test_it_never_goes_below_the_pods_with_live_leases(
    snapshot: Snapshot, limits: Limits, memory: Memory
) -> None:
    """Scale-in leaves every pod that works, and what is removed are as many idle ones."""
    found = decided(snapshot, limits, memory)
    assert found.desired >= min(busy_of(snapshot), snapshot.replicas)
    if found.direction is not Direction.NONE and not snapshot.rolling_out:
        assert found.desired >= busy_of(snapshot)
    alive = [one for one in snapshot.pods if not one.terminating]
    if found.direction is Direction.DOWN and snapshot.rolling_out:
        assert snapshot.stalled
        idle = {one.uid for one in alive if not one.leases}
        assert set(found.victims) == idle
        assert found.desired >= least_in_rollout(alive, idle)
    elif found.direction is Direction.DOWN:
        assert len(found.victims) == max(0, len(alive) - found.desired)
    else:
        assert found.victims == ()


@given(snapshots(fresh=True), limits_(), memories())
def test_it_stays_within_bounds(snapshot: Snapshot, limits: Limits, memory: Memory) -> None:
    """Never below the minimum; above the maximum only for busy pods, or where scale-in must wait."""
    found = decided(snapshot, limits, memory)
    assert found.desired >= limits.min
    waits = {Reason.ROLLING_OUT, Reason.BUSY_NOT_READY} & set(found.clamps)
    if not waits and not snapshot.stalled:
        assert found.desired <= max(limits.max, busy_of(snapshot))
    assert found.desired <= max(limits.max, busy_of(snapshot), snapshot.replicas)


@given(
    snapshots(fresh=True),
    limits_(),
    memories(),
    st.sampled_from(["queued", "due_retries", "expired_leases", "due_maintenance", "running"]),
    st.integers(1, 1_000),
)
def test_more_demand_never_gives_fewer_pods(
    snapshot: Snapshot, limits: Limits, memory: Memory, name: str, more: int
) -> None:
    """It is monotone in each count, all else being equal."""
    larger = replace(snapshot, **{name: getattr(snapshot, name) + more})
    assert decided(larger, limits, memory).desired >= decided(snapshot, limits, memory).desired


@given(snapshots(), limits_(), memories())
def test_every_victim_is_idle_and_distinct(snapshot: Snapshot, limits: Limits, memory: Memory) -> None:
    """A victim holds no lease, does not go already, and is named once."""
    found = decided(snapshot, limits, memory)
    idle = {one.uid for one in snapshot.pods if not one.leases and not one.terminating}
    assert set(found.victims) <= idle
    assert len(set(found.victims)) == len(found.victims)


@given(snapshots(fresh=True), limits_(), memories())
def test_up_is_at_once(snapshot: Snapshot, limits: Limits, memory: Memory) -> None:
    """Whatever is remembered, the pods that are needed now are asked for now, and any work asks for one."""
    found = decided(snapshot, limits, memory)
    waiting = snapshot.queued + snapshot.due_retries + snapshot.expired_leases + snapshot.due_maintenance
    assert found.desired >= min(found.raw, limits.max)
    assert found.raw >= bool(waiting + snapshot.running)
    assert found.raw <= math.ceil((snapshot.running + waiting + 1) / limits.concurrency)


@given(snapshots(), limits_(), memories())
def test_it_holds_when_blind(snapshot: Snapshot, limits: Limits, memory: Memory) -> None:
    """With counts that are too old nothing changes, whatever they say."""
    stale = replace(snapshot, signal_age_seconds=limits.stale_seconds + 0.1)
    found = decided(stale, limits, memory)
    assert (found.desired, found.direction, found.reason, found.victims) == (
        snapshot.replicas,
        Direction.NONE,
        Reason.STALE_SIGNAL,
        (),
    )


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=10),
    limits_(),
    st.floats(0.5, 30),
    st.integers(2, 6),
)
def test_it_does_not_flap_on_a_load_that_repeats(
    loads: list[int], limits: Limits, step: float, rounds: int
) -> None:
    """While the largest load comes back within the cooldown, its pods stay: they are asked for once."""
    limits = replace(limits, cooldown_seconds=step * len(loads) + 1, stale_seconds=10)
    memory, replicas, changes = SEEN, 0, []
    for number in range(rounds * len(loads)):
        load = loads[number % len(loads)]
        idle = tuple(pod(f"p{index}") for index in range(replicas))
        found, memory = decide(
            Snapshot(now=START + number * step, queued=load, pods=idle, replicas=replicas), limits, memory
        )
        changes.append(found.desired - replicas)
        replicas = found.desired
    assert min(changes) >= 0
    assert not any(changes[len(loads) :])


@given(snapshots(), limits_(), memories())
def test_the_same_gives_the_same(snapshot: Snapshot, limits: Limits, memory: Memory) -> None:
    """It is deterministic, and asking again at the same moment changes nothing."""
    first, kept = decide(snapshot, limits, memory)
    assert decide(snapshot, limits, memory) == (first, kept)
    again, _ = decide(snapshot, limits, kept)
    assert again.desired == first.desired


@given(snapshots(), limits_(), memories())
def test_the_message_has_the_numbers(snapshot: Snapshot, limits: Limits, memory: Memory) -> None:
    """One sentence, short enough for an Event, names what there is, what there should be, and the demand."""
    found = decided(snapshot, limits, memory)
    text = found.message
    assert len(text) <= 1_024
    assert text.endswith(".")
    assert ". " not in text
    numbers = {int(number.replace(",", "")) for number in re.findall(r"(?<![.\d])\d[\d,]*(?![.\d]*\d)", text)}
    assert found.desired in numbers
    if found.reason is not Reason.STALE_SIGNAL and found.formula.slots:
        assert {snapshot.running, found.formula.waiting, found.formula.slots, found.raw} <= numbers
    if found.direction is not Direction.NONE:
        assert found.current in numbers


@given(snapshots(), limits_(), memories())
def test_it_looks_again_in_the_future(snapshot: Snapshot, limits: Limits, memory: Memory) -> None:
    """`wake_at` is never past, and the last clamp is the reason."""
    found = decided(snapshot, limits, memory)
    assert found.wake_at is None or found.wake_at >= snapshot.now
    assert not found.clamps or found.clamps[-1] is found.reason
