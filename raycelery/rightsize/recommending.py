"""What a task should ask for, by what was measured of it. Pure."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raycelery.rightsize.predicting import Hosts, Job, Prediction, simulate
from raycelery.rightsize.sample import Sample

#: Amounts below one CPU that are recommended: so many of them make a whole, or nearly.
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.33, 0.5, 0.75)
#: A request may cost this share of the work that a host can do, for fewer tasks at once and less memory.
SLOWER = 0.05
#: A task that keeps its CPU busy for this share of its time gets whole CPUs: to share them gains little.
COMPUTES = 0.85
#: Share of runs that keep no more CPUs busy than what is taken to be a task's need.
QUANTILE = 0.9
#: How much more than the most that was measured is asked for, and the steps that are rounded up to, in bytes.
HEADROOM = 1.2
_MB = 1_000_000
#: Share by which the mean may be wrong above which that is said.
UNSURE = 0.15
#: Runs that succeeded, below which nothing is written: of fewer, too much is chance.
ENOUGH_RUNS = 10
#: How often runs are drawn to see how sure a mean is, and the most of them at a time.
_DRAWS, _MOST_DRAWN = 400, 200
#: Tasks per slot that are played to see how a request does under load.
_PER_SLOT = 10
#: The least and the most that are played for that.
_LEAST_PLAYED, _MOST_PLAYED = 400, 4000


@dataclass(frozen=True)
class Size:
    """What one task should ask for, and why.

    Arguments:
        task: its name.
        num_cpus: CPUs to ask for.
        memory: bytes to ask for.
        per_host: tasks at once on one host.
        samples: runs that this is made of.
        runs: all that succeeded, among them first ones, which count for memory.
        cpu: median of their CPU seconds.
        wall: median of their seconds, without the time in which the machine had no CPU for them.
        busy: CPUs that they kept busy, over all of them.
        busy_within: what that would be in nine of ten other measurements of as many runs, from and to.
        busy_high: what nine tenths of them stayed below.
        peak: most bytes that their executor held.
        before: median of the bytes that it held before a run.
        now_cpus: CPUs that they ask for now.
        now_memory: bytes that they ask for now.
        notes: what a reader should know, a sentence each.
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
        """Share by which ``busy`` may be wrong, from the runs' own differences."""
        low, high = self.busy_within
        return (high - low) / 2 / max(1e-9, self.busy)

    @property
    def more_memory(self) -> float:
        """The chance that a run to come needs more memory than the most that was measured."""
        return 1 / (self.runs + 1)


def busy_within(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return from and to what the CPUs kept busy would be in nine of ten other measurements of as many such runs.

    Runs are drawn from those measured, again and again (a bootstrap). It tells how much they differ, not what all of
    them may have in common: one run tells nothing of it.
    """
    numbers, count = random.Random(0), min(len(samples), _MOST_DRAWN)
    found = []
    for _ in range(_DRAWS):
        drawn = numbers.choices(samples, k=count)
        found.append(sum(one.cpu for one in drawn) / sum(one.own_wall for one in drawn))
    # What a run that hardly computes has used is a difference of two readings, and may come out below nothing.
    return max(0.0, quantile(found, 0.05)), max(0.0, quantile(found, 0.95))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def usable(samples: Sequence[Sample]) -> list[Sample]:
    """Return the runs to judge by: those that succeeded, without each process's first if others are enough."""
    good = [one for one in samples if one.state == "SUCCESS"]
    later = [one for one in good if not one.first]
    return later if len(later) >= 3 else good


def steps(high: float) -> list[float]:
    """Return the requests that come into question for a task that keeps ``high`` CPUs busy, the smallest first."""
    # A little above a whole number is that number: the machine's and Celery's own work is in it.
    whole = [float(number) for number in range(1, max(1, math.ceil(high - 0.15)) + 1)]
    candidates = [*FRACTIONS, *whole]
    enough = next((step for step in candidates if step >= high / 1.15), candidates[-1])
    return [step for step in candidates if step <= enough]


def memory_for(samples: Sequence[Sample]) -> int:
    """Return the bytes to ask for: the most that was measured, with head-room, rounded up."""
    wanted = HEADROOM * max(one.peak for one in samples)
    step = 50 * _MB if wanted < 1000 * _MB else 100 * _MB if wanted < 4000 * _MB else 500 * _MB
    return math.ceil(wanted / step) * step


def job(sample: Sample, num_cpus: float, memory: int) -> Job:
    """Return a measured run as one that can be played with another request."""
    wall = sample.own_wall
    width = max(1.0, sample.busy)
    return Job(sample.task, max(0.0, wall - sample.cpu / width), sample.cpu, width, num_cpus, memory)


def under_load(samples: Sequence[Sample], num_cpus: float, memory: int, hosts: Hosts) -> Prediction:
    """Play many such runs on one host, in the middle of its work: tasks that began together would wait together."""
    one = replace(hosts, count=1)
    room = max(1, one.room(num_cpus, memory))
    count = min(_MOST_PLAYED, max(_LEAST_PLAYED, _PER_SLOT * room))
    jobs = [job(samples[number % len(samples)], num_cpus, memory) for number in range(count)]
    for number in range(min(room, count)):
        apart = samples[number % len(samples)].own_wall * number / room
        jobs[number] = replace(jobs[number], wait=jobs[number].wait + apart)
    return simulate(jobs, one)


def recommend(samples: Sequence[Sample], hosts: Hosts) -> Size:
    """Say what a task should ask for.

    A task that computes gets what it keeps busy, in whole CPUs. One that waits, too, gets the most with which the host
    still does nearly as much work as it can: more would leave CPUs idle, less would only have more tasks, and their
    memory, share the same CPUs.

    Arguments:
        samples: runs of one task, at least one of which succeeded, all with the same request.
        hosts: where it is to run.

    Raises:
        ValueError: none succeeded.
    """
    good = usable(samples)
    if not good:
        raise ValueError("no run succeeded")
    high = quantile([one.busy for one in good], QUANTILE)
    # Its first runs count for memory: they are as large as any.
    memory = memory_for([one for one in samples if one.state == "SUCCESS"])
    candidates = [step for step in steps(high) if hosts.room(step, memory)] or steps(high)[:1]
    if sum(one.cpu for one in good) >= COMPUTES * sum(one.own_wall for one in good):
        return described(samples, max(1.0, candidates[-1]), memory, hosts)
    loads = {step: under_load(good, step, memory, hosts).loaded for step in candidates}
    enough = (1 - SLOWER) * max(loads.values())
    num_cpus = max(step for step in candidates if loads[step] >= enough)
    return described(samples, num_cpus, memory, hosts)


def described(samples: Sequence[Sample], num_cpus: float, memory: int, hosts: Hosts) -> Size:
    """Return the figures of a task with a request that was decided on."""
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
    """Return what a reader should know of a recommendation, a sentence each."""
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
