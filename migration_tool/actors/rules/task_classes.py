"""Classes of tasks."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...model import Verdict
from ...project.edits import Edit
from ...project.values import Value
from ...rule import TreeRule
from ..file import ACTORS, File


@ACTORS.register
class TaskClasses(TreeRule[File]):
    """A task class that only holds what its tasks share, such as a model loaded once, becomes one of the helper's.

    Each process has one object of the class per task, as Celery's worker has. A class with handlers
    (``on_failure``...), options or its own ``run`` stays on raycelery, with its tasks.
    """

    matches = (cst.ClassDef,)
    examples = (
        Example(
            """\
from celery import Task, shared_task


class Predicts(Task):
    _model = None

    @property
    def model(self):
        if self._model is None:
            self._model = load()
        return self._model


@shared_task(base=Predicts, bind=True)
def predict(self, x):
    return self.model.predict(x)
""",
            """\
import ray
from ray_tasks import Task, retrying


class Predicts(Task):
    _model = None

    @property
    def model(self):
        if self._model is None:
            self._model = load()
        return self._model


@retrying(bind=True, base=Predicts)
def predict(self, x):
    return self.model.predict(x)


predict_remote = ray.remote(num_cpus=1, max_retries=0)(predict)
""",
            options=("--closed",),
        ),
        Example(
            """\
from celery import Task, shared_task


class Watched(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        print(exc)


@shared_task(base=Watched)
def predict(x):
    return x
""",
            """\
from raycelery import Task, shared_task


class Watched(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        print(exc)


# raycelery-migrate: stays on raycelery: its base class Watched stays: it defines on_failure
@shared_task(base=Watched)
def predict(x):
    return x
""",
            options=("--closed",),
        ),
    )

    def write(self, file: File, node: cst.ClassDef) -> Iterator[Edit]:
        key = file.view.key, file.view.qualname(node)
        if "celery.Task" not in file.view.project.bases(Value("class", key[1], key[0])):
            return
        why = file.plan.classes.get(key, "it is not known")
        if why is None:
            file.needed.add("Task")
            yield Edit(*file.view.span(node.bases[0].value), "Task")
        else:
            file.report(node.name, "task class", node.name.value, Verdict.CHANGES, "it stays on raycelery", why)
