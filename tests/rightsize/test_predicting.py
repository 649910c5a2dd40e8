"""The play of tasks on hosts: exact where it can be told by hand, and lawful everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycelery.rightsize.predicting import BETWEEN_SECONDS, Hosts, Job, simulate

CLOSE = 10 * BETWEEN_SECONDS


def computing(count: int, cpu: float = 1.0, **asked: float) -> list[Job]:
    return [Job("train", 0.0, cpu, **asked) for _ in range(count)]


def test_tasks_take_turns_on_the_slots() -> None:
    played = simulate(computing(6), Hosts(1, 2))
    assert played.makespan == pytest.approx(3, abs=CLOSE)
    assert played.utilisation == pytest.approx(1, abs=0.02)
    assert played.concurrency == 2


def test_hosts_add_up() -> None:
    assert simulate(computing(12), Hosts(3, 2)).makespan == pytest.approx(2, abs=CLOSE)


def test_a_fleet_of_workers_is_bounded_by_its_slots() -> None:
    played = simulate(computing(4), Hosts(1, 16, slots=1))
    assert played.makespan == pytest.approx(4, abs=CLOSE)
    assert played.utilisation == pytest.approx(1 / 16, abs=0.01)


def test_more_tasks_than_cpus_share_them() -> None:
    played = simulate(computing(4, num_cpus=0.5), Hosts(1, 2))
    assert (played.concurrency, played.makespan) == (4, pytest.approx(2, abs=CLOSE))


def test_waiting_needs_no_cpu() -> None:
    jobs = [Job("fetch", 1.0, 0.1, num_cpus=0.1) for _ in range(10)]
    played = simulate(jobs, Hosts(1, 1))
    # All wait together, and then share the CPU.
    assert played.makespan == pytest.approx(2, abs=CLOSE)
    assert simulate([Job("fetch", 1.0, 0.1) for _ in range(10)], Hosts(1, 1)).makespan == pytest.approx(11, abs=0.1)


def test_a_wide_task_keeps_several_cpus_busy() -> None:
    assert simulate(computing(2, cpu=2.0, width=2.0, num_cpus=2), Hosts(1, 4)).makespan == pytest.approx(1, abs=CLOSE)
    assert simulate(computing(2, cpu=2.0, width=2.0, num_cpus=1), Hosts(1, 2)).makespan == pytest.approx(2, abs=CLOSE)


def test_memory_bounds_as_cpus_do() -> None:
    played = simulate(computing(4, memory=3e9), Hosts(1, 16, memory=4e9))
    assert (played.concurrency, played.makespan) == (1, pytest.approx(4, abs=CLOSE))


def test_what_fits_nowhere_is_counted() -> None:
    played = simulate([*computing(2, num_cpus=4), *computing(1)], Hosts(2, 2))
    assert (played.unplaced, played.makespan) == (2, pytest.approx(1, abs=CLOSE))


def test_kinds_share_the_cpus_as_lanes_do() -> None:
    jobs = [Job("long", 0, 1.0) for _ in range(10)] + [Job("short", 0, 0.1) for _ in range(10)]
    only_long = simulate(jobs[:10], Hosts(1, 2)).makespan
    # The short ones are done beside the long ones, on one CPU; then both are for the long ones.
    assert simulate(jobs, Hosts(1, 2)).makespan == pytest.approx(only_long + 0.5, abs=0.6)


def test_utilisation_under_load_leaves_out_start_and_end() -> None:
    jobs = [Job("fetch", 0.5, 0.5, num_cpus=0.5 - number % 2 / 1000) for number in range(200)]
    played = simulate(jobs, Hosts(1, 1))
    assert played.utilisation < played.loaded <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Job,
            kind=st.sampled_from("ab"),
            wait=st.floats(0, 3),
            cpu=st.floats(0.001, 3),
            width=st.floats(1, 3),
            num_cpus=st.sampled_from([0.1, 0.5, 1, 2]),
            memory=st.sampled_from([0, 1e9, 3e9]),
        ),
        min_size=1,
        max_size=40,
    ),
    st.builds(
        Hosts, st.integers(1, 3), st.sampled_from([2.0, 4.0]), st.sampled_from([None, 4e9]), st.sampled_from([None, 2])
    ),
)
def test_no_work_is_lost_or_done_for_nothing(jobs: list[Job], hosts: Hosts) -> None:
    played = simulate(jobs, hosts)
    total = sum(job.cpu for job in jobs)
    capacity = hosts.cpus * hosts.count
    assert played.unplaced == 0
    assert played.utilisation * capacity * played.makespan == pytest.approx(total, rel=1e-6)
    assert played.makespan >= total / capacity - 1e-6
    assert played.makespan >= max(job.wait + job.cpu / job.width for job in jobs) - 1e-6
    one_by_one = sum(job.wait + job.cpu / min(job.width, hosts.cpus) + BETWEEN_SECONDS for job in jobs)
    assert played.makespan <= one_by_one + 1e-6
    assert 1 <= played.concurrency <= len(jobs)
    assert 0 <= played.loaded <= 1 + 1e-6
