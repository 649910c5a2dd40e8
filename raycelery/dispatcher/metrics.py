"""The dispatcher's Ray metrics: queue length, running, finished, waiting time and run time, by queue and task.

Follows https://docs.ray.io/en/latest/ray-observability/user-guides/add-app-metrics.html; they appear beside Ray's own
at its Prometheus endpoint, prefixed ``ray_``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ray.util import metrics

if TYPE_CHECKING:
    from raycelery.scheduler.model import Message
    from raycelery.scheduler.view import View

_SECONDS = [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600]


class Metrics:
    """Counts as messages finish; exports once per second, so that a message costs no metric call of its own.

    Arguments:
        application: the value of the tag ``application``.
    """

    def __init__(self, application: str) -> None:
        common = {"application": application}
        tags = ("application", "queue", "task")
        self._waiting = metrics.Gauge("raycelery_queue_length", "Messages waiting", tags)
        self._running = metrics.Gauge("raycelery_running", "Messages running", tags)
        self._finished = metrics.Counter(
            "raycelery_finished", "Messages that have ended, by outcome", (*tags, "outcome")
        )
        self._wait = metrics.Histogram("raycelery_waiting_seconds", "Time from submission to start", _SECONDS, tags)
        self._run = metrics.Histogram("raycelery_run_seconds", "Run time", _SECONDS, tags)
        for metric in (self._waiting, self._running, self._finished, self._wait, self._run):
            metric.set_default_tags(common)
        self._seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._shown: set[tuple[metrics.Gauge, str, str]] = set()

    def finished(self, message: Message, outcome: str, runtime: float | None, now: float) -> None:
        """Note one message that ended; waiting and run time of at most 100 per second and task are kept.

        Arguments:
            message: that ended.
            outcome: one of :data:`raycelery.dispatcher.outcomes.OUTCOMES`.
            runtime: seconds it ran; None where its task was not called.
            now: seconds since the epoch.
        """
        self._counts[message.queue, message.task, outcome] += 1
        if runtime is None:
            return
        samples = self._seen.setdefault((message.queue, message.task), [])
        if len(samples) < 100:
            samples.append((max(0.0, now - runtime - message.submitted), runtime))

    def sample(self, scheduler: View) -> None:
        """Hand over what was noted since the last call."""
        levels: Counter[tuple[metrics.Gauge, str, str]] = Counter()
        for stream in scheduler.streams():
            if stream.size:
                levels[self._waiting, stream.queue, stream.task] += stream.size
        for executor in scheduler.executors.values():
            message = executor.running()
            if message is not None and message.settle_reason is None:
                levels[self._running, message.queue, message.task] += 1
        for gauge, queue, task in self._shown | levels.keys():
            gauge.set(levels[gauge, queue, task], {"queue": queue, "task": task})
        self._shown = {key for key, level in levels.items() if level}
        for (queue, task, outcome), count in self._counts.items():
            self._finished.inc(count, {"queue": queue, "task": task, "outcome": outcome})
        for (queue, task), samples in self._seen.items():
            tags = {"queue": queue, "task": task}
            for waited, ran in samples:
                self._wait.observe(waited, tags)
                self._run.observe(ran, tags)
        self._counts.clear()
        self._seen.clear()
