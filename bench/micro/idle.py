"""CPU and memory of an idle bridge, process by process, and of stock prefork.

    python -m raycelery.bench.micro.idle --seconds 30 --concurrency 2

Each worker first runs as many tasks at once as it may, so that all processes of its pool exist, and is idle afterwards.
Memory is PSS: pages that processes share are divided among them. An unused worker process of Ray is measured too, as
the baseline for executors.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests import support
from tests.bridge import support as bridge
from tests.support import until

#: Seconds to wait until a worker is idle.
REST = 5.0


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


def _report(title: str, processes: list[tuple[str, psutil.Process]], seconds: float) -> None:
    time.sleep(REST)
    before = [_sample(process) for _, process in processes]
    time.sleep(seconds)
    after = [_sample(process) for _, process in processes]
    for (name, _), first, last in zip(processes, before, after, strict=True):
        print(
            f"{title} {name}: {last.memory / 1e6:.0f} MB, {100 * (last.cpu - first.cpu) / seconds:.2f} % of a core, "
            f"{(last.wakes - first.wakes) / seconds:.0f} wake-ups a second",
            flush=True,
        )


def _titled(start: str, since: float) -> list[psutil.Process]:
    """Return Ray's processes with a title that were started after ``since``, the oldest first."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (process.cmdline() or [""])[0].startswith(f"ray::{start}") and process.create_time() >= since:
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def _measure(package: str, url: str, directory: Path, address: str, options: Any) -> None:
    began = time.time()
    settings: dict[str, Any] = {"ray_idle_seconds": 3600.0} if package == "raycelery" else {}
    project = bridge.write(directory, url, url, package=package, **settings)
    arguments = ("-Q", package, "-l", "WARNING")
    with bridge.worker(project, *arguments, address=address, concurrency=options.concurrency, seconds=180) as worker:
        names = [f"{package}{number}" for number in range(options.concurrency)]
        results = [project.send("late", name, 60, queue=package) for name in names]
        until(lambda: all(project.traces(name) for name in names), 120)
        project.go()
        for result in results:
            result.get(timeout=60)
        (directory / "go").unlink()
        processes = [("worker", psutil.Process(worker.process.pid))]
        pids = {int(project.traces(name)[0][0]) for name in names}
        processes += [("child" if package == "celery" else "executor", psutil.Process(pid)) for pid in sorted(pids)]
        if package == "raycelery":
            processes += [("dispatcher", process) for process in _titled("Dispatcher", began)[-1:]]
            processes += [("idle process of Ray", process) for process in _titled("IDLE", began)[-1:]]
        _report("prefork" if package == "celery" else "bridge", processes, options.seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--concurrency", type=int, default=2)
    options = parser.parse_args()
    support.prepare_environment()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(support.redis_server())
        directory = Path(stack.enter_context(support.short_directory()))
        session = stack.enter_context(support.ray_cluster(num_cpus=options.concurrency, log_to_driver=False))
        for package in ("celery", "raycelery"):
            _measure(package, url, directory, session.address, options)
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
