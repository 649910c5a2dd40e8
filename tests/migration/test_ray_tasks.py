"""The helper module that `actors` writes into projects, on a real Ray."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from migration_tool.templates import ray_tasks
from migration_tool.templates.ray_tasks import Results, Task, gather, keep, launcher, result_of, retrying, submit
from tests.records import wait_for_file
from tests.support import ROOT, RaySession

SECONDS = 60


@pytest.fixture(autouse=True)
def _ray(ray_session: RaySession) -> Iterator[None]:
    yield
    ray_tasks._running.clear()
    ray_tasks._keeping.clear()


@ray.remote(num_cpus=0.1)
def double(x: int) -> int:
    if x < 0:
        raise ValueError(f"{x} is negative")
    return 2 * x


@ray.remote(num_cpus=0.1)
def total(values: list[int], factor: int = 1) -> int:
    return sum(values) * factor


def test_results_come_in_order_with_their_failures() -> None:
    results = Results(submit(double, x) for x in [3, -1, 2])
    first, error, last = results.get(timeout=SECONDS, propagate=False)
    assert (first, last) == (6, 4)
    assert type(error) is ValueError
    assert [one.state for one in results] == ["SUCCESS", "FAILURE", "SUCCESS"]
    assert [one.successful() for one in results] == [True, False, True]
    assert (results.ready(), results.failed(), results.completed_count()) == (True, True, 2)
    with pytest.raises(ValueError, match="-1 is negative"):
        results.get(timeout=SECONDS)


def test_chains_and_chords_pass_references() -> None:
    assert submit(double, submit(double, 1).ref).get(timeout=SECONDS) == 4
    assert submit(total, gather(submit(double, x) for x in range(4)), factor=2).get(timeout=SECONDS) == 24
    with pytest.raises(ValueError, match="-1 is negative"):
        submit(double, submit(double, -1).ref).get(timeout=SECONDS)


def test_no_more_than_the_limit_are_unfinished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_tasks, "LIMIT", 2)

    @ray.remote(num_cpus=0.1)
    def wait_for(name: str) -> str:
        wait_for_file(tmp_path / name)
        return name

    first, second = submit(wait_for, "a"), submit(wait_for, "b")
    (tmp_path / "a").touch()
    third = submit(wait_for, "c")
    assert first.ready(), "the third was submitted only when the first had ended"
    assert not second.ready()
    for name in "bc":
        (tmp_path / name).touch()
    assert Results([first, second, third]).join(timeout=SECONDS) == ["a", "b", "c"]


def test_a_wait_has_its_limit(tmp_path: Path) -> None:
    @ray.remote(num_cpus=0.1)
    def wait() -> None:
        wait_for_file(tmp_path / "go")

    result = submit(wait)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.1)
    assert result.state == "PENDING"
    (tmp_path / "go").touch()
    assert result.get(timeout=SECONDS) is None


def test_bound_tasks_retry_and_tell_their_state() -> None:
    @ray.remote(num_cpus=0.1)
    @retrying(bind=True, max_retries=2)
    def again(self, fail: int) -> tuple[int, str]:  # type: ignore[no-untyped-def]
        self.update_state(state="PROGRESS", meta={"at": self.request.retries})
        if self.request.retries < fail:
            self.retry(exc=OSError("no"), countdown=0)
        return self.request.retries, self.request.id

    result = submit(again, 2)
    assert result.get(timeout=SECONDS) == (2, result.id)
    with pytest.raises(OSError, match="no"):
        submit(again, 3).get(timeout=SECONDS)
    states = ray.get_actor("states", namespace="ray_tasks")
    assert ray.get(states.get.remote(result.id)) == ("PROGRESS", {"at": 2})


def test_errors_that_are_tried_again(tmp_path: Path) -> None:
    tries = tmp_path / "tries"

    @retrying(autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), max_retries=3, default_retry_delay=0)
    def flaky(error: type[Exception]) -> None:
        with tries.open("a") as file:
            file.write(".")
        raise error("on purpose")

    remote = ray.remote(num_cpus=0.1)(flaky)
    for error, times in ((OSError, 4), (FileNotFoundError, 1), (KeyError, 1)):
        tries.write_text("")
        with pytest.raises(error):
            submit(remote, error).get(timeout=SECONDS)
        assert len(tries.read_text()) == times
    tries.write_text("")
    with pytest.raises(OSError, match="on purpose"):
        flaky(OSError)
    assert tries.read_text() == ".", "called directly, it is tried once"


def test_an_actor_that_is_launched() -> None:
    class Trainer:
        def __init__(self, zone: str) -> None:
            self.zone = zone

        def fit(self, days: int) -> tuple[str, int]:
            return self.zone, days

    actor = ray.remote(num_cpus=1)(Trainer)

    @launcher
    def train(zone: str, days: int = 7) -> object:
        return actor.options(num_cpus=0.1).remote(zone).fit.remote(days)

    assert Results([submit(train, "a"), submit(train, "b", days=2)]).get(timeout=SECONDS) == [("a", 7), ("b", 2)]


def test_results_are_read_by_id(tmp_path: Path) -> None:
    @ray.remote(num_cpus=0.1)
    def wait_for(name: str) -> str:
        wait_for_file(tmp_path / name)
        return name

    waiting, failing = keep(submit(wait_for, "a")), keep(submit(double, -1))
    found = result_of(str(waiting))
    assert found == waiting
    assert (found.state, found.ready(), found.result) == ("PENDING", False, None)
    with pytest.raises(TimeoutError):
        found.get(timeout=0.1)
    (tmp_path / "a").touch()
    assert found.get(timeout=SECONDS) == "a"
    assert (found.state, found.result) == ("SUCCESS", "a")
    with pytest.raises(ValueError, match="-1 is negative"):
        result_of(failing.id).get(timeout=SECONDS)
    assert result_of(failing.id).state == "FAILURE"
    assert "-1 is negative" in result_of(failing.id).traceback

    cancelled = keep(submit(wait_for, "never"))
    result_of(cancelled.id).revoke()
    assert isinstance(result_of(cancelled.id).get(timeout=SECONDS, propagate=False), ray.exceptions.TaskCancelledError)
    assert result_of(cancelled.id).state == "REVOKED"


def test_ids_of_others_are_asked_of_others() -> None:
    theirs = str(uuid.uuid4())
    assert result_of(theirs, lambda task_id: ("theirs", task_id)) == ("theirs", theirs)
    assert result_of("my-own-id", lambda task_id: ("theirs", task_id)) == ("theirs", "my-own-id")
    ours = submit(double, 2)
    assert result_of(ours.id, lambda task_id: None) == ours
    unknown = result_of(theirs)
    assert (unknown.state, unknown.ready(), unknown.info) == ("PENDING", False, None)
    unknown.revoke()
    with pytest.raises(TimeoutError):
        unknown.get(timeout=0.1)


SUBMITTER = """
import ray, sys
from migration_tool.templates.ray_tasks import keep, submit

ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=0.1)
def answer(fail):
    if fail:
        raise ValueError("no answer")
    return [42]

print(*[keep(submit(answer, fail)).id for fail in (False, True)])
"""


def test_results_outlive_the_program_that_submitted(ray_session: RaySession) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SUBMITTER, ray_session.address], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    good, bad = done.stdout.split()
    assert result_of(good).get(timeout=SECONDS) == [42]
    with pytest.raises(ValueError, match="no answer"):
        result_of(bad).get(timeout=SECONDS)


def test_a_base_class_keeps_what_the_calls_of_a_process_share() -> None:
    class Model(Task):
        loads = 0

        def __call__(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if not self.loads:
                self.loads += 1
            return self.run(*args, **kwargs)

    @retrying(bind=True, base=Model)
    def predict(self, x: int) -> tuple[int, int]:  # type: ignore[no-untyped-def]
        return self.loads, x

    @retrying(base=Model)
    def unbound(x: int) -> int:
        return x

    assert [predict(x) for x in range(3)] == [(1, 0), (1, 1), (1, 2)]
    assert unbound(3) == 3
    remote = ray.remote(num_cpus=0.1)(predict)
    assert Results([submit(remote, 1), submit(remote, x=2)]).get(timeout=SECONDS) == [(1, 1), (1, 2)]
