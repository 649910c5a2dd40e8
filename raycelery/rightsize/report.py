"""Makes a report of samples: a recommendation per task, and a prediction with and without it. Pure."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raycelery.executor.profiling.sample import Sample
from raycelery.rightsize import recommending
from raycelery.rightsize.predicting import Hosts, Job, Prediction, simulate
from raycelery.rightsize.recommending import Size

#: Most tasks that are simulated; the time of more is extrapolated.
_MOST_PLAYED = 20_000
#: A simulated task is like a measured one from about the same part of the batch, within this share of it.
_APART = 0.1


@dataclass(frozen=True)
class Scaling:
    """A task measured with one of several numbers of CPUs.

    Arguments:
        num_cpus: CPUs that it asked for, which limits the threads of numeric libraries.
        wall: median of its seconds.
        speedup: how many times faster that is than with the fewest CPUs.
        efficiency: share of the additional CPUs that is used; 1 if twice the CPUs halve the time.
        makespan: predicted seconds of all tasks on the hosts, with this request.
    """

    num_cpus: float
    wall: float
    speedup: float
    efficiency: float
    makespan: float


@dataclass(frozen=True)
class Report:
    """The result of right-sizing.

    Arguments:
        sizes: the recommendation for each task.
        totals: number of tasks to predict, by name.
        hosts: the hosts to predict for.
        present: prediction with today's requests or workers.
        recommended: prediction with the recommendations.
        alone: the same two predictions for each task alone.
        scaling: for each task that was measured with several numbers of CPUs.
        failed: for tasks without a successful run, the number of runs.
        least: least number of runs for a recommendation to be written.
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
        """Value for the setting ``task_annotations``, for the tasks with enough runs."""
        return {
            name: {"num_cpus": size.num_cpus, "memory": size.memory}
            for name, size in self.sizes.items()
            if self.enough(name)
        }

    def enough(self, name: str) -> bool:
        """Return whether enough runs of a task were measured for its recommendation to be written."""
        return self.sizes[name].runs >= self.least


def jobs(samples: Sequence[Sample], total: int, num_cpus: float, memory: int) -> list[Job]:
    """Return ``total`` jobs like the measured runs, roughly in their order, as the first may be the longest.

    Each is like a run that started at about the same part of the batch. Blocks of equal jobs would wait and compute at
    the same time, unlike real tasks.
    """
    ordered = sorted(samples, key=lambda one: one.started)
    numbers, last = random.Random(0), len(ordered) - 1
    found = []
    for number in range(total):
        place = abs((number + 0.5) / total + numbers.uniform(-_APART, _APART))
        # Mirrored at the ends, so that all runs are used equally often.
        place = min(place, 2 - place) * len(ordered)
        found.append(recommending.job(ordered[min(last, int(place))], num_cpus, memory))
    return found


def predict(
    samples: Mapping[str, Sequence[Sample]],
    totals: Mapping[str, int],
    requests: Mapping[str, tuple[float, int]],
    hosts: Hosts,
) -> Prediction:
    """Predict a batch of all tasks.

    Arguments:
        samples: usable samples by task.
        totals: number of tasks, by name.
        requests: CPUs and bytes of memory that each task asks for, by name.
        hosts: the hosts on which it runs.
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
        measured: the samples, by the CPUs that calls asked for; the key None is for what the project says.
        hosts: the hosts to predict for.
        totals: number of tasks to predict, by name; the number of samples for a task that is missing.
        workers: Celery's worker processes per host today; None if tasks run with their own requests.
        asked: CPUs and bytes that tasks ask for today; for a task that is missing, those of its samples.
        least: least number of successful runs for a recommendation to be written.
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
        # Samples with as many CPUs, if there are any, as numeric libraries had as many threads.
        today[name] = recommending.usable(runs.get(size.now_cpus, {}).get(name, [])) or usual
        chosen[name] = recommending.usable(runs.get(size.num_cpus, {}).get(name, [])) or usual
    now = {name: (size.now_cpus, size.now_memory) for name, size in sizes.items()}
    then = {name: (size.num_cpus, size.memory) if size.runs >= least else now[name] for name, size in sizes.items()}
    today_hosts = replace(hosts, slots=workers)
    return Report(
        sizes=sizes,
        totals={name: whole[name] for name in sizes},
        hosts=hosts,
        present=predict(today, whole, now, today_hosts),
        recommended=predict(chosen, whole, then, hosts),
        alone={
            name: (
                predict({name: today[name]}, whole, now, today_hosts),
                predict({name: chosen[name]}, whole, then, hosts),
            )
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
    """Return the number of tasks of each name in the whole work, extrapolated from the samples.

    The body of a chord runs once per chord, however large the header is.

    Arguments:
        samples: the samples.
        totals: number of tasks that are called directly, by name.
        share: ratio of all calls to the measured ones, for tasks that are called by other tasks.
        total: number of all tasks, to which the result is scaled; None to leave it.
        batches: number of all chords; None for the measured ones times ``share``.
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
    """Return the recommendation from runs with several numbers of CPUs, and the comparison of these numbers.

    The smallest number is chosen with which all tasks take hardly longer than with the best one. A task that does not
    use the smallest number fully keeps its recommendation.
    """
    good = {cpus: usable for cpus, found in sorted(runs.items()) if (usable := recommending.usable(found))}
    walls = {cpus: statistics.median(one.own_wall for one in usable) for cpus, usable in good.items()}
    fewest = min(good)
    found = []
    for cpus, usable in good.items():
        memory = recommending.memory_for(usable)
        played = predict({size.task: usable}, {size.task: total}, {size.task: (cpus, memory)}, hosts)
        speedup = walls[fewest] / walls[cpus]
        # What fits on no host never finishes.
        makespan = float("inf") if played.unplaced else played.makespan
        found.append(Scaling(cpus, walls[cpus], speedup, speedup * fewest / cpus, makespan))
    best = min(one.makespan for one in found)
    cpus = next(one.num_cpus for one in found if one.makespan <= best * (1 + recommending.SLOWER))
    if size.num_cpus < fewest:
        return size, found
    samples = runs[cpus]
    return recommending.described(samples, cpus, recommending.memory_for(good[cpus]), hosts), found


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON data; ``raycelery-migrate shim --annotate`` reads ``tasks``."""
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
