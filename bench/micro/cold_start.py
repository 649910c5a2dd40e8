"""Time from a new process to its first result, with raycelery and with bare Ray.

    python -m raycelery.bench.micro.cold_start --rounds 5 [--beside]

Both start a local Ray with equal options, by turns. ``init`` is the part of the total that ``ray.init`` took, ``cpu``
the CPU time of all processes. With ``--beside``, the port of Ray's dashboard agent is taken, as by another Ray on this
machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests import support

#: Default port of Ray's dashboard agents.
AGENT_PORT = 52365
#: What the process of each system does.
WAYS = {
    "raycelery": """
from {package}.tasks_ray import app, noop

app.conf.ray_init = options
time_init()
value = noop.delay(7).get(timeout=60)
""",
    "ray": """
import ray


class Actor:
    def noop(self, value):
        return value


time_init()
ray.init(address="local", log_to_driver=False, **options)
value = ray.get(ray.remote(Actor).remote().noop.remote(7))
""",
}
_BEFORE = """
import json, sys, time

began = time.perf_counter()
options = json.loads(sys.argv[1])
init = []


def time_init():
    import ray

    original = ray.init

    def timed(*args, **kwargs):
        began = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            init.append(time.perf_counter() - began)

    ray.init = timed

"""
_AFTER = """
total = time.perf_counter() - began
assert value == 7, value
import psutil

processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
cpu = sum(sum(process.cpu_times()[:2]) for process in processes)
print(json.dumps({"total": total, "init": sum(init), "cpu": cpu}))
"""

Sample = dict[str, float]


def measure(way: str, environment: Mapping[str, str] | None = None) -> Sample:
    """Start a process and return the seconds until its first result: "total", "init" and "cpu".

    Arguments:
        way: a key of :data:`WAYS`.
        environment: environment variables of the process; None: those of this one.
    """
    with support.short_directory() as directory:
        options: dict[str, Any] = {
            "num_cpus": 2,
            "include_dashboard": False,
            "object_store_memory": 100 * 1024**2,
            "logging_level": "ERROR",
            "_temp_dir": str(directory),
        }
        done = subprocess.run(
            [sys.executable, "-c", _BEFORE + WAYS[way].format(package=__package__) + _AFTER, json.dumps(options)],
            cwd=support.ROOT,
            env=None if environment is None else dict(environment),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found: Sample = json.loads(done.stdout.splitlines()[-1])
    return found


def _hold_port(stack: contextlib.ExitStack) -> None:
    import ray

    for address in ("127.0.0.1", ray.util.get_node_ip_address()):
        with contextlib.suppress(OSError):  # another Ray has it
            stack.enter_context(socket.create_server((address, AGENT_PORT)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", action="store_true")
    options = parser.parse_args()
    support.prepare_environment()
    samples: dict[str, list[Sample]] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        if options.beside:
            _hold_port(stack)
        for _ in range(options.rounds):
            for way, found in samples.items():
                found.append(measure(way))
                last = " ".join(f"{name} {value:.1f} s" for name, value in found[-1].items())
                print(f"{way}: {last} (load average {os.getloadavg()[0]:.1f})", flush=True)
    for name in ("total", "cpu"):
        ours, rays = ([sample[name] for sample in samples[way]] for way in WAYS)
        ratios = [one / other for one, other in zip(ours, rays, strict=True)]
        print(
            f"{name}: raycelery {statistics.median(ours):.1f} s, bare Ray {statistics.median(rays):.1f} s, "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
