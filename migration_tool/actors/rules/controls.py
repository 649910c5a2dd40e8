"""Remote control."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...project.edits import Edit
from ...rule import TreeRule
from ..file import ACTORS, File
from ..insertions import comment, has_comment


@ACTORS.register
class Controls(TreeRule[File]):
    """Where an application's control or events are used, a comment says that they know nothing of remote functions."""

    matches = (cst.Attribute,)
    examples = (
        Example(
            """\
from celery import Celery

app = Celery("shop", broker="redis://")


@app.task(rate_limit="1/m")
def slowly(zone):
    return zone


@app.task
def train(zone):
    return zone


def main(zone):
    app.control.purge()
""",
            """\
from raycelery import Celery
import ray

app = Celery("shop", broker="redis://")


# raycelery-migrate: stays on raycelery: it has rate_limit=, for which plain Ray has no equivalent
@app.task(rate_limit="1/m")
def slowly(zone):
    return zone


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def main(zone):
    # raycelery-migrate: remote functions do not appear here; ray.util.state lists them, ray.cancel ends them
    app.control.purge()
""",
            options=("--closed",),
        ),
    )

    def wanted(self, file: File) -> bool:
        return bool(file.plan.converted)

    def write(self, file: File, node: cst.Attribute) -> Iterator[Edit]:
        if node.attr.value not in ("control", "events"):
            return
        value = file.view.value(node)
        statement = file.view.statement(node)
        at = file.view.span(statement)[0]
        if value is None or value.kind != "app.attribute" or value.name not in ("control", "events"):
            return
        if not has_comment(file.view, at) and isinstance(statement, cst.SimpleStatementLine):
            text = "remote functions do not appear here; ray.util.state lists them, ray.cancel ends them"
            yield comment(file.view, at, text)
