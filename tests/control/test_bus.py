"""The queues of the transport: bounded, bound, and gone with those who read them."""

from __future__ import annotations

from typing import Any

from raycelery.dispatcher.monitoring.bus import BATCH, MOST_MESSAGES, Bus


def bus(*queues: str, expires: float | None = None) -> Bus:
    made = Bus()
    for queue in queues:
        made.declare(queue, "me", expires, 0.0)
        made.bind("events", ("#", "", queue))
    return made


def read(made: Bus, *queues: str) -> list[Any]:
    answers: list[Any] = []
    made.read(queues, "me", 0.0, answers.append)()
    return [message["n"] for _, message in answers[0]]


def test_a_reader_is_answered_at_once_or_when_something_comes() -> None:
    made = bus("a")
    made.put("a", {"n": 1})
    assert read(made, "a") == [1]
    answers: list[Any] = []
    made.read(["a"], "me", 0.0, answers.append)
    assert answers == []
    made.put("a", {"n": 2})
    assert answers == [[("a", {"n": 2})]]
    assert read(made, "a") == []


def test_a_slow_reader_loses_the_oldest() -> None:
    made = bus("a")
    for number in range(MOST_MESSAGES + 10):
        made.put("a", {"n": number})
    assert made.size("a") == MOST_MESSAGES
    assert read(made, "a") == list(range(10, 10 + BATCH))


def test_fanout_reaches_every_queue_that_is_bound() -> None:
    made = bus("a", "b")
    heard: list[Any] = []
    made.on_fanout = lambda exchange, message: heard.append((exchange, message["n"]))
    made.fanout("events", {"n": 1})
    made.fanout("others", {"n": 2})
    assert heard == [("events", 1), ("others", 2)]
    assert read(made, "a") == read(made, "b") == [1]


def test_it_is_said_when_somebody_listens_and_when_nobody_does() -> None:
    made = Bus()
    said: list[Any] = []
    made.on_bound = lambda exchange: said.append((exchange, len(made.table(exchange))))
    for queue in ("a", "b"):
        made.declare(queue, queue, None, 0.0)
        made.bind("events", ("#", "", queue))
    made.gone("a")
    made.unbind("events", ("#", "", "c"))
    made.gone("b")
    assert said == [("events", 1), ("events", 2), ("events", 0)]
    assert not made.has("a")


def test_a_queue_that_nobody_reads_expires() -> None:
    made = bus("a", expires=60.0)
    made.expire(59.0)
    assert made.has("a")
    made.read(["a"], "me", 59.0, lambda taken: None)
    made.expire(1000.0)
    assert made.has("a"), "somebody waits"
    made.put("a", {"n": 1})
    made.expire(1061.0)
    assert not made.has("a")
    assert made.table("events") == []


def test_what_nobody_wants_is_dropped() -> None:
    made = bus()
    made.put("a", {"n": 1})
    assert made.size("a") == made.purge("a") == 0
