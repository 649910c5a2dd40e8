"""No-ops per second and the time of one call with ``ray_durability`` "process" and "node", by turns.

    python -m raycelery.bench.micro.durability --rounds 5 [--journal FOLDER]

Both have a dispatcher on the same Ray, and a journal on the same disk: Ray's temporary folder, or FOLDER.
"""

from __future__ import annotations

import argparse
import statistics
import time

from raycelery import Celery

#: No-ops of a round, and calls that are made one after the other.
MANY, FEW = 10_000, 200


def application(durability: str, journal: str | None) -> Celery:
    """Return an application with one task, which has nothing to do."""
    app = Celery(f"durability-{durability}", set_as_current=False)
    app.conf.update(ray_durability=durability, ray_journal=journal, ray_init={"log_to_driver": False})
    app.task(name="noop", shared=False)(_nothing)
    return app


def _nothing() -> None:
    return None


def rate(app: Celery, count: int) -> float:
    """Return no-ops per second where many are called before the first result is awaited."""
    noop, began = app.tasks["noop"], time.perf_counter()
    for result in [noop.delay() for _ in range(count)]:
        result.get(timeout=120)
    return count / (time.perf_counter() - began)


def main() -> None:
    """Print a line for each setting: medians, least and most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--journal")
    arguments = parser.parse_args()
    apps = {name: application(name, arguments.journal) for name in ("process", "node")}
    rates: dict[str, list[float]] = {name: [] for name in apps}
    calls: dict[str, list[float]] = {name: [] for name in apps}
    for app in apps.values():
        rate(app, 2 * MANY // 10)  # starts executors
    for _ in range(arguments.rounds):
        for name, app in apps.items():
            rates[name].append(rate(app, MANY))
            began = time.perf_counter()
            for _ in range(FEW):
                app.tasks["noop"].delay().get(timeout=120)
            calls[name].append((time.perf_counter() - began) / FEW * 1e3)
    for name in apps:
        print(
            f"{name:>7}: {_told(rates[name], ',.0f')} no-ops/s; a call and its result: {_told(calls[name], '.2f')} ms",
            flush=True,
        )


def _told(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
