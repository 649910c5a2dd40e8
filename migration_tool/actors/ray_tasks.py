"""Starting Ray's remote functions and waiting for them, with what Celery's results and bound tasks had.

Written by raycelery-migrate; it is yours to change.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import random
import sys
import threading
import time
from collections import OrderedDict

import ray

#: Submissions that may be unfinished at once; the next one waits for one of them.
LIMIT = 1000

_running: dict = {}
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
            done, _ = ray.wait(list(_running), num_returns=len(_running), timeout=0)
            for ref in done:
                del _running[ref]
        ref = function.remote(*args, **kwargs)
        _running[ref] = None
    return Result(ref)


@atexit.register
def _finish():
    """Ray ends what a program has started when the program ends; this waits for it, as a worker would have run it."""
    if _running and ray.is_initialized():
        ray.wait(list(_running), num_returns=len(_running))


class Result:
    """What a submission will give.

    Arguments:
        ref: Ray's reference to it; pass it to another remote function to chain them.
    """

    def __init__(self, ref):
        self.ref = ref
        self.id = self.task_id = ref.task_id().hex()

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
        """PENDING, SUCCESS, FAILURE, or what the task has said with ``update_state``."""
        if self.ready():
            return "FAILURE" if self._error() is not None else "SUCCESS"
        return self._said()[0]

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

    def _said(self):
        try:
            states = ray.get_actor("states", namespace="ray_tasks")
        except ValueError:
            return "PENDING", None
        return ray.get(states.get.remote(self.id))

    def revoke(self, terminate=False, **_):
        """Take it back if it has not begun; end it if it has and ``terminate`` is true."""
        ray.cancel(self.ref, force=terminate)

    def forget(self):
        """Nothing is kept but the reference."""

    def __repr__(self):
        return f"<Result {self.id}>"


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
        self.id = inside or None
        self.retries, self.args, self.kwargs = retries, args, kwargs


class _Task:
    """What ``self`` of a bound task is."""

    def __init__(self, name, retries, args, kwargs, max_retries, default_retry_delay):
        self.name, self.max_retries, self.default_retry_delay = name, max_retries, default_retry_delay
        self.request = _Request(retries, args, kwargs)

    def retry(self, args=None, kwargs=None, exc=None, throw=True, countdown=None, max_retries=None):
        """Run the task again, after so many seconds, or raise ``exc`` if it has been tried too often."""
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and self.request.retries >= limit:
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
        """Tell those who ask for the result's state; not waited for."""
        _states().set.remote(task_id or self.request.id, state, meta)


@ray.remote(num_cpus=0)
class _States:
    """What running tasks have said, of the last 10,000 of them."""

    def __init__(self):
        self.said = OrderedDict()

    def set(self, task_id, state, meta):
        self.said[task_id] = (state, meta)
        self.said.move_to_end(task_id)
        if len(self.said) > 10_000:
            self.said.popitem(last=False)

    def get(self, task_id):
        return self.said.get(task_id, ("PENDING", None))


def _states():
    return _States.options(name="states", namespace="ray_tasks", get_if_exists=True, lifetime="detached").remote()


def retrying(
    bind=False,
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

    The waits hold the function's CPUs. Times are in seconds.

    Arguments:
        bind: pass it what Celery calls ``self``: ``request``, ``retry``, ``update_state``.
        max_retries: how often at most after the first time; None for no end.
        autoretry_for, dont_autoretry_for: errors that are, and are not, tried again.
        retry_backoff: wait 1, 2, 4... times so many seconds, up to ``retry_backoff_max``, less by chance with
            ``retry_jitter``.
    """
    more = dict(retry_kwargs or {})

    def decorate(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            retries = 0
            while True:
                task = _Task(function.__name__, retries, args, kwargs, max_retries, default_retry_delay)
                try:
                    return function(task, *args, **kwargs) if bind else function(*args, **kwargs)
                except Retry as again:
                    countdown, args, kwargs = again.countdown, tuple(again.arguments), dict(again.keywords)
                except tuple(dont_autoretry_for):
                    raise
                except tuple(autoretry_for):
                    limit = more.get("max_retries", max_retries)
                    if limit is not None and retries >= limit:
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
