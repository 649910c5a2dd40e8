"""Chords: parts are handed to the dispatcher's store as they come, and the body is called when the last one is there.

Follows ``on_chord_part_return`` of Celery's Redis backend,
https://docs.celeryq.dev/en/stable/userguide/canvas.html#chords.
"""

from __future__ import annotations

import pickle
from typing import Any

from celery import states
from celery._state import _task_stack, get_current_worker_task
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result
from celery.utils.log import get_logger

from raycelery.app.publishing import Publishing
from raycelery.client import session as session_module
from raycelery.client.connection import Client
from raycelery.errors import LEAVING, ArgumentError, DispatcherUnreachable
from raycelery.protocol.operations import ChordPart, Completion, LastPart
from raycelery.protocol.reports import Done, Requeue
from raycelery.results.unread import part_without_value
from raycelery.serialization import references, values

logger = get_logger(__name__)


def _origin(request: Any) -> dict[str, Any]:
    """Return what Celery takes from a task's request when that task sends another one: ids, priority, stamps."""
    origin = {
        "id": request.id,
        "root_id": request.root_id or request.id,
        "delivery_info": getattr(request, "delivery_info", None) or {},
    }
    if getattr(request, "stamps", None):
        origin.update(stamps=request.stamps, stamped_headers=request.stamped_headers)
    return origin


class Chords:
    """The chords of one application.

    Arguments:
        backend: its result backend.
        inline: values larger than this go to Ray's object store, in bytes.
        pickles: whether values travel as Ray carries them.
    """

    def __init__(self, backend: Any, inline: int, pickles: bool) -> None:
        self._backend = backend
        self._app = backend.app
        self._inline = inline
        self._pickles = pickles
        self._publishing = Publishing(backend.app)
        #: The chord whose part ran here last, and its pickled body.
        self._chord: tuple[Any, bytes] = (None, b"")

    def part_returned(self, request: Any, state: str, result: Any) -> None:
        """Hand one part to the store, which has the chord finished when it was the last."""
        task_id, group, index = request.id, request.group, request.group_index
        if not group or not task_id:
            return
        backend = self._backend
        session = self._app.session
        client, large_values = session.client, session.large_values
        part = [1, task_id, state, backend.encode_result(result, state)]
        payload, keys = values.dumps(part, self._inline, large_values) if self._pickles else (backend.encode(part), ())
        callback, more = self._body_of(request, large_values)
        left = ChordPart(
            group,
            task_id,
            float("inf") if index is None else float(index),
            payload,
            request.chord.get("chord_size"),
            backend.chord_lifetime,
            Completion(self._app.app_key, group, callback, pickle.dumps(_origin(request), 5)),
            (*keys, *more),
        )
        if session_module.installed() and get_current_worker_task() is not None and self._publishing.observed():
            last = self._claim(client, left)
        else:
            last = None
            client.store(left, now=state not in client.quiet)
        large_values.done((*keys, *more))
        if last is not None:
            self._finish_here(client, group, maybe_signature(request.chord, app=self._app), last)

    def _claim(self, client: Client, part: ChordPart) -> LastPart | None:
        """Store a part; return all parts where it was the last."""
        try:
            return client.store_part(part)
        except DispatcherUnreachable as exc:
            # What it has in its journal it gives to another executor when it is back.
            logger.warning("%s", exc)
            return None

    def _finish_here(self, client: Client, group: str, body: Any, last: LastPart) -> None:
        """Call the body of a chord within the task that was its last part, as Celery's Redis backend does."""
        client.hold()
        try:
            self._finish(group, body, last.parts)
        except BaseException:  # such as a soft time limit: another executor is to do it
            client.report(Requeue(last.seq, False))
            raise
        client.report(Done(last.seq, None))

    def _body_of(self, request: Any, large_values: Any) -> tuple[bytes, tuple[str, ...]]:
        # Every part carries the same body: it is pickled once for those that run here one after the other.
        chord = (request.group, request.chord.get("options", {}).get("task_id"))
        if chord == self._chord[0]:
            return self._chord[1], ()
        body = (
            request.chord if references.is_other(references.app_of(request.chord), self._app) else dict(request.chord)
        )
        log_to = self._app.client.log_to
        if log_to and type(body) is dict:
            # It is called by whichever executor has the time.
            body["options"] = {**(body.get("options") or {}), "log_to": log_to}
        callback, keys = values.dumps(body, self._inline, large_values, self._app)
        if not keys:
            self._chord = (chord, callback)
        return callback, keys

    def finish(self, group: str, callback: bytes, request: dict[str, Any], parts: list[bytes]) -> None:
        """Call the body of a chord whose parts are all there; run by an executor at the dispatcher's word.

        Arguments:
            group: id of the header.
            callback: the pickled signature of the body.
            request: what the body inherits of the task that was the last part; see :func:`_origin`.
            parts: what each header task left, in the header's order.
        """
        # As if within the last header task, where Celery does this: ids and children come out the same.
        task = self._app.tasks["celery.chord"]
        _task_stack.push(task)
        task.push_request(called_directly=False, args=(), kwargs={}, **request)
        try:
            self._finish(group, maybe_signature(values.loads(callback), app=self._app), parts)
        finally:
            task.pop_request()
            _task_stack.pop()

    def _finish(self, group: str, body: Any, parts: list[bytes]) -> None:
        try:
            saved = GroupResult.restore(group, backend=self._backend, app=self._app)
            if saved is not None:
                with allow_join_result():
                    results = saved.join_native(timeout=self._app.conf.result_chord_join_timeout, propagate=True)
            else:
                results = [self._part(part) for part in parts]
        except ChordError as exc:
            logger.exception("Chord %r raised: %r", group, exc)
            self._backend.chord_error_from_stack(body, exc)
            return
        except LEAVING:
            raise
        except BaseException as exc:  # a header task's error, of whatever class
            logger.exception("Chord %r raised: %r", group, exc)
            error = ChordError(f"Join error: {exc!r}")
            error.__cause__ = exc
            self._backend.chord_error_from_stack(body, error)
            return
        try:
            body.delay(results)
        except Exception as exc:  # the body cannot be called: that is the chord's failure
            logger.exception("Chord callback for %r raised: %r", group, exc)
            self._backend.chord_error_from_stack(body, ChordError(f"Callback error: {exc!r}"))

    def _part(self, payload: bytes) -> Any:
        backend = self._backend
        try:
            _, task_id, state, retval = backend.decode(payload)
        except (DispatcherUnreachable, ArgumentError):
            raise
        except Exception as exc:  # of an environment that this executor has not; the body may have it
            if not self._pickles:
                raise
            logger.info("the value of a chord's part cannot be loaded here; the chord's body gets it as it is: %r", exc)
            _, task_id, state, retval = part_without_value(payload)
        if state in backend.EXCEPTION_STATES:
            retval = backend.exception_to_python(retval)
        if state in states.PROPAGATE_STATES:
            error = ChordError(f"Dependency {task_id} raised {retval!r}")
            error.__cause__ = retval
            raise error
        return retval
