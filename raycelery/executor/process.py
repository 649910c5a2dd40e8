"""The executor's process: a Ray task that stays up, or one per message; both run :class:`Loop`."""

from __future__ import annotations

import json
import logging
import os
import pickle
import resource
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycelery import executor, names
from raycelery.app.spec import AppSpec
from raycelery.client import session
from raycelery.client.connection import Client, Closed
from raycelery.errors import LEAVING, AppLoadError, DispatcherUnreachable
from raycelery.executor import ray_data
from raycelery.executor.batch import Batch
from raycelery.executor.begun import BegunFile
from raycelery.executor.eventer import Eventer
from raycelery.executor.hostname import HOSTNAME
from raycelery.executor.inbox import Inbox, Learn
from raycelery.executor.output import OUTPUT
from raycelery.executor.sources import Sources
from raycelery.protocol import framing
from raycelery.protocol.frames import Hello, SendSamples, Stop, UseTimeLimits
from raycelery.protocol.reports import Blocked, Bye, Ready
from raycelery.serialization import ray_serializers, references

if TYPE_CHECKING:
    from raycelery.executor.assignments import Assignments

# Ray imports this when it starts an executor, before it decodes what the executor was started with.
ray_serializers.postpone_in_actors()

logger = logging.getLogger(__name__)

#: Reports may stay in the kernel this many seconds before it is made to send them.
REPORT_SECONDS = 0.002
#: An executor that cannot load its application fails what comes for this many seconds, and ends.
UNLOADABLE_SECONDS = 3.0
#: ``ru_maxrss`` is in KiB on Linux, in bytes on macOS.
_MAXRSS_UNIT = 1024 if sys.platform == "darwin" else 1


class Loop:
    """Connects to the dispatcher, loads the application, and runs messages until told to stop.

    Arguments:
        executor_id: given by the scheduler.
        request: what it was started for, in Ray's units.
        spec: the pickled application spec.
        endpoint: host, port and secret of the dispatcher.
        app_key: identifies the application's definition.
        env: the runtime environment that it was started for, as JSON.
        once: end after one message.
    """

    def __init__(
        self,
        executor_id: int,
        request: Mapping[str, float],
        spec: bytes,
        endpoint: tuple[str, int, bytes],
        app_key: str,
        env: str,
        once: bool,
    ) -> None:
        import ray

        from raycelery.executor import numeric_threads

        numeric_threads.limit(max(1, int(request.get("CPU", 1))))
        # Ray may have given this process to another one before.
        executor.request.clear()
        executor.request.update(request)
        self._once = once
        #: How many messages were run, and when reports were last sent on by the kernel, by `time.monotonic`.
        self._done = 0
        self._flushed = 0.0
        self._node = ray.get_runtime_context().get_node_id()
        self._inbox = Inbox()
        session_folder = Path(ray._private.worker._global_node.get_session_dir_path())
        self._begun = BegunFile(session_folder / "raycelery-executors")
        self._client = Client(
            lambda: framing.Endpoint(*endpoint),
            Hello("executor", executor_id=executor_id, node=self._node, app=app_key, begun=self._begun.path),
            on_frame=self._inbox.on_frame,
        )
        self._client.linger = 0.0005
        self._eventer = Eventer(self._client, self._node)
        self._inbox.use(self._client, self._eventer, self._begun)
        dispatcher = ray.get_actor(f"raycelery:{_name(spec)}", namespace=names.NAMESPACE)
        session.install(session.Session(_name(spec), self._client, dispatcher))
        ray_data.begin(dispatcher, executor_id)
        # What Ray is given from now on may be the application's.
        ray_serializers.restore()
        self._app_spec: AppSpec = pickle.loads(spec)
        self._env: dict[str, Any] = json.loads(env or "{}")
        self._assignments: Assignments
        #: Messages that it may run, and memory that it may take, in KiB; None: any.
        self._most_tasks: int | None = None
        self._most_kib: int | None = None
        #: Once somebody has asked for measurements.
        self._meter: Any = None

    # -- loading ------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        from celery.result import _set_task_join_will_block

        from raycelery.executor import load_errors, loading, setup
        from raycelery.executor.assignments import Assignments
        from raycelery.executor.runner import Runner

        spec = self._app_spec
        try:
            app = loading.load(spec, self._env)
            if hasattr(app, "producer"):  # else it is a plain Celery application, of a bridge
                app.producer.descriptions.adopt(spec)
            with load_errors.told(loading.title(spec), spec.cwd):
                setup.begin(app, HOSTNAME)
                _set_task_join_will_block(True)
                self._assignments = Assignments(Runner(app, self._client), self._client, self._eventer)
        except AppLoadError as exc:
            self._cannot_load(exc)
            return
        self._client.on_block = self._on_block

    def _cannot_load(self, error: AppLoadError) -> None:
        from raycelery.app.application import Celery
        from raycelery.executor.assignments import Assignments
        from raycelery.executor.runner import Unloadable

        bare = Celery(self._app_spec.name)
        bare.conf.update(self._app_spec.settings)
        bare.producer.descriptions.adopt(self._app_spec)
        references.adopt(bare)
        self._assignments = Assignments(Unloadable(bare, error), self._client, self._eventer)
        # What is in its way may be mended meanwhile, and a process cannot import a module again.
        again = threading.Timer(UNLOADABLE_SECONDS, self._inbox.put, (Stop(),))
        again.daemon = True
        again.start()

    # -- running ------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Run messages until stopped; returns the reason where the end was not asked for."""
        try:
            return self._run_messages()
        finally:
            # Ray may give this process to another executor. What a message has left unsent is as if it had not been.
            self._begun.close()
            self._client.abandon()

    def _run_messages(self) -> str:
        self._client.ensure()
        OUTPUT.start(self._client, str(self._app_spec.dispatcher))
        self._load()
        self._client.report(Ready(self._node))
        if not self._once:
            self._inbox.watch(Sources())
        runner = self._assignments.runner
        conf = runner.app.conf
        self._most_tasks, self._most_kib = conf.worker_max_tasks_per_child, conf.worker_max_memory_per_child
        # An error that gets past the runner ends the executor as a crash does: what it was running is settled by
        # another one, and counts as a delivery.
        while True:
            match self._inbox.take():
                case Batch() as batch:
                    try:
                        self._run(batch)
                    except LEAVING as exc:
                        return self._left(exc)
                    if self._worn_out():
                        break
                case Learn(codes):
                    runner.learn(codes)
                case UseTimeLimits(limits):
                    runner.set_time_limits(limits)
                case SendSamples(on):
                    self._measure(on)
                case Closed(reason):
                    return f"the dispatcher went away: {reason}"
                case Stop():
                    break
        self._end()
        return ""

    def _run(self, batch: Batch) -> None:
        """Run a batch, and report each message as soon as it has ended; many reports may leave together."""
        client, assignments, began = self._client, self._assignments, time.monotonic()
        following = batch.advance()
        if following is None:  # all was taken back
            self._inbox.end(batch)
            client.report(*batch.end(0.0))
        while following is not None:
            message = assignments.message(batch, *following)
            if message.began is not None:
                client.report(message.began)
            assignments.runner.run(message)
            self._done += 1
            now = time.monotonic()
            following = batch.advance()
            reports = [message.report()]
            more = following is not None
            if not more:
                reports += batch.end(now - began)
                more = not self._inbox.end(batch)
            more = more and now - self._flushed < REPORT_SECONDS
            if not more:
                self._flushed = now
            client.report(*reports, more=more)

    def _on_block(self, blocked: bool) -> None:
        runner = self._assignments.runner
        if runner.current is not None and threading.get_ident() == runner.thread:
            self._inbox.block(blocked)
            self._client.report(Blocked(blocked))

    def _measure(self, on: bool) -> None:
        if self._meter is None:
            if not on:
                return
            from raycelery.executor.profiling.meter import Meter

            self._meter = Meter(self._client, fresh=not self._done)
        self._meter.switch(on)

    # -- the end ------------------------------------------------------------------------------------------------

    def make_way(self) -> None:
        """End without having run anything, so that what there is goes to another executor."""
        self._client.ensure()
        self._client.report(Ready(self._node), Bye())
        self._client.close()
        self._begun.close()

    def _worn_out(self) -> bool:
        """Return whether this executor has done all that it may do."""
        most_tasks, most_kib = self._most_tasks, self._most_kib
        return bool(
            self._once
            or (most_tasks and self._done >= most_tasks)
            or (most_kib and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > most_kib * _MAXRSS_UNIT)
        )

    def _left(self, exc: BaseException) -> str:
        """End as a task wishes that called ``sys.exit`` or raised ``KeyboardInterrupt``; return the reason."""
        self._clean_up()
        self._client.flush_if_possible()
        told = getattr(exc, "ray_terminate_msg", None)
        return f"Ray ended its process: {told}" if told else f"the task ended its process by raising {exc!r}"

    def _clean_up(self) -> None:
        import celery.signals

        celery.signals.worker_process_shutdown.send(sender=HOSTNAME, pid=os.getpid(), exitcode=0)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        OUTPUT.stop()

    def _end(self) -> None:
        self._clean_up()
        try:
            self._client.report(Bye())
            # Ray may give this process another message of executor="function".
            self._client.close()
        except DispatcherUnreachable as exc:
            logger.debug("no dispatcher to say goodbye to: %s", exc)


def _name(spec: bytes) -> str:
    return str(pickle.loads(spec).dispatcher)


def run(
    executor_id: int,
    title: str,
    request: Mapping[str, float],
    spec: bytes,
    endpoint: tuple[str, int, bytes],
    app_key: str,
    env: str,
    once: bool,
) -> str:
    """Run messages until the dispatcher says to stop, or a single one; as a Ray task.

    It runs on the main thread: time limits can be raised there only, and there only Ray takes a task's CPUs back while
    it waits for Ray work.
    """
    from raycelery.executor import loading

    loop = Loop(executor_id, request, spec, endpoint, app_key, env, once)
    if not loading.fit_for(app_key):
        # Ray has taken a process that has imported another release, and a process imports a module but once.
        loop.make_way()
        sys.exit(0)
    return loop.run()
