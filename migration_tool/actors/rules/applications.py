"""Applications."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...model import Verdict
from ...project import tables
from ...project.edits import Edit
from ...rule import TreeRule
from ..file import ACTORS, File
from ..insertions import comment, has_comment


@ACTORS.register
class Applications(TreeRule[File]):
    """An application that no task of the project is left on gets a comment saying so."""

    matches = (cst.Call,)
    examples = (
        Example(
            """\
from celery import Celery

app = Celery("shop", broker="redis://")


@app.task
def train(zone):
    return zone


def main(zone):
    train.delay(zone)
""",
            """\
from raycelery import Celery
import ray
from ray_tasks import submit

# raycelery-migrate: no task is left on this application; take it away once nothing reads its settings
app = Celery("shop", broker="redis://")


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def main(zone):
    submit(train_remote, zone)
""",
        ),
    )

    def wanted(self, file: File) -> bool:
        return bool(file.plan.converted) and not file.plan.kept

    def write(self, file: File, node: cst.Call) -> Iterator[Edit]:
        if file.view.dotted(node.func) not in tables.EXTERNAL_APPS:
            return
        statement = file.view.statement(node)
        at = file.view.span(statement)[0]
        if has_comment(file.view, at) or not isinstance(statement, cst.SimpleStatementLine):
            return
        file.report(node, "app", "Celery", Verdict.MANUAL, "no task is left on it", "take it away")
        yield comment(
            file.view, at, "no task is left on this application; take it away once nothing reads its settings"
        )
