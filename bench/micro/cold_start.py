"""A fresh process's way to its first result: ``python -m bench.micro.cold_start raycelery|ray DIRECTORY``.

Prints the seconds from before the first import to the result. Both ways start Ray in ``DIRECTORY``, with equal options.
"""

import sys
import time


def raycelery(options: dict[str, object]) -> float:
    """Import raycelery, call a task, wait for its result."""
    began = time.perf_counter()
    from bench.micro.tasks_ray import app, noop

    app.conf.ray_init = options
    value = noop.delay(7).get(timeout=60)
    seconds = time.perf_counter() - began
    assert value == 7, value
    return seconds


def bare(options: dict[str, object]) -> float:
    """Import Ray, start it, call an actor's method, wait for its result."""
    began = time.perf_counter()
    import ray

    from bench.micro.functions import noop

    class Actor:
        def noop(self, value: object) -> object:
            return noop(value)

    ray.init(**options)
    value = ray.get(ray.remote(Actor).remote().noop.remote(7))
    seconds = time.perf_counter() - began
    assert value == 7, value
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
