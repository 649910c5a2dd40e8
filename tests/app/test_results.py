"""Results: states, errors, groups, other processes, async code."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from celery import group
from celery.exceptions import TimeoutError
from celery.result import AsyncResult, GroupResult, ResultSet

from raycelery import Celery
from tests import sample, tasks
from tests.support import ROOT, RaySession, until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


def test_a_remote_error_arrives_as_its_own_class_with_the_remote_traceback() -> None:
    result = sample.fail.delay("EWR", 7)
    with pytest.raises(sample.ModelError) as caught:
        result.get(timeout=SECONDS)
    assert (caught.value.zone, caught.value.code) == ("EWR", 7)
    assert "raise ModelError(zone, code)" in result.traceback
    assert "raise ModelError(zone, code)" in str(caught.value.__cause__)
    assert result.state == "FAILURE"
    assert result.failed()
    assert not result.successful()
    assert isinstance(result.get(propagate=False), sample.ModelError)


def test_get_times_out() -> None:
    result = sample.nap.delay(1.5)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.1)
    assert result.get(timeout=SECONDS) == 1.5


def test_get_with_callback_and_interval() -> None:
    seen: list[Any] = []
    value = sample.add.delay(1, 2).get(timeout=SECONDS, interval=0.05, callback=lambda task_id, v: seen.append(v))
    assert value == 3
    assert seen == [3]


def test_an_interval_of_zero_is_short(tmp_path: Path) -> None:
    calls: list[int] = []
    go = tmp_path / "go"
    result = tasks.hold.delay(str(tmp_path / "held"), str(go))
    with pytest.raises(TimeoutError):
        result.backend.wait_for(result.id, timeout=2, interval=0, on_interval=lambda: calls.append(1))
    go.touch()
    result.get(timeout=SECONDS)
    assert len(calls) > 5, "with the usual half second there are four"


def test_update_state(tmp_path: Path) -> None:
    path = tmp_path / "go"
    result = sample.progress.delay(str(path))
    until(lambda: result.state == "PROGRESS", SECONDS)
    assert result.info == {"done": 3, "of": 10}
    path.touch()
    assert result.get(timeout=SECONDS) == "done"
    assert result.state == "SUCCESS"


def test_forget() -> None:
    result = sample.add.delay(1, 2)
    result.get(timeout=SECONDS)
    result.forget()
    assert AsyncResult(result.id, app=sample.app).state == "PENDING"


def test_children_and_collect() -> None:
    result = sample.add.apply_async((1, 2), link=sample.add.s(10))
    result.get(timeout=SECONDS)
    assert [value for _, value in result.collect(timeout=SECONDS)] == [3, 13]


def test_group_results_save_restore_join_and_iterate() -> None:
    result = group(sample.add.s(i, i) for i in range(10)).apply_async()
    assert result.join(timeout=SECONDS) == [2 * i for i in range(10)]
    assert result.join_native(timeout=SECONDS) == [2 * i for i in range(10)]
    assert sorted(meta["result"] for _, meta in result.iter_native(timeout=SECONDS)) == [2 * i for i in range(10)]
    assert result.successful()
    assert result.completed_count() == 10
    result.save()
    restored = GroupResult.restore(result.id, app=sample.app)
    assert restored is not None
    assert restored.get(timeout=SECONDS) == [2 * i for i in range(10)]
    restored.delete()
    assert GroupResult.restore(result.id, app=sample.app) is None


def test_a_group_with_a_failure() -> None:
    result = group(sample.add.s(1, 1), sample.fail.s("JFK", 2)).apply_async()
    with pytest.raises(sample.ModelError):
        result.get(timeout=SECONDS)
    values = result.get(timeout=SECONDS, propagate=False)
    assert values[0] == 2
    assert isinstance(values[1], sample.ModelError)


def test_results_are_read_by_id_from_another_process(ray_session: RaySession) -> None:
    result = sample.add.delay(20, 22)
    script = (
        "from tests import sample\n"
        f"r = sample.app.AsyncResult({result.id!r})\n"
        "print(r.get(timeout=60), sample.add.delay(1, 1).get(timeout=60))\n"
    )
    env = {**os.environ, "RAY_ADDRESS": ray_session.address, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=100, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1:] == ["42 2"], done.stderr  # Ray may warn before it
    # The process that is gone started nothing that went with it.
    assert sample.add.delay(2, 2).get(timeout=SECONDS) == 4


def test_a_forked_child_submits_and_waits(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            out.write_text(str(sample.add.delay(3, 4).get(timeout=30)))
            sample.touch.delay(str(tmp_path / "unwaited"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert out.read_text() == "7"
    until((tmp_path / "unwaited").exists, SECONDS, "what a child submits is lost with it")
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3, "the parent goes on"


def test_await_does_not_block_the_loop() -> None:
    async def main() -> tuple[list[float], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticker = asyncio.create_task(tick())
        values = await asyncio.gather(*(sample.nap.delay(0.3) for _ in range(3)))
        ticker.cancel()
        return values, ticks

    values, ticks = asyncio.run(main())
    assert values == [0.3, 0.3, 0.3]
    assert ticks >= 10


def test_await_raises_the_remote_error() -> None:
    async def main() -> None:
        await sample.fail.delay("LGA", 3)

    with pytest.raises(sample.ModelError):
        asyncio.run(main())


def test_many_results_one_by_one_and_in_any_order() -> None:
    results = [sample.add.delay(i, 1) for i in range(500)]
    for i in reversed(range(500)):
        assert results[i].get(timeout=SECONDS) == i + 1


def test_two_threads_wait_for_one_result() -> None:
    result = sample.nap.delay(0.3)
    values: list[float] = []
    threads = [
        threading.Thread(target=lambda: values.append(AsyncResult(result.id, app=sample.app).get(timeout=30)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert values == [0.3] * 3


def test_result_extended_and_expires() -> None:
    conf = sample.app.conf
    conf.result_extended = True
    try:
        result = sample.add.delay(1, 2)
        result.get(timeout=SECONDS)
    finally:
        conf.result_extended = False
    # Executors import the application as it is written, as Celery's workers do: a change made here stays here.
    assert result.name is None


def test_a_timeout_of_zero_returns_what_is_ready() -> None:
    results = group(sample.add.s(i, i) for i in range(5)).apply_async()
    for result in results:
        until(result.ready, SECONDS)
    fresh = sample.app.ResultSet([sample.app.AsyncResult(result.id) for result in results])
    assert fresh.join_native(timeout=0) == [0, 2, 4, 6, 8]
    with pytest.raises(TimeoutError):
        sample.nap.delay(2.0).get(timeout=0)


def test_protocol_1_messages_run() -> None:
    sample.app.conf.task_protocol = 1
    del sample.app.amqp.create_task_message
    try:
        assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
        assert sample.request_of.delay().get(timeout=SECONDS)["called_directly"] is False
    finally:
        sample.app.conf.task_protocol = 2
        del sample.app.amqp.create_task_message


# -- promises ---------------------------------------------------------------------------------------------------


class Seen:
    """A callback that notes what it is called with, and in how many threads' time."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.called = threading.Event()

    def __call__(self, result: Any) -> None:
        self.results.append(result)
        self.called.set()

    def wait(self) -> list[Any]:
        assert self.called.wait(SECONDS), "the callback is not called"
        return self.results


def test_then_is_called_without_get() -> None:
    seen, failed, late = Seen(), Seen(), Seen()
    result, failure = sample.nap.delay(0.1), sample.fail.delay("EWR", 1)
    result.then(seen)
    failure.on_ready.then(failed)
    assert seen.wait() == [result]
    assert seen.results[0].result == 0.1
    assert failed.wait()[0].state == "FAILURE"
    result.then(late)
    assert late.results == [result], "at once where the task has ended"
    assert result.get(timeout=SECONDS) == 0.1
    assert len(seen.results) == 1


def test_then_of_groups_and_sets_is_called_once_all_have_ended() -> None:
    seen, nested, of_set, of_stock_set = Seen(), Seen(), Seen(), Seen()
    result = group(sample.nap.s(0.01 * i) for i in range(5)).apply_async()
    result.then(seen)
    assert seen.wait() == [result]
    assert [one.result for one in result.results] == [0.0, 0.01, 0.02, 0.03, 0.04]
    inner = group(sample.add.s(1, 1), group([sample.add.s(2, 2), sample.fail.s("EWR", 2)])).apply_async()
    inner.on_ready.then(nested)
    assert nested.wait()
    assert inner.ready()
    sample.app.ResultSet([sample.add.delay(i, i) for i in range(3)]).then(of_set)
    assert of_set.wait()[0].ready(), "the set is kept until it has been told"
    stock = ResultSet([sample.add.delay(i, i) for i in range(3)], app=sample.app)
    stock.then(of_stock_set)
    assert of_stock_set.wait()[0].ready()
    assert result.get(timeout=SECONDS) == [0.0, 0.01, 0.02, 0.03, 0.04]


def test_then_of_a_group_that_is_waited_for_or_has_ended() -> None:
    seen, later = Seen(), Seen()
    result = group(sample.add.s(i, i) for i in range(20)).apply_async()
    result.then(seen)
    assert result.get(timeout=SECONDS) == [2 * i for i in range(20)]
    assert len(seen.wait()) == 1
    restored = sample.app.GroupResult(result.id, [sample.app.AsyncResult(one.id) for one in result.results])
    restored.then(later)
    assert later.wait() == [restored]


def test_a_callback_may_submit_and_wait_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    seen, after = Seen(), Seen()

    def go_on(result: Any) -> None:
        sample.add.delay(result.result, 1).then(seen)
        assert sample.add.delay(1, 1).get(timeout=SECONDS) == 2
        raise ValueError("no good callback")

    sample.add.delay(1, 2).then(go_on)
    assert seen.wait()[0].result == 4
    sample.add.delay(1, 2).then(after)
    after.wait()
    assert "no good callback" in caplog.text


def test_callbacks_of_many_results_from_many_threads() -> None:
    counted: list[Any] = []

    def submit() -> None:
        for _ in range(50):
            sample.add.delay(1, 1).then(counted.append)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    until(lambda: len(counted) == 200, SECONDS, lambda: f"{len(counted)} of 200 callbacks were called")


def test_a_group_may_be_awaited() -> None:
    async def main() -> tuple[Any, Any]:
        flat = await group(sample.add.s(i, i) for i in range(5)).apply_async()
        nested = await group(sample.add.s(1, 1), group([sample.add.s(2, 2), sample.add.s(3, 3)])).apply_async()
        with pytest.raises(sample.ModelError):
            await group(sample.add.s(1, 1), sample.fail.s("EWR", 2)).apply_async()
        assert await sample.app.ResultSet([sample.add.delay(1, 1)]) == [2]
        return flat, nested

    assert asyncio.run(main()) == ([0, 2, 4, 6, 8], [2, 4, 6])


def test_a_group_on_another_backend_may_be_awaited_and_tells(redis_url: str) -> None:
    app = Celery("elsewhere", broker="memory://", backend=redis_url, set_as_current=False)
    app.conf.ray_mode = "bridge"
    ids = [f"made-up-{i}-{os.getpid()}" for i in range(2)]
    result = app.GroupResult("made-up", [app.AsyncResult(each) for each in ids])
    seen = Seen()
    result.then(seen)
    for number, each in enumerate(ids):
        app.backend.store_result(each, number, "SUCCESS")

    async def main() -> Any:
        return await result

    assert asyncio.run(main()) == [0, 1]
    assert seen.results == [result]
