"""The executor's process: a warm Ray actor, or one Ray remote function per message; both run :class:`Loop`."""

from __future__ import annotations

import json
import logging
import os
import pickle
import queue
import resource
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from raycelery import executor
from raycelery.app.spec import AppSpec
from raycelery.client import session
from raycelery.client.connection import Client
from raycelery.errors import LEAVING, AppLoadError, DispatcherUnreachable
from raycelery.executor import sources
from raycelery.executor.batches import Bundle
from raycelery.executor.eventer import Eventer
from raycelery.executor.output import OUTPUT
from raycelery.protocol import framing
from raycelery.serialization import ray_serializers, values

# Ray imports this when it starts an executor, before it decodes what the executor was started with.
ray_serializers.postpone_in_actors()

logger = logging.getLogger(__name__)

#: Reports may stay in the kernel this many seconds before it is made to send them.
REPORT_SECONDS = 0.002
#: An executor that cannot load its application fails what comes for this many seconds, and ends.
UNLOADABLE_SECONDS = 3.0


class Loop:
    """Connects to the dispatcher, loads the application, and runs messages until told to stop.

    Arguments:
        number: the executor's, given by the scheduler.
        request: what it was started for, in Ray's units.
        spec: the pickled application spec.
        endpoint: host, port and secret of the dispatcher.
        app_key: identifies the application's definition.
        env: the runtime environment that it was started for, as JSON.
        once: end after one message.
    """

    def __init__(
        self,
        number: int,
        request: Mapping[str, float],
        spec: bytes,
        endpoint: tuple[str, int, bytes],
        app_key: str,
        env: str,
        once: bool,
    ) -> None:
        import ray

        from raycelery.executor import threads as numeric

        numeric.limit(max(1, int(request.get("CPU", 1))))
        # Ray may have given this process to another one before.
        executor.request.clear()
        executor.request.update(request)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._number = number
        self._once = once
        self._done = 0
        #: Whether the dispatcher may take this executor to have nothing to do.
        self._idle = True
        #: What was imported, once it was; whether it has changed since; whether the task waits for its subtasks.
        self._sources: sources.Sources | None = None
        self._outdated = False
        self._blocked = False
        context = ray.get_runtime_context()
        self._node = context.get_node_id()
        self._client = Client(
            lambda: framing.Endpoint(*endpoint),
            {"role": "executor", "executor": number, "node": self._node, "app": app_key},
            on_frame=self._on_frame,
        )
        self._client.linger = 0.0005
        self._eventer = Eventer(self._client, self._node)
        dispatcher = ray.get_actor(f"raycelery:{_name(spec)}", namespace=session.NAMESPACE)
        session.install(session.Session(_name(spec), self._client, dispatcher))
        # What Ray is given from now on may be the application's.
        ray_serializers.restore()
        self._app_spec: AppSpec = pickle.loads(spec)
        self._env: dict[str, Any] = json.loads(env or "{}")
        self.runner: Any = None
        self._bundle_runner: Any = None
        #: What bridges sent, and was not done.
        self._bundles: dict[int, Bundle] = {}
        #: Once somebody has asked for measurements.
        self._meter: Any = None

    def _load(self) -> None:
        from celery.result import _set_task_join_will_block

        from raycelery.executor import batches, load_errors, loading, runner, setup

        spec = self._app_spec
        try:
            app = loading.load(spec, self._env)
            if hasattr(app, "producer"):  # else it is a plain Celery application, of a bridge
                app.producer.adopt(spec)
            with load_errors.told(loading.title(spec), spec.cwd):
                setup.begin(app, runner.hostname())
                _set_task_join_will_block(True)
                self.runner = runner.Runner(app, self._client, self._eventer)
                self._bundle_runner = batches.BundleRunner(self.runner, self._client)
        except AppLoadError as exc:
            self._cannot_load(exc)
            return
        self._client.on_block = self._on_block

    def _cannot_load(self, error: AppLoadError) -> None:
        from raycelery.app.application import Celery
        from raycelery.executor import batches, runner

        bare = Celery(self._app_spec.name)
        bare.conf.update(self._app_spec.settings)
        bare.producer.adopt(self._app_spec)
        values.use(app=bare)
        self.runner = runner.Unloadable(bare, error)
        self._bundle_runner = batches.UnloadableBundles(error, self._client)
        # What is in its way may be mended meanwhile, and a process cannot import a module again.
        again = threading.Timer(UNLOADABLE_SECONDS, self._inbox.put, (("stop", ""),))
        again.daemon = True
        again.start()

    def _on_block(self, blocked: bool) -> None:
        if self.runner.current is not None and threading.get_ident() == self.runner.thread:
            self._blocked = blocked
            self._client.report(("blocked", blocked))

    def _on_frame(self, frame: tuple[Any, ...]) -> None:
        kind = frame[0]
        if kind == "run":
            if frame[2]:
                self._inbox.put(("learn", frame[2]))
            messages = frame[1]
            if self._outdated:
                # What has come meanwhile is for an executor that imports the present code; bookkeeping is the same.
                self._client.report(("recalled", [message[0] for message in messages if message[2] is None]))
                messages = [message for message in messages if message[2] is not None]
            for message in messages:
                if type(message[1]) is list:
                    self._bundles[message[0]] = Bundle(message[0], *message[1])
                self._inbox.put(("run", message))
        elif kind == "recall_batch":
            bundle = self._bundles.get(frame[1])
            if bundle is not None:
                self._client.report(*bundle.take_back())
        elif kind == "recall":
            self._give_back()
        elif kind == "look":
            self._look()
        elif kind == "follow":
            OUTPUT.followed = frame[1]
        elif kind == "events":
            self._eventer.enabled = frame[1]
        elif kind in ("stop", "closed", "limits", "measure"):
            self._inbox.put((kind, frame[1] if len(frame) > 1 else ""))

    def _look(self) -> None:
        """Have this executor replaced if the project was changed since; another program has come that may know it."""
        if self._sources is None or self._blocked or self._outdated:
            return
        changed = self._sources.changed()
        if changed is not None:
            logger.info("%s has changed: this executor ends after its current task", changed)
            self._outdated = True
            self._client.report(("outdated",))

    def _give_back(self) -> None:
        self._idle = True
        kept, seqs = [], []
        while True:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                break
            if item[0] == "run":
                seqs.append(item[1][0])
                self._bundles.pop(item[1][0], None)
            else:
                kept.append(item)
        for item in kept:
            self._inbox.put(item)
        self._client.report(("recalled", seqs))

    def run(self) -> str:
        """Run messages until stopped; returns the reason where the end was not asked for."""
        self._client.ensure()
        OUTPUT.start(self._client, str(self._app_spec.dispatcher))
        self._load()
        self._client.report(("ready", self._node))
        self._sources = None if self._once else sources.Sources()
        flushed = time.monotonic()
        # An error that gets past the runner ends the executor as a crash does: what it was running is settled by
        # another one, and counts as a delivery.
        while True:
            kind, item = self._inbox.get()
            if kind == "run":
                if self._idle:
                    # What an executor has not begun when it dies can run elsewhere.
                    self._idle = False
                    self._client.report(("begun",), more=True)
                seq, payload, settle_reason, reason, deliveries = item
                if type(payload) is list:
                    try:
                        self._done += self._run_bundle(seq)
                    except LEAVING as exc:
                        return self._left(exc)
                    if self._worn_out():
                        break
                    continue
                try:
                    outcome, ran = self.runner.run(payload, settle_reason, reason, deliveries)
                except LEAVING as exc:
                    return self._left(exc)
                now = time.monotonic()
                self._idle = self._idle or self._inbox.empty()
                more = not self._idle and now - flushed < REPORT_SECONDS
                if not more:
                    flushed = now
                self._done += 1
                if outcome == "done":
                    ended = self.runner.ended
                    self._client.report(("done", seq, ran) if ended is None else ("done", seq, ran, ended), more=more)
                else:
                    self._client.report((outcome, seq, settle_reason is None), more=more)
                if self._worn_out():
                    break
            elif kind == "learn":
                self.runner.tasks.learn(item)
            elif kind == "limits":
                self.runner.tasks.set_time_limits(item)
            elif kind == "measure":
                self._measure(item)
            elif kind == "closed":
                return f"the dispatcher went away: {item}"
            else:
                break
        self._end()
        return ""

    def make_way(self) -> None:
        """End without having run anything, so that what there is goes to another executor."""
        self._client.ensure()
        self._client.report(("ready", self._node), ("bye",))
        self._client.close()

    def _run_bundle(self, seq: int) -> int:
        try:
            return int(self._bundle_runner.run(self._bundles[seq]))
        finally:
            del self._bundles[seq]
            # The next one may be here already, sent after this one's report to an executor that was idle.
            self._idle = True

    def _measure(self, on: bool) -> None:
        if self._meter is None:
            if not on:
                return
            from raycelery.rightsize.meter import Meter

            self._meter = Meter(self._client, fresh=not self._done)
        self._meter.switch(on)

    def _worn_out(self) -> bool:
        """Return whether this executor has done all that it may do."""
        conf = self.runner.app.conf
        most_tasks, most_kib = conf.worker_max_tasks_per_child, conf.worker_max_memory_per_child
        return bool(
            self._once
            or (most_tasks and self._done >= most_tasks)
            or (most_kib and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > most_kib * _MAXRSS_UNIT)
        )

    def _left(self, exc: BaseException) -> str:
        """End as a task wishes that called ``sys.exit`` or raised ``KeyboardInterrupt``; return the reason."""
        self._clean_up()
        told = getattr(exc, "ray_terminate_msg", None)
        return f"Ray ended its process: {told}" if told else f"the task ended its process by raising {exc!r}"

    def _clean_up(self) -> None:
        import celery.signals

        from raycelery.executor.runner import hostname

        celery.signals.worker_process_shutdown.send(sender=hostname(), pid=os.getpid(), exitcode=0)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        OUTPUT.stop()

    def _end(self) -> None:
        self._clean_up()
        try:
            self._client.report(("bye",))
            # Ray may give this process another message of executor="function".
            self._client.close()
        except DispatcherUnreachable as exc:
            logger.debug("no dispatcher to say goodbye to: %s", exc)


#: ``ru_maxrss`` is in KiB on Linux, in bytes on macOS.
_MAXRSS_UNIT = 1024 if sys.platform == "darwin" else 1


def _name(spec: bytes) -> str:
    return str(pickle.loads(spec).dispatcher)


class Executor:
    """A warm Ray actor: module globals and loaded models persist from message to message."""

    def __init__(
        self,
        number: int,
        title: str,
        request: Mapping[str, float],
        spec: bytes,
        endpoint: tuple[str, int, bytes],
        app_key: str,
        env: str,
    ) -> None:
        self._title = title
        self._arguments = (number, request, spec, endpoint, app_key, env)

    def __repr__(self) -> str:
        return self._title

    def run(self) -> str:
        """Run messages until the dispatcher says to stop; on the main thread, where time limits can be raised."""
        return Loop(*self._arguments, once=False).run()


def run_one(
    number: int,
    title: str,
    request: Mapping[str, float],
    spec: bytes,
    endpoint: tuple[str, int, bytes],
    app_key: str,
    env: str,
) -> str:
    """Run a single message as a Ray remote function."""
    from raycelery.executor import loading

    loop = Loop(number, request, spec, endpoint, app_key, env, once=True)
    if not loading.fit_for(app_key):
        # Ray has taken a process that has imported another release, and a process imports a module but once.
        loop.make_way()
        sys.exit(0)
    return loop.run()
