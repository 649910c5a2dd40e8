"""Time from a new process to its first result: ``python -m raycelery.bench.micro.cold_start raycelery|ray DIRECTORY``.

Prints the seconds from before the first import to the result, without those of ``ray.init``, which is the same for both
and varies by seconds. Both start Ray in ``DIRECTORY``, with equal options.
"""

import functools
import sys
import time
from typing import Any


def raycelery(options: dict[str, object]) -> float:
    """Import raycelery, call a task, wait for its result."""
    began = time.perf_counter()
    from .tasks_ray import app, noop

    starting = _timed_init()
    app.conf.ray_init = options
    value = noop.delay(7).get(timeout=60)
    seconds = time.perf_counter() - began
    assert value == 7, value
    return seconds - sum(starting)


def bare(options: dict[str, object]) -> float:
    """Import Ray, start it, call an actor's method, wait for its result."""
    began = time.perf_counter()
    import ray

    from .functions import noop

    class Actor:
        def noop(self, value: object) -> object:
            return noop(value)

    starting = _timed_init()
    ray.init(**options)
    value = ray.get(ray.remote(Actor).remote().noop.remote(7))
    seconds = time.perf_counter() - began
    assert value == 7, value
    return seconds - sum(starting)


def _timed_init() -> list[float]:
    """Patch ``ray.init`` to append the seconds that it takes to the returned list."""
    import ray

    seconds: list[float] = []
    init: Any = ray.init

    @functools.wraps(init)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return init(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - began)

    ray.init = timed
    return seconds


if __name__ == "__main__":
    way, directory = sys.argv[1:]
    shared: dict[str, object] = {
        "num_cpus": 2,
        "include_dashboard": False,
        "object_store_memory": 100 * 1024**2,
        "_temp_dir": directory,
    }
    print((raycelery if way == "raycelery" else bare)(shared))
