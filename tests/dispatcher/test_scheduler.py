"""The scheduler's rules, one by one; no Ray, no clock."""

from __future__ import annotations

import time
from typing import Any

import pytest

from raycelery.dispatcher import steady
from raycelery.scheduler.events import (
    UNKNOWN,
    AddLane,
    Begun,
    Blocked,
    ExecutorFailed,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    Finished,
    NodeChanged,
    NodeRemoved,
    Purge,
    Recalled,
    Requeued,
    Revoke,
    RevokeStamps,
    SetLimit,
    SetRate,
    Submit,
    WallClock,
)
from raycelery.scheduler.instructions import Assign, Instruction, Kill, Recall, Start, Stop
from raycelery.scheduler.model import Lane, Message, Policy
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.scheduler import Scheduler

ONE = Lane("one", {"CPU": 1.0}, app="a")
TWO = Lane("two", {"CPU": 2.0}, app="a")
FOUR = Lane("four", {"CPU": 4.0}, app="a")


class Play:
    """A scheduler with a cluster that does what it is told."""

    def __init__(self, cpus: float = 2.0, **policy: Any) -> None:
        self.scheduler = Scheduler(Policy(**{"demand_ahead": 0, **policy}), debug=True)
        self.now = 0.0
        for lane in (ONE, TWO, FOUR):
            self.scheduler.handle(AddLane(lane), self.now)
        if cpus:
            self.scheduler.handle(NodeChanged("n", {"CPU": cpus}), 0.0)
        self.given: dict[int, list[Message]] = {}
        self.decisions: list[Instruction] = []

    def submit(self, lane: Lane = ONE, task: str = "t", queue: str = "q", **fields: Any) -> Message:
        message = Message(
            fields.pop("id", f"m{self.scheduler.view.pending}-{self.now}"), task, queue, lane.key, **fields
        )
        self.scheduler.handle(Submit(message), self.now)
        return message

    def why(self, message: Message) -> str:
        """Return why a message is where it is."""
        return self.scheduler.view.why(message, self.now)

    def step(self, seconds: float = 0.0) -> list[Instruction]:
        """Let time pass and carry out what the scheduler decides, until it decides nothing more."""
        self.now += seconds
        taken: list[Instruction] = []
        while decisions := self.scheduler.decide(self.now):
            taken += decisions
            for decision in decisions:
                if isinstance(decision, Start):
                    self.given[decision.executor_id] = []
                    self.scheduler.handle(ExecutorReady(decision.executor_id, "n"), self.now)
                elif isinstance(decision, Assign):
                    self.given[decision.executor_id] += decision.messages
                    self.scheduler.handle(Begun(decision.executor_id), self.now)
                elif isinstance(decision, Stop):
                    del self.given[decision.executor_id]
                    self.scheduler.handle(ExecutorStopped(decision.executor_id), self.now)
        self.decisions += taken
        return taken

    def end(self, message: Message, runtime: float | None = 0.01) -> None:
        number = next(n for n, given in self.given.items() if message in given)
        self.given[number].remove(message)
        self.scheduler.handle(Finished(number, message.seq, runtime), self.now)

    def running(self) -> list[Message]:
        return [given[0] for given in self.given.values() if given]

    def teach(self, task: str, runtime: float | None) -> None:
        """Have the scheduler see enough runs of a task to know how long it takes."""
        for _ in range(20):
            message = self.submit(task=task)
            self.step()
            self.end(message, runtime)
        self.step()


def kinds(decisions: list[Instruction]) -> list[str]:
    return [type(decision).__name__ for decision in decisions]


def test_as_many_run_as_fit() -> None:
    play = Play(cpus=4)
    for _ in range(10):
        play.submit(TWO)
    play.step()
    assert len(play.running()) == 2


def test_priority_within_a_queue_and_turns_between_queues() -> None:
    play = Play(cpus=1)
    first = play.submit(queue="a")
    play.step()
    late = [play.submit(queue="a", priority=p) for p in (5, 0, 3)]
    other = play.submit(queue="b")
    order = []
    play.end(first)
    for _ in range(4):
        play.step()
        order.append(play.running()[0])
        play.end(order[-1])
    assert [m for m in order if m.queue == "a"] == [late[1], late[2], late[0]]
    assert other in order[:2]


def test_an_idle_lane_gives_its_cpus_up() -> None:
    play = Play(cpus=2)
    messages = [play.submit(ONE), play.submit(ONE)]
    play.step()
    for message in messages:
        play.end(message)
    play.step()
    play.submit(TWO)
    assert kinds(play.step()).count("Stop") == 2
    assert [m.lane for m in play.running()] == ["two"]


def test_a_busy_lane_makes_room_after_its_slice() -> None:
    play = Play(cpus=2, slice_seconds=2.0)
    for _ in range(50):
        play.submit(ONE)
    play.step()
    play.submit(TWO)
    seen = set()
    for _ in range(20):
        play.step(0.5)
        for message in play.running():
            seen.add(message.lane)
            play.end(message, 0.5)
    assert "two" in seen


def test_only_short_tasks_are_batched_and_shared_fairly() -> None:
    play = Play(cpus=2)
    play.teach("short", 0.0005)
    for _ in range(100):
        play.submit(task="short")
    play.submit(task="unknown", queue="z")
    play.step()
    batches = [given for given in play.given.values() if given]
    assert max(map(len, batches)) > 5
    assert all(len(given) == 1 for given in batches if given[0].task == "unknown")
    limited = Play(cpus=1)
    limited.teach("short", 0.0005)
    for _ in range(10):
        limited.submit(task="short", time_limit=5.0)
    limited.step()
    assert [len(given) for given in limited.given.values()] == [1]


def test_what_waits_behind_a_long_one_is_called_back() -> None:
    play = Play(cpus=1, recall_after=0.2)
    play.teach("short", 0.0005)
    for _ in range(10):
        play.submit(task="short")
    play.step()
    number, given = next(iter(play.given.items()))
    assert len(given) > 1
    assert kinds(play.step(0.3)) == ["Recall"]
    behind = given[1:]
    del given[1:]
    play.scheduler.handle(Recalled(number, [m.seq for m in behind]), play.now)
    assert all(m.phase is MessagePhase.WAITING for m in behind)


def test_a_dead_executor_costs_only_what_it_was_running() -> None:
    play = Play(cpus=1)
    play.teach("short", 0.0005)
    messages = [play.submit(task="short") for _ in range(8)]
    play.step()
    number, given = next(iter(play.given.items()))
    head, behind = given[0], given[1:]
    del play.given[number]
    play.scheduler.handle(ExecutorLost(number, "killed"), play.now)
    assert head.settle_reason == "lost"
    assert head.reason == "killed"
    assert all(m.settle_reason is None and m.phase is MessagePhase.WAITING for m in behind)
    play.step()
    assert head in play.running() or any(head in g for g in play.given.values())
    assert len(messages) == play.scheduler.view.pending


@pytest.mark.parametrize(("last", "begun"), [(2, 3), (0, 0), (None, 99)])
def test_what_a_dead_executor_had_begun_is_not_run_again(last: int | None, begun: int) -> None:
    play = Play(cpus=1)
    play.teach("short", 0.0005)
    for _ in range(8):
        play.submit(task="short")
    play.step()
    number, given = next(iter(play.given.items()))
    del play.given[number]
    # Its reports were lost with it; what it wrote to its file was not, unless that was lost with its node.
    last_begun = UNKNOWN if last is None else given[last].seq if last else 0
    play.scheduler.handle(ExecutorLost(number, "killed", last_begun), play.now)
    assert len(given) > 4
    assert [m.settle_reason == "lost" for m in given] == [place < begun for place in range(len(given))]


def test_a_message_given_to_a_dead_executor_has_not_run() -> None:
    play = Play(cpus=1)
    message = play.submit()
    play.step()
    number = next(iter(play.given))
    play.scheduler.view.executors[number].begun = False
    del play.given[number]
    play.scheduler.handle(ExecutorLost(number, "was dead before"), play.now)
    assert message.settle_reason is None
    play.step()
    assert message in play.running()


def test_deliveries_are_counted() -> None:
    play = Play(cpus=1, max_deliveries=2)
    message = play.submit()
    for expected in (None, "undeliverable"):
        play.step()
        number = next(n for n, given in play.given.items() if message in given)
        del play.given[number]
        play.scheduler.handle(ExecutorLost(number, "killed"), play.now)
        play.step()
        number = next(n for n, given in play.given.items() if message in given)
        play.given[number].remove(message)
        play.scheduler.handle(Requeued(number, message.seq), play.now)
        assert message.settle_reason == expected
    assert "delivered 2 times" in message.reason


def test_a_hard_time_limit_kills() -> None:
    play = Play(cpus=1)
    message = play.submit(time_limit=5.0)
    play.step()
    assert kinds(play.step(4.9)) == []
    kills = [d for d in play.step(0.2) if isinstance(d, Kill)]
    assert len(kills) == 1
    play.scheduler.handle(ExecutorLost(kills[0].executor_id, "gone"), play.now)
    assert message.settle_reason == "timeout"


def test_revocation() -> None:
    play = Play(cpus=1)
    running = play.submit(id="running")
    play.step()
    waiting, later = play.submit(id="waiting"), play.submit(id="later", eta=100.0)
    play.scheduler.handle(Revoke(["waiting", "later", "never-seen", "running"]), play.now)
    assert waiting.settle_reason == later.settle_reason == "revoked"
    assert running.settle_reason is None
    assert play.submit(id="never-seen").settle_reason == "revoked"
    play.scheduler.handle(Revoke(["running"], terminate=True), play.now)
    assert "Kill" in kinds(play.step())


@pytest.mark.parametrize("stamp", ["acme", ["other", "acme"]])
def test_revocation_by_stamps(stamp: Any) -> None:
    play = Play(cpus=0)
    early = play.submit(stamps={"customer": stamp})
    play.scheduler.handle(RevokeStamps({"customer": ["acme"]}), play.now)
    assert early.settle_reason == "revoked"
    assert play.submit(stamps={"customer": "acme"}).settle_reason == "revoked"
    assert play.submit(stamps={"customer": "bolt"}).settle_reason is None


def test_a_parent_lends_its_cpus_to_its_children() -> None:
    play = Play(cpus=1)
    depth = [play.submit(id="0")]
    play.step()
    for level in range(1, 5):
        number = next(n for n, given in play.given.items() if depth[-1] in given)
        play.scheduler.handle(Blocked(number), play.now)
        depth.append(play.submit(id=str(level)))
        starts = [d for d in play.step() if isinstance(d, Start)]
        assert len(starts) == 1
        assert starts[0].without_cpus
        assert depth[-1] in play.running()


def test_a_request_no_node_can_hold_fails_with_the_reason() -> None:
    play = Play(cpus=2, infeasible_seconds=5.0)
    message = play.submit(FOUR)
    play.step()
    assert message.settle_reason is None
    play.step(5.1)
    assert message.settle_reason == "infeasible"
    assert "no node has 4 CPU: the most that any has is 2 CPU;" in message.reason


def test_executors_that_do_not_start() -> None:
    play = Play(cpus=1)
    message = play.submit()
    for _ in range(2):
        start = next(d for d in play.scheduler.decide(play.now) if isinstance(d, Start))
        play.scheduler.handle(ExecutorFailed(start.executor_id, "no such package"), play.now)
    assert message.settle_reason == "undeliverable"
    assert "no such package" in message.reason
    settlement = next(d for d in play.scheduler.decide(play.now) if isinstance(d, Start))
    assert settlement.lane.request == {}


def test_limits_and_rates_park_and_wake() -> None:
    play = Play(cpus=8)
    play.scheduler.handle(SetLimit("task:t", 2), play.now)
    messages = [play.submit() for _ in range(5)]
    play.step()
    assert len(play.running()) == 2
    assert "the max_concurrency of task t, which is 2: 2 messages of it run" in play.why(messages[-1])
    play.end(play.running()[0])
    play.step()
    assert len(play.running()) == 2
    play.scheduler.handle(SetLimit("task:t", None), play.now)
    play.step()
    assert len(play.running()) == 4
    play.scheduler.handle(SetRate("r", 1.0), play.now)
    for _ in range(3):
        play.submit(task="r")
    counts = []
    for _ in range(4):
        play.step(1.0)
        counts.append(sum(m.task == "r" for m in play.running()))
    assert counts == [1, 2, 3, 3]


def test_late_and_double_reports_change_nothing() -> None:
    play = Play(cpus=1)
    message = play.submit()
    play.step()
    number = next(iter(play.given))
    play.end(message)
    for _ in range(2):
        play.scheduler.handle(Finished(number, message.seq, 0.1), play.now)
        play.scheduler.handle(Requeued(number, message.seq), play.now)
        play.scheduler.handle(Recalled(number, [message.seq, 99]), play.now)
        play.scheduler.handle(ExecutorStopped(number), play.now)
        play.scheduler.handle(ExecutorLost(number, "again"), play.now)
        play.scheduler.handle(Blocked(number), play.now)
    assert play.scheduler.view.pending == 0
    assert play.scheduler.view.limits["app"].used == 0


def test_idle_executors_end_and_purge_counts() -> None:
    play = Play(cpus=1, idle_seconds=30.0)
    message = play.submit()
    play.step()
    play.end(message)
    assert kinds(play.step(31.0)) == ["Stop"]
    play.scheduler.handle(NodeRemoved("n"), play.now)
    for eta in (None, play.now + 50):
        play.submit(eta=eta)
    assert len(play.scheduler.view.purgeable(None)) == 2
    play.scheduler.handle(Purge(), play.now)
    assert play.scheduler.view.pending == 0
    assert play.scheduler.wake_at is None or play.scheduler.decide(play.now + 100) == []


def test_most_executors() -> None:
    play = Play(cpus=50, max_executors=5)
    for _ in range(50):
        play.submit()
    play.step()
    assert len(play.given) == 5


def test_runs_of_no_time_at_all_keep_nothing_waiting() -> None:
    play = Play(cpus=4, idle_seconds=10)
    play.teach("instant", 0.0)
    play.step(11)
    assert not play.given, "its executors have ended"
    message = play.submit(task="instant")
    play.step()
    assert play.running() == [message]


def test_executors_that_end_at_once_run_what_they_were_started_for() -> None:
    play = Play(cpus=1, idle_seconds=0)
    message = play.submit()
    play.step()
    assert play.running() == [message]
    play.end(message)
    play.step(0.1)
    play.step(0.1)
    assert not play.given


def test_what_was_not_run_does_not_make_a_task_short() -> None:
    play = Play(cpus=1)
    play.teach("unknown", None)
    for _ in range(5):
        play.submit(task="unknown")
    play.step()
    assert [len(given) for given in play.given.values()] == [1]


def test_recall_is_for_batches_only() -> None:
    play = Play(cpus=1)
    play.submit()
    play.step()
    assert not any(isinstance(d, Recall) for d in play.step(100.0))


@pytest.mark.parametrize("ahead", [7200.0, -3600.0])
def test_a_clock_that_is_set_moves_what_is_due_at_a_time_of_day_and_nothing_else(ahead: float) -> None:
    play = Play(cpus=1.0)
    running = play.submit(id="running", time_limit=3600.0)
    play.step()
    assert play.running() == [running]
    before = play.submit(id="before", eta=20_000.0)
    play.scheduler.handle(WallClock(ahead), play.now)
    after = play.submit(id="after", eta=20_000.0)
    play.now = 3599.0
    assert not [one for one in play.scheduler.decide(play.now) if isinstance(one, Kill)], "it has a second left"
    play.end(running)
    play.now = 20_000.0 - ahead - 1.0
    play.step()
    assert play.scheduler.view.scheduled == 2
    assert "in 1" in play.why(before)
    play.step(2.0)
    assert play.scheduler.view.scheduled == 0
    assert play.running() == [before]
    assert after.phase is not MessagePhase.SCHEDULED
    play.scheduler.validate()


def test_a_dispatchers_clock_is_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = steady.now(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200.0)
    assert 0 <= steady.now() - before < 60
    assert 7199 < steady.ahead() < 7201
    assert abs(steady.wall(steady.now()) - time.time()) < 1
