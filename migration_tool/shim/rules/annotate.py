"""Resource requests of tasks."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...model import Verdict
from ...project.edits import Edit
from ...project.view import View
from ...rule import TreeRule
from ..file import SHIM, File
from ..requests import OPTIONS


@SHIM.register
class Annotate(TreeRule[File]):
    """With ``--annotate``, what ``raycelery rightsize`` measured becomes each task's own request.

    A request that the task already states is left alone.
    """

    matches = (cst.FunctionDef,)
    examples = (
        Example(
            """\
from celery import shared_task


@shared_task
def train(zone):
    return zone


@shared_task(bind=True)
def report(self):
    return self.request.id
""",
            """\
from raycelery import shared_task


@shared_task(num_cpus=2, memory=1500000000)
def train(zone):
    return zone


@shared_task(bind=True, num_cpus=0.5)
def report(self):
    return self.request.id
""",
            options=("--annotate", "sizes.json"),
            beside={
                "sizes.json": """\
{"tasks.train": {"num_cpus": 2, "memory": 1500000000}, "tasks.report": {"num_cpus": 0.5}}
"""
            },
        ),
        Example(
            """\
from raycelery import shared_task


@shared_task(num_cpus=4)
def train(zone):
    return zone
""",
            options=("--annotate", "sizes.json"),
            beside={"sizes.json": '{"tasks.train": {"num_cpus": 2}}\n'},
        ),
    )

    def wanted(self, file: File) -> bool:
        return bool(file.requests)

    def write(self, file: File, node: cst.FunctionDef) -> Iterator[Edit]:
        task = file.view.project.task(file.view.key, file.view.qualname(node))
        if task is None:
            return
        wanted = next((file.requests[name] for name in sorted(task.names) if name in file.requests), None)
        if wanted is None:
            return
        missing = {key: value for key, value in wanted.items() if key not in task.decorator.keywords}
        if len(missing) < len(wanted):
            kept = ", ".join(sorted(set(wanted) - set(missing)))
            file.report(
                node.name, "task", task.function.qualname, Verdict.WORKS, f"{kept} is stated already and stays as it is"
            )
        if missing:
            text = ", ".join(f"{key}={_literal(missing[key])}" for key in OPTIONS if key in missing)
            yield _insert(file.view, node.decorators[task.position].decorator, text)


def _literal(value: float) -> str:
    """A number as a person would write it."""
    return str(int(value)) if float(value).is_integer() else repr(round(float(value), 3))


def _insert(view: View, decorator: cst.BaseExpression, text: str) -> Edit:
    if not isinstance(decorator, cst.Call):
        _, end = view.span(decorator)
        return Edit(end, end, f"({text})")
    if not decorator.args:
        _, end = view.span(decorator)
        return Edit(end - 1, end - 1, text)
    _, end = view.whole(decorator.args[-1].value)
    return Edit(end, end, f", {text}")
