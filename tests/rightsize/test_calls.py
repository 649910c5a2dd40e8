"""The forms in which a project names its calls, and the sample of them."""

from __future__ import annotations

import pytest

from bench import call
from raycelery.errors import OptionError
from raycelery.rightsize import calls
from tests.rightsize import project

HERE = __name__


def signatures() -> list[object]:
    return [project.compute.s(1), (project.wait, (2,)), ("tests.rightsize.project.wait", [3], {"cpu": 4})]


def of_bench(quick: bool) -> list[object]:
    return [] if quick else [call(project.compute, 5)]


def wrong() -> list[object]:
    return ["compute"]


def stranger() -> list[object]:
    return [("nobody.knows", (1,))]


def nothing() -> list[object]:
    return []


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "this_module", sys.modules[HERE])


def load(name: str) -> list[tuple[str, tuple[object, ...], dict[str, object]]]:
    found = calls.load(f"this_module:{name}", project.app)
    return [(one.task.rpartition(".")[2], tuple(one.args), dict(one.kwargs)) for one in found]


def test_every_form() -> None:
    assert load("signatures") == [("compute", (1,), {}), ("wait", (2,), {}), ("wait", (3,), {"cpu": 4})]
    assert load("of_bench") == [("compute", (5,), {})]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "'compute' is no call"),
        ("stranger", "'nobody.knows' is no task of rightsize-tests"),
        ("nothing", "names no calls"),
        ("HERE", "it is no function"),
        ("absent", "absent"),
    ],
)
def test_what_is_no_call_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load(name)


def test_a_sample_is_spread_over_the_calls_of_each_task() -> None:
    every = [project.compute.s(number) for number in range(100)] + [project.wait.s(number) for number in range(3)]
    chosen = calls.spread(every, 5)
    assert [one.args[0] for one in chosen if one.task.endswith("compute")] == [10, 30, 50, 70, 90]
    assert [one.args[0] for one in chosen if one.task.endswith("wait")] == [0, 1, 2]
    assert calls.spread(every, 1000) == every
