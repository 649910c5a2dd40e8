"""What a run's reports amount to, compared with what stock Celery passes. Plain data in and out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
#: By broker.
STOCK_PASSES = {"redis": HERE / "stock_passes.txt", "rabbitmq": HERE / "stock_passes_rabbitmq.txt"}
NOT_APPLICABLE = HERE / "not_applicable.toml"


@dataclass(frozen=True)
class Exclusion:
    """A test, class or module of the suite that raycelery need not pass.

    Arguments:
        name: a node id, without parameters for all of them; or a class or module, for all in it.
        reason: why it says nothing about raycelery.
        backends: the modes it is left out in.
    """

    name: str
    reason: str
    backends: tuple[str, ...] = ("ray", "redis")


@dataclass
class Outcome:
    """What became of one test.

    Arguments:
        status: passed, failed, skipped, or xfailed (failed as the suite itself expects).
        reason: of a failure or skip, in a line.
        seconds: with its fixtures.
    """

    status: str = "passed"
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Verdict:
    """A run on raycelery against stock Celery's; lists of node ids, sorted.

    Arguments:
        passed: passed here.
        failed: stock passes it and it did not pass here (failed, skipped or never ran): the run fails.
        stock_fails: did not pass here and does not on stock Celery either.
        beyond_stock: passes here only.
        excluded: listed as not applicable and not run.
        needless: listed as not applicable, run all the same (`--all`), and passed.
    """

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stock_fails: list[str] = field(default_factory=list)
    beyond_stock: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)


def covers(name: str, nodeid: str) -> bool:
    """Whether ``name`` is the node id or a test, class or module that it belongs to."""
    return nodeid == name or nodeid.startswith((f"{name}::", f"{name}["))


def read_exclusions(text: str) -> list[Exclusion]:
    """Read `not_applicable.toml`."""
    return [
        Exclusion(entry["name"], entry["reason"], tuple(entry.get("backends", ("ray", "redis"))))
        for entry in tomllib.loads(text).get("test", [])
    ]


def read_passes(text: str) -> list[str]:
    """Read `stock_passes.txt`: node ids, one a line, and comments."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def read_reports(lines: Iterable[str]) -> dict[str, Outcome]:
    """Sum up what `recorder.py` wrote, by node id.

    A test has a report for each phase and each subtest, all of which must pass. Where it was run again, the last
    attempt counts.
    """
    outcomes: dict[str, Outcome] = {}
    for line in lines:
        report = json.loads(line)
        nodeid = report["nodeid"]
        if report["when"] == "setup" or nodeid not in outcomes:
            seconds = outcomes[nodeid].seconds if nodeid in outcomes else 0.0
            outcomes[nodeid] = Outcome(seconds=seconds)
        outcome = outcomes[nodeid]
        outcome.seconds += report["duration"]
        status = "xfailed" if report["xfail"] and report["outcome"] != "passed" else report["outcome"]
        if status == "failed" or (status != "passed" and outcome.status == "passed"):
            outcome.status, outcome.reason = status, report["reason"] or outcome.reason
    return outcomes


def judge(
    outcomes: Mapping[str, Outcome], stock_passes: Iterable[str], excluded_names: Iterable[str], *, complete: bool
) -> Verdict:
    """Compare a run with stock Celery's.

    Arguments:
        outcomes: of the run.
        stock_passes: node ids that stock Celery passes.
        excluded_names: names of the exclusions of the run's mode.
        complete: whether the whole suite was asked for, so that a test without an outcome has failed.
    """
    names = list(excluded_names)
    stock = set(stock_passes)
    verdict = Verdict()
    for nodeid in sorted({*outcomes, *(stock if complete else ())}):
        passed = nodeid in outcomes and outcomes[nodeid].status == "passed"
        if any(covers(name, nodeid) for name in names):
            (verdict.needless if passed else verdict.excluded).append(nodeid)
        elif passed:
            verdict.passed.append(nodeid)
            if nodeid not in stock:
                verdict.beyond_stock.append(nodeid)
        elif nodeid in stock:
            verdict.failed.append(nodeid)
        else:
            verdict.stock_fails.append(nodeid)
    return verdict
