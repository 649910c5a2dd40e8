"""The forms in which a project names its calls, and the sample of them."""

from __future__ import annotations

import pytest
from celery import chain, chord, group

from raycelery.bench import call
from raycelery.errors import OptionError
from raycelery.executor.profiling import canvas
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
        ("wrong", "'compute' is not a call"),
        ("stranger", "'nobody.knows' is not a task of rightsize-tests"),
        ("nothing", "returns no calls"),
        ("HERE", "it is not a function"),
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


def test_what_a_canvas_comes_to() -> None:
    wait, compute, combine = project.wait, project.compute, project.combine
    batch = chord([chain(compute.s(number), wait.si(1)) for number in range(20)], combine.s())
    assert canvas.tasks_in(batch) == {compute.name: 20, wait.name: 20, combine.name: 1}
    assert canvas.tasks_in(group(compute.s(number) for number in range(7))) == {compute.name: 7}
    assert canvas.tasks_in(chain(compute.s(1), group(wait.si(1), wait.si(2)), combine.s()))[combine.name] == 1
    assert canvas.tasks_in(wait.s(1)) == {wait.name: 1}


def test_a_chord_keeps_as_many_parts_as_are_wanted() -> None:
    batch = chord([project.wait.s(number) for number in range(100)], project.combine.s())
    smaller = calls.cut(batch, 10)
    assert [one.args[0] for one in smaller.tasks] == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert smaller.body.task == project.combine.name
    assert len(batch.tasks) == 100, "what the project made is left alone"
    assert len(calls.cut(group(project.wait.s(number) for number in range(100)), 10).tasks) == 10
    assert calls.cut(batch, 200) is batch
