"""Tasks of known use, run on Ray and measured in their executors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raycelery.executor.profiling.sample import Sample
from raycelery.protocol import questions
from raycelery.rightsize.gathering import Gatherer
from tests.rightsize import project

pytestmark = pytest.mark.usefixtures("ray_session")
MB = 1_000_000


@pytest.fixture(scope="module")
def gatherer(ray_session: object) -> Gatherer:
    return Gatherer(project.app, lambda measured, left: None)


def one(samples: list[Sample], task: str) -> Sample:
    (found,) = [sample for sample in samples if sample.task == f"tests.rightsize.project.{task}"]
    return found


@pytest.mark.slow  # on a machine whose CPUs others use, a task is not measured as what it is
def test_cpu_of_a_task_that_computes_and_of_one_that_waits(gatherer: Gatherer) -> None:
    samples = gatherer.calls([project.compute.s(0.3), project.wait.s(0.3, cpu=0.05)])
    computes, waits = one(samples, "compute"), one(samples, "wait")
    assert computes.cpu == pytest.approx(0.3, abs=0.1)
    assert waits.cpu == pytest.approx(0.05, abs=0.05)
    # However busy this machine is.
    assert replace(computes, first=False).busy > 0.8
    assert replace(waits, first=False).busy < 0.4
    assert computes.wall - computes.delayed >= 0.3 - 1e-3
    assert computes.state == waits.state == "SUCCESS"
    assert computes.first
    assert waits.first


def test_it_knows_what_was_asked_for(gatherer: Gatherer) -> None:
    asked = [project.compute.s(0.01).set(num_cpus=2, memory=50 * MB), project.wait.s(0.01)]
    samples = gatherer.calls(asked)
    assert (one(samples, "compute").num_cpus, one(samples, "compute").memory) == (2, 50 * MB)
    assert one(samples, "wait").num_cpus == 0.5
    assert one(gatherer.calls(asked[1:], num_cpus=1), "wait").num_cpus == 1


def test_memory_that_is_held_for_a_moment_is_seen(gatherer: Gatherer) -> None:
    (big,) = gatherer.calls([project.hold.s(300)])
    (small,) = gatherer.calls([project.hold.s(1)])
    assert big.peak - big.before == pytest.approx(300 * MB, abs=60 * MB)
    # The peak of the run before it is forgotten.
    assert small.peak - small.before < 60 * MB
    assert small.before > 30 * MB


def test_child_processes_count(gatherer: Gatherer) -> None:
    samples = gatherer.calls([project.child.s(0.3)])
    assert one(samples, "child").cpu >= 0.3
    samples = gatherer.calls([project.child.s(0.0, megabytes=200)])
    assert one(samples, "child").peak - one(samples, "child").before > 150 * MB


def test_threads_count(gatherer: Gatherer) -> None:
    (sample,) = gatherer.calls([project.threads.s(0.3)])
    assert sample.cpu == pytest.approx(0.6, abs=0.2)


def test_a_task_called_within_another_is_a_part_of_it(gatherer: Gatherer) -> None:
    (sample,) = gatherer.calls([project.outer.s(0.1)])
    assert sample.task.endswith("outer")
    assert sample.cpu > 0.09


def test_what_tasks_submit_is_measured_too(gatherer: Gatherer) -> None:
    samples = gatherer.calls([project.parent.s(0.05)])
    assert one(samples, "compute").cpu >= 0.05
    assert one(samples, "parent").cpu < 0.05


def test_failures_are_told_apart(gatherer: Gatherer) -> None:
    (sample,) = gatherer.calls([project.fails.s()])
    assert sample.state == "FAILURE"


def test_the_first_run_in_each_process_is_marked(gatherer: Gatherer) -> None:
    asked = [project.compute.s(0.02).set(num_cpus=4)] * 3
    samples = gatherer.calls(asked)
    assert [sample.first for sample in sorted(samples, key=lambda sample: sample.started)] == [True, False, False]
    assert len({sample.process for sample in samples}) == 1


def test_nothing_is_measured_unless_somebody_asks(gatherer: Gatherer) -> None:
    gatherer.calls([project.compute.s(0.01)])
    before = project.app.client.call(questions.Measured(0)).count
    project.compute.delay(0.01).get(timeout=60)
    assert project.app.client.call(questions.Measured(0)).count == before


def test_the_lease_ends_the_measuring_of_a_client_that_is_gone(gatherer: Gatherer) -> None:
    client = project.app.client
    client.call(questions.Measure(0.2))
    before = client.call(questions.Measured(0)).count
    project.wait.delay(0.4).get(timeout=60)
    project.compute.delay(0.01).get(timeout=60)
    new = client.call(questions.Measured(before))
    # The one that had begun by then at most.
    assert new.count - before <= 1
    assert all(sample.task.endswith("wait") for sample in map(Sample.opened, new.samples))


def test_a_task_of_one_process_each_is_measured(gatherer: Gatherer) -> None:
    (sample,) = gatherer.calls([project.compute.s(0.05).set(executor="function")])
    assert sample.cpu >= 0.05
    assert sample.first
