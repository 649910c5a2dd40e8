"""The result backend ``ray://``: states and results kept by the application's dispatcher, pushed to who waits.

Follows ``celery.backends.base.KeyValueStoreBackend`` and, for chords, Celery's Redis backend: header results are
gathered as they come and handed to the body without polling.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from celery import states
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import TimeoutError
from celery.result import GroupResult
from celery.utils.functional import _regen
from celery.utils.log import get_logger
from kombu.utils.encoding import ensure_bytes
from kombu.utils.functional import LRUCache
from kombu.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from raycelery.app.chords import Chords
from raycelery.app.settings import travels_as_is
from raycelery.client import session as session_module
from raycelery.client.connection import Client
from raycelery.client.waiting import Waiting
from raycelery.errors import ArgumentError, DispatcherUnreachable
from raycelery.protocol import questions
from raycelery.protocol.operations import ChordExtra, ChordSize, StoreResult
from raycelery.results.promises import Listener
from raycelery.results.unread import meta_without_value
from raycelery.serialization import references, remote_errors, values

logger = get_logger(__name__)

#: ``on_interval`` is called no more often than this, in seconds: nothing is looked at in between.
_LEAST_PAUSE = 0.01
#: Seconds between two looks for results that Ray does not know.
_OLD_SECONDS = 1.0
#: Seconds that the dispatcher has to tell what was ready when the time of a wait was over.
_ANSWER_SECONDS = 1.0


#: Tasks that ran eagerly of which states and results are remembered.
EAGER = 1000


class RemoteTraceback(Exception):
    """The traceback of a task's error as it was in its executor; the cause of the error raised at the caller."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def backend_of(reference: references.Reference) -> Any:
    """Return the result backend of an application, to read and write its results."""
    try:
        return references.resolve(reference, references.own_app()).backend
    except ArgumentError:
        # Its tasks are not needed for that. By name, as the application imports this module.
        app = symbol_by_name("raycelery:Celery")(reference.name, set_as_current=False)
        app.dispatcher = reference.dispatcher
        return app.backend


class RayBackend(KeyValueStoreBackend):  # type: ignore[misc]
    """Keeps results with the dispatcher.

    Results travel as Ray carries them (any picklable value) unless ``result_serializer`` is set to another than pickle.
    """

    supports_native_join = True
    supports_autoexpire = True
    implements_incr = False
    persistent = False

    def __init__(self, app: Any, serializer: str | None = None, url: str | None = None, **kwargs: Any) -> None:
        conf = app.conf
        accepted = conf.accept_content if conf.result_accept_content is None else conf.result_accept_content
        self._pickles = serializer is None and travels_as_is(conf.result_serializer, accepted)
        super().__init__(app, serializer="pickle" if self._pickles else serializer, url=url or "ray://", **kwargs)
        self.thread_safe = True
        self._inline = int(app.conf.ray_inline_bytes)
        self.chords = Chords(self, self._inline, self._pickles)
        self._listener = Listener(self)
        #: States and results of tasks that ran eagerly in a process without a connection.
        self._eager: Any = LRUCache(limit=EAGER)

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return backend_of, (references.to(self.app),)

    def as_uri(self, include_password: bool = False) -> str:
        """Return ``ray://``."""
        return "ray://"

    # -- encoding -----------------------------------------------------------------------------------------------

    def encode(self, data: Any) -> bytes:
        """Encode a meta or group for the store."""
        if self._pickles:
            return values.dumps(data)[0]
        payload = super().encode(data)
        return payload.encode() if isinstance(payload, str) else payload

    def decode(self, payload: Any) -> Any:
        """Undo :meth:`encode`; what the dispatcher itself writes is JSON, which neither of these begins like."""
        if self.serializer in ("pickle", "msgpack") and payload and payload[:1] == b"{":
            return json.loads(payload)
        # An executor that could not load the application writes pickles: it does not know the application's settings.
        pickled = self._pickles or (self.serializer == "json" and payload and payload[:1] == b"\x80")
        if pickled and payload is not None:
            return values.loads(payload, self.app.session.large_values)
        return super().decode(payload)

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """Return an error as it is to be stored: as it is, where results are pickled; else in Celery's form."""
        return exc if self._pickles else super().prepare_exception(exc, serializer)

    def exception_to_python(self, exc: Any) -> Any:
        """Make an error of what is stored; of its own class also where that wants other arguments than ``args``."""
        error = super().exception_to_python(exc)
        if type(error) is not Exception or not isinstance(exc, dict):
            return error
        cls: Any = sys.modules.get(exc.get("exc_module") or "")
        for name in exc["exc_type"].split("."):
            cls = getattr(cls, name, None)
        if not isinstance(cls, type) or not issubclass(cls, BaseException) or cls is Exception:
            return error
        args = exc.get("exc_message", "")
        try:
            return remote_errors.made(cls, tuple(args) if isinstance(args, (list, tuple)) else (args,))
        except TypeError:
            return error

    def _meta_of(self, payload: bytes) -> dict[str, Any]:
        try:
            meta: dict[str, Any] = self.decode_result(payload)
        except DispatcherUnreachable:
            raise
        except Exception as exc:  # the code of what is to be loaded
            if not self._pickles:
                raise
            return meta_without_value(payload, exc)
        error = meta.get("result")
        if meta.get("traceback") and isinstance(error, BaseException) and error.__cause__ is None:
            error.__cause__ = RemoteTraceback(str(meta["traceback"]))
        return meta

    # -- states and results -------------------------------------------------------------------------------------

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id
        if request is not None and getattr(request, "is_eager", False) and self._alone:
            self._eager[task_id] = meta
            return result
        keys: tuple[str, ...] = ()
        session = self.app.session
        if self._pickles:
            payload, keys = values.dumps_meta(meta, self._inline, session.large_values)
        else:
            payload = self.encode(meta)
        final = state in states.READY_STATES
        client = session.client
        # A success leaves with the executor's report of its message, unless a handler might show it to others before.
        client.store(
            StoreResult(str(task_id), str(state), payload, keys, self.expires, final),
            now=state not in client.quiet,
        )
        if keys:
            session.large_values.done(keys)
        return result

    @property
    def _alone(self) -> bool:
        """Whether this process has not connected to the dispatcher; for eager tasks, as in tests, it need not."""
        return self.app._session is None

    def _eager_meta(self, task_id: str) -> dict[str, Any] | None:
        """Return what is known of a task that ran eagerly; of any, where none is ever sent."""
        found = self._eager.get(task_id)
        if found is not None:
            return self.meta_from_decoded(dict(found))  # type: ignore[no-any-return]
        if self.app.conf.task_always_eager and self._alone:
            return {"status": states.PENDING, "result": None}
        return None

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        eager = self._eager_meta(str(task_id))
        if eager is not None:
            return eager
        client = self.app.client
        found = client.call(questions.GetResult(str(task_id)))
        if found is not None:
            return self._meta_of(found.payload)
        old = self.old_results and self.old_results.meta(client, str(task_id))
        return old or {"status": states.PENDING, "result": None}

    def _restore_group(self, group_id: str) -> Any:
        return super()._restore_group(group_id) or (self.old_results and self.old_results.group(group_id))

    @cached_property
    def old_results(self) -> Any:
        """Results from before the application ran on Ray; None where there are none."""
        return symbol_by_name("raycelery.switch.old_results:of")(self.app)

    def task_result_exists(self, task_id: str) -> bool:
        """Return whether anything is stored for the task."""
        return bool(self._get_task_meta_for(task_id)["status"] != states.PENDING)

    def _forget(self, task_id: str) -> None:
        if self._eager.pop(str(task_id), None) is not None:
            return
        self.app.client.forget(str(task_id))
        self.app.client.call(questions.Forget(str(task_id)))

    def get(self, key: bytes) -> bytes | None:
        """Return a value by key."""
        found: bytes | None = self.app.client.call(questions.GetValue(ensure_bytes(key)))
        return found

    def set(self, key: bytes, value: bytes) -> None:
        """Keep a value by key."""
        self.app.client.call(questions.SetValue(ensure_bytes(key), ensure_bytes(value), self.expires))

    def delete(self, key: bytes) -> None:
        """Drop a value by key."""
        self.app.client.call(questions.DeleteValue(ensure_bytes(key)))

    def expire(self, key: bytes, value: Any) -> None:
        """Do nothing: the store gives each key its age when it is set."""

    # -- waiting ------------------------------------------------------------------------------------------------

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> dict[str, Any]:
        """Return the meta of a task once it has ended; the dispatcher pushes it, nothing is polled.

        Raises:
            celery.exceptions.TimeoutError: it had not ended after ``timeout`` seconds.
        """
        cached: dict[str, Any] | None = self._cache.get(task_id)
        if cached is None and task_id in self._eager:
            cached = self._eager_meta(task_id)
        if cached is not None and cached["status"] in states.READY_STATES:
            return cached
        arrived = self._awaited_client().take(task_id)
        if arrived is not None:
            return self.read(task_id, arrived.payload or b"")
        for _, meta in self.get_many([task_id], timeout=timeout, interval=interval, on_interval=on_interval):
            if on_interval is not None and meta["status"] in states.PROPAGATE_STATES:
                # Celery looks at the parents between polls: the error of one is raised before what it led to.
                on_interval()
            return meta
        raise TimeoutError("The operation timed out.")

    def _awaited_client(self) -> Client:
        """Return the connection for a wait, which connects again, where it was lost, for no longer than it lasts."""
        session = self.app._session
        lost = session is not None and session.client.lost and session_module.usable(session)
        client: Client = session.client if lost else self.app.client
        return client

    def iter_native(self, result: Any, timeout: float | None = None, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield what :meth:`get_many` yields for a set of results, which may be those of several applications."""
        others: dict[Any, list[Any]] = {}
        for one in result.results:
            backend = getattr(one, "backend", self)
            others.setdefault(backend if isinstance(backend, RayBackend) else self, []).append(one)
        if len(others) < 2:
            yield from super().iter_native(result, timeout, *args, **kwargs)
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        for backend, results in others.items():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            part = SimpleNamespace(results=results)
            yield from super(RayBackend, backend).iter_native(part, left, *args, **kwargs)

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(task id, meta)`` of each task as it ends."""
        wanted = dict.fromkeys(str(task_id) for task_id in task_ids)
        for task_id in list(wanted):
            cached = self._cache.get(task_id) or (self._eager_meta(task_id) if task_id in self._eager else None)
            if cached is not None and cached["status"] in READY_STATES:
                del wanted[task_id]
                yield task_id, cached
        deadline = None if timeout is None else time.monotonic() + timeout
        iterations, asked_again = 0, False
        if not wanted:
            return
        client = self._awaited_client()
        elsewhere: set[str] = self.old_results.elsewhere(client, wanted) if self.old_results else set()
        with Waiting(client, wanted) as waiting:
            while wanted:
                for task_id, meta in self.old_results.ended(client, elsewhere) if elsewhere else ():
                    elsewhere.discard(task_id)
                    if task_id in wanted:
                        del wanted[task_id]
                        if on_message is not None:
                            on_message(meta)
                        yield task_id, meta
                if not wanted:
                    return
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0 and iterations:
                    if asked_again or not client.connected:
                        raise TimeoutError(f"Operation timed out ({timeout})")
                    asked_again = True
                    try:
                        # What was ready when the time was over counts; it comes before the answer to any question.
                        client.call(questions.Pending(), timeout=_ANSWER_SECONDS)
                    except DispatcherUnreachable as exc:
                        if not client.may_return:
                            raise
                        raise TimeoutError(f"Operation timed out ({timeout})") from exc
                pause = left
                if on_interval is not None or max_iterations:
                    between = 0.5 if interval is None else max(interval, _LEAST_PAUSE)
                    pause = between if left is None else min(left, between)
                if elsewhere:
                    pause = _OLD_SECONDS if pause is None else min(pause, _OLD_SECONDS)
                for task_id, result in waiting.next(None if pause is None else max(0.0, pause)).items():
                    del wanted[task_id]
                    meta = self.read(task_id, result.payload or b"")
                    if on_message is not None:
                        on_message(meta)
                    yield task_id, meta
                iterations += 1
                if max_iterations and iterations >= max_iterations:
                    return
                if wanted and on_interval is not None:
                    on_interval()

    def read(self, task_id: str, payload: bytes) -> dict[str, Any]:
        """Return the meta of a task that has ended."""
        meta = self._meta_of(payload)
        if meta["status"] == states.SUCCESS:
            self._cache[task_id] = meta
        return meta

    # -- callbacks ----------------------------------------------------------------------------------------------

    @property
    def is_async(self) -> bool:
        """Whether promises are fulfilled as results come."""
        return True

    def listen(self, result: Any, weak: bool = False) -> None:
        """Set a result object when its result comes, which calls what was given to its ``then``."""
        client = self.app.client
        for _, meta in (
            self.old_results.ended(client, self.old_results.elsewhere(client, [result.id])) if self.old_results else ()
        ):
            result._maybe_set_cache(meta)
            return
        self._listener.add(result, weak)

    def add_pending_result(self, result: Any, weak: bool | None = None, **kwargs: Any) -> Any:
        """Listen for a result, as the ``then`` of Celery's own ``AsyncResult`` asks; ``get``, which does not, waits."""
        if weak is not None:
            self.listen(result, weak)
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Listen for a result no more."""
        self._listener.discard(result)
        return result

    # -- chords -------------------------------------------------------------------------------------------------

    @property
    def chord_lifetime(self) -> int | None:
        """Seconds that a chord's parts are kept; Celery has the setting since 5.7."""
        expires = self.app.conf.get("result_chord_expires")
        lifetime: int | None = self.expires if expires is None else self.prepare_expires(expires, type=int)
        return lifetime

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Tell the store how many parts to wait for."""
        self.app.client.store(ChordSize(group_id, chord_size))

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Count one more part of a running chord."""
        self.app.client.store(ChordExtra(chord_id))

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Prepare for the parts: a header with groups in it is saved, to be joined in its own shape."""
        if isinstance(header_result_args[1], _regen):
            return  # simple results, to be made one by one as the header is sent
        header = self.app.GroupResult(*header_result_args)
        if any(isinstance(result, GroupResult) for result in header.results):
            self._save_group(header.id, header)
        if any(getattr(result, "backend", self) is not self for result in header.results):
            # Parts of other applications are to be counted here.
            body["chord_backend"] = tuple(references.to(self.app))

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Hand one part to the store of the application whose chord it is."""
        if request.group and request.chord.get("chord_begun_before") and self.old_results:
            self.old_results.chord_part(request, state, result)
            return
        home = request.chord.get("chord_backend") if request.group else None
        if home is not None and (backend := backend_of(references.Reference(*home))) is not self:
            backend.app.client.define(*backend.app.producer.descriptions.app_definition())
            backend.on_chord_part_return(request, state, result)
            return
        self.chords.part_returned(request, state, result)
