"""What is recommended for tasks of known habits."""

from __future__ import annotations

import pytest

from raycelery.rightsize.predicting import Hosts
from raycelery.rightsize.recommending import job, memory_for, recommend, steps, under_load, usable
from tests.rightsize.made_up import many, sample

HOST = Hosts(1, 16, 45e9)


def test_a_task_that_computes_gets_a_whole_cpu() -> None:
    assert recommend(many((0, 0.01), (0.2, 0.3)), HOST).num_cpus == 1
    # Even if it waits a little, as all do.
    assert recommend(many((0.02, 0.03), (0.2, 0.3)), HOST).num_cpus == 1


def test_a_task_on_two_cpus_gets_two() -> None:
    busy = [sample(wall=0.5 + number / 1000, cpu=0.95, num_cpus=2.0) for number in range(20)]
    size = recommend(busy, HOST)
    assert (size.num_cpus, size.per_host) == (2, 8)
    assert size.busy == pytest.approx(1.9, abs=0.1)


@pytest.mark.parametrize(("wait", "cpu"), [(0.5, 0.5), (0.65, 0.2), (1.9, 0.1)])
def test_a_task_that_waits_gets_so_little_that_the_host_is_busy(wait: float, cpu: float) -> None:
    samples = many((wait * 0.8, wait * 1.2), (cpu * 0.8, cpu * 1.2))
    size = recommend(samples, HOST)
    assert size.num_cpus < 1
    best = under_load(samples, 0.05, size.memory, HOST).loaded
    assert under_load(samples, size.num_cpus, size.memory, HOST).loaded >= 0.94 * best
    # More would leave CPUs idle.
    assert size.num_cpus <= 1.3 * cpu / (wait + cpu)


def test_a_task_that_hardly_computes_gets_the_least() -> None:
    size = recommend(many((5, 6), (0.001, 0.002)), HOST)
    assert size.num_cpus == 0.05


def test_waiting_for_a_busy_machine_is_not_taken_for_waiting() -> None:
    crowded = [sample(0.0, 0.2, delayed=0.6) for _ in range(20)]
    size = recommend(crowded, HOST)
    assert (size.num_cpus, size.wall) == (1, pytest.approx(0.2))
    assert any("no CPU for it" in note for note in size.notes)


def test_memory_is_the_most_with_head_room() -> None:
    assert memory_for([sample(peak=100_000_000), sample(peak=210_000_000)]) == 300_000_000
    assert memory_for([sample(peak=2_000_000_000)]) == 2_400_000_000
    assert memory_for([sample(peak=10_100_000_000)]) == 12_500_000_000


def test_memory_bounds_how_many_run_at_once() -> None:
    size = recommend(many((1, 1.2), (0.1, 0.12), peak=8_000_000_000), HOST)
    assert size.per_host == 4
    assert any("memory, not CPUs" in note for note in size.notes)
    nowhere = recommend(many((0, 0), (1, 1), peak=80_000_000_000), HOST)
    assert nowhere.per_host == 0
    assert any("does not fit" in note for note in nowhere.notes)


def test_first_runs_count_for_memory_but_not_for_time() -> None:
    cold = sample(2.0, 1.0, first=True, peak=400_000_000)
    size = recommend([cold, *many((0, 0), (0.2, 0.2), count=10)], HOST)
    assert (size.samples, size.num_cpus, size.memory) == (10, 1, 500_000_000)
    assert usable([cold]) == [cold]
    assert any("first runs of processes" in note for note in recommend([cold], HOST).notes)


def test_failed_runs_are_left_out_and_mentioned() -> None:
    size = recommend([sample(9, 0.1, state="FAILURE", peak=9**10), *many((0, 0), (1, 1), count=12)], HOST)
    assert size.num_cpus == 1
    assert size.notes[0] == "1 of 13 runs failed and are left out"
    with pytest.raises(ValueError, match="no run succeeded"):
        recommend([sample(state="FAILURE")], HOST)


def test_it_says_what_numeric_libraries_had() -> None:
    assert any("measured with 1 thread " in note for note in recommend(many((0, 0), (1, 1)), HOST).notes)
    four = [sample(wall=1.0, cpu=1.4, num_cpus=4.0) for _ in range(20)]
    size = recommend(four, HOST)
    assert size.num_cpus == 2
    assert "numeric libraries will get 2 threads rather than 4" in size.notes


def test_steps_are_ones_that_fill_a_cpu() -> None:
    assert steps(0.02) == [0.05]
    assert steps(0.26)[-1] == 0.25
    assert steps(1.05)[-1] == 1
    assert steps(2.8)[-3:] == [1, 2, 3]


def test_a_run_is_played_as_it_was() -> None:
    assert job(sample(0.75, 0.25), 0.5, 7).wait == pytest.approx(0.75)
    wide = job(sample(wall=0.5, cpu=1.0), 2, 7)
    assert (wide.wait, wide.width, wide.cpu) == (pytest.approx(0), 2, 1)
