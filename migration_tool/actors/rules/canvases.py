"""Chains, groups and chords."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import libcst as cst

from ...examples import Example
from ...project.edits import Edit
from ...project.view import View
from ...rule import TreeRule
from ..analysis.canvas import Signature
from ..analysis.uses import is_kept
from ..file import ACTORS, File
from .submissions import remote


@ACTORS.register
class Canvases(TreeRule[File]):
    """A canvas of known tasks is converted if it is built and applied in one expression or on consecutive lines.

    A chain passes references; a chord's body gets a reference to the list of its header's values. A canvas that is
    stored, passed on or built at run time stays, with the tasks in it.
    """

    matches = (cst.Call,)
    examples = (
        Example(
            """\
from celery import chain, chord, group, shared_task


@shared_task
def train(zone):
    return zone


@shared_task
def report(model):
    return model


def main(zones):
    job = group(train.s(zone) for zone in zones)
    models = job.apply_async().get()
    last = chain(train.s("a"), report.s())()
    whole = chord([train.s(zone) for zone in zones])(report.s())
    return models, last.get(), whole.get(), (train.s("b") | report.s()).delay().get()
""",
            """\
import ray
from ray_tasks import Results, gather, submit


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def report(model):
    return model


report_remote = ray.remote(num_cpus=1, max_retries=0)(report)


def main(zones):
    models = Results(submit(train_remote, zone) for zone in zones).get()
    last = submit(report_remote, submit(train_remote, "a").ref)
    whole = submit(report_remote, gather(submit(train_remote, zone) for zone in zones))
    return models, last.get(), whole.get(), submit(report_remote, submit(train_remote, "b").ref).get()
""",
        ),
        Example(
            """\
from celery import group, shared_task


@shared_task
def train(zone):
    return zone


def build(zones):
    return group(train.s(zone) for zone in zones)
""",
            """\
from raycelery import group, shared_task


# raycelery-migrate: stays on raycelery: its signature is used in a way that has no plain equivalent
@shared_task
def train(zone):
    return zone


def build(zones):
    return group(train.s(zone) for zone in zones)
""",
        ),
    )

    def wanted(self, file: File) -> bool:
        return bool(file.canvases)

    def write(self, file: File, node: cst.Call) -> Iterator[Edit]:
        canvas = file.canvases.get(node)
        if canvas is None:
            return
        dropped = not is_kept(file.view, node)
        keep = any(file.plan.is_looked_up(one.task, dropped) for one in canvas.signatures)
        file.needed |= canvas.helpers | ({"keep"} if keep else set())
        yield Edit(*file.view.span(node), canvas.render(file.view, partial(_remote, file.view), keep))
        for line in canvas.built:
            start, end = file.view.span(line)
            yield Edit(file.view.line_start(start), file.view.line_end(max(end - 1, start)), "")


def _remote(view: View, signature: Signature) -> str:
    return remote(view, signature.expression)
