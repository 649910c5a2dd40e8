"""Applications as tasks of Airflow, each with an environment of its own: an operator for Airflow 3 and 2.

``RayCeleryOperator`` launches what :class:`raycelery.launch.Spec` describes, and is the same on a laptop and in
production: only the cluster differs. A plain ``@task`` that calls :func:`raycelery.launch.submit` does as well. Follows
https://airflow.apache.org/docs/apache-airflow/stable/howto/custom-operator.html.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from raycelery.launch.errors import NotFound
from raycelery.launch.launching import address_of, find, on_own_cluster, submit
from raycelery.launch.run import Run, RunState
from raycelery.launch.spec import Spec, made

try:
    from airflow.sdk import BaseOperator
    from airflow.sdk.exceptions import AirflowException
except ImportError:  # Airflow 2
    from airflow.exceptions import AirflowException
    from airflow.models import BaseOperator


class RayCeleryOperator(BaseOperator):  # type: ignore[misc]
    """Runs an application as a Ray job, shows what it prints in the task's log, and fails as it fails.

    A run has a name made of the DAG run and the task. A task that is tried again while its run goes on, as after
    the loss of an Airflow worker, follows that run; where it has failed, it is started anew. Clearing a task whose run
    has succeeded starts it anew, too. A task that is killed cancels its run.

    Arguments:
        spec: what to run: the fields of :class:`raycelery.launch.Spec`. Templated.
        address: of Ray's dashboard (``http://host:8265``) or of the cluster; None: that of ``RAY_ADDRESS``, or else a
            cluster of its own on the Airflow worker. Templated.
        num_cpus: CPUs of that cluster of its own.

    Raises:
        SpecError: the specification is wrong.
        LaunchError: the cluster is out of reach, or refuses it.
        AirflowException: the application has failed, or was cancelled.
    """

    template_fields: Sequence[str] = ("spec", "address")
    template_fields_renderers: Mapping[str, str] = {"spec": "json"}
    ui_color = "#d8f0e6"

    def __init__(
        self, *, spec: Mapping[str, Any], address: str | None = None, num_cpus: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.spec = dict(spec)
        self.address = address
        self.num_cpus = num_cpus
        self._launched: Run | None = None

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Run the application to its end; return what :func:`raycelery.launch.attach` finds the run by."""
        return self.launch(context["ti"])

    def launch(self, instance: Any) -> dict[str, Any]:
        """Do what :meth:`execute` does.

        Arguments:
            instance: Airflow's task instance.
        """
        spec = made(self.spec, f"the specification of the task {self.task_id!r}")
        named = msgspec.structs.replace(spec, name=spec.name or name_of(instance))
        with self._running(named, instance) as run:
            self._launched = run
            self.log.info("the run is %s", run.name)
            for line in _lines(run.logs(follow=True)):
                self.log.info("%s", line)
            status = run.status()
        if status.state is not RunState.SUCCEEDED:
            raise AirflowException(f"the run {run.name} {status.state.value}: {status.message}")
        return run.to_dict()

    def on_kill(self) -> None:
        """Cancel the run."""
        if self._launched is not None:
            self._launched.cancel()

    @contextlib.contextmanager
    def _running(self, spec: Spec, instance: Any) -> Iterator[Run]:
        where = address_of(self.address)
        if where is None:
            with on_own_cluster(spec, self.num_cpus) as run:
                yield run
            return
        try:
            run = find(str(spec.name), where)
        except NotFound:
            yield submit(spec, address=where)
            return
        if run.status().state.ended:
            run.delete()
            run = submit(spec, address=where)
        else:
            self.log.info("the run of try %d goes on", instance.try_number - 1)
        yield run


def name_of(instance: Any) -> str:
    """Return the name of the run of a task instance: the same for each of its tries."""
    parts = (instance.dag_id, instance.task_id, instance.run_id, str(getattr(instance, "map_index", -1)))
    told = re.sub(r"[^a-z0-9]+", "-", f"{instance.dag_id}-{instance.task_id}".lower()).strip("-")[:36].strip("-")
    return f"{told or 'run'}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:10]}"


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from whole
    if rest:
        yield rest
