"""Fixtures of the micro benchmarks: start the systems, let them take turns, and report."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests import support
from tests.conftest import redis_url  # noqa: F401 - a fixture

from .cold_start import measure
from .figures import FIGURES, Board
from .systems import ACTORS, CELERY, OURS, TASKS, RayActors, RayTasks, System, Tasks

#: Resource that raycelery's executors request instead of CPUs, and its environment variable: see `tasks_ray.py`.
_SLOT = "executor"
_VARIABLE = "RAYCELERY_MICRO_SLOT"
_board = pytest.StashKey[Board]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("micro", "micro benchmarks")
    group.addoption("--check", action="store_true", help="exit with status 1 if a target is missed")
    group.addoption("--rounds", type=int, default=5, help="rounds in which the systems take turns (default: 5)")
    group.addoption("--scale", type=float, default=1.0, help="tasks per round, times this (0.01: does it run at all?)")
    group.addoption("--output", type=Path, help="write all samples to this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_board] = Board()


@pytest.fixture(scope="session")
def board(pytestconfig: pytest.Config) -> Board:
    return pytestconfig.stash[_board]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[support.RaySession]:
    """A Ray with 2 CPUs in this process."""
    os.environ[_VARIABLE] = _SLOT
    with support.ray_cluster(num_cpus=2, resources={_SLOT: 2}) as session:
        yield session


@pytest.fixture(scope="session")
def systems(ray_session: support.RaySession, redis_url: str) -> Iterator[dict[str, System]]:  # noqa: F811
    """All systems, warm, with two workers each."""
    os.environ["RAYCELERY_MICRO_REDIS"] = redis_url
    from . import tasks_celery, tasks_ray

    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(support.short_directory())
        # At INFO the worker logs a line per task, which others do not. As root, Celery refuses pickle unless forced.
        worker = support.stock_worker(
            tasks_celery.__name__, redis_url, directory, "-l", "WARNING", concurrency=2, env={"C_FORCE_ROOT": "1"}
        )
        stack.enter_context(worker)
        found: dict[str, System] = {
            CELERY: Tasks(CELERY, tasks_celery),
            TASKS: RayTasks(),
            ACTORS: RayActors(),  # type: ignore[dict-item]
            OURS: Tasks(OURS, tasks_ray),
        }
        for system in found.values():
            system.throughput(300)
        yield found


@pytest.fixture(scope="session")
def cold_start() -> Callable[[str], float]:
    """Return a function that measures the seconds from a new process to its first result, without ``ray.init``'s."""

    def run(system: str) -> float:
        environment = {key: value for key, value in os.environ.items() if key != _VARIABLE}
        found = measure("raycelery" if system == OURS else "ray", environment)
        return found["total"] - found["init"]

    return run


@pytest.fixture(scope="session")
def alternate(pytestconfig: pytest.Config, board: Board) -> Callable[..., dict[str, list[float]]]:
    """Return a function that measures a figure once, with the systems taking turns: A B A B."""

    def run(
        key: str, measure: Callable[[str, int, int], float], warm_up: Callable[[str], object] = lambda name: None
    ) -> dict[str, list[float]]:
        if key in board.samples:
            return board.samples[key]
        figure = FIGURES[key]
        scale = pytestconfig.getoption("--scale")
        counts = {system: max(1, round(count * scale)) for system, count in figure.counts.items()}
        samples: dict[str, list[float]] = {system: [] for system in counts}
        for number in range(min(pytestconfig.getoption("--rounds"), figure.rounds)):
            for system, count in counts.items():
                warm_up(system)
                gc.collect()
                samples[system].append(measure(system, count, number))
        board.counts[key] = counts
        board.samples[key] = samples
        return samples

    return run


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    board = session.config.stash[_board]
    if session.config.getoption("--check") and exitstatus == pytest.ExitCode.OK and board.missed():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    board = config.stash[_board]
    if not board.samples:
        return
    terminalreporter.section("figures")
    console = Console(file=terminalreporter._tw._file, width=max(150, terminalreporter._tw.fullwidth))
    console.print(board.table())
    for note in board.notes():
        console.print(note, highlight=False)
    missed = board.missed()
    if missed:
        console.print(f"targets missed: {', '.join(missed)}", highlight=False)
    output = config.getoption("--output")
    if output is not None:
        output.write_text(json.dumps(board.report(), indent=2) + "\n")
        console.print(f"written to {output}", highlight=False)
