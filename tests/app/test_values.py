"""Large arguments and results: stored once, correct under change, shared by put(), gone when nobody needs them."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from celery import Task, chain, chord

import raycelery
from raycelery import Celery
from raycelery.errors import ArgumentError
from raycelery.protocol import questions
from tests import scripts
from tests.support import RaySession, until

SECONDS = 60
MEGABYTE = 1_000_000

app = Celery("values")


@app.task
def total(frame: pd.DataFrame) -> float:
    return float(frame.to_numpy().sum())


@app.task
def scribble(frame: pd.DataFrame) -> float:
    frame.iloc[:, :] = 1.0
    return float(frame.to_numpy().sum())


@app.task
def identity(value: Any) -> Any:
    return value


@app.task
def describe(value: Any) -> dict[str, Any]:
    return {"type": type(value), "writeable": value.flags.writeable, "sum": float(value.sum()), "shape": value.shape}


@app.task
def first(*values: Any, **more: Any) -> list[float]:
    return [float(value[0]) for value in [*values, *more.values()]]


@app.task
def make(megabytes: int) -> np.ndarray:
    return np.full(megabytes * MEGABYTE // 8, 3.0)


@app.task(bind=True, max_retries=2)
def retried(self: Task, value: np.ndarray) -> float:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return float(value.sum())


@app.task
def lengths(values: list[Any]) -> list[int]:
    return [len(value) for value in values]


@pytest.fixture(autouse=True)
def _ray(ray_session: Any) -> None:
    identity.delay(0).get(timeout=SECONDS)


def _frame(seed: float = 0.0, megabytes: int = 20) -> pd.DataFrame:
    return pd.DataFrame(np.full((megabytes * MEGABYTE // 80, 10), seed), columns=list("abcdefghij"))


def _stored() -> int:
    """Return how many large values the dispatcher keeps."""
    return int(app.client.call(questions.Stats())["large_values"])


def test_a_large_frame_to_many_tasks_is_stored_once() -> None:
    frame, before = _frame(2.0), _stored()
    free = ray.available_resources()["object_store_memory"]
    results = [total.delay(frame) for _ in range(50)]
    assert _stored() == before + 1
    assert free - ray.available_resources()["object_store_memory"] < 45 * MEGABYTE
    assert {result.get(timeout=SECONDS) for result in results} == {2.0 * frame.size}


def test_a_project_that_chose_pickle_has_it_stored_once_too(tmp_path: Path) -> None:
    project = """
        import numpy as np
        from raycelery import Celery

        app = Celery("project")
        app.conf.update(task_serializer="pickle", result_serializer="pickle", accept_content=["json", "pickle"])

        @app.task
        def double(array):
            return array * 2
        """
    script = """
        import numpy as np
        from project import app, double
        from raycelery.protocol import questions

        array = np.full(2_500_000, 1.5)
        results = [double.delay(array) for _ in range(10)]
        assert app.client.call(questions.Stats())["large_values"] == 1
        assert all((result.get(timeout=90) == 3.0).all() for result in results)
        assert double.apply_async((3,), serializer="json").get(timeout=90) == 6
        print("ok")
        """
    scripts.run(tmp_path, script, ray.get_runtime_context().gcs_address, project=project)


def test_an_equal_frame_of_another_object_is_the_same_value() -> None:
    before = _stored()
    assert total.delay(_frame(2.5)).get(timeout=SECONDS) == total.delay(_frame(2.5)).get(timeout=SECONDS)
    assert _stored() == before + 1


def _made_up(words: dict[int, int]) -> bytes:
    """A value that has these eight bytes at these places."""
    made = bytearray(200_000)
    for at, word in words.items():
        made[at : at + 8] = word.to_bytes(8, "little")
    return bytes(made)


def test_two_values_that_were_made_to_be_mistaken_for_each_other_are_not() -> None:
    # XXH3 multiplies the halves of each eight bytes, and only adds them up where one half is what its table has there.
    one = _made_up({0: (5 << 32) | 0x2C81017C, 64: (5 << 32) | 0xE96DD4DE})
    other = _made_up({0: (6 << 32) | 0x2C81017C, 64: (4 << 32) | 0xE96DD4DE})
    before = _stored()
    assert [identity.delay(value).get(timeout=SECONDS) == value for value in (one, other)] == [True, True]
    assert _stored() >= before + 2


def test_changing_it_between_calls_and_in_tasks_stays_correct() -> None:
    frame = _frame(1.0)
    results = []
    for value in (1.0, 2.0, 3.0):
        frame.iloc[:, :] = value
        results.append((total.delay(frame), value))
        frame.iloc[0, 0] = -1.0  # after the call: not what was passed
    for result, value in results:
        assert result.get(timeout=SECONDS) == value * frame.size
    frame.iloc[:, :] = 7.0
    changed = [scribble.delay(frame) for _ in range(6)]
    assert {result.get(timeout=SECONDS) for result in changed} == {1.0 * frame.size}
    assert total.delay(frame).get(timeout=SECONDS) == 7.0 * frame.size, "each task changed a copy of its own"


def test_put_shares_read_only() -> None:
    array = np.arange(500_000.0)
    shared = raycelery_put(array)
    got = describe.delay(shared).get(timeout=SECONDS)
    assert (got["type"], got["writeable"], got["sum"]) == (np.ndarray, False, float(array.sum()))
    assert describe.delay(array).get(timeout=SECONDS)["writeable"]
    assert chain(identity.si(shared), describe.s()).apply_async().get(timeout=SECONDS)["sum"] == array.sum()


def test_what_was_put_stays_until_its_stand_in_is_gone() -> None:
    before = _stored()
    shared = raycelery_put(np.full(200_000, 0.25))
    for seed in range(20):
        identity.delay(np.full(30_000, float(seed))).get(timeout=SECONDS)
    assert describe.delay(shared).get(timeout=SECONDS)["sum"] == 50_000.0
    del shared
    gc.collect()
    identity.delay(np.full(30_000, 99.0)).get(timeout=SECONDS)
    until(lambda: _stored() <= before + 16, SECONDS)


def raycelery_put(value: Any) -> Any:
    app.set_current()
    return raycelery.put(value)


def test_many_large_values_in_one_message() -> None:
    arrays = [np.full(20_000, float(i)) for i in range(40)]
    assert first.delay(*arrays[:20], **{f"k{i}": arrays[i] for i in range(20, 40)}).get(timeout=SECONDS) == list(
        range(40)
    )


def test_what_waits_keeps_its_value_while_others_come_and_go() -> None:
    later = describe.apply_async((np.full(200_000, 4.0),), countdown=2.0)
    for seed in range(30):
        identity.delay(np.full(20_000, 100.0 + seed)).get(timeout=SECONDS)
    assert later.get(timeout=SECONDS)["sum"] == 800_000.0


def test_many_threads_submit_large_values() -> None:
    sums: dict[int, float] = {}

    def submit(number: int) -> None:
        for turn in range(6):
            value = number * 100 + turn
            sums[value] = describe.delay(np.full(20_000, float(value))).get(timeout=SECONDS)["sum"]

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sums == {n * 100 + t: 20_000.0 * (n * 100 + t) for n in range(6) for t in range(6)}


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 300_000,
        "é" * 300_000,
        [b"y" * 200_000, {"text": "z" * 200_000}],
        np.arange(400_000.0).reshape(400, 1000).T,
        np.arange(400_000.0)[::2],
        np.asfortranarray(np.arange(400_000.0).reshape(400, 1000)),
        np.array([{"a": 1}] * 20_000, dtype=object),
        pd.DataFrame({"a": np.arange(50_000.0), "b": ["zone"] * 50_000}).iloc[::2],
        pd.Series(pd.date_range("2013-01-01", periods=50_000, freq="h")),
    ],
    ids=["bytes", "str", "nested", "transposed", "strided", "fortran", "objects", "frame", "dates"],
)
def test_every_kind_of_large_value_goes_there_and_back(value: Any) -> None:
    got = identity.delay(value).get(timeout=SECONDS)
    assert type(got) is type(value)
    if isinstance(value, np.ndarray):
        np.testing.assert_array_equal(got, value)
        assert got.dtype == value.dtype
    elif isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(got, value)
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(got, value, check_freq=False)
    else:
        assert got == value


def test_subclasses_of_arrays_and_ordinary_containers_keep_their_type() -> None:
    class Zone(str):
        __slots__ = ()

    assert lengths.delay([[b"q" * 150_000], ("r" * 150_000,), Zone("EWR")]).get(timeout=SECONDS) == [1, 1, 3]
    twice = np.ones(50_000)
    got = identity.delay([twice, twice]).get(timeout=SECONDS)
    assert got[0].sum() == got[1].sum() == 50_000


def test_large_results_and_parts_of_chords() -> None:
    result = make.delay(8)
    array = result.get(timeout=SECONDS)
    assert array.sum() == 3.0 * MEGABYTE
    array[0] = 1.0  # the caller's own
    assert chord([make.s(1) for _ in range(4)], lengths.s()).apply_async().get(timeout=SECONDS) == [125_000] * 4
    assert chain(make.s(2), describe.s()).apply_async().get(timeout=SECONDS)["sum"] == 750_000.0


def test_a_retry_carries_a_large_value_along() -> None:
    assert retried.delay(np.full(50_000, 2.0)).get(timeout=SECONDS) == 100_000.0


def test_values_are_released_when_nobody_needs_them() -> None:
    before = _stored()
    results = [make.delay(1), *(total.delay(_frame(200.0 + seed, 1)) for seed in range(40))]
    for result in results:
        result.get(timeout=SECONDS)
        result.forget()
    # This process and each executor keep some for their next calls, not forty.
    until(lambda: _stored() - before <= 20, SECONDS)


def test_what_a_process_kept_is_released_when_it_ends(ray_session: Any) -> None:
    import subprocess
    import sys

    before = _stored()
    script = (
        "import numpy as np\nfrom tests.app import test_values as t\n"
        "for seed in range(8): print('sum', t.describe.delay(np.full(30_000, 500.0 + seed)).get(timeout=60)['sum'])\n"
    )
    env = {**os.environ, "RAY_ADDRESS": ray_session.address}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=100)
    # The executors' own output comes between the lines.
    assert sum(line.startswith("sum ") for line in done.stdout.splitlines()) == 8, done.stderr
    until(lambda: _stored() <= before, SECONDS)


def test_values_outlive_a_dispatcher_that_is_killed(ray_session: RaySession) -> None:
    shared = raycelery_put(np.full(100_000, 5.0))
    later = describe.apply_async((np.full(200_000, 4.0),), countdown=3.0)
    unread = make.delay(2)
    until(lambda: unread.state == "SUCCESS", SECONDS)
    client = app.client
    os.kill(client.call(questions.Stats())["pid"], signal.SIGKILL)
    until(lambda: not client.connected, SECONDS)
    assert later.get(timeout=SECONDS)["sum"] == 800_000.0
    assert unread.get(timeout=SECONDS).sum() == 750_000.0
    assert describe.delay(shared).get(timeout=SECONDS)["sum"] == 500_000.0
    assert total.delay(_frame(1.0, 2)).get(timeout=SECONDS) == 250_000.0


def test_a_killed_holder_of_large_values_breaks_only_what_it_held(ray_session: RaySession) -> None:
    value = np.full(100_000, 6.0)
    assert describe.delay(value).get(timeout=SECONDS)["sum"] == 600_000.0
    shared = raycelery_put(np.full(100_000, 5.0))
    before = _stored()
    assert before >= 2
    ray.kill(ray.get_actor("raycelery-values:values", namespace="raycelery"), no_restart=True)
    until(lambda: _stored() == 0, SECONDS)
    assert describe.delay(value).get(timeout=SECONDS)["sum"] == 600_000.0, "it is stored again"
    assert make.delay(2).get(timeout=SECONDS).sum() == 750_000.0
    with pytest.raises(ArgumentError, match="is gone"):
        describe.delay(shared).get(timeout=SECONDS)
    ray.kill(ray.get_actor("raycelery-values:values", namespace="raycelery"), no_restart=True)
    value = np.full(100_000, 7.0)
    assert describe.delay(value).get(timeout=SECONDS)["sum"] == 700_000.0, "also where it was not known to be dead"


def test_a_forked_child_passes_and_receives_large_values(tmp_path: Path) -> None:
    out = tmp_path / "out"
    frame = _frame(3.0, 2)
    shared = raycelery_put(np.full(100_000, 2.0))
    pid = os.fork()
    if pid == 0:
        try:
            own = total.delay(frame).get(timeout=40)
            back = make.delay(1).get(timeout=40).sum()
            again = describe.delay(shared).get(timeout=40)["sum"]
            out.write_text(f"{own} {back} {again}")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert out.read_text() == f"{3.0 * frame.size} 375000.0 200000.0"


def test_what_cannot_be_pickled_is_refused_at_the_call() -> None:
    with pytest.raises(ArgumentError, match=r"an argument of 'tests\.app\.test_values\.identity' cannot be pickled"):
        identity.delay(threading.Lock())
    with pytest.raises(ArgumentError, match="generator"):
        identity.delay({"rows": list(range(3)), "stream": (i for i in range(3))})
    with pytest.raises(ArgumentError):
        identity.delay(socket.socket())
    assert identity.delay(1).get(timeout=SECONDS) == 1


def test_a_result_that_cannot_be_pickled_is_the_tasks_failure() -> None:
    with pytest.raises(Exception, match="pickle"):
        lock.delay().get(timeout=SECONDS)
    assert identity.delay(1).get(timeout=SECONDS) == 1


@app.task
def lock() -> Any:
    return threading.Lock()
