"""Tasks that stay on raycelery."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...model import Verdict
from ...project.edits import Edit
from ...rule import TreeRule
from ..file import ACTORS, File
from ..insertions import comment, has_comment

#: File and line at the end of a reason: left out of comments, as line numbers change.
_PLACE = re.compile(r" \([^()]*:\d+\)$")


@ACTORS.register
class Kept(TreeRule[File]):
    """A task that has no equivalent in plain Ray stays on raycelery, with a comment that says why."""

    matches = (cst.FunctionDef,)
    examples = (
        Example(
            """\
from celery import shared_task


@shared_task
def train(zone):
    return zone


@shared_task
def remind(user):
    return user


def main(zone):
    train.delay(zone)
    remind.apply_async((zone,), queue="mail")
""",
            """\
from raycelery import shared_task
import ray
from ray_tasks import submit


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


# raycelery-migrate: stays on raycelery: it is called with queue=
@shared_task
def remind(user):
    return user


def main(zone):
    submit(train_remote, zone)
    remind.apply_async((zone,), queue="mail")
""",
        ),
    )

    def write(self, file: File, node: cst.FunctionDef) -> Iterator[Edit]:
        task = file.task(node)
        if task is None or file.plan.converts(task.key):
            return
        reason = file.plan.kept.get(task.key, "it cannot be told how it is used")
        file.report(node.name, "task", node.name.value, Verdict.CHANGES, "it stays on raycelery", reason)
        at = file.view.raw.rindex(b"@", 0, file.view.span(node.decorators[0].decorator)[0] + 1)
        if not has_comment(file.view, at):
            yield comment(file.view, at, "stays on raycelery: " + _PLACE.sub("", reason))
