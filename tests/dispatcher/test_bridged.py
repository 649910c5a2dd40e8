"""Messages of bridges in scheduler and journal: Celery's worker and its broker do what executors and journal do."""

from __future__ import annotations

from pathlib import Path

from raycelery.dispatcher.journal import Journal
from raycelery.dispatcher.ledger import Ledger
from raycelery.protocol import framing
from raycelery.protocol.messages import Submission
from raycelery.protocol.records import Numbered
from raycelery.scheduler.events import AddLane, Begun, ExecutorLost, ExecutorReady, NodeChanged, Purge, Submit
from raycelery.scheduler.instructions import Assign, Return, Start
from raycelery.scheduler.model import Lane, Message
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.scheduler import Scheduler

LANE = Lane("one", {"CPU": 1})


def scheduler_with(*messages: Message) -> tuple[Scheduler, int]:
    """Return a scheduler whose only executor was given the first of these messages, and the executor."""
    scheduler = Scheduler()
    scheduler.handle(NodeChanged("node", {"CPU": 1}), 0.0)
    scheduler.handle(AddLane(LANE), 0.0)
    for message in messages:
        scheduler.handle(Submit(message), 0.0)
    [start] = [decision for decision in scheduler.decide(0.0) if isinstance(decision, Start)]
    scheduler.handle(ExecutorReady(start.executor_id, "node"), 1.0)
    [given] = [decision for decision in scheduler.decide(1.0) if isinstance(decision, Assign)]
    assert given.messages == [messages[0]]
    return scheduler, start.executor_id


def test_one_that_is_lost_goes_back_to_its_bridge() -> None:
    message = Message("id", "task", "celery", LANE.key, bridged=True)
    scheduler, executor = scheduler_with(message)
    scheduler.handle(Begun(executor), 1.0)
    scheduler.handle(ExecutorLost(executor, "out of memory"), 2.0)
    [returned] = [one for one in scheduler.decide(2.0) if isinstance(one, Return)]
    assert returned.message is message
    assert (message.settle_reason, message.reason, message.phase) == ("lost", "out of memory", MessagePhase.DONE)


def test_one_that_had_not_begun_runs_elsewhere() -> None:
    message = Message("id", "task", "celery", LANE.key, bridged=True)
    scheduler, executor = scheduler_with(message)
    scheduler.handle(ExecutorLost(executor, "out of memory"), 2.0)
    assert not any(isinstance(one, Return) for one in scheduler.decide(2.0))
    assert message.phase is MessagePhase.WAITING


def test_a_purge_leaves_them_to_their_broker() -> None:
    first = Message("1", "task", "celery", LANE.key, bridged=True)
    second = Message("2", "task", "celery", LANE.key, bridged=True)
    third = Message("3", "task", "celery", LANE.key)
    scheduler, _ = scheduler_with(first, second, third)
    assert scheduler.view.purgeable(None) == [third]
    scheduler.handle(Purge(), 0.0)
    assert second.phase is MessagePhase.WAITING


def test_numbers_stay_in_step_with_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append("", framing.pack(Numbered(41)))
    journal.flush()
    ledger = Ledger()
    for _, _, record in journal.read():
        assert isinstance(record, Numbered)
        ledger.numbered(record.seq)
    assert ledger.submitted(Submission("id", "task", "celery", LANE.key, b"")) == 42
