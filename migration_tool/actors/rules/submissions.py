"""Calls that submit tasks."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...project.edits import Edit
from ...project.view import View
from ...rule import TreeRule
from ..analysis.canvas import arguments, led_by
from ..analysis.uses import Use
from ..file import ACTORS, File


@ACTORS.register
class Submissions(TreeRule[File]):
    """Code that submits tasks starts them on Ray, with a limit on how many are unfinished, and gets results in order.

    ``submit`` of the helper module returns an object with the methods of Celery's results, so code that uses results
    need not change. A task that is called with options that plain Ray lacks stays.
    """

    matches = (cst.Call,)
    examples = (
        Example(
            """\
from celery import shared_task


@shared_task
def train(zone, days=7):
    return zone


def main(zones):
    results = [train.delay(zone) for zone in zones]
    for zone, result in zip(zones, results):
        try:
            print(zone, result.get(timeout=60))
        except ValueError as error:
            print(zone, error)
    first = train.apply_async((zones[0],), {"days": 1})
    return first.get(), train.delay("all").get(timeout=9), train("here")
""",
            """\
import ray
from ray_tasks import submit


def train(zone, days=7):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def main(zones):
    results = [submit(train_remote, zone) for zone in zones]
    for zone, result in zip(zones, results):
        try:
            print(zone, result.get(timeout=60))
        except ValueError as error:
            print(zone, error)
    first = submit(train_remote, zones[0], **{"days": 1})
    return first.get(), ray.get(train_remote.remote("all"), timeout=9), train("here")
""",
        ),
        Example(
            """\
from celery import shared_task


@shared_task
def remind(user):
    return user


def main(user):
    remind.apply_async((user,), countdown=3600)
""",
            """\
from raycelery import shared_task


# raycelery-migrate: stays on raycelery: it is called with countdown=
@shared_task
def remind(user):
    return user


def main(user):
    remind.apply_async((user,), countdown=3600)
""",
        ),
    )

    def wanted(self, file: File) -> bool:
        return bool(file.calls)

    def write(self, file: File, node: cst.Call) -> Iterator[Edit]:
        use = file.calls.get(node)
        if use is None or use.call is None:
            return
        if use.form == "run":
            yield Edit(file.view.span(use.node)[1], file.view.span(use.call.func)[1], "")
        elif use.wait is not None:
            file.needed.add("ray")
            yield Edit(*file.view.span(use.wait), _waited(file.view, use, use.call, use.wait))
        else:
            keep = file.plan.is_looked_up(use.task, use.discarded)
            file.needed |= {"submit", "keep"} if keep else {"submit"}
            given = _arguments(file.view, use.call)
            text = f"submit({led_by(remote(file.view, use.node), given)})"
            yield Edit(*file.view.span(use.call), f"keep({text})" if keep else text)


def remote(view: View, node: cst.BaseExpression) -> str:
    """Return the name of a task's remote function, given the expression that names the task."""
    return f"{view.source(node)}_remote"


def _waited(view: View, use: Use, call: cst.Call, wait: cst.Call) -> str:
    """Return the code of a submission whose result is waited for immediately."""
    limit = [view.source(argument.value) for argument in wait.args]
    inner = f"{remote(view, use.node)}.remote({_arguments(view, call)})"
    return f"ray.get({inner}, timeout={limit[0]})" if limit else f"ray.get({inner})"


def _arguments(view: View, call: cst.Call) -> str:
    """Return the code of the arguments that are passed to the task."""
    assert isinstance(call.func, cst.Attribute)
    if call.func.attr.value == "delay":
        return arguments(view, call)
    parts = []
    for number, argument in enumerate(call.args):
        name = argument.keyword.value if argument.keyword is not None else ("args", "kwargs")[number]
        value = argument.value
        if isinstance(value, cst.Name) and value.value == "None":
            continue
        if name == "kwargs":
            if not (isinstance(value, cst.Dict) and not value.elements):
                parts.append(f"**{_grouped(view, value)}")
        elif isinstance(value, cst.Tuple | cst.List):
            if value.elements:
                start, _ = view.span(value.elements[0])
                last = value.elements[-1]
                _, end = view.whole(last.value)
                parts.append(view.between(start, end))
        else:
            parts.append(f"*{_grouped(view, value)}")
    return ", ".join(parts)


def _grouped(view: View, node: cst.BaseExpression) -> str:
    text = view.source(node)
    simple = isinstance(node, cst.Name | cst.Attribute | cst.Call | cst.Dict | cst.Subscript)
    return text if simple or text.startswith("(") else f"({text})"
