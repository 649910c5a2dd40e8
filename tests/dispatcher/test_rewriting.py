"""The journal is written anew when that saves something, and not otherwise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raycelery.dispatcher.rewriting import Rewriting
from raycelery.dispatcher.store import Store
from raycelery.scheduler.events import AddLane, Purge, Submit
from raycelery.scheduler.model import Lane, Message
from raycelery.scheduler.scheduler import Scheduler


@pytest.fixture
def dispatcher() -> Any:
    scheduler = Scheduler()
    scheduler.handle(AddLane(Lane("one", {"CPU": 1.0})), 0.0)
    return SimpleNamespace(scheduler=scheduler, store=Store(1e9), journal=SimpleNamespace(size=0))


def submit(dispatcher: Any, count: int) -> None:
    for _ in range(count):
        dispatcher.scheduler.handle(Submit(Message("id", "task", "celery", "one", bytes(90_000))), 0.0)
        dispatcher.journal.size += 90_200


def test_messages_that_wait_are_not_written_again_and_again(dispatcher: Any) -> None:
    rewriting = Rewriting(dispatcher.journal, dispatcher.scheduler.view, dispatcher.store, least=1_000_000)
    for _ in range(200):
        submit(dispatcher, 1)
        assert not rewriting.due()
    assert not any(rewriting.due() for _ in range(100))
    dispatcher.scheduler.handle(Purge(), 0.0)
    submit(dispatcher, 110)
    assert rewriting.due(), "most of it is about the past"
    rewriting.failed()
    assert not any(rewriting.due() for _ in range(100)), "a disk that is full is not tried every second"
    submit(dispatcher, 2)
    assert rewriting.due()
    dispatcher.journal.size = 110 * 90_200
    rewriting.done()
    assert not any(rewriting.due() for _ in range(100))
