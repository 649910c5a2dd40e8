"""Runs that are tried again on the cluster that they were started on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from raycelery.launch.ray_jobs import JobRun, Jobs
from raycelery.launch.run import Run, RunState, RunStatus
from raycelery.launch.spec import Spec


class RetriedRun(Run):
    """A run that is started again, while this process waits for it or follows its logs, where the program has failed.

    Each try is a job of its own: ``NAME``, ``NAME.2`` and so on.

    Arguments:
        jobs: the cluster's Job API.
        spec: what is run, with the number of retries.
        first: its first try.
    """

    def __init__(self, jobs: Jobs, spec: Spec, first: JobRun) -> None:
        self.name = first.name
        self._jobs, self._spec, self._tries = jobs, spec, [first]

    def status(self) -> RunStatus:
        status = self._tries[-1].status()
        if self._tries_again(status):
            return replace(status, state=RunState.PENDING, message=f"it is tried again: {status.message}", ended=None)
        return status

    def logs(self, follow: bool = False) -> Iterator[str]:
        while follow:
            yield from self._tries[-1].logs(follow=True)
            status = self._tries[-1].status()
            if not self._tries_again(status):
                return
            self._again(status)
        yield from self._tries[-1].logs()

    def wait(self, timeout: float | None = None) -> RunStatus:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            status = self._tries[-1].wait(left)
            if not self._tries_again(status):
                return status
            self._again(status)

    def cancel(self) -> None:
        self._tries[-1].cancel()
        # One that had failed is not tried again, either.
        self._spec = msgspec.structs.replace(self._spec, retries=0)

    def delete(self) -> None:
        self.cancel()
        for one in self._tries:
            one.delete()

    def to_dict(self) -> dict[str, Any]:
        return self._tries[-1].to_dict()

    def _tries_again(self, status: RunStatus) -> bool:
        return status.state is RunState.FAILED and len(self._tries) <= self._spec.retries

    def _again(self, status: RunStatus) -> None:
        if self.on_change is not None:
            self.on_change(replace(status, state=RunState.PENDING, message=f"it is tried again: {status.message}"))
        self._tries.append(self._jobs.submit(self._spec, f"{self.name}.{len(self._tries) + 1}"))


def started(jobs: Jobs, spec: Spec, name: str) -> Run:
    """Start a run on a cluster, with its retries.

    Raises:
        LaunchError: see :meth:`Jobs.submit`.
    """
    first = jobs.submit(spec, name)
    return RetriedRun(jobs, spec, first) if spec.retries else first
