"""Results that are read by their ids."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...model import Verdict
from ...project.edits import Edit
from ...rule import TreeRule
from ..analysis.results import lookup
from ..file import ACTORS, File
from ..insertions import comment, has_comment
from ..plan import root_of


@ACTORS.register
class ResultsById(TreeRule[File]):
    """Results that are read by their ids come from the helper module, which keeps them on the Ray cluster.

    Ids have the same form as Celery's, so code that stores or checks them need not change. Any program on the same Ray
    cluster can read them. If some tasks stay on raycelery, their ids are passed on to Celery's class.
    """

    matches = (cst.Call,)
    examples = (
        Example(
            """\
from celery import shared_task
from celery.result import AsyncResult


@shared_task
def train(zone):
    return zone


def start(zone):
    return {"id": train.delay(zone).id}


def status(task_id):
    result = AsyncResult(task_id)
    return {"state": result.state, "value": result.result}
""",
            """\
import ray
from ray_tasks import keep, result_of, submit


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def start(zone):
    return {"id": keep(submit(train_remote, zone)).id}


def status(task_id):
    result = result_of(task_id)
    return {"state": result.state, "value": result.result}
""",
        ),
        Example(
            """\
from celery import current_app, shared_task


@shared_task
def train(zone):
    return zone


def start(zone):
    return {"id": train.delay(zone).id}


def status(task_id):
    return current_app.backend.get_task_meta(task_id)
""",
            """\
from raycelery import current_app, shared_task


# raycelery-migrate: stays on raycelery: results are read in a way that has no plain equivalent
@shared_task
def train(zone):
    return zone


def start(zone):
    return {"id": train.delay(zone).id}


def status(task_id):
    return current_app.backend.get_task_meta(task_id)
""",
        ),
    )

    def wanted(self, file: File) -> bool:
        return file.touched and file.plan.reads_by_id

    def write(self, file: File, node: cst.Call) -> Iterator[Edit]:
        found = lookup(file.view, node)
        if found is None or (found.task is not None and not file.plan.converts(found.task)):
            return
        start, end = file.view.span(node)
        if root_of(file.view.project, file.view.key) in file.plan.helpers:
            file.needed.add("result_of")
            file.report(
                node, "result", "by id", Verdict.CHANGES, "it is read from this Ray cluster",
                "programs that ask for results share one cluster with those that submit; set RAY_ADDRESS",
            )  # fmt: skip
            yield Edit(start, end, found.render(file.view, bool(file.plan.kept) and found.task is None))
        elif not has_comment(file.view, start):
            text = "results of remote functions are read with result_of, of the ray_tasks.py beside them"
            yield comment(file.view, start, text)
