"""Celery's ``TimeoutError``."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...project.edits import Edit
from ...project.view import View, dotted_name
from ...rule import TreeRule
from ..file import ACTORS, File
from ..insertions import comment, has_comment


@ACTORS.register
class Timeouts(TreeRule[File]):
    """Celery's time-out error becomes Ray's, if no task stays and nothing else is imported with it."""

    matches = (cst.ImportFrom, cst.Attribute)
    examples = (
        Example(
            """\
from celery import shared_task
from celery.exceptions import TimeoutError


@shared_task
def train(zone):
    return zone


def main(zone):
    try:
        train.delay(zone).get(timeout=1)
    except TimeoutError:
        print("too late")
""",
            """\
from ray.exceptions import GetTimeoutError as TimeoutError
import ray


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def main(zone):
    try:
        ray.get(train_remote.remote(zone), timeout=1)
    except TimeoutError:
        print("too late")
""",
        ),
        Example(
            """\
from celery import shared_task
from celery.exceptions import Retry, TimeoutError


@shared_task
def train(zone):
    return zone


def main(zone):
    try:
        train.delay(zone).get(timeout=1)
    except (Retry, TimeoutError):
        print("too late")
""",
            """\
# raycelery-migrate: remote functions raise ray.exceptions.GetTimeoutError instead
from raycelery.exceptions import Retry, TimeoutError
import ray


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def main(zone):
    try:
        ray.get(train_remote.remote(zone), timeout=1)
    except (Retry, TimeoutError):
        print("too late")
""",
        ),
    )

    def wanted(self, file: File) -> bool:
        return bool(file.plan.converted)

    def write(self, file: File, node: cst.ImportFrom | cst.Attribute) -> Iterator[Edit]:
        if isinstance(node, cst.ImportFrom):
            yield from self._import(file, node)
        elif file.uses and node.attr.value == "TimeoutError" and _is_caught(file.view, node):
            yield from self._dotted(file, node)

    def _dotted(self, file: File, node: cst.Attribute) -> Iterator[Edit]:
        """``except celery.exceptions.TimeoutError``."""
        start, end = file.view.span(node)
        if not file.plan.kept:
            file.needed.add("ray")
            yield Edit(start, end, "ray.exceptions.GetTimeoutError")
        elif not has_comment(file.view, start):
            yield comment(file.view, start, "remote functions raise ray.exceptions.GetTimeoutError instead")

    def _import(self, file: File, node: cst.ImportFrom) -> Iterator[Edit]:
        if node.relative or dotted_name(node.module) != "celery.exceptions" or isinstance(node.names, cst.ImportStar):
            return
        names = list(node.names)
        if all(one.evaluated_name != "TimeoutError" for one in names):
            return
        if file.plan.kept or len(names) > 1 or node.lpar:
            at = file.view.span(node)[0]
            if file.uses and not has_comment(file.view, at):
                yield comment(file.view, at, "remote functions raise ray.exceptions.GetTimeoutError instead")
        else:
            local = names[0].evaluated_alias or "TimeoutError"
            yield Edit(*file.view.span(node), f"from ray.exceptions import GetTimeoutError as {local}")


def _is_caught(view: View, node: cst.Attribute) -> bool:
    """Return whether a node is Celery's time-out error in an ``except`` clause."""
    for outer in view.around(node):
        if isinstance(outer, cst.ExceptHandler):
            return view.dotted(node) == "celery.exceptions.TimeoutError"
        if isinstance(outer, cst.BaseSuite | cst.BaseStatement):
            return False
    return False
