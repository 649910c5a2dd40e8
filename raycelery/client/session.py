"""A process's session with an application's dispatcher: Ray started or joined, dispatcher found or started.

One session per process and dispatcher, shared by every app object of that name. Executors install theirs ready made.
An executor, and a forked child, reach the dispatchers of further applications through one that they know.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing.util
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from kombu.utils.imports import symbol_by_name

from raycelery.client import asking_ray, counting, leaving
from raycelery.client.connection import Client
from raycelery.client.large_values import LargeValueStore
from raycelery.cluster import connecting, local, process
from raycelery.errors import DispatcherGone, DispatcherUnreachable
from raycelery.logs import lines
from raycelery.names import DISPATCHER_PREFIX, NAMESPACE, dispatcher_name
from raycelery.protocol import framing
from raycelery.protocol.frames import Hello
from raycelery.protocol.limits import Limits
from raycelery.protocol.questions import Introduce
from raycelery.reasons import reason_of
from raycelery.serialization import large_values

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

_sessions: dict[str, Session] = {}
#: Name of the session that this process was given ready made (in executors).
_given: str | None = None
#: Whether this process was forked from one that was connected to Ray, so that it cannot use Ray itself.
_forked = False
_shower = lines.Shower()
_lock = threading.RLock()


class Session:
    """What a process holds while it talks to a dispatcher.

    Arguments:
        name: of the application's dispatcher.
        client: the connection.
        dispatcher: the actor's handle; None in a process that must not use Ray.
        embedded: whether this process started the Ray that it uses, which then ends with it.
    """

    def __init__(self, name: str, client: Client, dispatcher: Any, embedded: bool = False) -> None:
        self.name = name
        self.client = client
        self.dispatcher = dispatcher
        self.embedded = embedded
        self.large_values = LargeValueStore(dispatcher, client)
        #: What was asked for by whoever has launched this program.
        self.counts: counting.Counts | None = None
        self._pid = os.getpid()

    @property
    def can_use_ray(self) -> bool:
        """Whether this is the process that connected: a forked child has the socket only."""
        return self.dispatcher is not None and os.getpid() == self._pid


def install(session: Session) -> None:
    """Make ``session`` the one of the application that this process is an executor of."""
    global _given
    with _lock:
        # Ray may have given this process to another executor before.
        _sessions.clear()
        _sessions[session.name], _given = session, session.name
    large_values.use(session.large_values)


def installed() -> bool:
    """Return whether this process is an executor, which got its session ready made."""
    return _given is not None


def of(app: Celery) -> Session:
    """Return the session of ``app``, connecting when there is none.

    Raises:
        DispatcherUnreachable: no Ray answers at ``ray_address``, or no dispatcher can be started there.
    """
    with _lock:
        name = dispatcher_name(app)
        found = _sessions.get(name)
        if found is not None and name == _given:
            return found
        if found is not None and not (usable(found) and _reconnected(found)):
            found = None
        if found is None:
            found = _sessions[name] = _open(app, name)
        return found


def look(app: Celery) -> Session:
    """Return the session of ``app`` to look at what it does: no Ray is started that would know of nothing.

    Raises:
        DispatcherUnreachable: as for :func:`of`, and where no cluster is named and this process uses none.
    """
    if not installed() and dispatcher_name(app) not in _sessions:
        connecting.see_that_there_is_one(app)
    return of(app)


def _reconnected(session: Session) -> bool:
    try:
        session.client.ensure()
    except DispatcherUnreachable as exc:
        logger.debug("its dispatcher is gone for good: %s", exc)
        return False
    return True


def usable(session: Session) -> bool:
    """Return whether the Ray that a session uses is still there, as far as this process knows."""
    if not session.can_use_ray:
        return True  # a forked child cannot ask Ray; its socket will tell
    import ray

    return bool(ray.is_initialized())


def _open(app: Celery, name: str) -> Session:
    if _given is not None or _forked:
        return _open_through(_known(), app, name)
    embedded = connecting.connect(app)
    try:
        return _connect(app, name, embedded)
    except DispatcherGone as exc:
        # Nobody used it, so it was about to end.
        logger.info("another dispatcher is started: %s", exc)
        return _connect(app, name, embedded)


def _connect(app: Celery, name: str, embedded: bool) -> Session:
    # By name, since what it starts imports this module.
    dispatcher = symbol_by_name("raycelery.actors:find_dispatcher")(name, _limits(app))
    import ray

    address = ray.get_runtime_context().gcs_address
    client = Client(
        lambda: asking_ray.ask(address, f"{DISPATCHER_PREFIX}{name}") if _forked else endpoint(dispatcher),
        Hello("client", logs=lines.wanted(app.conf.ray_init)),
        on_frame=_shower.on_frame,
        submit_timeout=app.conf.ray_submit_timeout,
        reconnect_seconds=app.conf.ray_reconnect_seconds,
        max_pending=app.conf.ray_max_pending,
        max_pending_bytes=app.conf.ray_max_pending_bytes,
    )
    client.ensure()
    session = Session(name, client, dispatcher, embedded)
    session.counts = counting.of(client)
    if embedded:
        local.uses(name)
    _have_handed_over_at_exit(session)
    return session


def _have_handed_over_at_exit(session: Session) -> None:
    atexit.register(_at_exit, session, os.getpid())
    multiprocessing.util.register_after_fork(session, _after_multiprocessing_fork)
    if multiprocessing.parent_process() is not None:
        _after_multiprocessing_fork(session)


def _known() -> Session:
    """Return a session of this process through which others can be opened."""
    known = _sessions.get(_given) if _given is not None else next(iter(_sessions.values()), None)
    if known is None:
        raise DispatcherUnreachable(
            "a process forked from one that is connected to Ray cannot connect to it itself: call a task in the "
            "parent before it forks, or start the process with the method 'spawn'"
        )
    return known


def _open_through(known: Session, app: Celery, name: str) -> Session:
    """Open a session with an application's dispatcher, which another one finds or starts.

    A dispatcher that an executor started itself would have the executor's runtime environment, and a forked child
    cannot use Ray.
    """
    limits = _limits(app)
    client = Client(
        lambda: framing.Endpoint(*known.client.call(Introduce(name, limits))),
        Hello("client"),
        submit_timeout=app.conf.ray_submit_timeout,
        reconnect_seconds=app.conf.ray_reconnect_seconds,
    )
    if _forked:
        client.linger = 0
    known.client.accompany(client)
    client.ensure()
    dispatcher = None
    if not _forked:
        import ray

        dispatcher = ray.get_actor(f"raycelery:{name}", namespace=NAMESPACE)
    session = Session(name, client, dispatcher)
    _have_handed_over_at_exit(session)
    return session


def _after_fork() -> None:
    global _forked
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        _forked = True
        leaving.leave_ray_to_parent()


os.register_at_fork(after_in_child=_after_fork)


def _limits(app: Celery) -> Limits:
    conf = app.conf
    return Limits(
        max_pending=int(conf.ray_max_pending),
        max_pending_bytes=float(conf.ray_max_pending_bytes),
        max_result_bytes=float(conf.ray_max_result_bytes),
        max_deliveries=int(conf.ray_max_deliveries),
        max_executors=int(conf.ray_max_executors),
        idle_seconds=float(conf.ray_idle_seconds),
        infeasible_seconds=float(conf.ray_infeasible_seconds),
        max_nodes_ahead=int(conf.ray_max_nodes_ahead),
        journal=conf.ray_journal,
        journal_key=conf.ray_journal_key,
        durability=conf.ray_durability,
        debug=bool(conf.ray_debug),
        dispatcher_idle_seconds=conf.ray_dispatcher_idle_seconds,
    )


def endpoint(dispatcher: Any) -> framing.Endpoint:
    """Ask a dispatcher where it listens.

    Raises:
        DispatcherGone: it was ended for good.
        DispatcherUnreachable: it does not answer within 60 s.
    """
    import ray

    try:
        answer = dispatcher.endpoint.remote()
        for _ in range(30):
            if ray.wait([answer], timeout=2)[0]:
                break
            connecting.see_that_it_is_there()
        host, port, secret = ray.get(answer, timeout=1)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as exc:
        why = (
            "the cluster is busy, or has no room for another process"
            if isinstance(exc, ray.exceptions.GetTimeoutError)
            else reason_of(exc)
        )
        kind = DispatcherGone if isinstance(exc, ray.exceptions.ActorDiedError) else DispatcherUnreachable
        raise kind(f"the application's dispatcher does not answer: {why}") from exc
    return framing.Endpoint(host, port, secret)


def _at_exit(session: Session, pid: int) -> None:
    client = session.client
    if not client.submitted:
        return
    forked = os.getpid() != pid
    # Where the program has ended its Ray itself, a question to the dispatcher would start another.
    there = usable(session)
    patient = getattr(sys, "last_type", None) is not KeyboardInterrupt and not process.terminated.is_set()
    if session.embedded and not patient and not forked:
        return  # what it called ends with it
    patient = patient and not installed()
    handed_over = leaving.hand_over(client, connect=there, patient=patient)
    if handed_over and session.embedded and there and patient and not forked:
        leaving.wait(client)
    if handed_over and session.counts is not None and there and not forked:
        with contextlib.suppress(DispatcherUnreachable):
            session.counts.finish()
    if handed_over:
        with contextlib.suppress(DispatcherUnreachable):  # it has all that it should have
            client.close()
    if not forked:
        _shower.finish()


def _after_multiprocessing_fork(session: Session) -> None:
    # Such a child ends without Python's exit hooks.
    multiprocessing.util.Finalize(None, _at_child_exit, (session,), exitpriority=0)


def _at_child_exit(session: Session) -> None:
    if session.client.submitted and not leaving.hand_over(session.client):
        leaving.end_now(1)


def shutdown() -> None:
    """Forget every session of this process; the next call connects anew. For tests and notebooks."""
    global _given
    with _lock:
        for session in _sessions.values():
            session.client.close()
            session.client.submitted = 0  # nothing is waited for at exit
        _sessions.clear()
        _given = None
