"""A bridge's log holds what a stock worker's does: how tasks ended, and what they say, at its own level."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.bridge.support import Project, Worker

Make = Callable[..., Project]
Start = Callable[..., Worker]

MORE = """
import logging

from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger


@app.task
def says(word):
    print("printed", word)
    get_task_logger(__name__).info("told %s", word)
    logging.getLogger("some.library").error("error %s", word)
    return word


@app.task(throws=(KeyError,))
def expected():
    raise KeyError("as expected")


@app.task
def ignored():
    raise Ignore("not needed")
"""


def lines(worker: Worker, *parts: str) -> list[str]:
    return [line for line in worker.log.read_text().splitlines() if all(part in line for part in parts)]


def test_a_bridge_logs_what_a_stock_worker_does(project: Make, bridge_worker: Start) -> None:
    shop = project(more=MORE)
    worker = bridge_worker(shop, concurrency=1)
    banner = re.search(r"transport: +(\S+)", worker.log.read_text())
    assert banner is not None
    assert banner[1].startswith("redis://")
    said = shop.send("says", "word")
    said.get(timeout=60)
    again = shop.send("flaky", 1)
    again.get(timeout=60)
    expected, ignored, failed = shop.send("expected"), shop.send("ignored"), shop.send("fail", "no way")
    for result in (expected, failed):
        result.get(timeout=60, propagate=False)
    shop.send("add", 1, 2).get(timeout=60)
    worker.wait_for_log(f"{shop.module}.fail[{failed.id}] raised unexpected")
    worker.wait_for_log(f"{shop.module}.ignored[{ignored.id}] ignored")
    name = shop.module

    [succeeded] = lines(worker, f"Task {name}.says[{said.id}] succeeded in ", "s: 'word'")
    assert "INFO/" in succeeded
    [retried] = lines(worker, f"Task {name}.flaky[{again.id}] retry: Retry in 0s: OSError('again')")
    assert "INFO/" in retried
    [unexpected] = lines(worker, f"Task {name}.fail[{failed.id}] raised unexpected: ValueError('no way')")
    assert "ERROR/" in unexpected
    assert lines(worker, "ValueError: no way"), "with the traceback"
    [foreseen] = lines(worker, f"Task {name}.expected[{expected.id}] raised expected: KeyError('as expected')")
    assert "INFO/" in foreseen

    # What the task itself says comes once, stamped once, at its own level.
    [told] = lines(worker, "told word")
    assert re.match(rf"\[[^]]*: INFO/\w+\] {name}\.says\[{said.id}\]: told word$", told)
    [error] = lines(worker, "error word")
    assert re.match(r"\[[^]]*: ERROR/\w+\] error word$", error)
    [printed] = lines(worker, "printed word")
    assert re.match(r"\[[^]]*: WARNING/\w+\] printed word$", printed)


def test_each_bridge_of_a_cluster_logs_its_own(project: Make, bridge_worker: Start) -> None:
    shop = project(more=MORE)
    first = bridge_worker(shop, "-Q", "celery")
    shop.send("says", "one").get(timeout=60)
    first.wait_for_log("printed one")
    second = bridge_worker(shop, "-Q", "other")
    result = shop.send("says", "two", queue="other")
    assert result.get(timeout=60) == "two"
    second.wait_for_log("error two")
    assert not lines(first, "two")
    assert not lines(second, "one")


def test_a_bridge_logs_at_its_own_level(project: Make, bridge_worker: Start) -> None:
    shop = project(more=MORE)
    worker = bridge_worker(shop, "-l", "ERROR")
    shop.send("says", "word").get(timeout=60)
    worker.wait_for_log("error word")
    for words in ("printed word", "told word", "succeeded"):
        assert not lines(worker, words)
