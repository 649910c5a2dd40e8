"""Recommends what a task should ask for, from its samples. Pure."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raycelery.executor.profiling.sample import Sample
from raycelery.rightsize.predicting import Hosts, Job, Prediction, simulate

#: Recommended amounts below one CPU: a whole number of such tasks fits on a CPU, or nearly.
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.33, 0.5, 0.75)
#: Share of a host's throughput that may be given up for fewer tasks at once, and so less memory.
SLOWER = 0.05
#: A task that uses this share of a CPU gets whole CPUs, as sharing them gains little.
COMPUTES = 0.85
#: Quantile of the CPUs kept busy that counts as a task's need.
QUANTILE = 0.9
#: Factor between the measured peak and the recommended memory, and the bytes to which it is rounded up.
HEADROOM = 1.2
_MB = 1_000_000
#: Uncertainty of the mean above which a note is shown.
UNSURE = 0.15
#: Least number of successful runs for a recommendation to be written.
ENOUGH_RUNS = 10
#: Number of bootstrap samples, and the most runs in each.
_DRAWS, _MOST_DRAWN = 400, 200
#: Tasks per slot that are simulated to see the effect of a request under load.
_PER_SLOT = 10
#: Least and largest number of tasks that are simulated for that.
_LEAST_PLAYED, _MOST_PLAYED = 400, 4000


@dataclass(frozen=True)
class Size:
    """What one task should ask for, and why.

    Arguments:
        task: its name.
        num_cpus: CPUs to ask for.
        memory: bytes to ask for.
        per_host: tasks at once on one host.
        samples: the runs that it is based on.
        runs: all successful runs; those of processes that had just started count for memory only.
        cpu: median of their CPU seconds.
        wall: median of their seconds, without the time in which they waited for a CPU.
        busy: CPUs that they kept busy, over all of them.
        busy_within: 90 % confidence interval of ``busy``.
        busy_high: 90 % quantile of the CPUs kept busy by a run.
        peak: largest number of bytes of their executors.
        before: median bytes of the executor before a run.
        now_cpus: CPUs that they ask for now.
        now_memory: bytes of memory that they ask for now.
        notes: remarks for the reader, a sentence each.
    """

    task: str
    num_cpus: float
    memory: int
    per_host: int
    samples: int
    runs: int
    cpu: float
    wall: float
    busy: float
    busy_within: tuple[float, float]
    busy_high: float
    peak: int
    before: int
    now_cpus: float
    now_memory: int
    notes: tuple[str, ...] = ()

    @property
    def unsure(self) -> float:
        """Relative uncertainty of ``busy``, from the differences between the runs."""
        low, high = self.busy_within
        return (high - low) / 2 / max(1e-9, self.busy)

    @property
    def more_memory(self) -> float:
        """Probability that a future run needs more memory than the measured peak."""
        return 1 / (self.runs + 1)


def busy_within(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return the 90 % confidence interval of the CPUs kept busy, by a bootstrap over the runs.

    It reflects how much the runs differ, not an error that is common to all of them; with one run it is meaningless.
    """
    numbers, count = random.Random(0), min(len(samples), _MOST_DRAWN)
    found = []
    for _ in range(_DRAWS):
        drawn = numbers.choices(samples, k=count)
        found.append(sum(one.cpu for one in drawn) / sum(one.own_wall for one in drawn))
    # The CPU time of a run is a difference of two readings, which may be slightly negative.
    return max(0.0, quantile(found, 0.05)), max(0.0, quantile(found, 0.95))


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile of the values, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def usable(samples: Sequence[Sample]) -> list[Sample]:
    """Return the successful runs, without the first one of each process if there are enough others."""
    good = [one for one in samples if one.state == "SUCCESS"]
    later = [one for one in good if not one.first]
    return later if len(later) >= 3 else good


def steps(high: float) -> list[float]:
    """Return possible requests for a task that keeps ``high`` CPUs busy, the smallest first."""
    # A little more than a whole number counts as that number, as it includes overhead of Celery.
    whole = [float(number) for number in range(1, max(1, math.ceil(high - 0.15)) + 1)]
    candidates = [*FRACTIONS, *whole]
    enough = next((step for step in candidates if step >= high / 1.15), candidates[-1])
    return [step for step in candidates if step <= enough]


def memory_for(samples: Sequence[Sample]) -> int:
    """Return the bytes of memory to ask for: the measured peak with headroom, rounded up."""
    wanted = HEADROOM * max(one.peak for one in samples)
    step = 50 * _MB if wanted < 1000 * _MB else 100 * _MB if wanted < 4000 * _MB else 500 * _MB
    return math.ceil(wanted / step) * step


def job(sample: Sample, num_cpus: float, memory: int) -> Job:
    """Return a measured run as a job to simulate with another request."""
    wall = sample.own_wall
    width = max(1.0, sample.busy)
    return Job(sample.task, max(0.0, wall - sample.cpu / width), sample.cpu, width, num_cpus, memory)


def under_load(samples: Sequence[Sample], num_cpus: float, memory: int, hosts: Hosts) -> Prediction:
    """Simulate many such runs on one host. Only its steady state counts: tasks that start together wait together."""
    one = replace(hosts, count=1)
    room = max(1, one.room(num_cpus, memory))
    count = min(_MOST_PLAYED, max(_LEAST_PLAYED, _PER_SLOT * room))
    jobs = [job(samples[number % len(samples)], num_cpus, memory) for number in range(count)]
    for number in range(min(room, count)):
        apart = samples[number % len(samples)].own_wall * number / room
        jobs[number] = replace(jobs[number], wait=jobs[number].wait + apart)
    return simulate(jobs, one)


def recommend(samples: Sequence[Sample], hosts: Hosts) -> Size:
    """Return what a task should ask for.

    A task that mostly computes gets the CPUs that it keeps busy, as a whole number. A task that also waits gets the
    largest request with which a host still has nearly its full throughput: more would leave CPUs idle, less would only
    make more tasks, and their memory, share the same CPUs.

    Arguments:
        samples: runs of one task, all with the same request.
        hosts: the hosts on which it will run.

    Raises:
        ValueError: no run succeeded.
    """
    good = usable(samples)
    if not good:
        raise ValueError("no run succeeded")
    high = quantile([one.busy for one in good], QUANTILE)
    # The first runs of processes count for memory.
    memory = memory_for([one for one in samples if one.state == "SUCCESS"])
    candidates = [step for step in steps(high) if hosts.room(step, memory)] or steps(high)[:1]
    if sum(one.cpu for one in good) >= COMPUTES * sum(one.own_wall for one in good):
        return described(samples, max(1.0, candidates[-1]), memory, hosts)
    loads = {step: under_load(good, step, memory, hosts).loaded for step in candidates}
    enough = (1 - SLOWER) * max(loads.values())
    num_cpus = max(step for step in candidates if loads[step] >= enough)
    return described(samples, num_cpus, memory, hosts)


def described(samples: Sequence[Sample], num_cpus: float, memory: int, hosts: Hosts) -> Size:
    """Return the figures of a task with a given request."""
    good = usable(samples)
    asked = Counter((one.num_cpus, one.memory) for one in good).most_common(1)[0][0]
    size = Size(
        task=good[0].task,
        num_cpus=num_cpus,
        memory=memory,
        per_host=hosts.room(num_cpus, memory),
        samples=len(good),
        runs=sum(one.state == "SUCCESS" for one in samples),
        cpu=statistics.median(one.cpu for one in good),
        wall=statistics.median(one.own_wall for one in good),
        busy=sum(one.cpu for one in good) / sum(one.own_wall for one in good),
        busy_within=busy_within(good),
        busy_high=quantile([one.busy for one in good], QUANTILE),
        peak=max(one.peak for one in samples if one.state == "SUCCESS"),
        before=int(statistics.median(one.before for one in good)),
        now_cpus=asked[0],
        now_memory=asked[1],
    )
    return replace(size, notes=tuple(notes(samples, size, hosts)))


def notes(samples: Sequence[Sample], size: Size, hosts: Hosts) -> list[str]:
    """Return remarks on a recommendation, a sentence each."""
    found = []
    failed = sum(one.state not in ("SUCCESS", "RETRY", "IGNORED") for one in samples)
    if failed:
        found.append(f"{failed} of {len(samples)} runs failed and are left out")
    if size.runs >= ENOUGH_RUNS and size.unsure > UNSURE:
        found.append(
            f"its runs differ: the number of busy CPUs may be {size.unsure:.0%} off; a larger --sample reduces that"
        )
    if any(one.first for one in usable(samples)):
        found.append("only first runs of processes, with their imports, were measured: use a larger --sample")
    delayed = sum(one.delayed for one in samples) / max(1e-9, sum(one.wall for one in samples))
    if delayed > 0.2:
        found.append(f"{delayed:.0%} of the time the machine had no CPU for it: measure on a quieter machine")
    threads, later = max(1, int(size.now_cpus)), max(1, int(size.num_cpus))
    if size.busy_high >= 0.85 * threads and size.num_cpus >= threads:
        found.append(
            f"measured with {threads} thread{'s' if threads > 1 else ''} for numeric libraries, as num_cpus="
            f"{size.now_cpus:g} gives; --scale 1,2,4 shows whether it can use more"
        )
    elif later < threads:
        found.append(f"numeric libraries will get {later} thread{'s' if later > 1 else ''} rather than {threads}")
    if 0 < size.per_host < int(hosts.room(size.num_cpus, 0)):
        found.append("memory, not CPUs, limits how many run at once")
    if not size.per_host:
        found.append("it does not fit on such a host")
    return found
