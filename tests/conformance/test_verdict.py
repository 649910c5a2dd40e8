from __future__ import annotations

import json

from tests.conformance.verdict import (
    NOT_APPLICABLE,
    STOCK_PASSES,
    Outcome,
    covers,
    judge,
    read_exclusions,
    read_passes,
    read_reports,
)


def report(nodeid: str, when: str, outcome: str = "passed", reason: str = "", xfail: bool = False) -> str:
    line = {"nodeid": nodeid, "when": when, "outcome": outcome, "xfail": xfail, "duration": 1.0, "reason": reason}
    return json.dumps(line)


def statuses(*lines: str) -> dict[str, str]:
    return {nodeid: outcome.status for nodeid, outcome in read_reports(lines).items()}


def test_a_name_covers_parameters_methods_and_modules() -> None:
    assert covers("t/a.py::test_b", "t/a.py::test_b")
    assert covers("t/a.py::test_b", "t/a.py::test_b[x-1]")
    assert covers("t/a.py::test_C", "t/a.py::test_C::test_d[1]")
    assert covers("t/a.py", "t/a.py::test_b")
    assert not covers("t/a.py::test_b", "t/a.py::test_bc")


def test_every_phase_and_subtest_must_pass() -> None:
    good = report("a", "setup"), report("a", "call"), report("a", "teardown")
    assert statuses(*good) == {"a": "passed"}
    assert statuses(*good[:2], report("a", "teardown", "failed")) == {"a": "failed"}
    assert statuses(good[0], report("a", "call", "failed"), *good[1:]) == {"a": "failed"}
    assert statuses(report("a", "setup", "skipped"), good[2]) == {"a": "skipped"}
    assert statuses(report("a", "setup"), report("a", "call", "skipped", xfail=True), good[2]) == {"a": "xfailed"}
    assert statuses(report("a", "setup"), report("a", "call", xfail=True), good[2]) == {"a": "passed"}
    assert read_reports(good)["a"].seconds == 3


def test_the_last_attempt_counts() -> None:
    first = report("a", "setup"), report("a", "call", "rerun", "flaky"), report("a", "teardown")
    second = report("a", "setup"), report("a", "call"), report("a", "teardown")
    assert statuses(*first, *second) == {"a": "passed"}
    assert statuses(*first, report("a", "setup"), report("a", "call", "failed")) == {"a": "failed"}


def test_a_run_is_judged_against_stock() -> None:
    outcomes = {
        "both": Outcome(),
        "only here": Outcome(),
        "neither": Outcome("failed"),
        "skipped here": Outcome("skipped"),
        "lost": Outcome("failed"),
        "t/listed.py::test_a": Outcome(),
    }
    stock = ["both", "skipped here", "lost", "never ran", "t/listed.py::test_a", "t/listed.py::test_b"]
    verdict = judge(outcomes, stock, ["t/listed.py"], complete=True)
    assert verdict.passed == ["both", "only here"]
    assert verdict.failed == ["lost", "never ran", "skipped here"]
    assert verdict.stock_fails == ["neither"]
    assert verdict.beyond_stock == ["only here"]
    assert verdict.excluded == ["t/listed.py::test_b"]
    assert verdict.needless == ["t/listed.py::test_a"]


def test_a_part_of_the_suite_is_judged_by_what_ran() -> None:
    verdict = judge({"ran": Outcome()}, ["ran", "not asked for"], [], complete=False)
    assert (verdict.passed, verdict.failed) == (["ran"], [])


def test_every_exclusion_names_something_that_stock_passes_and_says_why() -> None:
    stock = [nodeid for path in STOCK_PASSES.values() for nodeid in read_passes(path.read_text(encoding="utf-8"))]
    for exclusion in read_exclusions(NOT_APPLICABLE.read_text(encoding="utf-8")):
        assert any(covers(exclusion.name, nodeid) for nodeid in stock), exclusion.name
        assert len(exclusion.reason) > 10, exclusion.name
        assert set(exclusion.backends) <= {"ray", "redis", "bridge", "bridge on rabbitmq"}, exclusion.name
