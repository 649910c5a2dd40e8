"""From samples to what is shown: a size per task, and the whole played with it and without. Pure."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raycelery.rightsize import recommending
from raycelery.rightsize.predicting import Hosts, Job, Prediction, simulate
from raycelery.rightsize.recommending import Size
from raycelery.rightsize.sample import Sample

#: More tasks than this are not played one by one: the time of so many is multiplied.
_MOST_PLAYED = 20_000
#: A task is played as one that began no further from its own place than this share of the whole.
_APART = 0.1


@dataclass(frozen=True)
class Scaling:
    """A task measured with one of several numbers of CPUs.

    Arguments:
        num_cpus: what it asked for, and so the threads that numeric libraries had.
        wall: median of its seconds.
        speedup: how many times faster that is than with the fewest CPUs.
        efficiency: share of the CPUs added that this makes use of; 1 where twice the CPUs halve the time.
        makespan: seconds of the whole on the hosts, with this request.
    """

    num_cpus: float
    wall: float
    speedup: float
    efficiency: float
    makespan: float


@dataclass(frozen=True)
class Report:
    """What right-sizing comes to.

    Arguments:
        sizes: by task.
        totals: tasks of the whole, by name.
        hosts: what it is predicted for.
        present: the whole with the requests, or the workers, of today.
        recommended: the whole with the sizes.
        alone: by task, the same two for its tasks alone.
        scaling: by task, where several numbers of CPUs were measured.
        failed: tasks no run of which succeeded: how many were measured.
        least: runs below which nothing is written of a task.
    """

    sizes: dict[str, Size]
    totals: dict[str, int]
    hosts: Hosts
    present: Prediction
    recommended: Prediction
    alone: dict[str, tuple[Prediction, Prediction]]
    scaling: dict[str, list[Scaling]]
    failed: dict[str, int]
    least: int = recommending.ENOUGH_RUNS

    @property
    def annotations(self) -> dict[str, dict[str, float]]:
        """What ``task_annotations`` should say; of tasks with enough runs."""
        return {
            name: {"num_cpus": size.num_cpus, "memory": size.memory}
            for name, size in self.sizes.items()
            if self.enough(name)
        }

    def enough(self, name: str) -> bool:
        """Return whether enough runs of a task were measured for something to be written."""
        return self.sizes[name].runs >= self.least


def jobs(samples: Sequence[Sample], total: int, num_cpus: float, memory: int) -> list[Job]:
    """Return ``total`` tasks like those measured, roughly in the order in which those began: first may be longest.

    Each is like one of those that began at about the same part of the whole. Blocks of equal ones would wait together
    and compute together, as real tasks do not.
    """
    ordered = sorted(samples, key=lambda one: one.started)
    numbers, last = random.Random(0), len(ordered) - 1
    found = []
    for number in range(total):
        place = abs((number + 0.5) / total + numbers.uniform(-_APART, _APART))
        # Mirrored at the ends, so that none is played more often than others.
        place = min(place, 2 - place) * len(ordered)
        found.append(recommending.job(ordered[min(last, int(place))], num_cpus, memory))
    return found


def predict(
    samples: Mapping[str, Sequence[Sample]],
    totals: Mapping[str, int],
    requests: Mapping[str, tuple[float, int]],
    hosts: Hosts,
) -> Prediction:
    """Play the whole.

    Arguments:
        samples: usable ones by task.
        totals: how many tasks of each there are.
        requests: CPUs and bytes that each asks for.
        hosts: where it runs.
    """
    factor = max(1.0, sum(totals[name] for name in samples) / _MOST_PLAYED)
    played: list[Job] = []
    for name, found in samples.items():
        played += jobs(found, max(1, round(totals[name] / factor)), *requests[name])
    result = simulate(played, hosts)
    return replace(result, makespan=result.makespan * factor)


def analyse(
    measured: Mapping[float | None, Sequence[Sample]],
    hosts: Hosts,
    totals: Mapping[str, int] | None = None,
    workers: int | None = None,
    asked: Mapping[str, tuple[float, int]] | None = None,
    least: int = recommending.ENOUGH_RUNS,
) -> Report:
    """Make a report.

    Arguments:
        measured: the samples by the number of CPUs that calls asked for; None: what the project says.
        hosts: what to predict for.
        totals: how many tasks of each name the whole has; those measured if it does not say.
        workers: Celery's worker processes per host today; None: today is what tasks ask for.
        asked: CPUs and bytes that tasks ask for today; what they asked for when they were measured if it does not say.
        least: runs of a task that must have succeeded for its size to be written; else it keeps what it asks for.
    """
    base = measured[min(measured, key=lambda key: key or 0.0)]
    by_task = _by_task(base)
    runs = {cpus: _by_task(found) for cpus, found in measured.items() if cpus is not None}
    whole = {name: (totals or {}).get(name, len(found)) for name, found in by_task.items()}
    failed = {name: len(found) for name, found in by_task.items() if not recommending.usable(found)}
    sizes: dict[str, Size] = {}
    scaling: dict[str, list[Scaling]] = {}
    today: dict[str, list[Sample]] = {}
    chosen: dict[str, list[Sample]] = {}
    for name, found in by_task.items():
        if name in failed:
            continue
        size = recommending.recommend(found, hosts)
        if len(measured) > 1:
            mine = {cpus: tasks[name] for cpus, tasks in runs.items() if name in tasks}
            size, scaling[name] = _scaled(size, mine, whole[name], hosts)
        if name in (asked or {}):
            size = replace(size, now_cpus=asked[name][0], now_memory=asked[name][1])  # type: ignore[index]
        sizes[name] = size
        usual = recommending.usable(found)
        # Measured with as many CPUs, where they were: numeric libraries had as many threads.
        today[name] = recommending.usable(runs.get(size.now_cpus, {}).get(name, [])) or usual
        chosen[name] = recommending.usable(runs.get(size.num_cpus, {}).get(name, [])) or usual
    now = {name: (size.now_cpus, size.now_memory) for name, size in sizes.items()}
    then = {name: (size.num_cpus, size.memory) if size.runs >= least else now[name] for name, size in sizes.items()}
    fleet = replace(hosts, slots=workers)
    return Report(
        sizes=sizes,
        totals={name: whole[name] for name in sizes},
        hosts=hosts,
        present=predict(today, whole, now, fleet),
        recommended=predict(chosen, whole, then, hosts),
        alone={
            name: (predict({name: today[name]}, whole, now, fleet), predict({name: chosen[name]}, whole, then, hosts))
            for name in sizes
        },
        scaling=scaling,
        failed=failed,
        least=least,
    )


def wholes(
    samples: Sequence[Sample],
    totals: Mapping[str, int],
    share: float = 1.0,
    total: int | None = None,
    batches: int | None = None,
) -> dict[str, int]:
    """Return how many tasks of each name the whole has.

    What runs when the header of a chord is done is as often as there are chords, however many parts they have.

    Arguments:
        samples: what was measured.
        totals: of those that are called, by name.
        share: how many times more calls the whole has than were made; for what those call.
        total: tasks of the whole; None: as those two say.
        batches: chords of the whole; None: as many as were measured, ``share`` times.
    """
    counted = Counter(one.task for one in samples)
    parts = {one.task for one in samples if one.batch}
    callbacks = {name for one in samples for name in one.callbacks} - parts
    measured = len({one.batch for one in samples if one.batch})
    whole = {name: totals.get(name) or max(1, round(count * share)) for name, count in counted.items()}
    if batches is not None and measured:
        whole.update({name: max(1, round(counted[name] * batches / measured)) for name in callbacks & counted.keys()})
    if total is not None:
        fixed = sum(count for name, count in whole.items() if name in callbacks)
        factor = max(0, total - fixed) / max(1, sum(whole.values()) - fixed)
        whole.update({name: max(1, round(count * factor)) for name, count in whole.items() if name not in callbacks})
    return whole


def _by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.task, []).append(sample)
    return found


def _scaled(size: Size, runs: Mapping[float, Sequence[Sample]], total: int, hosts: Hosts) -> tuple[Size, list[Scaling]]:
    """Return the size by what several numbers of CPUs brought, and the comparison.

    The fewest CPUs are chosen with which the whole takes hardly longer than with the best of them. What leaves some of
    the fewest idle gains nothing from more, and keeps its size.
    """
    good = {cpus: usable for cpus, found in sorted(runs.items()) if (usable := recommending.usable(found))}
    walls = {cpus: statistics.median(one.own_wall for one in usable) for cpus, usable in good.items()}
    fewest = min(good)
    found = []
    for cpus, usable in good.items():
        memory = recommending.memory_for(usable)
        played = predict({size.task: usable}, {size.task: total}, {size.task: (cpus, memory)}, hosts)
        speedup = walls[fewest] / walls[cpus]
        # What no host has room for takes for ever.
        makespan = float("inf") if played.unplaced else played.makespan
        found.append(Scaling(cpus, walls[cpus], speedup, speedup * fewest / cpus, makespan))
    best = min(one.makespan for one in found)
    cpus = next(one.num_cpus for one in found if one.makespan <= best * (1 + recommending.SLOWER))
    if size.num_cpus < fewest:
        return size, found
    samples = runs[cpus]
    return recommending.described(samples, cpus, recommending.memory_for(good[cpus]), hosts), found


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as plain data; ``tasks`` is what ``raycelery-migrate shim --annotate`` reads."""
    return {
        "tasks": {
            name: {
                "num_cpus": size.num_cpus,
                "memory": size.memory,
                "per_host": size.per_host,
                "total": report.totals[name],
                "written": report.enough(name),
                "sure": {
                    "runs": size.runs,
                    "busy_cpus_from": round(size.busy_within[0], 4),
                    "busy_cpus_to": round(size.busy_within[1], 4),
                    "chance_of_more_memory": round(size.more_memory, 4),
                },
                "measured": {
                    "runs": size.samples,
                    "cpu_seconds": round(size.cpu, 6),
                    "wall_seconds": round(size.wall, 6),
                    "busy_cpus": round(size.busy, 4),
                    "busy_cpus_p90": round(size.busy_high, 4),
                    "peak_memory": size.peak,
                    "memory_before": size.before,
                },
                "asks_now": {"num_cpus": size.now_cpus, "memory": size.now_memory},
                "scaling": [
                    {
                        "num_cpus": one.num_cpus,
                        "wall_seconds": round(one.wall, 6),
                        "speedup": round(one.speedup, 3),
                        "efficiency": round(one.efficiency, 3),
                        "makespan": None if one.makespan == float("inf") else round(one.makespan, 3),
                    }
                    for one in report.scaling.get(name, ())
                ],
                "present": _played(report.alone[name][0]),
                "recommended": _played(report.alone[name][1]),
                "notes": list(size.notes),
            }
            for name, size in report.sizes.items()
        },
        "hosts": {"count": report.hosts.count, "cpus": report.hosts.cpus, "memory_for_tasks": report.hosts.memory},
        "present": _played(report.present),
        "recommended": _played(report.recommended),
        "task_annotations": report.annotations,
        "failed": report.failed,
    }


def _played(prediction: Prediction) -> dict[str, Any]:
    return {
        "makespan": round(prediction.makespan, 3),
        "utilisation": round(prediction.utilisation, 4),
        "utilisation_loaded": round(prediction.loaded, 4),
        "tasks_at_once": prediction.concurrency,
        "unplaced": prediction.unplaced,
    }
