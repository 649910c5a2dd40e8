"""A process's session with an application's dispatcher: Ray started or joined, dispatcher found or started.

One session per process and dispatcher, shared by every app object of that name. Executors install theirs ready made.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raycelery import values, wire
from raycelery.client import Client
from raycelery.depot import RayDepot
from raycelery.errors import DispatcherUnreachable

if TYPE_CHECKING:
    from raycelery.app.application import Celery

logger = logging.getLogger(__name__)

NAMESPACE = "raycelery"
#: Names the dispatcher of every application of a process, whatever they say, so that a script can be run apart from
#: what its application does otherwise.
NAME_VARIABLE = "RAYCELERY_APP_NAME"
_sessions: dict[str, Session] = {}
#: Arguments of ``ray.init`` with which it cannot join a cluster.
_STARTING = ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory", "_system_config", "_node_name",
             "_temp_dir")  # fmt: skip
_lock = threading.RLock()


class Session:
    """What a process holds while it talks to a dispatcher.

    Arguments:
        name: of the application's dispatcher.
        client: the connection.
        dispatcher: the actor's handle; None in a process that must not use Ray.
        embedded: whether this process started the Ray it uses, so that Ray ends with it.
    """

    def __init__(self, name: str, client: Client, dispatcher: Any, embedded: bool = False) -> None:
        self.name = name
        self.client = client
        self.dispatcher = dispatcher
        self.embedded = embedded
        self.depot = RayDepot(dispatcher, client)
        self._pid = os.getpid()

    @property
    def can_use_ray(self) -> bool:
        """Whether this is the process that connected: a forked child has the socket only."""
        return os.getpid() == self._pid


def install(session: Session) -> None:
    """Make ``session`` the one that every app of this process uses (in executors)."""
    with _lock:
        _sessions[""] = session
    values.use(depot=session.depot)


def installed() -> bool:
    """Return whether this process is an executor, which got its session ready made."""
    return "" in _sessions


def dispatcher_name(app: Celery) -> str:
    """Return the name of the application's dispatcher."""
    return os.environ.get(NAME_VARIABLE) or str(
        app.conf.ray_app_name or app.main or getattr(app, "home", None) or "celery"
    )


def of(app: Celery) -> Session:
    """Return the session of ``app``, connecting when there is none.

    Raises:
        DispatcherUnreachable: no Ray answers at ``ray_address``, or no dispatcher can be started there.
    """
    with _lock:
        if "" in _sessions:
            return _sessions[""]
        name = dispatcher_name(app)
        found = _sessions.get(name)
        if found is not None and not (_alive(found) and _reconnected(found)):
            found = None
        if found is None:
            found = _sessions[name] = _open(app, name)
        return found


def _reconnected(session: Session) -> bool:
    try:
        session.client.ensure()
    except DispatcherUnreachable as exc:
        logger.debug("its dispatcher is gone for good: %s", exc)
        return False
    return True


def _alive(session: Session) -> bool:
    if not session.can_use_ray:
        return True  # a forked child cannot ask Ray; its socket will tell
    import ray

    return bool(ray.is_initialized())


def _open(app: Celery, name: str) -> Session:
    import ray

    embedded = False
    if not ray.is_initialized():
        embedded = _start_ray(app)
    else:
        _see_that_ray_is_there()
    dispatcher = _dispatcher(app, name)
    client = Client(
        lambda: endpoint(dispatcher),
        {"role": "client"},
        submit_timeout=app.conf.ray_submit_timeout,
    )
    client.ensure()
    session = Session(name, client, dispatcher, embedded)
    atexit.register(_at_exit, session, os.getpid())
    return session


def _start_ray(app: Celery) -> bool:
    """Join the cluster that is named, else start Ray in this process; whether it was started."""
    import ray

    address = app.conf.ray_address or os.environ.get("RAY_ADDRESS")
    arguments = {"namespace": NAMESPACE, **(app.conf.ray_init or {})}
    if address:
        # The same settings serve a laptop and a cluster: what describes a Ray to be started is no matter here.
        arguments = {key: value for key, value in arguments.items() if key not in _STARTING}
        arguments["address"] = address
    else:
        arguments.setdefault("include_dashboard", False)
    try:
        if address:
            _knock(str(address))
        with _real_streams(), _own_handler():
            if address:
                ray.init(**arguments)
            else:
                _in_lasting_thread(lambda: ray.init(**arguments))
    except (ConnectionError, RuntimeError, ValueError, OSError) as exc:
        if not address:
            raise
        raise DispatcherUnreachable(
            f"no Ray cluster answers at ray_address={address!r} ({str(exc).splitlines()[0]}): start one with "
            "'ray start --head', correct the address, or unset it to run Ray inside this process"
        ) from exc
    return not address


def _in_lasting_thread(start: Callable[[], Any]) -> None:
    """Call ``start`` in a thread that lasts as long as the process.

    Ray has Linux end its processes with the thread that began them, which in a web server may be that of one request.
    """
    if threading.current_thread() is threading.main_thread():
        start()
        return
    started: Future[None] = Future()

    def run() -> None:
        try:
            start()
        except BaseException as exc:  # raised where it is waited for
            started.set_exception(exc)
            return
        started.set_result(None)
        threading.Event().wait()

    threading.Thread(target=run, name="raycelery-ray", daemon=True).start()
    started.result()


def _see_that_ray_is_there() -> None:
    """Ask whether the cluster that this process is connected to still runs; Ray itself finds out after a minute.

    Raises:
        DispatcherUnreachable: it does not.
    """
    import ray

    address = ray.get_runtime_context().gcs_address
    try:
        _knock(address)
    except OSError as exc:
        raise DispatcherUnreachable(
            f"the Ray cluster at {address} that this process was connected to is gone ({exc}): restart the process"
        ) from exc


def _knock(address: str) -> None:
    """See that something listens at ``host:port``: Ray itself would go on trying for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


@contextmanager
def _real_streams() -> Iterator[None]:
    """Give Ray streams with file descriptors: Celery's LoggingProxy, put in their place by a worker, has none."""
    before = sys.stdout, sys.stderr
    try:
        if not _has_descriptor(sys.stdout) and sys.__stdout__ is not None:
            sys.stdout = sys.__stdout__
        if not _has_descriptor(sys.stderr) and sys.__stderr__ is not None:
            sys.stderr = sys.__stderr__
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def _own_handler() -> Iterator[None]:
    """Leave a process its own handler of SIGTERM, in whose place Ray puts one: beat saves its schedule in it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _has_descriptor(stream: Any) -> bool:
    try:
        return isinstance(stream.fileno(), int)
    except (AttributeError, OSError, ValueError):
        # pytest's capture and notebooks have none either, and Ray copes with those.
        return type(stream).__name__ != "LoggingProxy"


def _dispatcher(app: Celery, name: str) -> Any:
    import ray

    from raycelery.dispatcher.actor import Dispatcher, Limits

    conf = app.conf
    limits = Limits(
        max_pending=int(conf.ray_max_pending),
        max_result_bytes=float(conf.ray_max_result_bytes),
        max_deliveries=int(conf.ray_max_deliveries),
        max_executors=int(conf.ray_max_executors),
        idle_seconds=float(conf.ray_idle_seconds),
        infeasible_seconds=float(conf.ray_infeasible_seconds),
        journal=conf.ray_journal,
    )
    return (
        ray.remote(Dispatcher)
        .options(
            name=f"raycelery:{name}",
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_concurrency=1000,
            # What it was told is in its journal; a call that was under way is made again.
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote(name, limits)
    )


def endpoint(dispatcher: Any) -> wire.Endpoint:
    """Ask a dispatcher where it listens.

    Raises:
        DispatcherUnreachable: the actor is dead or does not answer within 60 s.
    """
    import ray

    try:
        answer = dispatcher.endpoint.remote()
        for _ in range(30):
            if ray.wait([answer], timeout=2)[0]:
                break
            _see_that_ray_is_there()
        host, port, secret = ray.get(answer, timeout=1)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as exc:
        raise DispatcherUnreachable(f"the application's dispatcher does not answer: {exc}") from exc
    return wire.Endpoint(host, port, secret)


def _at_exit(session: Session, pid: int) -> None:
    if os.getpid() != pid or not session.client.submitted:
        return
    client = session.client
    if session.embedded and getattr(sys, "last_type", None) is not KeyboardInterrupt:
        try:
            left = client.call("pending")
            if left:
                logger.info("waiting for %d submitted tasks before exit; Ctrl-C abandons them", left)
                client.call("drained", timeout=None)
        except KeyboardInterrupt:
            logger.warning("exiting with tasks unfinished")
        except DispatcherUnreachable as exc:
            logger.warning("could not wait for submitted tasks: %s", exc)
    try:
        client.close()
    except DispatcherUnreachable as exc:
        logger.warning("messages not handed over at exit: %s", exc)


def shutdown() -> None:
    """Forget every session of this process; the next call connects anew. For tests and notebooks."""
    with _lock:
        for session in _sessions.values():
            session.client.close()
        _sessions.clear()
