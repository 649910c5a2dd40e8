"""Starting Ray's remote functions and waiting for them, with what Celery's results and bound tasks had.

Written by raycelery-migrate; it is yours to change.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import random
import sys
import threading
import time
import uuid
from collections import OrderedDict

import ray

#: Submissions that may be unfinished at once; the next one waits for one of them.
LIMIT = 1000
#: Results that can be read by their id; older ones are forgotten.
KEPT = 10_000

_running: dict = {}
_keeping: dict = {}
_lock = threading.Lock()


def submit(function, /, *args, **kwargs):
    """Start a remote function; with ``LIMIT`` of them unfinished, wait for one to finish first.

    Arguments:
        function: what ``ray.remote`` made, or anything else with a method ``remote``.

    Returns:
        its Result.
    """
    with _lock:
        if len(_running) >= LIMIT:
            ray.wait(list(_running), num_returns=1)
            _without_done(_running)
        ref = function.remote(*args, **kwargs)
        _running[ref] = None
    return Result(ref)


def keep(result):
    """Let a result be read by its id, by whatever program is on this Ray cluster, also after this one has ended."""
    ref = _states().keep.remote(result.id, [result.ref])
    with _lock:
        if len(_keeping) >= LIMIT:
            _without_done(_keeping)
        _keeping[ref] = None
    return result


def result_of(task_id, otherwise=None):
    """The result that was kept under an id; it is pending for ever if there is none, as Celery's is.

    Arguments:
        otherwise: gives the results of ids that are not from here, while other tasks have such.
    """
    if otherwise is not None and not _is_ours(task_id):
        return otherwise(task_id)
    return _Kept(str(task_id))


def _is_ours(task_id):
    try:
        return uuid.UUID(str(task_id)).version == 5
    except ValueError:
        return False


def _without_done(refs):
    done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
    for ref in done:
        del refs[ref]


@atexit.register
def _finish():
    """Ray ends what a program has started when the program ends; this waits for it, as a worker would have run it."""
    for refs in (_running, _keeping):
        if refs and ray.is_initialized():
            ray.wait(list(refs), num_returns=len(refs))


def _id_of(task_id):
    """An id of the form that Celery's have, which Ray's task id always gives."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, task_id))


class Result:
    """What a submission will give.

    Arguments:
        ref: Ray's reference to it; pass it to another remote function to chain them.
    """

    def __init__(self, ref):
        self.ref = ref
        self.id = self.task_id = _id_of(ref.task_id().hex())

    def get(self, timeout=None, propagate=True, **_):
        """Wait for the value, for so many seconds; raise the error of a failure, or return it without ``propagate``.

        Raises:
            ray.exceptions.GetTimeoutError: it takes longer; it is a TimeoutError.
        """
        try:
            return ray.get(self.ref, timeout=timeout)
        except ray.exceptions.GetTimeoutError:
            raise
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            cause = cause if isinstance(cause, BaseException) else error
            if propagate:
                raise cause from (error if cause is not error else None)
            return cause

    wait = get

    def ready(self):
        """Whether it has finished, either way."""
        return bool(ray.wait([self.ref], timeout=0)[0])

    def successful(self):
        """Whether it has finished without an error."""
        return self.state == "SUCCESS"

    def failed(self):
        """Whether it has failed."""
        return self.state == "FAILURE"

    @property
    def state(self):
        """PENDING, SUCCESS, FAILURE, REVOKED, or what the task has said with ``update_state``."""
        if not self.ready():
            return self._said()[0]
        error = self._error()
        if isinstance(error, ray.exceptions.TaskCancelledError):
            return "REVOKED"
        return "SUCCESS" if error is None else "FAILURE"

    status = state

    @property
    def result(self):
        """The value or the error; before that what the task has said with ``update_state``, or None."""
        return self.get(propagate=False) if self.ready() else self._said()[1]

    info = result

    def _error(self):
        try:
            ray.get(self.ref)
        except ray.exceptions.RayError as error:
            return error
        return None

    @property
    def traceback(self):
        """The failure's traceback as text, or None."""
        error = self._error() if self.ready() else None
        return None if error is None else getattr(error, "traceback_str", str(error))

    def _said(self):
        return _asked("get", self.id, ("PENDING", None))

    def revoke(self, terminate=False, **_):
        """Take it back if it has not begun; end it if it has and ``terminate`` is true."""
        ray.cancel(self.ref, force=terminate)

    def forget(self):
        """Nothing is kept but the reference."""

    def __repr__(self):
        return f"<Result {self.id}>"

    def __str__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Result) and self.id == other.id

    def __hash__(self):
        return hash(self.id)


class _Kept(Result):
    """A result by its id."""

    def __init__(self, task_id):
        self.id = self.task_id = task_id

    @property
    def ref(self):
        """Ray's reference, or None as long as nothing is known of it."""
        found = _asked("find", self.id, [])
        return found[0] if found else None

    def get(self, timeout=None, propagate=True, **_):
        """As of any result; while nothing is known of the id, that is waited for too."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.ref is None:
            if until is not None and time.monotonic() >= until:
                raise ray.exceptions.GetTimeoutError(f"no result of {self.id} within {timeout} s")
            time.sleep(0.05)
        return super().get(None if until is None else max(0.0, until - time.monotonic()), propagate)

    wait = get

    def ready(self):
        """Whether it has finished, either way."""
        return self.ref is not None and super().ready()

    def revoke(self, terminate=False, **_):
        """As of any result; nothing happens if nothing is known of the id."""
        if self.ref is not None:
            super().revoke(terminate)


class Results(list):
    """Several results, in the order of their submission."""

    def get(self, timeout=None, propagate=True, **_):
        """All values in order, within so many seconds; without ``propagate`` an error stands in its place."""
        until = None if timeout is None else time.monotonic() + timeout
        return [result.get(None if until is None else max(0.0, until - time.monotonic()), propagate) for result in self]

    join = join_native = get

    @property
    def results(self):
        """The single results."""
        return list(self)

    def ready(self):
        """Whether all have finished."""
        return self.completed_count(failed=True) == len(self)

    def completed_count(self, failed=False):
        """How many have finished without an error, or at all."""
        done, _ = ray.wait([one.ref for one in self], num_returns=len(self), timeout=0) if self else ([], [])
        return len(done) if failed else sum(one.successful() for one in self if one.ref in set(done))

    def successful(self):
        """Whether all have finished without an error."""
        return all(one.successful() for one in self)

    def failed(self):
        """Whether one has failed."""
        return any(one.failed() for one in self)

    def waiting(self):
        """Whether one has not finished."""
        return not self.ready()


@ray.remote(num_cpus=0)
def _listed(*values):
    return list(values)


def gather(results):
    """A reference to the list of all values, to pass to the remote function that takes them."""
    return _listed.remote(*[result.ref for result in results])


def launcher(function):
    """Give a function that starts an actor and returns a reference the method ``remote`` that ``submit`` calls."""
    function.remote = function
    return function


class Retry(Exception):
    """Raised by ``self.retry``: the task is to run again."""

    def __init__(self, countdown, args, kwargs):
        super().__init__(f"again in {countdown} s")
        self.countdown, self.arguments, self.keywords = countdown, args, kwargs


class MaxRetriesExceededError(Exception):
    """The task has been tried as often as it may be."""


class _Request:
    def __init__(self, retries, args, kwargs):
        inside = ray.is_initialized() and ray.get_runtime_context().get_task_id()
        self.id = _id_of(inside) if inside else None
        self.called_directly = not inside
        self.retries, self.args, self.kwargs = retries, args, kwargs


class Task:
    """What ``self`` of a bound task is. A subclass has one object in each process, which keeps what calls share."""

    name, max_retries, default_retry_delay = "", 3, 180
    request = None

    def __call__(self, *args, **kwargs):
        return self.run(*args, **kwargs)

    def retry(self, args=None, kwargs=None, exc=None, throw=True, countdown=None, max_retries=None):
        """Run the task again, after so many seconds, or raise ``exc`` if it has been tried too often."""
        limit = self.max_retries if max_retries is None else max_retries
        if self.request.called_directly or (limit is not None and self.request.retries >= limit):
            error = exc or sys.exc_info()[1] or MaxRetriesExceededError(f"{self.name} was tried {limit + 1} times")
            raise error
        wait = self.default_retry_delay if countdown is None else countdown
        again = Retry(
            wait, self.request.args if args is None else args, self.request.kwargs if kwargs is None else kwargs
        )
        if throw:
            raise again
        return again

    def update_state(self, task_id=None, state=None, meta=None, **_):
        """Tell those who ask for the result's state."""
        task_id = task_id or self.request.id
        if task_id is not None:
            ray.get(_states().set.remote(task_id, state, meta))


@ray.remote(num_cpus=0, max_concurrency=100_000)
class _States:
    """What running tasks have said and what kept results are, of the last ``KEPT`` of them."""

    def __init__(self):
        self.said, self.refs = OrderedDict(), OrderedDict()

    async def set(self, task_id, state, meta):
        self._put(self.said, task_id, (state, meta))

    async def get(self, task_id):
        return self.said.get(task_id, ("PENDING", None))

    async def find(self, task_id):
        return [self.refs[task_id]] if task_id in self.refs else []

    async def keep(self, task_id, refs):
        """Keep a reference; when it has its value, keep a copy, which outlives the program that submitted it."""
        self._put(self.refs, task_id, refs[0])
        try:
            value = await refs[0]
        except Exception as error:
            copy = _raised.remote([error])  # only tasks have errors; one that is an argument itself would not reach it
            await asyncio.gather(copy, return_exceptions=True)  # or Ray reports an error that nobody has looked at
        else:
            copy = ray.put(value)
        if task_id in self.refs:
            self.refs[task_id] = copy

    @staticmethod
    def _put(table, key, value):
        table[key] = value
        table.move_to_end(key)
        if len(table) > KEPT:
            table.popitem(last=False)


@ray.remote(num_cpus=0, max_retries=0)
def _raised(errors):
    raise getattr(errors[0], "cause", None) or errors[0]


def _states():
    return _States.options(name="states", namespace="ray_tasks", get_if_exists=True, lifetime="detached").remote()


def _asked(method, task_id, otherwise):
    """What the actor of states knows; ``otherwise`` if nobody has told it anything."""
    try:
        states = ray.get_actor("states", namespace="ray_tasks")
    except ValueError:
        return otherwise
    return ray.get(getattr(states, method).remote(task_id))


def retrying(
    bind=False,
    base=Task,
    max_retries=3,
    default_retry_delay=180,
    autoretry_for=(),
    dont_autoretry_for=(),
    retry_kwargs=None,
    retry_backoff=False,
    retry_backoff_max=600,
    retry_jitter=True,
):
    """A function that is run again in its process when it asks for it or raises one of some errors.

    The waits hold the function's CPUs; times are in seconds. Called directly, outside Ray, it is tried once.

    Arguments:
        bind: pass it what Celery calls ``self``: ``request``, ``retry``, ``update_state``.
        base: class of ``self``; made when first needed, once in each process.
        max_retries: how often at most after the first time; None for no end.
        autoretry_for, dont_autoretry_for: errors that are, and are not, tried again.
        retry_backoff: wait 1, 2, 4... times so many seconds, up to ``retry_backoff_max``, less by chance with
            ``retry_jitter``.
    """
    more = dict(retry_kwargs or {})

    def decorate(function):
        shared = []

        def make():
            task = base()
            task.name, task.max_retries, task.default_retry_delay = function.__name__, max_retries, default_retry_delay
            task.run = functools.partial(function, task) if bind else function
            return task

        @functools.wraps(function)
        def run(*args, **kwargs):
            if base is not Task and not shared:
                shared.append(make())
            task = shared[0] if shared else make()
            outer = task.request
            try:
                return attempts(task, args, kwargs)
            finally:
                task.request = outer

        def attempts(task, args, kwargs):
            retries = 0
            while True:
                task.request = _Request(retries, args, kwargs)
                try:
                    return task(*args, **kwargs)
                except Retry as again:
                    countdown, args, kwargs = again.countdown, tuple(again.arguments), dict(again.keywords)
                except tuple(dont_autoretry_for):
                    raise
                except tuple(autoretry_for):
                    limit = more.get("max_retries", max_retries)
                    if task.request.called_directly or (limit is not None and retries >= limit):
                        raise
                    countdown = more.get("countdown", default_retry_delay)
                    if retry_backoff:
                        most = min(retry_backoff_max, int(max(1, retry_backoff)) * 2**retries)
                        countdown = random.randrange(most + 1) if retry_jitter else most
                retries += 1
                time.sleep(countdown)

        signature = inspect.signature(function)
        if bind:
            run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        return run

    return decorate
