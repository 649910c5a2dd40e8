"""Celery's settings."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...check import catalogue, settings
from ...examples import Example
from ...model import Finding, Verdict
from ...project.edits import Edit
from ...rule import TreeRule
from ..file import ACTORS, File
from ..insertions import MARK, comment

#: Settings that have no effect on remote functions, and what to do instead.
LOST = {
    "task_time_limit": "no time limit holds for remote functions; ray.cancel what takes too long",
    "task_soft_time_limit": "no time limit holds for remote functions; ray.cancel what takes too long",
    "task_default_rate_limit": "no rate limit holds for remote functions",
    "task_annotations": "they do not reach remote functions; write the options there",
    "task_routes": "remote functions have no queues; give them resources instead",
    "task_always_eager": "remote functions run on Ray always; call the plain functions in tests",
    "task_compression": "it does not reach remote functions",
    "worker_max_tasks_per_child": "max_calls= of ray.remote is its like",
    "worker_max_memory_per_child": "it does not reach remote functions",
    "worker_concurrency": "num_cpus= of each remote function decides how many run at once",
}


@ACTORS.register
class Settings(TreeRule[File]):
    """Settings that have no effect on remote functions get a comment saying so."""

    matches = settings.NODES
    examples = (
        Example(
            """\
from celery import Celery

app = Celery("shop", broker="redis://")
app.conf.task_time_limit = 60
app.conf.timezone = "UTC"


@app.task
def train(zone):
    return zone


@app.task(rate_limit="1/m")
def slowly(zone):
    return zone
""",
            """\
from raycelery import Celery
import ray

app = Celery("shop", broker="redis://")
# raycelery-migrate: no time limit holds for remote functions; ray.cancel what takes too long
app.conf.task_time_limit = 60
app.conf.timezone = "UTC"


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


# raycelery-migrate: stays on raycelery: it has rate_limit=, for which plain Ray has no equivalent
@app.task(rate_limit="1/m")
def slowly(zone):
    return zone
""",
            options=("--closed",),
        ),
    )

    def wanted(self, file: File) -> bool:
        if file.source.notebook is not None or not file.plan.converted:
            return False
        return "conf" in file.view.text or file.namespace is not None

    def write(self, file: File, node: cst.CSTNode) -> Iterator[Edit]:
        for one in settings.of_node(file.view, file.source, node, file.namespace):
            yield from self._commented(file, one)

    def _commented(self, file: File, one: Finding) -> Iterator[Edit]:
        name = catalogue.setting_name(one.name, "CELERY") or ""
        if name not in LOST:
            return
        start = file.view.line_start(file.view.offset(one.line))
        above = file.view.raw[file.view.line_start(max(start - 1, 0)) : start].decode("utf-8", "surrogatepass")
        if MARK in above or one.line in file.told_settings:
            return
        file.told_settings.add(one.line)
        file.findings.append(
            Finding(one.path, one.line, one.column, "setting", one.name, Verdict.MANUAL,
                    "it does not reach plain Ray", LOST[name])
        )  # fmt: skip
        if not above.rstrip().endswith("\\"):
            yield comment(file.view, file.view.offset(one.line), LOST[name])
