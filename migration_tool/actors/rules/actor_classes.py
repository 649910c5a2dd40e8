"""Classes that become Ray actors."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...project.edits import Edit
from ...rule import TreeRule
from ..file import ACTORS, File
from ..insertions import after


@ACTORS.register
class ActorClasses(TreeRule[File]):
    """A class with state becomes a Ray actor, if a task uses only that class; the plain class can still be imported.

    A task that does more (measures its process, catches errors, calls several methods) keeps the plain class inside its
    remote function, where the object already has a process of its own.
    """

    matches = (cst.ClassDef,)
    examples = (
        Example(
            '''\
from celery import shared_task


class Trainer:
    def __init__(self, zone):
        self.zone = zone

    def fit(self, days):
        return self.zone, days


@shared_task(num_cpus=2)
def train(zone, days=7):
    """Train one zone."""
    trainer = Trainer(zone)
    return trainer.fit(days)


@shared_task(rate_limit="1/m")
def slowly(zone):
    return Trainer(zone).fit(1)


def main(zones):
    return [train.delay(zone) for zone in zones]
''',
            '''\
from raycelery import shared_task
import ray
from ray_tasks import launcher, submit


class Trainer:
    def __init__(self, zone):
        self.zone = zone

    def fit(self, days):
        return self.zone, days


TrainerActor = ray.remote(num_cpus=1)(Trainer)


def train(zone, days=7):
    """Train one zone."""
    trainer = Trainer(zone)
    return trainer.fit(days)


@launcher
def train_remote(zone, days=7):
    """Start train on an actor of its own, which ends with it."""
    trainer = TrainerActor.options(num_cpus=2).remote(zone)
    return trainer.fit.remote(days)


# raycelery-migrate: stays on raycelery: it has rate_limit=, for which plain Ray has no equivalent
@shared_task(rate_limit="1/m")
def slowly(zone):
    return Trainer(zone).fit(1)


def main(zones):
    return [submit(train_remote, zone) for zone in zones]
''',
        ),
    )

    def write(self, file: File, node: cst.ClassDef) -> Iterator[Edit]:
        if (file.view.key, file.view.qualname(node)) in file.plan.actor_classes:
            name = node.name.value
            file.needed.add("ray")
            yield after(file.view, node, [f"{name}Actor = ray.remote(num_cpus=1)({name})"])
