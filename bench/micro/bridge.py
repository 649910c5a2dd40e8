"""Throughput and latency of a bridge and of stock prefork: same broker, same concurrency, in turns.

    python -m raycelery.bench.micro.bridge --rounds 5 --messages 5000 --concurrency 2

Each turn publishes no-ops while the worker does not consume its queue, lets it consume, and measures the time until the
last result is in Redis. Latency is measured afterwards, one message at a time. Both workers run all the time, each with
its own queue.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import support
from tests.bridge import support as bridge
from tests.brokers import rabbitmq

#: Most seconds for all messages of a turn.
TIMEOUT = 600


class Side:
    """A worker and its project.

    Arguments:
        project: module with the tasks.
        queue: queue that only this worker consumes.
        worker: the worker's process.
    """

    def __init__(self, project: bridge.Project, queue: str, worker: bridge.Worker) -> None:
        self._project, self._queue, self._worker = project, queue, worker

    def _send(self, value: int) -> Any:
        return self._project.send("add", value, 1, queue=self._queue)

    def throughput(self, count: int) -> float:
        """Return the messages per second of a backlog, until all results are stored. Reading them is not included."""
        control = self._project.app.control
        control.cancel_consumer(self._queue, destination=[self._worker.node], reply=True, timeout=30)
        results = [self._send(value) for value in range(count)]
        began = time.perf_counter()
        control.add_consumer(self._queue, destination=[self._worker.node])
        backend = self._project.app.backend
        keys = [backend.get_key_for_task(result.id) for result in results]
        # The last one first, as polling all of them would take CPU time from the worker.
        for wanted in (keys[-1:], keys):
            while backend.client.exists(*wanted) < len(wanted):
                if time.perf_counter() - began > TIMEOUT:
                    raise TimeoutError(f"not all results are there after {TIMEOUT} s")
                time.sleep(0.005)
        seconds = time.perf_counter() - began
        got = [result.get(timeout=TIMEOUT) for result in results]
        if got != list(range(1, count + 1)):
            raise AssertionError("the results are wrong")
        return count / seconds

    def latency(self) -> float:
        """Return the seconds from a call to its result."""
        began = time.perf_counter()
        self._send(1).get(timeout=TIMEOUT)
        return time.perf_counter() - began


def _latencies(sides: list[Side], count: int) -> tuple[float, float]:
    """Return each side's median latency; calls alternate, so that changes of the machine affect both."""
    samples = [[side.latency() for side in sides] for _ in range(count)]
    stock, ours = (statistics.median(column) for column in zip(*samples, strict=True))
    return stock, ours


def _report(name: str, rounds: list[tuple[float, float]], better: Callable[[float, float], float], unit: str) -> None:
    ratios = [better(stock, ours) for stock, ours in rounds]
    stock, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{name}: stock {stock:.4g} {unit}, bridge {ours:.4g} {unit}; ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) over {len(rounds)} rounds"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    options = parser.parse_args()
    support.prepare_environment()
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        url = broker = stack.enter_context(support.redis_server())
        directory = Path(stack.enter_context(support.short_directory()))
        if options.broker == "rabbitmq":
            broker = stack.enter_context(rabbitmq()).url
        address = stack.enter_context(support.ray_cluster(num_cpus=options.concurrency, log_to_driver=False)).address
        sides = []
        for package in ("celery", "raycelery"):
            project = bridge.write(directory, broker, url, package=package)
            worker = stack.enter_context(
                bridge.worker(project, "-Q", package, "-l", "WARNING", address=address, concurrency=options.concurrency)
            )
            sides.append(Side(project, package, worker))
        for side in sides:
            side.throughput(500)
        speeds, delays = [], []
        for _ in range(options.rounds):
            speeds.append((sides[0].throughput(options.messages), sides[1].throughput(options.messages)))
            delays.append(_latencies(sides, 200))
    print(f"{options.broker}, -c {options.concurrency}, load average {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    _report("throughput", speeds, lambda stock, ours: ours / stock, "/s")
    _report("latency", delays, lambda stock, ours: stock / ours, "s")


if __name__ == "__main__":
    main()
