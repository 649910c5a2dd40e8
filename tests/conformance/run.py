"""Runs Celery's own integration suite on raycelery, and says whether it passes wherever it passes on stock Celery.

    python -m tests.conformance.run --backend ray      messages and results on Ray
    python -m tests.conformance.run --backend redis    messages on Ray, results in Redis (ray_keep_result_backend)
    python -m tests.conformance.run --backend bridge   Celery's worker and Redis stay, its pool executes on Ray
    python -m tests.conformance.run --stock            the suite untouched: Celery's prefork worker, Redis for both

With `--broker rabbitmq` messages of the last two go through a RabbitMQ, and results through Redis all the same. Further
arguments go to pytest, with paths as in the suite: `t/integration/test_canvas.py -k chord`. The suite is fetched from
PyPI the first time. `stock_passes.txt` has what stock Celery passes, written by a whole `--stock` run, and
`stock_passes_rabbitmq.txt` what it passes on RabbitMQ; `not_applicable.toml` what need not pass here, with reasons.
Exit status: 0 if everything else of stock's that was run passed, 1 if not, 2 if there was nothing to judge.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

from tests import support
from tests.brokers import rabbitmq
from tests.conformance import suite
from tests.conformance.verdict import (
    NOT_APPLICABLE,
    STOCK_PASSES,
    Outcome,
    Verdict,
    judge,
    read_exclusions,
    read_passes,
    read_reports,
)

#: Modules whose imports need what only a paid service offers.
_NOT_IMPORTABLE = ("t/integration/test_backend.py",)
#: Tests that wait for minutes for messages that must not come.
_WAITING = tuple(
    f"t/integration/test_canvas.py::test_chord::{name}"
    for name in (
        "test_disabling_flag_allow_error_cb_on_chord_header",
        "test_enabling_flag_allow_error_cb_on_chord_header",
        "test_flag_allow_error_cb_on_chord_header_on_upgraded_chord",
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and report; return the exit status."""
    options, for_pytest = _parse(arguments)
    installed = metadata.version("celery")
    if installed != suite.version():
        print(f"This is the suite of Celery {suite.version()}, and {installed} is installed: use `tox -e conformance`.")
        return 2
    complete = not for_pytest
    exclusions = [] if options.stock else read_exclusions(NOT_APPLICABLE.read_text(encoding="utf-8"))
    modes = {options.backend, f"{options.backend} on {options.broker}"}
    names = [one.name for one in exclusions if modes & set(one.backends)]
    started = time.monotonic()
    run = _Run(options, [] if options.all else names)
    if options.stock or not complete:
        outcomes = run.pytest(for_pytest or ["t/integration"])
    else:
        # Those that only wait do so beside the others, which saves minutes.
        others = ["t/integration", *(f"--deselect={nodeid}" for nodeid in _WAITING)]
        with run.started([*_WAITING], quiet=True) as waiting, run.started(others) as rest:
            outcomes = {**rest.outcomes(), **waiting.outcomes()}
    if not outcomes:
        return 2
    if options.stock:
        _print_stock(outcomes, started)
        if complete:
            _write_passes(outcomes, options.broker)
        return 0
    stock = read_passes(STOCK_PASSES[options.broker].read_text(encoding="utf-8"))
    verdict = judge(outcomes, stock, names, complete=complete)
    second = [nodeid for nodeid in verdict.failed if nodeid in outcomes]
    if 0 < len(second) <= options.second_tries:
        print(f"\n== again, by themselves: {len(second)} that failed")
        again = run.pytest(second)
        recovered = [nodeid for nodeid, outcome in again.items() if outcome.status == "passed"]
        outcomes.update({nodeid: again[nodeid] for nodeid in recovered})
        verdict = judge(outcomes, stock, names, complete=complete)
        _print_list("passed on the second try only", recovered, {})
    _print_verdict(verdict, outcomes, started)
    return 1 if verdict.failed else 0


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--backend", choices=("ray", "redis", "bridge"), default="ray", help="which mode (default: ray)")
    mode.add_argument(
        "--stock", action="store_true", help="run on stock Celery, and note what passes if it is the whole suite"
    )
    parser.add_argument("--broker", choices=tuple(STOCK_PASSES), default="redis", help="which broker (default: redis)")
    parser.add_argument("--all", action="store_true", help="also run what not_applicable.toml lists")
    parser.add_argument(
        "--limit",
        type=float,
        default=150,
        help="seconds for each of a test's setup, subtests, call and teardown (default: 150)",
    )
    parser.add_argument("--time-limit", type=float, default=2700, help="seconds for the whole run (default: 2700)")
    parser.add_argument(
        "--second-tries", type=int, default=10, help="where no more tests than this fail, run them again (default: 10)"
    )
    options, for_pytest = parser.parse_known_args(arguments)
    if options.broker != "redis" and not (options.stock or options.backend == "bridge"):
        parser.error(f"--broker {options.broker} is for --backend bridge and --stock: other modes use no broker")
    return options, for_pytest


class _Started:
    """pytest at work.

    Arguments:
        process: that runs it.
        reports: where `recorder.py` writes.
        deadline: when to end it, by `time.monotonic`.
        output: what it has printed, if that is to be shown at the end.
    """

    def __init__(self, process: subprocess.Popen[bytes], reports: Path, deadline: float, output: Path | None) -> None:
        self._process = process
        self._reports = reports
        self._deadline = deadline
        self._output = output

    def outcomes(self) -> dict[str, Outcome]:
        """Wait for the end, and return the outcomes of the tests that ran."""
        try:
            self._process.wait(max(self._deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            print("\nThe run's time is over; what has not run by now has failed.")
            support.stop(self._process)
        if self._output is not None:
            print(self._output.read_text(encoding="utf-8", errors="replace"))
        return read_reports(self._reports.read_text(encoding="utf-8").splitlines()) if self._reports.exists() else {}


class _Run:
    """pytest in the suite's tree, as often as asked, each time with brokers of its own.

    Arguments:
        options: the command line's.
        excluded: names of tests to leave out.
    """

    def __init__(self, options: argparse.Namespace, excluded: Sequence[str]) -> None:
        self._options = options
        self._excluded = excluded
        self._tree = suite.unpacked()
        self._deadline = time.monotonic() + options.time_limit

    def pytest(self, arguments: Sequence[str]) -> dict[str, Outcome]:
        """Run these tests, and return the outcomes."""
        with self.started(arguments) as tests:
            return tests.outcomes()

    @contextlib.contextmanager
    def started(self, arguments: Sequence[str], quiet: bool = False) -> Iterator[_Started]:
        """Run these tests in a process that is ended with the context.

        Arguments:
            arguments: for pytest.
            quiet: keep its output until the outcomes are asked for.
        """
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "--show-capture=no"]
        command += ["-p", "no:cacheprovider", "-p", "celery.contrib.pytest", "-p", "tests.conformance.recorder"]
        if not self._options.stock:
            command += ["-p", "no:timeout", "-p", "no:rerunfailures", "-p", "tests.conformance.plugin"]
        command += [f"--ignore={module}" for module in _NOT_IMPORTABLE]
        with (
            tempfile.TemporaryDirectory() as directory,
            (Path(directory) / "output.txt").open("wb") as output,
            support.redis_server() as redis_url,
            self._broker(redis_url) as broker_url,
        ):
            reports = Path(directory) / "reports.jsonl"
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=self._tree,
                env={**self._environment(broker_url, redis_url), "CONFORMANCE_REPORTS": str(reports)},
                stdin=subprocess.DEVNULL,
                stdout=output if quiet else None,
                stderr=subprocess.STDOUT if quiet else None,
            )
            try:
                yield _Started(process, reports, self._deadline, Path(output.name) if quiet else None)
            finally:
                support.stop(process)

    @contextlib.contextmanager
    def _broker(self, redis_url: str) -> Iterator[str]:
        if self._options.broker == "redis":
            yield redis_url
            return
        with rabbitmq() as broker:
            yield broker.url

    def _environment(self, broker_url: str, redis_url: str) -> dict[str, str]:
        redis = urlparse(redis_url)
        environment = {
            **os.environ,
            **support.ENVIRONMENT,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join([str(self._tree), str(support.ROOT)]),
            # As in legacy code: both URLs stay, and in direct mode raycelery does not use them. (Tests that want
            # `result_backend` to start with "redis" run all the same, and find the results on Ray.)
            "TEST_BROKER": broker_url,
            "TEST_BACKEND": redis_url,
            # For what the tests themselves count and echo there.
            "REDIS_HOST": str(redis.hostname),
            "REDIS_PORT": str(redis.port),
            "CONFORMANCE_BACKEND": self._options.backend,
            "CONFORMANCE_LIMIT": str(self._options.limit),
            "CONFORMANCE_EXCLUDED": "\n".join(self._excluded),
        }
        environment.pop("RAY_ADDRESS", None)
        return environment


def _print_verdict(verdict: Verdict, outcomes: dict[str, Outcome], started: float) -> None:
    _print_list("left out, not applicable", verdict.excluded, {}, brief=True)
    _print_list("listed as not applicable, but pass", verdict.needless, {})
    _print_list("do not pass on stock Celery either", verdict.stock_fails, outcomes)
    _print_list("pass here only", verdict.beyond_stock, {})
    _print_list("FAILED: stock Celery passes these", verdict.failed, outcomes)
    print(f"\n== {time.monotonic() - started:.0f} s, {len(verdict.excluded)} left out as not applicable")
    print(f"{len(verdict.passed)} passed, {len(verdict.failed)} failed")


def _print_stock(outcomes: dict[str, Outcome], started: float) -> None:
    for status in ("xfailed", "skipped", "failed"):
        _print_list(status, [nodeid for nodeid, one in outcomes.items() if one.status == status], outcomes)
    statuses = [one.status for one in outcomes.values()]
    print(f"\n== stock Celery: {time.monotonic() - started:.0f} s")
    print(f"{statuses.count('passed')} passed, {statuses.count('failed')} failed, {statuses.count('skipped')} skipped")


def _print_list(title: str, nodeids: Sequence[str], outcomes: dict[str, Outcome], brief: bool = False) -> None:
    if not nodeids:
        return
    print(f"\n== {len(nodeids)} {title}")
    for nodeid in () if brief else nodeids:
        outcome = outcomes.get(nodeid)
        reason = (
            "never ran" if outcomes and outcome is None else f"{outcome.status}: {outcome.reason}" if outcome else ""
        )
        print(f"  {nodeid}{'  ' + reason if reason else ''}")


def _write_passes(outcomes: dict[str, Outcome], broker: str) -> None:
    redis = f"Redis {_redis_version()} as "
    brokers = (
        f"{redis}broker and result backend" if broker == "redis" else f"RabbitMQ as broker and {redis}result backend"
    )
    head = (
        f"# The tests of Celery {suite.version()}'s integration suite that pass on stock Celery, with\n"
        f"# {brokers}, on Python {platform.python_version()}.\n"
        f"# Written by `python -m tests.conformance.run --stock --broker {broker}`.\n"
    )
    passed = sorted(nodeid for nodeid, outcome in outcomes.items() if outcome.status == "passed")
    STOCK_PASSES[broker].write_text(head + "\n".join(passed) + "\n", encoding="utf-8")


def _redis_version() -> str:
    text = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return text.partition("v=")[2].split()[0]


if __name__ == "__main__":
    # As Ctrl-C: Redis and pytest are ended too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
