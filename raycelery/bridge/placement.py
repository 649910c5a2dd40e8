"""Where a bridge's messages run: lanes and resource requests, worked out as for messages of direct mode."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raycelery.app import left_out, spec
from raycelery.app.descriptions import Described, Descriptions
from raycelery.app.settings import give_defaults
from raycelery.protocol.definitions import DefineRate

#: What a worker's command line may have changed, and executors must have too.
_SETTINGS = ("broker_url", "broker_read_url", "broker_write_url", "result_backend", "include", "timezone")


class _Application:
    """The worker's application, with the attributes that descriptions are made of of raycelery's own.

    Arguments:
        app: plain Celery's, or raycelery's.
        session: of this process.
    """

    def __init__(self, app: Any, session: Any) -> None:
        self._app = app
        self.session = session
        self.home = getattr(app, "home", None)
        self.recipes = getattr(app, "recipes", {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)


class Placement(Descriptions):
    """Finds the lane of a task, and the definitions that the dispatcher needs before a batch names that lane.

    Rate limits are left to Celery's worker, and its concurrency to the pool.

    Arguments:
        app: the worker's application.
        session: of this process.
        settings: Celery settings of the executors, in addition to those that the worker's command line may change.
    """

    def __init__(self, app: Any, session: Any, settings: Mapping[str, Any]) -> None:
        give_defaults(app)
        super().__init__(_Application(app, session))
        self._real = app
        conf = app.conf
        chosen = {name: conf.get(name) for name in _SETTINGS}
        # Celery's worker makes it of a set, so in another order in each process: executors are for all of them.
        chosen["include"] = tuple(sorted(conf.get("include") or ()))
        self._settings = tuple(sorted((name, value) for name, value in {**chosen, **settings}.items() if value))

    def described(self) -> spec.AppSpec:
        """Return the description by which executors load the application."""
        if self._spec is None:
            from raycelery.names import dispatcher_name

            app = self._real
            app.finalize(auto=True)
            left_out.warn(app, bridge=True)
            found = spec.spec_of(app, self.app.home, dispatcher_name(app))
            # Where a worker logs to is its own affair: with `-f %n.log` each would have executors of its own.
            environ = tuple(entry for entry in found.environ if not entry[0].startswith("CELERY_LOG_"))
            self._spec = dataclasses.replace(found, settings=self._settings, environ=environ)
        return self._spec

    def _check(self, task: Any) -> None:
        """Do nothing: Celery's worker knows what to do with every task."""

    def _options(self, task: Any, queue: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        # A broadcast queue has another name in each worker; what it is called by is its alias.
        alias = getattr(self._real.amqp.queues.get(queue), "alias", None)
        return super()._options(task, alias or queue, overrides)

    def _limits(self, task: Any, name: str, queue: str) -> list[tuple[str, int]]:
        return [limit for limit in super()._limits(task, name, queue) if limit[0] != "app"]

    def _describe(self, name: str, queue: str, overrides: Mapping[str, Any]) -> Described:
        info = super()._describe(name, queue, overrides)
        info.definitions = [one for one in info.definitions if type(one[1]) is not DefineRate]
        return info

    def place(self, name: str, queue: str) -> Described:
        """Return the lane of a task in a queue, and the definitions that belong to it."""
        return self.of(name, queue, {})
