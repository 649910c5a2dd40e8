"""``raycelery.Celery``: Celery's application class, with messages that go to Ray."""

from __future__ import annotations

import functools
import itertools
import logging
import sys
import threading
import weakref
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import celery
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from raycelery.app.conf import RememberingSettings
from raycelery.app.options import check_options, options_of
from raycelery.app.producer import RayProducer, new_id
from raycelery.app.settings import DEFAULTS, check_settings
from raycelery.app.urls import schemes
from raycelery.errors import OptionError
from raycelery.masking import masked
from raycelery.names import dispatcher_name
from raycelery.serialization import references

logger = logging.getLogger(__name__)

TRANSPORT_ALIASES["ray"] = "raycelery.control.transport:Transport"

_OURS = ("raycelery", "celery", "kombu", "contextlib", "functools")


_numbers = itertools.count()
_order: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def _written(fun: Any) -> int:
    """Number the functions of tasks in the order in which they are written; Celery makes them tasks in any order."""
    try:
        return _order.setdefault(fun, next(_numbers))
    except TypeError:  # a callable object that cannot be hashed
        return -1


def _calling_module() -> str | None:
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] not in _OURS or name.startswith(references.MAKERS):
            return str(name)
        frame = frame.f_back  # type: ignore[assignment]
    return None


class Celery(celery.Celery):  # type: ignore[misc]
    """A Celery application whose tasks run on Ray.

    Takes what ``celery.Celery`` takes and does what it does; see
    https://docs.celeryq.dev/en/stable/reference/celery.html#celery.Celery. With ``ray_mode="direct"`` (the default)
    ``broker`` and ``backend`` may stay in the code: no call and no result goes there. Tasks may say what they need:
    ``@app.task(num_cpus=2, num_gpus=0, memory=2e9, resources={}, runtime_env={}, max_concurrency=8, executor="actor")``
    (amounts as in https://docs.ray.io/en/latest/ray-core/scheduling/resources.html, ``memory`` in bytes).

    Raises:
        OptionError: a ``ray_*`` setting or a task option is unknown or malformed.
    """

    amqp_cls = "raycelery.app.producer:RayAMQP"
    control_cls = "raycelery.control.remote:Control"
    events_cls = "raycelery.app.events:Events"

    def __init__(self, main: str | None = None, *args: Any, **kwargs: Any) -> None:
        before = set(vars(self))
        #: The module that made this application: where executors look for it first.
        self.home = _calling_module()
        #: How each decorated task was made, by name; executors make it again where no import does.
        self.recipes: dict[str, tuple[Any, dict[str, Any]]] = {}
        #: Name of the dispatcher that it was given (in executors).
        self.dispatcher: str | None = None
        #: Signal handlers and hooks that came along with it (in executors).
        self.carried: list[Any] = []
        self.hooks: list[tuple[str, Any]] = []
        #: Where it was told to look for tasks: the arguments, and the module that told it.
        self.discovered: list[tuple[Any, str | None, str | None]] = []
        self._ray_producer: RayProducer | None = None
        self._said = False
        self._session: Any = None
        self._lazy = threading.RLock()
        check_settings({key: value for key, value in kwargs.items() if key.startswith("ray_")})
        self._chose_task_cls = bool(kwargs.get("task_cls"))
        super().__init__(main, *args, **kwargs)
        object.__setattr__(self._conf, "__class__", RememberingSettings)
        #: Names of the attributes that this has set: others were added to the application since.
        self.made: frozenset[str] = frozenset(vars(self)) - before | {"made"}

    @property
    def _custom_task_cls_used(self) -> bool:
        """Whether a task class was chosen, so that Celery's for Django is not taken."""
        classes = itertools.takewhile(lambda cls: cls is not celery.Celery, type(self).__mro__)
        return self._chose_task_cls or any("task_cls" in vars(cls) for cls in classes)

    @_custom_task_cls_used.setter
    def _custom_task_cls_used(self, value: bool) -> None:
        # Celery before 5.7 takes every class derived from its own to have chosen one.
        return

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name[0] != "_":
            self._changed()

    def _changed(self) -> None:
        """Have what was worked out for publishing worked out anew, after a change of the application."""
        producer = self.__dict__.get("_ray_producer")
        if producer is not None:
            producer.descriptions.reconsider()

    def autodiscover_tasks(self, packages: Any = None, related_name: str | None = "tasks", force: bool = False) -> Any:
        """Look for tasks as Celery does, in executors too."""
        self.discovered.append((packages, related_name, _calling_module()))
        self._changed()
        return super().autodiscover_tasks(packages, related_name, force)

    def prepare_config(self, c: Any) -> Any:
        """Check what a settings module or object says, before Celery merges it."""
        config = super().prepare_config(c)
        for layer in (config, self._preconf):
            if isinstance(layer, Mapping):
                check_settings(layer, self.namespace)
        return config

    def _load_config(self) -> Any:
        conf = super()._load_config()
        if DEFAULTS not in conf.maps:
            # Below everything the user wrote, above Celery's own defaults (which Celery takes to be the last layer).
            conf.maps.insert(-1, DEFAULTS)
            conf.defaults.insert(-1, DEFAULTS)
        object.__setattr__(conf, "__class__", RememberingSettings)
        conf.__dict__["_on_change"] = self._changed
        self._changed()
        return conf

    # -- direct mode --------------------------------------------------------------------------------------------

    @property
    def direct(self) -> bool:
        """Whether messages go to the dispatcher rather than to a broker."""
        return bool(self.conf.ray_mode == "direct")

    @property
    def session(self) -> Any:
        """This process's session with the application's dispatcher; connects when needed."""
        found = self._session
        if found is not None and found.client.connected:
            return found
        from raycelery.client import session

        found = self._session = session.of(self)
        if not session.installed():
            self._announce()
        return found

    @property
    def client(self) -> Any:
        """The connection to the dispatcher."""
        return self.session.client

    @property
    def producer(self) -> Any:
        """What Celery publishes with in direct mode."""
        if self._ray_producer is None:
            with self._lazy:
                if self._ray_producer is None:
                    self._ray_producer = RayProducer(self)
        return self._ray_producer

    @property
    def app_key(self) -> str:
        """Identifies this application's definition to the dispatcher."""
        return str(self.producer.descriptions.described().key)

    def _announce(self) -> None:
        if not self._said and self.direct:
            self._said = True
            backend = str(self.conf.result_backend or "").partition("://")[0]
            replaced = [name for name in (*schemes(self.conf.broker_url)[:1], backend) if name not in ("", "ray")]
            if replaced:
                logger.info(
                    "%s runs on Ray: its %s URLs are not used (ray_mode='bridge' keeps the broker)",
                    self.main or "the application",
                    " and ".join(replaced),
                )
                symbol_by_name("raycelery.switch.left:look_later")(self)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, countdown: Any = None, eta: Any = None,
                  task_id: str | None = None, *more: Any, **options: Any) -> Any:  # fmt: skip
        """Celery's ``send_task``; a producer of another transport, such as beat's, is passed over in direct mode."""
        if options.get("producer") is not None and self.direct:
            options["producer"] = None
        return super().send_task(name, args, kwargs, countdown, eta, task_id or new_id(), *more, **options)

    def now(self) -> datetime:
        """Return the current time in the application's time zone; Celery's goes by way of UTC and dateutil."""
        return datetime.now(self.timezone)

    def _connection(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.direct or url not in self._broker_urls():
            return super()._connection(url, *args, **kwargs)
        options = {**(kwargs.pop("transport_options", None) or {}), "app": self}
        timeout = self.either("broker_connection_timeout", kwargs.get("connect_timeout"))
        url = f"ray://{dispatcher_name(self)}"
        return self.amqp.Connection(url, transport_options=options, connect_timeout=timeout)

    def _broker_urls(self) -> list[Any]:
        conf = self.conf
        return [None, "ray://", conf.broker_url, conf.broker_read_url, conf.broker_write_url]

    @cached_property
    def Worker(self) -> Any:
        """Celery's worker; in direct mode there is none to start."""
        if self.direct:
            from raycelery.app.worker import refuse

            return refuse
        return super().Worker

    def _acquire_producer(self, timeout: float | None = None) -> Any:
        return self.producer if self.direct else super()._acquire_producer(timeout)

    def _get_backend(self) -> Any:
        if not self.direct:
            self._see_that_all_read_it()
            return super()._get_backend()
        chosen = self.backend_cls or self.conf.result_backend
        if not self.conf.ray_keep_result_backend and (chosen is None or isinstance(chosen, str)):
            if isinstance(chosen, str) and chosen.startswith("disabled"):
                return super()._get_backend()
            from raycelery.app.backend import RayBackend

            return RayBackend(app=self)
        found = super()._get_backend()
        rpc = sys.modules.get("celery.backends.rpc")
        if rpc is not None and isinstance(found, rpc.RPCBackend):
            raise OptionError(
                f"the result backend {masked(chosen)!r} sends results through the broker, which direct mode does not "
                "use: leave ray_keep_result_backend out, so that the application's dispatcher keeps results, name "
                "another result_backend, or keep the broker with ray_mode='bridge'"
            )
        return found

    def _see_that_all_read_it(self) -> None:
        """See that results of both sides are in one place, in mixed mode."""
        chosen = self.backend_cls or self.conf.result_backend
        if self.conf.ray_mode == "mixed" and (chosen is None or str(chosen).startswith(("ray", "rpc"))):
            raise OptionError(
                f"ray_mode='mixed' with result_backend={masked(chosen)!r}: name one that workers and Ray's processes "
                "both reach, such as Redis, or 'disabled://'; the results of both sides are kept there"
            )

    # -- tasks --------------------------------------------------------------------------------------------------

    def task(self, *args: Any, **opts: Any) -> Any:
        """Celery's decorator; a misspelt or malformed Ray option is refused here, by name."""
        check_options(opts, "@app.task")
        if len(args) == 1 and callable(args[0]):
            _written(args[0])
            return super().task(*args, **opts)
        decorate = super().task(*args, **opts)

        @functools.wraps(decorate)
        def decorated(fun: Any) -> Any:
            _written(fun)
            return decorate(fun)

        return decorated

    def register_task(self, task: Any, **options: Any) -> Any:
        """Celery's ``register_task``; a malformed Ray option of the class is refused here, by name."""
        check_options(options, f"task {getattr(task, 'name', task)!r}")
        options_of(task)
        return super().register_task(task, **options)

    def _task_from_fun(
        self, fun: Any, name: str | None = None, base: Any = None, bind: bool = False, **options: Any
    ) -> Any:
        check_options(options, f"task {name or fun.__name__!r}")
        full = name or self.gen_task_name(fun.__name__, fun.__module__)
        known = self.recipes.get(full) if fun.__module__ == "__main__" else None
        if known is not None and known[0] is not fun and full in self._tasks:
            # A notebook cell that was run again means its new code.
            if _written(fun) < _written(known[0]):
                return self._tasks[full]
            del self._tasks[full]
        if full not in self._tasks:
            self.recipes[full] = (fun, {"name": full, "base": base, "bind": bind, **options})
            if self._ray_producer is not None:
                self._ray_producer.descriptions.forget()
        return super()._task_from_fun(fun, name=name, base=base, bind=bind, **options)

    @cached_property
    def AsyncResult(self) -> Any:
        """Celery's ``AsyncResult``, which may also be awaited."""
        return self.subclass_with_self("raycelery.results.awaitable:AsyncResult")

    @cached_property
    def ResultSet(self) -> Any:
        """Celery's ``ResultSet``, which may also be awaited."""
        return self.subclass_with_self("raycelery.results.awaitable:ResultSet")

    @cached_property
    def GroupResult(self) -> Any:
        """Celery's ``GroupResult``, which may also be awaited."""
        return self.subclass_with_self("raycelery.results.awaitable:GroupResult")
