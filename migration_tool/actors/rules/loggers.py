"""Loggers of tasks."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...project.edits import Edit
from ...rule import TreeRule
from ..file import ACTORS, File


@ACTORS.register
class Loggers(TreeRule[File]):
    """Task loggers become plain ones, unless a task of the file stays."""

    matches = (cst.Call,)
    examples = (
        Example(
            """\
from celery import shared_task
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)


@shared_task
def train(zone):
    logger.info(zone)


def main(zone):
    train.delay(zone)
""",
            """\
import logging
import ray
from ray_tasks import submit

logger = logging.getLogger(__name__)


def train(zone):
    logger.info(zone)


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def main(zone):
    submit(train_remote, zone)
""",
        ),
        Example(
            """\
from celery import shared_task
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)


@shared_task
def train(zone):
    logger.info(zone)


@shared_task(rate_limit="1/m")
def slowly(zone):
    logger.info(zone)


def main(zone):
    train.delay(zone)
""",
            """\
from raycelery import shared_task
from raycelery.utils.log import get_task_logger
import ray
from ray_tasks import submit

logger = get_task_logger(__name__)


def train(zone):
    logger.info(zone)


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


# raycelery-migrate: stays on raycelery: it has rate_limit=, for which plain Ray has no equivalent
@shared_task(rate_limit="1/m")
def slowly(zone):
    logger.info(zone)


def main(zone):
    submit(train_remote, zone)
""",
        ),
    )

    def wanted(self, file: File) -> bool:
        if "get_task_logger" not in file.view.text or file.keeps_tasks:
            return False
        return bool(file.plan.converted) and (file.touched or not file.plan.kept)

    def write(self, file: File, node: cst.Call) -> Iterator[Edit]:
        if file.view.dotted(node.func) == "celery.utils.log.get_task_logger":
            file.needed.add("logging")
            yield Edit(*file.view.span(node.func), "logging.getLogger")
