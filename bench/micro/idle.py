"""CPU and memory of an idle bridge and of stock prefork, process by process, and of what Ray alone needs.

    python -m raycelery.bench.micro.idle --seconds 30 --concurrency 2
    python -m raycelery.bench.micro.idle --direct

Each worker first runs as many tasks at once as it may, so that all processes of its pool exist, and is idle afterwards.
Memory is PSS: pages that processes share are divided among them. The baselines are

- ``Ray``: a program that is connected to Ray, an actor with a plain method and one with an asyncio method;
- ``direct``: the dispatcher of an application without a broker, whose executors have ended;
- ``solo``: a stock worker without children that is connected to Ray too, as a bridge's worker has to be.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from tests import support
from tests.bridge import support as bridge
from tests.support import until

#: Seconds to wait until a worker is idle.
REST = 5.0
#: Added to a project, so that a stock worker connects to Ray.
_CONNECT = """
import ray

ray.init(address={address!r}, log_to_driver=False)
"""


@dataclass(frozen=True)
class Sample:
    """A sample of a process: CPU seconds and context switches since its start, and bytes of memory."""

    cpu: float
    wakes: int
    memory: int


def _sample(process: psutil.Process) -> Sample:
    times, wakes = process.cpu_times(), 0
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            for line in (thread / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    wakes += int(line.split()[1])
    return Sample(times.user + times.system, wakes, process.memory_full_info().pss)


def _report(title: str, processes: dict[str, int], seconds: float) -> None:
    """Print a line for each process; ``processes`` maps names to process ids."""
    time.sleep(REST)
    found = {name: psutil.Process(pid) for name, pid in processes.items()}
    before = {name: _sample(process) for name, process in found.items()}
    time.sleep(seconds)
    for name, process in found.items():
        first, last = before[name], _sample(process)
        print(
            f"{title:8}{name:16}{last.memory / 1e6:4.0f} MB {100 * (last.cpu - first.cpu) / seconds:5.2f} % of a core "
            f"{(last.wakes - first.wakes) / seconds:4.0f} wake-ups a second",
            flush=True,
        )


class _Plain:
    def pid(self) -> int:
        return os.getpid()


class _Asyncio:
    async def pid(self) -> int:
        return os.getpid()


@contextlib.contextmanager
def _bare() -> Iterator[dict[str, int]]:
    """Start idle actors; yield their process ids and this process's, by name."""
    actors = {"plain actor": ray.remote(_Plain), "asyncio actor": ray.remote(_Asyncio)}
    handles = {name: actor.options(num_cpus=0).remote() for name, actor in actors.items()}
    yield {"program": os.getpid(), **{name: ray.get(handle.pid.remote()) for name, handle in handles.items()}}
    for handle in handles.values():
        ray.kill(handle)


def _nothing() -> None:
    """Do nothing."""


@contextlib.contextmanager
def _direct() -> Iterator[dict[str, int]]:
    """Have an application call a task, and its executors end; yield its dispatcher's process id."""
    from raycelery import Celery
    from raycelery.protocol import questions

    app = Celery("resting", ray_idle_seconds=0.5, set_as_current=False)
    app.task(_nothing).delay().get(timeout=60)
    until(lambda: not app.client.call(questions.Stats())["executor_pids"], 60)
    yield {"dispatcher": app.client.call(questions.Stats())["pid"]}


@contextlib.contextmanager
def _worker(package: str, url: str, directory: Path, address: str, concurrency: int) -> Iterator[dict[str, int]]:
    """Run a worker until all processes of its pool exist; yield process ids by name."""
    settings: dict[str, Any] = {"ray_idle_seconds": 3600.0} if package == "raycelery" else {}
    project = bridge.write(directory, url, url, package=package, **settings)
    arguments = ("-Q", package, "-l", "WARNING")
    with bridge.worker(project, *arguments, address=address, concurrency=concurrency, seconds=180) as worker:
        names = [f"{package}{number}" for number in range(concurrency)]
        results = [project.send("late", name, 60, queue=package) for name in names]
        until(lambda: all(project.traces(name) for name in names), 120)
        project.go()
        for result in results:
            result.get(timeout=60)
        (directory / "go").unlink()
        pids = sorted({int(project.traces(name)[0][0]) for name in names})
        kind = "child" if package == "celery" else "executor"
        found = {"worker": worker.process.pid, **{f"{kind} {number}": pid for number, pid in enumerate(pids, 1)}}
        if package == "raycelery":
            raylet = psutil.Process(pids[0]).parent()
            assert raylet is not None
            found["dispatcher"] = next(one.pid for one in raylet.children() if one.name().startswith("ray::Dispatche"))
        yield found


@contextlib.contextmanager
def _solo(url: str, directory: Path, address: str) -> Iterator[dict[str, int]]:
    """Run a stock worker without children that is connected to Ray; yield its process id by name."""
    project = bridge.write(directory, url, url, package="celery", more=_CONNECT.format(address=address))
    with bridge.worker(project, "-P", "solo", "-l", "WARNING", concurrency=1, seconds=180) as worker:
        yield {"worker": worker.process.pid}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--direct", action="store_true", help="measure an application without a broker only")
    options = parser.parse_args()
    support.prepare_environment()
    if options.direct:
        with support.ray_cluster(num_cpus=2), _direct() as processes, _bare() as actors:
            _report("direct", processes | actors, options.seconds)
        return
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(support.redis_server())
        directory = Path(stack.enter_context(support.short_directory()))
        session = stack.enter_context(support.ray_cluster(num_cpus=options.concurrency, log_to_driver=False))
        workers = {"prefork": "celery", "bridge": "raycelery"}
        for title, package in workers.items():
            with _worker(package, url, directory, session.address, options.concurrency) as processes:
                _report(title, processes, options.seconds)
        with _solo(url, directory, session.address) as processes:
            _report("solo", processes, options.seconds)
        with _bare() as processes:
            _report("Ray", processes, options.seconds)
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
