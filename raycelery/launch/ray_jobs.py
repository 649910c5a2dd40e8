"""Runs on a Ray cluster, by its Job API (the dashboard's HTTP server).

Follows https://docs.ray.io/en/latest/cluster/running-applications/job-submission/sdk.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from raycelery.cluster import reaching
from raycelery.launch import entrypoint
from raycelery.launch.errors import LaunchError, NotFound
from raycelery.launch.run import LOOK_SECONDS, Run, RunState, RunStatus
from raycelery.launch.spec import Spec

logger = logging.getLogger(__name__)
T = TypeVar("T")

_STATES = {
    "PENDING": RunState.PENDING,
    "RUNNING": RunState.RUNNING,
    "SUCCEEDED": RunState.SUCCEEDED,
    "FAILED": RunState.FAILED,
    "STOPPED": RunState.CANCELLED,
}
#: Seconds for the program to end that was asked to: Ray kills it after three.
_CANCEL_SECONDS = 60.0
#: Ray's loggers that tell of every package that is sent, and of every connection's end.
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
#: What is kept of a run along with it: that it is ours.
_KIND = "raycelery"


def hush() -> None:
    """Have Ray's client not tell of every package and connection."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def _as_given() -> Iterator[None]:
    """Have Ray's client use the address that it is given: it prefers these to any other."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


class Jobs:
    """A cluster's Job API.

    Arguments:
        address: of Ray's dashboard, ``http://host:8265``, or of the cluster, ``host:6379``.

    Raises:
        LaunchError: nothing answers there, or it demands a token; in a sentence with the remedy.
    """

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        reaching.use_token()
        hush()
        self.address = address
        with _as_given():
            self._client: Any = self._said(lambda: JobSubmissionClient(address))

    def submit(self, spec: Spec, name: str) -> JobRun:
        """Start a run.

        Raises:
            LaunchError: there is one of that name already, or the cluster refuses it.
        """
        self._said(
            lambda: self._client.submit_job(
                entrypoint=entrypoint.of(spec.words),
                submission_id=name,
                runtime_env=spec.runtime_env,
                metadata={"launched_by": _KIND},
                entrypoint_num_cpus=spec.num_cpus or None,
            )
        )
        return JobRun(self, name)

    def find(self, name: str) -> JobRun:
        """Return a run.

        Raises:
            NotFound: there is none of that name.
        """
        self.info(name)
        return JobRun(self, name)

    def all(self) -> list[JobRun]:
        """Return the runs that were launched by raycelery, the latest first."""
        jobs = self._said(self._client.list_jobs)
        ours = [job for job in jobs if (job.metadata or {}).get("launched_by") == _KIND and job.submission_id]
        ours.sort(key=lambda job: job.start_time or 0, reverse=True)
        return [JobRun(self, job.submission_id) for job in ours]

    def info(self, name: str) -> Any:
        """Return what Ray knows of a run.

        Raises:
            NotFound: there is none of that name.
        """
        return self._said(lambda: self._client.get_job_info(name), name)

    def stop(self, name: str) -> None:
        """Have Ray end a run."""
        self._said(lambda: self._client.stop_job(name), name)

    def delete(self, name: str) -> None:
        """Have Ray forget a run that has ended."""
        self._said(lambda: self._client.delete_job(name), name)

    def log(self, name: str) -> str:
        """Return all that a run has printed."""
        return str(self._said(lambda: self._client.get_job_logs(name), name))

    def tail(self, name: str) -> Iterator[str]:
        """Yield what a run has printed from its beginning, and what it prints, until it ends or the line is cut."""
        pieces: AsyncIterator[str] = self._client.tail_job_logs(name)
        loop = asyncio.new_event_loop()
        try:
            while True:
                try:
                    yield loop.run_until_complete(pieces.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _said(self, call: Callable[[], T], name: str = "") -> T:
        try:
            return call()
        except (RuntimeError, ConnectionError, OSError, ValueError) as exc:
            raise self._error(exc, name) from exc

    def _error(self, exc: Exception, name: str) -> LaunchError:
        text = str(exc)
        if name and ("404" in text or "does not exist" in text):
            return NotFound(
                f"there is no run {name!r} at {self.address}: 'raycelery job list' names those that there are"
            )
        if "401" in text or "403" in text or "nauthor" in text or "InvalidAuthToken" in text:
            return LaunchError(
                f"the cluster at {self.address} demands a token: set RAY_AUTH_TOKEN, or write the head node's "
                "('ray get-auth-token' prints it there) to ~/.ray/auth_token; RAY_AUTH_MODE may stay unset"
            )
        if "already exists" in text:
            return LaunchError(
                f"there is a run of that name at {self.address} already: choose another, or delete that one"
            )
        if isinstance(exc, (ConnectionError, OSError)) or "Failed to connect" in text:
            return LaunchError(
                f"no Ray dashboard answers at {self.address}: give its address (http://host:8265), or none, "
                "and the run has a cluster of its own on this machine"
            )
        return LaunchError(f"the cluster at {self.address} refuses: {reaching.first_line(exc)}")


class JobRun(Run):
    """A run on a Ray cluster.

    Arguments:
        jobs: the cluster's Job API.
        name: of the run.
    """

    def __init__(self, jobs: Jobs, name: str) -> None:
        self._jobs = jobs
        self.name = name

    def status(self) -> RunStatus:
        info = self._jobs.info(self.name)
        return RunStatus(
            _STATES[str(getattr(info.status, "value", info.status))],
            info.message or "",
            None if not info.start_time else info.start_time / 1000,
            None if not info.end_time else info.end_time / 1000,
        )

    def logs(self, follow: bool = False) -> Iterator[str]:
        told = 0
        while follow:
            position = 0
            try:
                # It begins at the beginning each time.
                for piece in self._jobs.tail(self.name):
                    new = piece[max(0, told - position) :]
                    position += len(piece)
                    if new:
                        told += len(new)
                        yield new
            except (RuntimeError, OSError) as exc:
                logger.debug("the logs of %s are followed again: %s", self.name, exc)
            if self.status().state.ended:
                break
            time.sleep(LOOK_SECONDS)
        # What was written while the line was cut, or after it was closed.
        rest = self._jobs.log(self.name)[told:]
        if rest:
            yield rest

    def cancel(self) -> None:
        if self.status().state.ended:
            return
        self._jobs.stop(self.name)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while not self.status().state.ended:
            if time.monotonic() > deadline:
                raise LaunchError(f"the run {self.name} was asked to end, and has not in {_CANCEL_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)

    def delete(self) -> None:
        self.cancel()
        self._jobs.delete(self.name)

    def to_dict(self) -> dict[str, Any]:
        return {"backend": "ray", "address": self._jobs.address, "name": self.name}
