"""Code that submits tasks starts them on Ray, with a limit on how many are unfinished, and gets results in order.

``submit`` of the helper module returns an object with the methods of Celery's results, so code that uses results need
not change. A task that is called with options that plain Ray lacks stays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import libcst as cst

from ..examples import Example
from ..project.view import Edit, View
from . import results
from .canvas import Signature, arguments
from .leftovers import comment, has_comment
from .plan import Plan, root_of
from .uses import Use, is_kept


def remote(view: View, node: cst.BaseExpression) -> str:
    """What a task's remote function is called where the task is written so."""
    return f"{view.source(node)}_remote"


def change(view: View, uses: list[Use], plan: Plan) -> tuple[set[str], list[cst.Call]]:
    """Make the changes of a file's uses; the names that they need, and the places where results are read by id."""
    needed: set[str] = set()
    jobs: list[tuple[int, int, Callable[[], str]]] = []
    canvases = {id(use.canvas): use.canvas for use in uses if use.canvas is not None}
    for canvas in canvases.values():
        keep = any(_is_told(plan, one.task, not is_kept(view, canvas.node)) for one in canvas.signatures)
        jobs.append((*view.span(canvas.node), partial(canvas.render, view, partial(_of_signature, view), keep)))
        needed |= canvas.helpers | ({"keep"} if keep else set())
    for use in uses:
        if use.form == "call" and use.call is not None:
            keep = use.wait is None and _is_told(plan, use.task, use.discarded)
            jobs.append((*view.span(use.wait or use.call), partial(_submitted, view, use, keep)))
            needed |= {"ray"} if use.wait is not None else {"submit", "keep"} if keep else {"submit"}
        elif use.form == "run" and use.call is not None:
            jobs.append((view.span(use.node)[1], view.span(use.call.func)[1], str))
    read, places = _lookups(view, plan)
    needed |= {"result_of"} if places else set()
    # What stands inside another is changed before it.
    for start, end, text in sorted([*jobs, *read], key=lambda job: job[1] - job[0]):
        view.change(Edit(start, end, text()))
    for canvas in canvases.values():
        for line in canvas.built:
            start, end = view.span(line)
            view.change(Edit(view.line_start(start), view.line_end(max(end - 1, start)), ""))
    return needed, places


def _of_signature(view: View, signature: Signature) -> str:
    return remote(view, signature.expression)


def _submitted(view: View, use: Use, keep: bool) -> str:
    assert use.call is not None
    given = _arguments(view, use.call)
    name = remote(view, use.node)
    if use.wait is not None:
        limit = [view.source(argument.value) for argument in use.wait.args]
        inner = f"{name}.remote({given})"
        return f"ray.get({inner}, timeout={limit[0]})" if limit else f"ray.get({inner})"
    text = f"submit({', '.join([name, *([given] if given else [])])})"
    return f"keep({text})" if keep else text


def _lookups(view: View, plan: Plan) -> tuple[list[tuple[int, int, Callable[[], str]]], list[cst.Call]]:
    """The changes where results are read by their ids, and the places that read them from the helper."""
    found: list[tuple[int, int, Callable[[], str]]] = []
    places = []
    for one in results.lookups(view)[0] if plan.reads_by_id else ():
        if one.task is not None and not plan.converts(one.task):
            continue
        if root_of(view.project, view.key) in plan.helpers:
            others = bool(plan.kept) and one.task is None
            found.append((*view.span(one.node), partial(one.render, view, others)))
            places.append(one.node)
        elif not has_comment(view, view.span(one.node)[0]):
            text = "results of remote functions are read with result_of, of the ray_tasks.py beside them"
            edit = comment(view, view.span(one.node)[0], text)
            found.append((edit.start, edit.end, partial(str, edit.text)))
    return found, places


def _is_told(plan: Plan, task: tuple[str, str], dropped: bool) -> bool:
    """Whether somebody may ask for a submission's result by its id."""
    definition = plan.definitions.get(task)
    return task in plan.kept_results and (not dropped or (definition is not None and definition.tells_state))


def _arguments(view: View, call: cst.Call) -> str:
    """The arguments that reach the task."""
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


EXAMPLES = (
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
